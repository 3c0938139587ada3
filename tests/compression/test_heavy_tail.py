import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from keras_spectral import compression
from keras_spectral.models.copying import deep_graphs

# Closed forms for |w| <= one standard deviation: fraction kept and squared
# relative error of setting to zero.
GAUSSIAN = 2 * stats.norm.sf(1), 2 * stats.norm.cdf(1) - 1 - 2 * stats.norm.pdf(1)
_A = math.sqrt(2)
LAPLACE = math.exp(-_A), 1 - math.exp(-_A) * (_A**2 / 2 + _A + 1)


@pytest.mark.parametrize("law, form", [("normal", GAUSSIAN), ("laplace", LAPLACE)])
def test_closed_forms(rng, law, form):
    """On 400,000 weights; four standard errors are below 0.5 %."""
    weights = getattr(rng, law)(size=(1000, 400))
    kept_expected, zero = form
    squared = {
        "zero": zero,
        "matched": 2 * zero,
        "gaussian": zero + 1 - kept_expected,
    }
    for replacement, expected in squared.items():
        array, kept = compression.compress_matrix(
            weights, "magnitude", replacement, seed=1
        )
        assert kept.mean() == pytest.approx(kept_expected, rel=0.01)
        error = ((array - weights) ** 2).sum() / (weights**2).sum()
        assert error == pytest.approx(expected, rel=0.01)


def test_the_signed_rule_takes_every_negative_weight(rng):
    weights = rng.normal(size=(1000, 400))
    _, kept = compression.compress_matrix(weights, "signed", "zero")
    assert kept.mean() == pytest.approx(stats.norm.sf(1), rel=0.02)
    assert not kept[weights < 0].any()


@given(
    weights=arrays.arrays(
        "float32", st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-100, 100, width=32),
    ),
    rule=st.sampled_from(["magnitude", "signed"]),
    replacement=st.sampled_from(["gaussian", "matched", "zero"]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_kept_weights_are_bit_identical(weights, rule, replacement, seed):
    array, kept = compression.compress_matrix(weights, rule, replacement, seed)
    assert array.dtype == weights.dtype and array.shape == weights.shape
    np.testing.assert_array_equal(array[kept], weights[kept])
    threshold = weights.astype("float64").std()
    size = np.abs(weights) if rule == "magnitude" else weights
    np.testing.assert_array_equal(kept, size > threshold)
    if replacement == "zero":
        assert not array[~kept].any()
    again, _ = compression.compress_matrix(weights, rule, replacement, seed)
    np.testing.assert_array_equal(array, again)


def test_the_noise_has_the_moments_it_claims(rng):
    weights = rng.laplace(0.3, 1, size=(600, 500))
    for replacement in ("gaussian", "matched"):
        array, kept = compression.compress_matrix(weights, "magnitude", replacement, 3)
        source = weights if replacement == "gaussian" else weights[~kept]
        noise = array[~kept]
        error = source.std() / math.sqrt(noise.size)
        assert abs(noise.mean() - source.mean()) < 4 * error
        assert noise.std() == pytest.approx(source.std(), rel=0.01)
        assert stats.kstest((noise - noise.mean()) / noise.std(), "norm").pvalue > 1e-3


@pytest.fixture
def model():
    return keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(20, name="hidden"),
            keras.layers.Dense(10, name="head"),
        ],
        name="net",
    )


