"""Normal numbers that are the same on every machine and in every version.

NumPy promises the raw words of a bit generator, and nothing of what `Generator` makes
of them; libraries of logarithms differ in the last bit. So the map from words to
normals is written here with nothing but +, -, *, / and the square root, which IEEE 754
rounds in one way only.
"""

import hashlib
import sys

import numpy as np

_BLOCK = 2**18

# [wichura1988], Algorithm AS 241, PPND16: the middle and the tail to exp(-25).
_MIDDLE = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
        3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2,
        5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
        2.8729085735721942674e4, 5.2264952788528545610e3,
    ),
)  # fmt: skip
_TAIL = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
        3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
        2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
        6.89767334985100004550e-1, 1.48103976427480074590e-1,
        1.51986665636164571966e-2, 5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)  # fmt: skip
_LOG_2 = 0.6931471805599453
_ROOT_HALF = 0.7071067811865476


def _polynomial(coefficients, x):
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value


def _log(x):
    """Natural logarithm within two units in the last place, by its atanh series."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < _ROOT_HALF
    mantissa = np.where(small, 2 * mantissa, mantissa)
    exponent = exponent - small
    s = (mantissa - 1) / (mantissa + 1)
    series = _polynomial([1 / (2 * k + 1) for k in range(13)], s * s)
    return exponent * _LOG_2 + 2 * s * series


def inverse_normal(p):
    """Return the normal quantiles of probabilities.

    Args:
        p: Float64 array in [1.4e-11, 1 - 1.4e-11], which 33 bits do not leave.

    Returns:
        Float64 array like `p`, within 1e-15 of the exact ones, relatively. The same
        bits wherever arithmetic follows IEEE 754.

    Example:
    >>> import numpy as np
    >>> inverse_normal(np.array([0.5, 0.975])).round(4).tolist()
    [0.0, 1.96]

    Source: [wichura1988], Algorithm AS 241, PPND16.
    """
    p = np.asarray(p, "float64")
    q = p - 0.5
    r = 0.180625 - q * q
    values = q * _polynomial(_MIDDLE[0], r) / _polynomial(_MIDDLE[1], r)
    outside = np.abs(q) > 0.425
    q, p = q[outside], p[outside]
    r = np.sqrt(-_log(np.where(q < 0, p, 1 - p))) - 1.6
    tail = _polynomial(_TAIL[0], r) / _polynomial(_TAIL[1], r)
    values[outside] = np.where(q < 0, -tail, tail)
    return values


def normals(count, seed, key=()):
    """Return standard normal numbers that a seed determines for good.

    The words of Philox, halves from low to high, are taken for (u + 1/2) / 2^32 and
    mapped by `inverse_normal`; so no number is beyond 6.34.

    Args:
        count: Integer >= 0.
        seed: Integer or sequence of integers >= 0.
        key: Sequence of integers, which stream of the seed: one a tensor.

    Returns:
        Float32 array (count,).

    Example:
    >>> normals(3, seed=0).tolist() == normals(5, seed=0)[:3].tolist()
    True
    """
    philox = np.random.Philox(np.random.SeedSequence(seed, spawn_key=tuple(key)))
    values = np.empty(count, "float32")
    for start in range(0, count, _BLOCK):
        part = values[start : start + _BLOCK]
        words = philox.random_raw((len(part) + 1) // 2).astype("<u8").view("<u4")
        part[:] = inverse_normal((words[: len(part)] + 0.5) / 2.0**32)
    return values


def digest(array):
    """Return the SHA-256 of an array's numbers, little-endian, as hexadecimal."""
    array = np.ascontiguousarray(array)
    if sys.byteorder == "big":
        array = array.byteswap()
    return hashlib.sha256(array.reshape(-1).view("uint8")).hexdigest()
