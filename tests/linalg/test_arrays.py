"""One stable rank of NumPy's numbers, whatever their scale."""

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import measures
from keras_spectral.linalg import stable_rank
from keras_spectral.linalg.arrays import largest_entry, stable_rank_of


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_stable_rank_does_not_depend_on_the_scale(scale):
    values = [5.0, 3.0, 1.0]
    exact = float(sum(Fraction(v) ** 2 for v in values) / Fraction(5) ** 2)
    assert stable_rank_of(np.multiply(values, scale)) == pytest.approx(exact, rel=1e-14)
    entries = np.full((2, 2), scale)
    assert stable_rank_of(entries, 2 * scale) == pytest.approx(1, rel=1e-14)


def test_what_has_none():
    assert math.isnan(stable_rank_of([0.0, 0.0])) and math.isnan(stable_rank_of([]))
    assert math.isnan(stable_rank_of([1.0, np.nan]))
    assert largest_entry(np.zeros(3)) is largest_entry(np.array([1.0, np.inf])) is None


def test_that_of_a_model_is_that_of_its_tensor(rng):
    layers = [keras.Input((9,)), kl.Dense(7, dtype="float64", name="tiny")]
    model = keras.Sequential(layers)
    # Their squares are 0 in float64.
    kernel = rng.normal(size=(9, 7)) * 1e-200
    model.layers[0].kernel.assign(kernel)
    (row,) = measures.spectrum(model)
    expected = float(stable_rank(kernel * 1e200))
    assert row.stable_rank == pytest.approx(expected, rel=1e-6)
    u, s, vt = np.linalg.svd(kernel * 1e200)
    assert row.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-12)