def test_rows_and_restored_weights(model):
    before = model.get_weights()
    seen = []

    def evaluate(model):
        seen.append(model.get_layer("head").kernel.numpy())
        return len(seen) / 100

    rows = compression.compare_replacements(
        model, ["head"], trials=3, seed=5, evaluate=evaluate
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [(row.rule, row.replacement, row.trials) for row in rows] == [
        (rule, replacement, 1 if replacement == "zero" else 3)
        for rule in ("magnitude", "signed")
        for replacement in ("gaussian", "matched", "zero")
    ]
    # The original, then 3 + 3 + 1 for each rule; every draw is another.
    assert len(seen) == 15
    assert len({array.tobytes() for array in seen}) == 15
    first = rows[0]
    assert (first.name, first.original_accuracy) == ("head", 0.01)
    assert first.compressed_accuracy_mean == pytest.approx(0.03)
    assert first.compressed_accuracy_sd == pytest.approx(0.01)
    assert rows[2].compressed_accuracy_sd == 0.0
    expected, _ = compression.compress_matrix(before[2], "magnitude", "zero")
    np.testing.assert_array_equal(seen[7], expected)
    error = np.linalg.norm(expected - before[2]) / np.linalg.norm(before[2])
    assert rows[2].relative_error == pytest.approx(error)
    again = compression.compare_replacements(model, ["head"], trials=3, seed=5)
    other = compression.compare_replacements(model, ["head"], trials=3, seed=6)
    assert again[0].relative_error == first.relative_error != other[0].relative_error
    assert again[0].compressed_accuracy_mean is None
    assert "head" in rows.title and "control" in rows.caption


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_are_restored_when_evaluation_fails(model, error):
    before = model.get_weights()
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return 0.5

    with pytest.raises(error):
        compression.compare_replacements(model, trials=4, evaluate=evaluate)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_compress_returns_a_compressed_copy(model):
    before = model.get_weights()
    copy = compression.compress(model, ["hidden"], "magnitude", "zero")
    expected, _ = compression.compress_matrix(before[0], "magnitude", "zero")
    np.testing.assert_array_equal(copy.get_weights()[0], expected)
    for index in (1, 2, 3):
        np.testing.assert_array_equal(copy.get_weights()[index], before[index])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_broken_weights_and_models_without_a_kernel(model):
    model.get_layer("head").kernel.assign(np.full((20, 10), np.nan))
    for function in (compression.compare_replacements, compression.compress):
        with pytest.raises(ValueError, match="NaN or infinity in 'head'"):
            function(model)
    with pytest.raises(ValueError, match="NaN"):
        compression.compress_matrix(np.array([np.nan]))
    with pytest.raises(ValueError, match="empty"):
        compression.compress_matrix(np.zeros((0, 3)))
    flat = keras.Sequential([keras.Input((3,)), keras.layers.PReLU(name="act")])
    with pytest.raises(ValueError, match=r"a kernel that .* act \(PReLU\): no matrix"):
        compression.compare_replacements(flat)
    with pytest.raises(ValueError, match=r"act \(PReLU\): no matrix.* Leave it out"):
        compression.compare_replacements(flat, ["act"])


@pytest.mark.parametrize("accuracy", [95.0, -0.1, math.nan])
def test_an_accuracy_is_between_zero_and_one(model, accuracy):
    before = model.get_weights()
    answers = iter([0.9, 0.8, accuracy])
    with pytest.raises(ValueError, match=r"`evaluate`.*\[0, 1\]"):
        compression.compare_replacements(
            model, trials=2, evaluate=lambda model: next(answers)
        )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_are_zero_or_overflow_when_squared(rng):
    layer = keras.layers.Dense(40, kernel_initializer="zeros", dtype="float16")
    model = keras.Sequential([keras.Input((40,)), layer])
    rows = compression.compare_replacements(model, trials=2)
    assert {row.relative_error for row in rows} == {0.0}
    kernel = (100 * rng.normal(size=(40, 40))).astype("float16")
    layer.kernel.assign(kernel)
    row = compression.compare_replacements(
        model, rules=["magnitude"], replacements=["zero"]
    )[0]
    expected, _ = compression.compress_matrix(
        kernel.astype("float64"), "magnitude", "zero"
    )
    wide = kernel.astype("float64")
    error = np.linalg.norm(expected - wide) / np.linalg.norm(wide)
    assert row.relative_error == pytest.approx(error)


@pytest.mark.parametrize("law", ["normal", "laplace"])
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0, 3.0])
def test_shares_and_errors_have_closed_forms(law, tau, rng):
    """Relative Frobenius errors of the three replacements (facts of the format)."""
    w = getattr(rng, law)(size=400_000)
    w /= w.std()
    if law == "normal":
        kept = 2 * stats.norm.sf(tau)
        zero = 2 * stats.norm.cdf(tau) - 1 - 2 * tau * stats.norm.pdf(tau)
    else:
        a = math.sqrt(2) * tau
        kept = math.exp(-a)
        zero = 1 - math.exp(-a) * (a**2 / 2 + a + 1)
    expected = {
        "zero": zero,
        "matched": 2 * zero,
        "gaussian": zero + 1 - kept,
    }
    for replacement, square in expected.items():
        compressed, mask = compression.compress_matrix(
            w, replacement=replacement, deviations=tau
        )
        found = np.linalg.norm(compressed - w) / np.linalg.norm(w)
        assert found == pytest.approx(math.sqrt(square), rel=0.01)
        spread = 4 * math.sqrt(kept / w.size)
        assert abs(mask.mean() - kept) < spread + 0.01 * kept


