"""Kernel distances of features: the unbiased squared maximum mean discrepancy."""

from typing import Literal, NamedTuple

import numpy as np

from keras_spectral.gan.metrics.statistics import checked_features
from keras_spectral.validation import check_choice, check_integer, check_positive

Kernel = Literal["polynomial", "rbf"]
_BLOCK = 1024


class KernelDistance(NamedTuple):
    """A kernel distance and how sure it is.

    Args:
        value: Float. It is unbiased, so it may be below 0.
        error: Float: of all samples, the jackknife's standard error; of subsets, the
            standard deviation over them, with n below, as torch-fidelity has it.
        subsets: Integer, or `None` if it is of all samples.
        size: Integer, samples of a subset, or `None`.
    """

    value: float
    error: float
    subsets: int | None
    size: int | None


def kernel_distance(
    generated,
    reference,
    subsets: int | None = None,
    size: int = 1000,
    seed: int = 2020,
    kernel: Kernel = "polynomial",
    sigma: float = 10.0,
) -> KernelDistance:
    """Return the kernel distance, on Inception's features KID.

    The kernel is (x . y / d + 1)^3 or exp(-|x - y|^2 / (2 sigma^2)). Pairs of a sample
    with itself are left out, which makes the estimate unbiased: unlike FID it may be
    compared between different numbers of samples.

    Without `subsets` it is the estimate of all samples, which has the least variance;
    its time grows with the square of their number.
    With `subsets=100, size=1000` it is torch-fidelity's, with its random numbers.

    Args:
        generated: Features (samples, dimensions).
        reference: Features, likewise.
        subsets: Integer >= 1, how many random subsets, or `None` for all samples.
        size: Integer >= 2, samples of each subset.
        seed: Integer, of the subsets.
        kernel: `"polynomial"` or `"rbf"`.
        sigma: Float, the width of the second.

    Returns:
        `KernelDistance`.

    Raises:
        ValueError: If the dimensions differ or a side has fewer samples than `size`.

    Example:
    >>> kernel_distance([[1, 0], [0, 1]], [[1, 1], [2, 0]]).value
    1.125

    Source: [binkowski2018], KID.
    """
    check_choice("kernel", kernel, Kernel)
    check_positive("sigma", sigma)
    generated = checked_features("generated", generated, least=2)
    reference = checked_features("reference", reference, least=2)
    if generated.shape[1] != reference.shape[1]:
        raise ValueError(
            "`generated` and `reference` must have the same dimensions. Received: "
            f"{generated.shape[1]} and {reference.shape[1]}"
        )
    dimensions = generated.shape[1]

    def apply(products, squares):
        if kernel == "polynomial":
            return (products / dimensions + 1) ** 3
        return np.exp((2 * products - squares).clip(max=0) / (2 * sigma**2))

    if subsets is None:
        value, error = _unbiased(generated, reference, apply)
        return KernelDistance(value, error, None, None)
    check_integer("subsets", subsets, least=1)
    check_integer("size", size, least=2)
    fewest = min(len(generated), len(reference))
    if size > fewest:
        raise ValueError(
            f"`size` must be at most the samples of either side, {fewest}. Received: "
            f"size={size}. `subsets=None` takes all samples."
        )
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        ours = generated[random.choice(len(generated), size, replace=False)]
        theirs = reference[random.choice(len(reference), size, replace=False)]
        values.append(_unbiased(ours, theirs, apply)[0])
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def _sums(x, y, kernel):
    """Return sums over rows and over columns of a kernel's matrix, by blocks."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    x_squares, y_squares = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = kernel(x[part] @ y.T, x_squares[part, None] + y_squares)
        rows[part] = block.sum(axis=1)
        columns += block.sum(axis=0)
    return rows, columns


def _sums_of_others(x, kernel):
    """Return for each sample the sum of the kernel with all others."""
    squares = (x**2).sum(axis=1)
    return _sums(x, x, kernel)[0] - kernel(squares, 2 * squares)


def _unbiased(x, y, kernel):
    """Return the unbiased estimate and the standard error of the jackknife."""
    m, n = len(x), len(y)
    own = _sums_of_others(x, kernel)
    other = _sums_of_others(y, kernel)
    across, back = _sums(x, y, kernel)
    xx, yy, xy = own.sum(), other.sum(), across.sum()
    value = xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * xy / (m * n)
    if min(m, n) < 3:
        return float(value), float("nan")
    # The estimate without each sample of one side, then of the other.
    left = (xx - 2 * own) / ((m - 1) * (m - 2)) - 2 * (xy - across) / ((m - 1) * n)
    right = (yy - 2 * other) / ((n - 1) * (n - 2)) - 2 * (xy - back) / (m * (n - 1))
    variance = (m - 1) * np.var(left) + (n - 1) * np.var(right)
    return float(value), float(np.sqrt(variance))
