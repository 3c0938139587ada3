"""The papers' formulas against examples, quadrature and random networks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from keras_spectral.compression import approximate_matrix
from keras_spectral.measures import margin_loss, margins
from keras_spectral.theory import (
    allowed_output_change,
    approximation_threshold,
    compression_bound,
    compression_gap,
    cushion_measure,
    entropy_integral,
    failure_probability,
    layer_tolerances,
    margin_error,
    margin_measure,
    matrix_projections,
    perturbation_bound,
    projection_parameters,
    sparsity_measure,
    truncation_measure,
)


def test_margins_by_hand():
    logits = np.array([[3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 5.0, 2.0]])
    labels = [0, 0, 2]
    assert margins(logits, labels).tolist() == [2.0, 0.0, -3.0]
    assert margin_loss(logits, labels) == pytest.approx(2 / 3)
    # The notes' classification loss counts ties as right (row P0).
    assert margin_loss(logits, labels, ties="correct") == pytest.approx(1 / 3)
    assert margin_loss(logits, labels, 2.0) == 1.0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 5))
def test_margin_loss_grows_and_is_the_error(seed, classes):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(40, classes))
    labels = rng.integers(0, classes, 40)
    losses = [margin_loss(logits, labels, g) for g in (0.0, 0.3, 1.0, 9.0)]
    assert losses == sorted(losses)
    assert losses[0] == np.mean(logits.argmax(1) != labels)


def test_the_notes_definition_is_off_by_two():
    f, g = np.array([[1.2, 0.0]]), np.array([[0.3, 0.8]])
    change = np.abs(f - g).max()
    assert change <= allowed_output_change(1.0, variant="as_printed")
    # As printed L0(g) <= L_gamma(f) is false; a change of half the margin is too far.
    assert margin_loss(g, [0]) > margin_loss(f, [0], 1.0)
    assert change > allowed_output_change(1.0)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 9999), norm=st.sampled_from(["max", "euclidean"]))
def test_allowed_changes_keep_the_label(seed, norm):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(30, 4))
    labels = rng.integers(0, 4, 30)
    allowed = allowed_output_change(0.7, norm)
    change = rng.normal(size=f.shape)
    size = np.abs(change).max(1) if norm == "max" else np.linalg.norm(change, axis=1)
    g = f + change * (allowed * rng.random(30) / size)[:, None]
    assert margin_loss(g, labels) <= margin_loss(f, labels, 0.7)
    # The exact worst case uses it all up.
    worst = np.array([[0.7 - allowed / (1 if norm == "max" else math.sqrt(2)),
                       allowed / (1 if norm == "max" else math.sqrt(2))]])  # fmt: skip
    assert margins(worst, [0])[0] == pytest.approx(0, abs=1e-12)


def test_theorem_one():
    assert compression_gap(100, 4, 10_000) == pytest.approx(
        math.sqrt(100 * math.log(4) / 10_000)
    )
    # By (3): exp(-2 tau^2 m) r^q is the probability of failure.
    gap = compression_gap(100, 4, 10_000, delta=0.05)
    failure = math.exp(100 * math.log(4) - 2 * gap**2 * 10_000)
    assert failure == pytest.approx(0.05)
    loose = compression_gap(100, 4, 10_000)
    assert math.exp(100 * math.log(4) - 2 * loose**2 * 10_000) == pytest.approx(
        4.0**-100
    )
    assert compression_bound(0.2, gap, 0.1) == pytest.approx(0.3 + gap)
    assert sparsity_measure([86_000], 50_000) == pytest.approx(1.31, abs=0.005)


def test_a_linear_classifier_of_unit_norm():
    """Lemma 3 (row V2): samples four times as many, or twice the margin, halve it."""
    assert margin_measure(0.2, 2500) == pytest.approx(0.1)
    assert margin_measure(0.2, 10_000) == pytest.approx(0.05)
    assert margin_measure(0.4, 2500) == pytest.approx(0.05)


def test_flags_of_uncompressed_samples_are_counted(rng):
    """Theorem 1's comment: L0(g) <= L_gamma(f) + zeta on the training set."""
    f = rng.normal(size=(500, 3))
    labels = rng.integers(0, 3, 500)
    change = rng.normal(size=f.shape) * 0.15
    g = f + change
    zeta = np.mean(np.abs(change).max(1) > allowed_output_change(0.4))
    assert 0 < zeta < 1
    assert margin_loss(g, labels) <= margin_loss(f, labels, 0.4) + zeta