@pytest.mark.parametrize(
    "former",
    [
        {"rules": ["magnitude"]},
        {"replacements": ["zero"]},
        {"trials": 3},
        {"evaluate": lambda model: 0.5},
        {"layers": ["head"]},
    ],
)
def test_old_calls_of_compress_name_what_to_call_now(model, former):
    with pytest.raises(TypeError, match="`compare_replacements`.*`where=`") as error:
        compression.compress(model, **former)
    assert f"'{next(iter(former))}'" in str(error.value)


def test_apply_is_gone():
    with pytest.raises(AttributeError, match="'apply'.*`compress` now"):
        compression.apply  # noqa: B018
    with pytest.raises(AttributeError, match="'aply'$"):
        compression.aply  # noqa: B018


def _own_loss(truth, prediction):
    return keras.ops.mean((truth - prediction) ** 2)


@pytest.mark.parametrize("loss", [_own_loss, lambda y, p: _own_loss(y, p)])
@pytest.mark.parametrize("functional", [False, True])
def test_compress_takes_a_model_with_a_loss_that_keras_cannot_save(loss, functional):
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    if functional:
        model = keras.Model(model.inputs, model.outputs)
    model.compile("adam", loss)
    copy = compression.compress(model, replacement="zero")
    assert model.compiled and not copy.compiled
    assert 0 < np.mean(copy.get_weights()[0] == 0) < 1
    model.compile("adam", "mse")
    assert compression.compress(model).compiled


def test_compress_takes_a_network_of_hundreds_of_layers():
    tensor = inputs = keras.Input((3,))
    # Keras recurses once a layer and a few times more, and Python stops at 1000.
    for _ in range(1200):
        tensor = keras.layers.Identity()(tensor)
    with deep_graphs():
        model = keras.Model(inputs, keras.layers.Dense(4)(tensor))
    copy = compression.compress(model, replacement="zero")
    assert len(copy.layers) == len(model.layers)


def test_a_compressed_copy_keeps_the_statistics_of_normalization():
    x = np.random.default_rng(0).normal(3, 5, size=(50, 4)).astype("float32")
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(2)])
    copy = compression.compress(model, replacement="zero", deviations=1e-9)
    np.testing.assert_allclose(copy(x), model(x), rtol=1e-5, atol=1e-6)


def test_each_kernel_has_noise_of_its_own(rng):
    """Two layers of equal weights: noise of one stream would be equal, too."""
    n = 60
    layers = [keras.layers.Dense(n, use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((n,)), *layers])
    weights = rng.normal(size=(n, n)).astype("float32")
    model.set_weights([weights, weights])
    small = np.abs(weights) <= weights.std()

    def correlation(one, other):
        return np.corrcoef(one[small], other[small])[0, 1]

    seen = []
    compression.compare_replacements(
        model, rules=["magnitude"], replacements=["gaussian"], trials=2,
        evaluate=lambda model: seen.append(model.get_weights()) or 0.5,
    )  # fmt: skip
    kernels = compression.compress(model, replacement="gaussian").get_weights()
    noises = [*kernels, *(kernel for kernels in seen[2:] for kernel in kernels)]
    # Four standard errors of a correlation of independent numbers.
    bound = 4 / math.sqrt(small.sum())
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert abs(correlation(one, other)) < bound
