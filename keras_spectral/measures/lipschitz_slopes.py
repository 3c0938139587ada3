"""What activations and normalizations do on intervals and balls."""

import numpy as np
from scipy.special import expit, ndtr

# What a slope may lose to rounding.
_ROUNDING = 1e-12


def piecewise(knots, slopes):
    """Return the function from intervals to slopes of what is linear between knots.

    Args:
        knots: List of floats, ascending.
        slopes: List of floats, one more.

    Returns:
        Function of two arrays, the ends of intervals, to two arrays: the least and the
        largest slope between any two points of each.

    Example:
    >>> relu = piecewise([0.0], [0.0, 1.0])
    >>> [array.tolist() for array in relu(np.array([-1.0, 0]), np.array([1.0, 2]))]
    [[0.0, 1.0], [1.0, 1.0]]
    """
    ends = [-np.inf, *knots, np.inf]

    def on(low, high):
        low, high = _ends(low, high)
        least, largest = np.full(low.shape, np.inf), np.full(low.shape, -np.inf)
        for start, end, slope in zip(ends[:-1], ends[1:], slopes, strict=True):
            # A point is a part of both sides, and has no slope.
            inside = (low < end) & (high > start)
            least = np.where(inside, np.minimum(least, slope), least)
            largest = np.where(inside, np.maximum(largest, slope), largest)
        empty = least > largest
        return np.where(empty, 0.0, least), np.where(empty, 0.0, largest)

    return on


def smooth(derivative, turns):
    """Return the function from intervals to slopes of what has a derivative.

    Args:
        derivative: Function of an array.
        turns: List of floats, where the derivative turns.
    """

    def on(low, high):
        # Beyond, derivatives are near their limits, and may be computed as inf * 0.
        low, high = (np.clip(end, -1e100, 1e100) for end in _ends(low, high))
        values = [derivative(low), derivative(high)]
        for turn in turns:
            inside = (low <= turn) & (high >= turn)
            values.append(np.where(inside, derivative(np.float64(turn)), values[0]))
        return np.min(values, axis=0) - _ROUNDING, np.max(values, axis=0) + _ROUNDING

    return on


def _ends(low, high):
    """Return intervals' ends, those that overflowed at their widest."""
    low = np.where(np.isfinite(low), low, -np.inf)
    return low, np.where(np.isfinite(high), high, np.inf)


def leaky(slope):
    """Return `piecewise` of a slope below zero and 1 above.

    Args:
        slope: Float, or an array of them, one a number.
    """
    slopes_on = piecewise([0.0], [slope, 1.0])
    if np.ndim(slope) == 0 and slope in (0.0, 1.0):
        return slopes_on
    # TensorFlow takes the nearest number of float32 for it.
    most = 1e-7 * np.abs(slope)

    def on(low, high):
        least, largest = slopes_on(low, high)
        return least - most, largest + most

    return on


def normalized_near(axis, epsilon, scale, centered):
    """Return the function to the constant of x / sqrt(mean(x^2) + epsilon) on a ball.

    Its slope at x is 1 / sqrt(mean(x^2) + epsilon) at most, and the root of the mean
    falls by at most a step's length over the root of the count.

    Args:
        axis: Integer or list of them, of which the first counts the batch; what is
            normalized together.
        epsilon: Float.
        scale: Float, the largest factor of what comes out.
        centered: Boolean, whether the mean is taken off first.

    Returns:
        Function of a center, the radii of its numbers and a ball's to a float.
    """
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)

    def near(center, radii, ball):
        along = tuple(at - 1 if at > 0 else at + center.ndim for at in axes)
        count = np.prod([center.shape[at] for at in along])
        if centered:
            center = center - center.mean(axis=along, keepdims=True)
        size = np.sqrt(np.square(center).sum(axis=along))
        moved = np.minimum(np.sqrt(np.square(radii).sum(axis=along)), ball)
        least = np.fmax(size * (1 - 1e-9) - moved, 0.0).min()
        with np.errstate(divide="ignore"):
            return float(scale / np.sqrt(least**2 / count + epsilon))

    return near


def grouped_near(axis, groups, shape, epsilon, scale):
    """Return `normalized_near` of group normalization.

    Args:
        axis: Integer, of the channels, which counts the batch.
        groups: Integer.
        shape: Tuple, of one sample.
        epsilon: Float.
        scale: Float.
    """
    at = axis - 1 if axis > 0 else axis + len(shape)
    form = (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :])
    others = [1 + other for other in range(len(form)) if other != at]
    near = normalized_near(others, epsilon, scale, centered=True)
    return lambda center, radii, ball: near(
        center.reshape(form), radii.reshape(form), ball
    )


def _silu(x):
    return expit(x) * (1 + x * expit(-x))


def _gelu(x):
    return ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


# By the names of `lipschitz_constants.ACTIVATIONS`; others keep their range everywhere.
SLOPES_ON = {
    "linear": piecewise([], [1.0]),
    "relu": piecewise([0.0], [0.0, 1.0]),
    "leaky_relu": leaky(0.2),
    "relu6": piecewise([0.0, 6.0], [0.0, 1.0, 0.0]),
    "hard_tanh": piecewise([-1.0, 1.0], [0.0, 1.0, 0.0]),
    "hard_sigmoid": piecewise([-3.0, 3.0], [0.0, 1 / 6, 0.0]),
    "elu": smooth(lambda x: np.exp(np.minimum(x, 0.0)), []),
    "sigmoid": smooth(lambda x: expit(x) * expit(-x), [0.0]),
    "tanh": smooth(lambda x: 4 * expit(2 * x) * expit(-2 * x), [0.0]),
    "softplus": smooth(expit, []),
    "log_sigmoid": smooth(lambda x: expit(-x), []),
    "softsign": smooth(lambda x: (1 + np.abs(x)) ** -2.0, [0.0]),
    # Where the second derivatives vanish.
    "silu": smooth(_silu, [-2.399357280520, 2.399357280520]),
    "gelu": smooth(_gelu, [-(2**0.5), 2**0.5]),
}