def test_margin_error():
    assert margin_error(1.0, 2.0) == pytest.approx(1 / (2 * math.sqrt(2)))
    # Then no margin can be reached, whatever the outputs are.
    assert margin_error(3.0, 2.0) is None
    angles = np.linspace(0, 2 * math.pi, 100)
    outputs = 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
    assert margin_loss(outputs, np.zeros(100, int), 3.0) == 1.0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 9999), depth=st.integers(1, 4))
def test_perturbed_networks_stay_within_the_bound(seed, depth):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, depth + 1)
    x = rng.normal(size=sizes[0])
    layers, others = [], []
    for rows, columns in zip(sizes[1:], sizes[:-1], strict=True):
        a, b = rng.normal(size=(2, rows, columns))
        share = rng.random() / depth
        b *= share * np.linalg.norm(a, 2) / np.linalg.norm(b, 2)
        layers.append(a)
        others.append(b)

    def network(weights):
        y = x
        for index, weight in enumerate(weights):
            y = weight @ (np.maximum(y, 0) if index else y)
        return y

    norms = [np.linalg.norm(a, 2) for a in layers]
    changes = [np.linalg.norm(b, 2) for b in others]
    changed = network([a + b for a, b in zip(layers, others, strict=True)])
    bound = perturbation_bound(norms, changes, np.linalg.norm(x))
    assert np.linalg.norm(changed - network(layers)) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("upper", [0.5, 1.0, 2.0])
def test_the_entropy_integral(upper):
    a = 2 * 3 * 1.7
    expected = integrate.quad(lambda e: math.sqrt(3 * math.log(a / e)), 0, upper)[0]
    assert entropy_integral(3, 1.7, upper) == pytest.approx(expected, rel=1e-9)


def test_tolerances_certify_next_to_nothing():
    """Finding 8: a certified threshold far below the weights, and a count above all."""
    widths = [128, 128, 10]
    rows = layer_tolerances(
        0.3, [0.25] * 3, [0.08] * 3, 1.5, [12.0, 10.0, 4.0], widths, 50_000
    )
    eta = 0.05 / (2 * 3 * 50_000 * 128 * 3)
    for (epsilon, found, threshold), norm in zip(rows, [12.0, 10.0, 4.0], strict=True):
        assert found == pytest.approx(eta)
        assert epsilon == pytest.approx(0.3 * 0.25 * 0.08 / (6 * 1.5 * 3))
        assert threshold == pytest.approx(
            epsilon * norm / math.sqrt(2 * math.log(2 / eta))
        )
        assert threshold < 1e-3 * norm / math.sqrt(128)
    assert projection_parameters(0.3, [0.25] * 3, [0.08] * 3, 1.5, 128, 50_000) > 1e8


def test_lemma_2_1_needs_the_norm_of_the_weights(rng):
    """|U (W - W(t)) x| <= epsilon |W|_F |U|_F |x| for all pairs of a set (row L1)."""
    w = rng.choice([-1.0, 1.0], (20, 15)) * rng.random((20, 15))
    norm = np.linalg.norm(w)
    failed = 0
    for draw in range(200):
        # The signs are what is random in the corrected proposition.
        signs = np.random.default_rng(draw).choice([-1.0, 1.0], w.shape)
        approximation, _ = approximate_matrix(w * signs, 0.15 * norm, 0.05 / (5 * 8))
        pairs = [(rng.normal(size=(8, 20)), rng.normal(size=15)) for _ in range(5)]
        failed += any(
            np.linalg.norm(u @ (w * signs - approximation) @ x)
            > 0.15 * norm * np.linalg.norm(u) * np.linalg.norm(x)
            for u, x in pairs
        )
    assert failed / 200 <= 0.05


