"""Normals against SciPy, Python's own quantiles, and golden values."""

import hashlib
import math
import statistics

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from keras_spectral import gaussian

GOLDEN = [
    "0x1.96b4fe0000000p+0", "0x1.4d1d9e0000000p-2",
    "0x1.2f7f000000000p-3", "0x1.5231c20000000p-2",
]  # fmt: skip
GOLDEN_SUM = "57e2fd7a4816f80e3f58a2a7f4e6e73683e3c50ba5811da114d558d9d120ff7a"


def test_quantiles_are_those_of_scipy():
    """The whole range of 33 bits, both tails, and the seams at 0.075 and 0.925."""
    tail = 2.0 ** -np.linspace(1, 33, 20_001)
    seams = 0.075 + np.linspace(-1e-9, 1e-9, 101)
    middle = np.linspace(0.001, 0.999, 20_001)
    p = np.concatenate([tail, seams, middle])
    p = np.concatenate([p, 1 - p])
    ours, theirs = gaussian.inverse_normal(p), special.ndtri(p)
    np.testing.assert_allclose(ours, theirs, rtol=4e-15, atol=1e-16)
    # An implementation that is neither ours nor SciPy's, number by number.
    law = statistics.NormalDist()
    for value, probability in zip(ours[::997], p[::997], strict=True):
        assert math.isclose(
            value, law.inv_cdf(probability), rel_tol=4e-15, abs_tol=1e-16
        )


@given(st.integers(0, 2**32 - 1))
def test_quantiles_are_odd(word):
    p = np.array([(word + 0.5) / 2**32, (2**32 - 1 - word + 0.5) / 2**32])
    low, high = gaussian.inverse_normal(p)
    assert low == -high and abs(low) < 6.34


def test_the_logarithm_needs_no_library():
    x = np.concatenate([2.0 ** -np.linspace(0, 40, 5001), [0.5, 2**-0.5, 0.075]])
    np.testing.assert_allclose(
        gaussian._log(x), [math.log(value) for value in x], rtol=5e-16, atol=1e-17
    )


def test_golden_values():
    """Other numbers here would break every file that was saved before."""
    words = np.random.Philox(np.random.SeedSequence(7, spawn_key=(1, 2))).random_raw(2)
    halves = [int(word) >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)]
    expected = [statistics.NormalDist().inv_cdf((u + 0.5) / 2**32) for u in halves]
    found = gaussian.normals(4, 7, (1, 2))
    np.testing.assert_array_equal(found, np.array(expected, "float32"))
    assert [float(value).hex() for value in found] == GOLDEN
    many = gaussian.normals(300_000, 7, (1, 2))
    assert many.dtype == np.float32
    assert gaussian.digest(many) == GOLDEN_SUM
    assert hashlib.sha256(many.astype("<f4").tobytes()).hexdigest() == GOLDEN_SUM


def test_a_stream_is_the_same_however_much_is_taken():
    block = gaussian._BLOCK
    many = gaussian.normals(2 * block + 7, 3)
    for count in (0, 1, 2, 5, block - 1, block, block + 1):
        np.testing.assert_array_equal(gaussian.normals(count, 3), many[:count])
    np.testing.assert_array_equal(gaussian.normals(5, 3), gaussian.normals(5, [3]))
    assert not np.isin(gaussian.normals(99, 3, (1,)), many).all()


def test_the_law():
    values = gaussian.normals(400_000, 11).astype("float64")
    # Four standard errors of the mean, the variance and the fourth moment.
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96 / values.size)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4 / math.sqrt(values.size)
