"""The bound by coded bits: exact tails, real codes, and coverage by simulation."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_spectral import data
from keras_spectral.compression import certify_error, quantize_large_weights
from keras_spectral.models.copying import deep_graphs
from keras_spectral.theory import description_bits, inverse_kl, occam_bound


@settings(max_examples=200, deadline=None)
@given(error=st.floats(0, 1), budget=st.floats(0, 20))
def test_the_inverse_inverts(error, budget):
    p = inverse_kl(error, budget)
    assert error <= p <= 1
    if error < p < 1 - 1e-9:
        divergence = stats.entropy([error, 1 - error], [p, 1 - p])
        assert divergence == pytest.approx(budget, rel=1e-5, abs=1e-9)


def test_closed_forms_of_the_inverse():
    # kl(0 || p) = -ln(1 - p).
    assert inverse_kl(0.0, 0.3) == pytest.approx(1 - math.exp(-0.3), rel=1e-12)
    assert inverse_kl(0.25, 0.0) == pytest.approx(0.25)
    assert inverse_kl(1.0, 0.5) == 1.0
    # Below what a logarithm of a binomial tail would need: it underflows to -inf.
    assert np.isneginf(stats.binom.logcdf(0, 50_000, 0.999))
    assert inverse_kl(0.0, 1010.0) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(5, 300), p=st.floats(0.01, 0.99), delta=st.floats(0.01, 0.5))
def test_one_network_is_covered(samples, p, delta):
    """A code of no bits: the bound fails with probability delta at most, exactly."""
    failures = [
        k
        for k in range(samples + 1)
        if occam_bound(k / samples, 0.0, samples, delta).bound < p
    ]
    assert stats.binom.pmf(failures, samples, p).sum() <= delta * (1 + 1e-9)


def test_a_class_of_networks_is_covered():
    """The best of 256 coins by training error is bounded as 8 bits say."""
    rng = np.random.default_rng(0)
    trials, samples, delta = 2000, 60, 0.1
    errors = rng.binomial(samples, 0.4, (trials, 256)).min(1) / samples
    found = {e: occam_bound(e, 8.0, samples, delta).bound for e in set(errors)}
    failed = np.mean([found[e] < 0.4 for e in errors])
    assert failed <= delta
    # Without the 8 bits it would fail nearly always.
    assert (
        np.mean([occam_bound(e, 0.0, samples, delta).bound < 0.4 for e in errors]) > 0.9
    )


def test_values_of_the_facts():
    """38,975 bits at 3.9 % on 50,000 samples, and resnet20 kept at 3 sd."""
    assert occam_bound(0.039, 38_975, 50_000).bound == pytest.approx(0.507, abs=2e-3)
    places = description_bits(271_824, 3923, 1, 0) - 3923 - math.log2(271_825)
    for bits, expected in ((16, 0.787), (8, 0.659), (4, 0.568), (2, 0.514)):
        found = occam_bound(0.05, places + 3923 * bits, 50_000)
        assert found.bound == pytest.approx(expected, abs=5e-3)
    # Zero training error and below 0.5: fewer bits than samples.
    assert occam_bound(0.0, 49_990, 50_000).bound < 0.5
    assert occam_bound(0.0, 50_010, 50_000).bound > 0.5


def test_what_would_not_be_vacuous():
    found = occam_bound(0.2, 1e6, 10_000, classes=10)
    assert found.vacuous and found.bound > 0.9
    enough = occam_bound(0.2, found.most_bits * 0.999, 10_000, classes=10)
    assert not enough.vacuous
    assert occam_bound(0.2, found.most_bits * 1.001, 10_000, classes=10).vacuous
    assert occam_bound(0.95, 10, 100, classes=10).most_bits == 0
    assert found.hoeffding > 1


@pytest.mark.parametrize(("size", "kept"), [(5, 2), (6, 0), (6, 6), (9, 4)])
def test_the_code_has_a_word_for_each_mask(size, kept):
    """Kraft: all descriptions of a tensor together fill at most one."""
    masks = sum(1 for _ in itertools.combinations(range(size), kept))
    bits = description_bits(size, kept, 3, scale_bits=0)
    assert bits == pytest.approx(math.log2((size + 1) * masks) + 3 * kept)
    total = sum(
        math.comb(size, k) * 2 ** (3 * k) * 2.0 ** -description_bits(size, k, 3, 0)
        for k in range(size + 1)
    )
    assert total == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999), kept=st.floats(0, 1), bits=st.integers(1, 8),
    size=st.integers(1, 60),
)  # fmt: skip
def test_quantized_weights_are_what_was_paid_for(seed, kept, bits, size):
    w = np.random.default_rng(seed).standard_t(2, size).astype("float32")
    q = quantize_large_weights(w, kept, bits)
    count = round(kept * size)
    assert q.dtype == w.dtype and np.count_nonzero(q) == count
    assert len(np.unique(np.abs(q[q != 0]))) <= 2 ** (bits - 1)
    if count:
        step = np.abs(w).max() / 2 ** (bits - 1)
        chosen = q != 0
        # Rounded to float32 at last.
        allowed = step / 2 * (1 + 1e-5) + 1e-6 * np.abs(w).max()
        assert np.abs(q - w)[chosen].max() <= allowed
        assert np.abs(w[chosen]).min() >= np.abs(w[~chosen]).max(initial=0)


def test_a_network_on_digits_is_certified(rng):
    digits = data.load("digits", image_size=32, channels=3)
    x, test = (
        split.inputs().mean(-1).reshape(len(split), -1)[:, ::4]
        for split in (digits.train, digits.test)
    )
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, digits.train.labels, epochs=12, verbose=0)
    before = model.get_weights()
    found = certify_error(
        model, x, digits.train.labels, kept=(0.1, 0.2), value_bits=(2, 3)
    )
    assert len(found) == 4 and not found.best.vacuous
    assert found.best.bound == min(row.bound for row in found)
    # The model is left as it was, and the copy is what the row says.
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    kernel, bias = found.model.get_weights()
    row = next(row for row in found if row.bound == found.best.bound)
    assert np.count_nonzero(kernel) == round(row.kept * kernel.size)
    assert not (bias.view("uint32") & 0xFFFF).any()
    outputs = found.model.predict(x, verbose=0)
    assert row.training_error == np.mean(outputs.argmax(1) != digits.train.labels)
    bits = description_bits(2560, round(row.kept * 2560), row.value_bits)
    assert row.bits == pytest.approx(bits + 16 * 10 + math.log2(4))
    # And it is a bound: of the error on samples that were not used.
    error = np.mean(
        found.model.predict(test, verbose=0).argmax(1) != digits.test.labels
    )
    assert error < found.best.bound < 0.9
    statuses = {a.name: a.status for a in found.assumptions}
    assert statuses["independent samples"] == "UNTESTED"
    assert statuses["search is counted"] == "PASS"
    doubled = certify_error(
        model, np.repeat(x[:50], 2, 0), np.repeat(digits.train.labels[:50], 2),
        kept=(0.1,), value_bits=(2,), untouched_bits=32,
    )  # fmt: skip
    assert doubled.assumptions[0].status == "FAIL"
    assert doubled.best.vacuous


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: inverse_kl(1.5, 0.1), "`error`"),
        (lambda: inverse_kl(0.5, -0.1), "`budget`"),
        (lambda: description_bits(3, 4, 1), "`kept`"),
        (lambda: occam_bound(0.1, math.inf, 10), "`bits`"),
        (lambda: occam_bound(0.1, 1, 10, delta=0), "`delta`"),
        (lambda: occam_bound(0.1, 1, 10, classes=1), "`classes`"),
        (lambda: quantize_large_weights([1.0], 0.5, 17), "`value_bits`"),
        (lambda: quantize_large_weights([1.0], 1.5, 2), "`kept`"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_copy_computes_what_the_network_does():
    """`Normalization` takes its statistics from the weights only when it is told."""
    x = np.random.default_rng(0).normal(3, 5, size=(300, 4)).astype("float32")
    y = (x[:, 0] > 3).astype(int)
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(2)])
    found = certify_error(model, x, y, kept=(1.0,), value_bits=(16,))
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found.model.predict(x, verbose=0), expected, atol=0.05)


def test_networks_of_a_thousand_layers_are_certified():
    with deep_graphs():
        inputs = outputs = keras.Input((2,))
        for _ in range(1000):
            outputs = keras.layers.Identity()(outputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(outputs))
    found = certify_error(model, np.eye(2), [0, 1], kept=(0.5,), value_bits=(1,))
    assert len(found) == 1


@pytest.mark.parametrize("kept, value_bits", [((), (2,)), ((0.5,), ()), (0.5, (2,))])
def test_settings_are_sequences(kept, value_bits):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`kept` and `value_bits` must"):
        certify_error(model, np.eye(2), [0, 1], kept=kept, value_bits=value_bits)


def test_outputs_of_one_number_are_refused_by_name():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="`model` must give"):
        certify_error(model, np.eye(2), [0, 1])


def test_float32_errors_are_bounded_in_float64():
    error = np.float32(0.1)
    found = occam_bound(error, 100, 1000)
    assert type(found.bound) is float
    assert found.bound == occam_bound(float(error), 100, 1000).bound


@pytest.mark.parametrize("delta", [1 / 2, 1 / 16, 2.0**-40])
def test_the_bits_that_would_not_be_vacuous_pay_for_the_confidence(delta):
    """No error, two classes: kl(0 || 1/2) = ln 2, so one bit a sample, less log2."""
    found = occam_bound(0.0, 0.0, 100, delta, classes=2)
    assert found.most_bits == pytest.approx(100 + math.log2(delta), rel=1e-12)


def test_the_looser_bound_is_hoeffdings():
    """exp(-2 n t^2) 2^bits is the probability of failure."""
    found = occam_bound(0.25, 12.0, 400, 0.03)
    failure = math.exp(-2 * 400 * (found.hoeffding - 0.25) ** 2) * 2**12
    assert failure == pytest.approx(0.03, rel=1e-9)
    assert found.bound < found.hoeffding


@pytest.mark.parametrize("delta", [-0.5, 0.0, 1.0, 1.5])
def test_a_confidence_is_between_none_and_all(delta):
    with pytest.raises(ValueError, match="`delta`"):
        occam_bound(0.1, 1, 10, delta=delta)


def test_with_classes_without_number_no_bits_are_too_many():
    """1 - 1 / classes is 1 in float64, which a bound reaches with infinitely many."""
    found = occam_bound(0.1, 10.0, 100, classes=10**17)
    assert found.guessing == 1 and not found.vacuous
    assert found.most_bits == math.inf