def test_a_linear_network_keeps_its_outputs_as_lemma_2_2_says(rng):
    """Two layers, M = J exactly (row L2): |f_W - f_W(t)| <= epsilon |f_W|."""
    x = rng.normal(size=(5, 12))
    one, two = rng.normal(size=(10, 12)), rng.normal(size=(4, 10))
    hidden, outputs = x @ one.T, x @ one.T @ two.T
    mu = [
        (
            np.linalg.norm(h, axis=1) / np.linalg.norm(w) / np.linalg.norm(y, axis=1)
        ).min()
        for w, y, h in ((one, x, hidden), (two, hidden, outputs))
    ]
    inter = [
        min(1 / math.sqrt(10), mu[1]),
        1 / math.sqrt(4),
    ]
    tolerances = layer_tolerances(
        0.5, mu, inter, 1.0, [np.linalg.norm(one), np.linalg.norm(two)], [10, 4], 5
    )
    worst = 0.0
    for _ in range(200):
        changed = []
        for w, (epsilon, _, threshold) in zip((one, two), tolerances, strict=True):
            small = np.abs(w) <= threshold
            # Whatever is replaced: noise of the allowed size in every entry.
            noise = rng.choice([-1, 1], w.shape) * threshold
            changed.append(np.where(small, 0, w) + noise)
            assert epsilon > 0
        found = x @ changed[0].T @ changed[1].T
        error = np.linalg.norm(found - outputs, axis=1) / np.linalg.norm(
            outputs, axis=1
        )
        worst = max(worst, error.max())
    assert 0 < worst <= 0.5


def test_measures_do_not_change_with_the_scale_of_the_weights():
    # Cushions are invariant; |f| and gamma scale together (row M4).
    one = cushion_measure([0.3, 0.2], [0.1, 0.4], 1.2, 5.0, 1.0, 1000)
    assert one == pytest.approx(
        cushion_measure([0.3, 0.2], [0.1, 0.4], 1.2, 50.0, 10.0, 1000)
    )
    total = 1 / 0.03**2 + 1 / 0.08**2
    assert one == pytest.approx(math.sqrt(1.44 * 4 * 25 * total / 1000))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: margins(np.ones((3, 1)), [0, 0, 0]), "`logits`"),
        (lambda: margins(np.ones((2, 2)), [0, 2]), "`labels`"),
        (lambda: margin_loss(np.ones((1, 2)), [0], -1), "`margin`"),
        (lambda: margin_loss(np.ones((1, 2)), [0], ties="no"), "`ties`"),
        (lambda: allowed_output_change(0.0), "`margin`"),
        (lambda: compression_gap(0, 2, 10), "`parameters`"),
        (lambda: compression_gap(5, 2, 10, delta=2), "`delta`"),
        (lambda: compression_bound(1.5, 0.1), "`margin_loss`"),
        (lambda: compression_bound(0.5, -0.1), "`gap`"),
        (lambda: perturbation_bound([1.0, 1.0], [0.1, 0.6], 1.0), "says nothing"),
        (lambda: entropy_integral(1, 1.0, 3.0), "`upper`"),
        (lambda: layer_tolerances(2, [1], [1], 1, [1], [1], 1), "`epsilon`"),
        (lambda: cushion_measure([1], [1], 1, 1, 0, 1), "`margin`"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_outputs_that_are_no_numbers_are_errors():
    logits = np.array([[np.nan, np.nan], [np.inf, np.inf], [1.0, np.nan], [1.0, 0.0]])
    for ties in ("errors", "correct"):
        assert margin_loss(logits, np.zeros(4, int), ties=ties) == 0.75


def test_labels_are_integers():
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert margins(logits, np.array([True, False, False])).tolist() == [-1, 1, 1]
    with pytest.raises(ValueError, match="`labels` must be integers"):
        margins(logits, np.array([1.0, 0.0, 0.0]))


def test_zero_cushions_and_deep_products():
    # A dead unit's cushion, and a product of norms above float64's range.
    assert math.isinf(projection_parameters(1.0, [0.0], [0.1], 1.0, 10, 100))
    assert math.isinf(cushion_measure([0.0], [0.1], 1.0, 1.0, 1.0, 100))
    assert math.isinf(perturbation_bound([2.0] * 2000, [1e-4] * 2000, 1.0))
    assert perturbation_bound([0.0, 1.0], [0.0, 0.1], 3.0) == 0.0


def test_scales_do_not_matter_to_the_failure_probability():
    expected = failure_probability(3.0, 1.0, 0.5)
    for scale in (1e-150, 1e150):
        noisy = failure_probability(3.0 * scale, scale, 0.5 * scale**2)
        assert noisy == pytest.approx(expected)
    for scale in (1e-170, 1e170):
        plain = failure_probability(3.0 * scale, scale)
        assert plain == pytest.approx(failure_probability(3.0, 1.0))
        assert approximation_threshold(scale, 0.01) == pytest.approx(
            scale * approximation_threshold(1.0, 0.01)
        )


def test_lemma_9_counts_the_coefficients_of_algorithm_2():
    """Row M3: each layer's, for an error of epsilon mu mu-> / (6 c d)."""
    # One layer, all numbers 1 and ln(1 / delta) = 1.
    assert projection_parameters(
        1.0, [1.0], [1.0], 1.0, 1, 1, 1 / math.e
    ) == pytest.approx(72)
    mu, inter, c, width, samples, delta = [0.25, 0.3], [0.08, 0.1], 1.5, 128, 500, 0.05
    # d layers of h^2 pairs and m samples each: eta is at least (delta / (m d h))^2.
    eta = (delta / (samples * 2 * width)) ** 2
    counts = [
        matrix_projections(0.3 * m * i / (6 * c * 2), eta, "as_printed")
        for m, i in zip(mu, inter, strict=True)
    ]
    found = projection_parameters(0.3, mu, inter, c, width, samples, delta)
    assert sum(counts) - 2 <= found <= sum(counts)


@pytest.mark.parametrize(
    "variant, factor, rate",
    [
        ("corrected", 2, 1 / 2),
        ("proposition_1.1", 3, 1),
        ("appendix_a", 3, 2),
        ("proposition_2.1", 3, 1 / 4),
    ],
)
def test_each_tail_is_the_one_that_is_printed(variant, factor, rate):
    """factor exp(-rate epsilon^2 / (tau^2 + t)); the threshold solves it for tau."""
    found = failure_probability(1.5, 0.8, 0.3, variant)
    expected = factor * math.exp(-rate * 1.5**2 / (0.8**2 + 0.3))
    assert found == pytest.approx(expected, rel=1e-12)
    tau = approximation_threshold(1.5, expected / 10, 0.1, variant)
    assert failure_probability(1.5, tau, 0.1, variant) == pytest.approx(expected / 10)


def test_classes_that_no_sample_has_are_no_error():
    assert margins([[1.0, 4.0, 2.0], [0.0, 1.0, 5.0]], [1, 2]).tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="`labels` must be classes"):
        margins(np.ones((2, 3)), [1, -1])


def test_one_sample_is_enough_and_none_is_not():
    root = math.sqrt(9 * math.log(2))
    numbers = {
        lambda m: compression_gap(9, 2, m): root,
        lambda m: sparsity_measure([3, 6], m): 3.0,
        lambda m: margin_measure(0.25, m): 4.0,
        lambda m: cushion_measure([0.5], [0.5], 1.0, 1.0, 1.0, m): 4.0,
        lambda m: projection_parameters(1, [1], [1], 1, 1, m, 1 / math.e): 72.0,
        lambda m: layer_tolerances(0.6, [1], [1], 1, [1], [1], m, 0.1)[0][1]: 0.05,
        lambda m: truncation_measure([1.0], [2.0], 2, 1.0, 1.0, m): 2.0,
    }
    for function, expected in numbers.items():
        assert function(1) == pytest.approx(expected)
        with pytest.raises(ValueError, match="`samples`"):
            function(0)
