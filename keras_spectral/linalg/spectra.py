"""Exact spectra of convolutions and other operators, in float64 NumPy.

They are for measuring, not for training: nothing here has a gradient.
"""

import itertools
import math

import numpy as np
import scipy.sparse.linalg

from keras_spectral.validation import check_integer

_FEW_CHANNELS = 8


def operator_singular_values(operator, count=6):
    """Return the largest singular values of an operator, such as a convolution.

    By Lanczos iteration on the operator and its adjoint, to convergence; its
    matrix is not formed. So this is exact for the zero padding and the stride that
    a layer has, where Fourier transforms are not.

    Args:
        operator: A `LinearOperator`. Make it of a float64 kernel for values exact
            to float64; on JAX, which computes in float32 by default, they are
            exact to that.
        count: Integer >= 1, how many.

    Returns:
        NumPy array (count,), float64, descending. NaN for an operator that is not
        finite.

    Raises:
        ValueError: If `count` is not below the number of singular values.

    Example:
    >>> from keras_spectral.linalg import convolution_operator
    >>> kernel = np.zeros((3, 3, 1, 1))
    >>> kernel[1, 1] = 2.0
    >>> operator = convolution_operator(kernel, (4, 4), padding="same")
    >>> operator_singular_values(operator, count=1).round(6).tolist()
    [2.0]

    Source: [golub1965] (Lanczos), by ARPACK.
    """
    check_integer("count", count, least=1)
    outputs, inputs = operator.shape
    if count >= min(outputs, inputs):
        raise ValueError(
            f"`count` must be below {min(outputs, inputs)}, the number of singular "
            f"values. Received: count={count}. For all of them take the SVD of "
            "`operator.to_matrix()`."
        )
    linear = operator.to_scipy()
    start = np.random.default_rng(0).standard_normal(min(outputs, inputs))
    start /= np.linalg.norm(start)
    # Lanczos works on A'A, which would leave the range that A is in.
    first = linear.matvec if inputs <= outputs else linear.rmatvec
    scale = np.linalg.norm(first(start).astype("float64"))
    if scale == 0 or not np.isfinite(scale):
        return np.full(count, 0.0 if scale == 0 else np.nan)
    scaled = scipy.sparse.linalg.LinearOperator(
        linear.shape,
        matvec=lambda x: linear.matvec(x).astype("float64") / scale,
        rmatvec=lambda y: linear.rmatvec(y).astype("float64") / scale,
        dtype="float64",
    )
    values = scipy.sparse.linalg.svds(
        scaled,
        k=count,
        v0=start,
        # No closer than the products are to those of a linear map.
        tol=0 if operator.dtype == "float64" else 1e-7,
        return_singular_vectors=False,
    )
    return np.sort(values)[::-1] * scale


def _transforms(kernel, input_size, strides):
    """Return the blocks (frequencies, inputs, filters) and their multiplicities.

    The blocks of a circular convolution are its kernel's Fourier transforms. A
    stride folds the frequencies that it cannot tell apart into one block.
    """
    kernel = np.asarray(kernel, "float64")
    rank = kernel.ndim - 2
    size = tuple(input_size)
    strides = (strides,) * rank if isinstance(strides, int) else tuple(strides)
    if len(size) != rank or len(strides) != rank:
        raise ValueError(
            f"`input_size` and `strides` must have {rank} numbers for a kernel of "
            f"shape {kernel.shape}. Received: input_size={size}, strides={strides}"
        )
    if any(n % s for n, s in zip(size, strides, strict=True)):
        raise ValueError(
            "`strides` must divide `input_size`: another circular convolution has no "
            f"blocks. Received: input_size={size}, strides={strides}"
        )
    wrapped = np.zeros((*size, *kernel.shape[rank:]))
    for tap in np.ndindex(*kernel.shape[:rank]):
        # Taps beyond the image wrap around it.
        wrapped[tuple(t % n for t, n in zip(tap, size, strict=True))] += kernel[tap]
    axes = tuple(range(rank))
    if max(strides) == 1:
        # A real kernel has conjugate transforms at opposite frequencies.
        blocks = np.fft.rfftn(wrapped, axes=axes)
        weights = np.full(blocks.shape[rank - 1], 2)
        weights[0] = 1
        if size[-1] % 2 == 0:
            weights[-1] = 1
        weights = np.broadcast_to(weights, blocks.shape[:rank]).ravel()
        return blocks.reshape(-1, *kernel.shape[rank:]), weights
    blocks = np.fft.fftn(wrapped, axes=axes)
    folded = []
    for alias in itertools.product(*(range(s) for s in strides)):
        window = tuple(
            slice(a * (n // s), (a + 1) * (n // s))
            for a, n, s in zip(alias, size, strides, strict=True)
        )
        folded.append(blocks[window])
    blocks = np.concatenate(folded, axis=rank) / math.sqrt(math.prod(strides))
    blocks = blocks.reshape(-1, *blocks.shape[rank:])
    return blocks, np.ones(len(blocks), int)


def circular_convolution_singular_values(kernel, input_size, strides=1):
    """Return all singular values of a convolution that wraps around the image.

    Exact, by the Fourier transform of the kernel and an SVD of a small matrix for
    each frequency.

    Args:
        kernel: Float array (*spatial, inputs, filters).
        input_size: Tuple of integers, pixels on each spatial axis.
        strides: Integer, or one a spatial axis; they must divide `input_size`.

    Returns:
        NumPy array, float64, descending: as many as the operator has, pixels of
        the output times filters or pixels of the input times inputs, whichever is
        less. NaN for a kernel that is not finite.

    Raises:
        ValueError: On sizes that do not fit.

    Example:
    >>> kernel = np.zeros((3, 3, 1, 1))
    >>> kernel[1, 1] = 2.0
    >>> circular_convolution_singular_values(kernel, (2, 2)).tolist()
    [2.0, 2.0, 2.0, 2.0]

    Source: [sedghi2019], Theorem 6.
    """
    blocks, weights = _transforms(kernel, input_size, strides)
    if np.isfinite(blocks).all():
        values = np.linalg.svd(blocks, compute_uv=False)
    else:
        # NumPy raises on them.
        values = np.full((len(blocks), min(blocks.shape[1:])), np.nan)
    return np.sort(np.repeat(values, weights, axis=0).ravel())[::-1]


def circular_convolution_norm(kernel, input_size, strides=1):
    """Return the largest singular value of a convolution that wraps around.

    Exact, like `circular_convolution_singular_values`, and several times faster:
    power iteration finds the frequency of the largest norm, and a Cholesky
    factorization at every other one proves that its norm is not larger.

    Args:
        kernel: Float array (*spatial, inputs, filters).
        input_size: Tuple of integers, pixels on each spatial axis.
        strides: Integer, or one a spatial axis; they must divide `input_size`.

    Returns:
        Float, to a relative 1e-9. NaN for a kernel that is not finite.

    Raises:
        ValueError: On sizes that do not fit.

    Example:
    >>> kernel = np.ones((3, 3, 1, 1))
    >>> round(circular_convolution_norm(kernel, (8, 8)), 6)
    9.0
    """
    blocks, _ = _transforms(kernel, input_size, strides)
    scale = np.abs(blocks).max()
    if not np.isfinite(scale):
        return math.nan
    if scale == 0:
        return 0.0
    blocks = blocks / scale
    if blocks.shape[1] < blocks.shape[2]:
        blocks = blocks.transpose(0, 2, 1)

    if blocks.shape[2] <= _FEW_CHANNELS:
        # So small that one batch is faster than many factorizations.
        grams = blocks.conj().transpose(0, 2, 1) @ blocks
        return float(scale * math.sqrt(np.linalg.eigvalsh(grams)[:, -1].max()))

    def squared_norm(index):
        gram = blocks[index].conj().T @ blocks[index]
        return np.linalg.eigvalsh(gram)[-1]

    # Single precision is enough to find the frequency and to rule others out.
    rough = blocks.astype("complex64")
    grams = rough.conj().transpose(0, 2, 1) @ rough
    vectors = np.random.default_rng(0).standard_normal(grams.shape[:2])
    vectors = vectors[..., None].astype("complex64")
    for _ in range(8):
        vectors = grams @ vectors
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(norms > 0, norms, 1)
    order = np.argsort(-norms[:, 0, 0])
    best = max(squared_norm(index) for index in order[:4])
    identity = np.eye(grams.shape[-1], dtype="complex64")
    # Well above the rounding of these matrices, well below the gaps that matter.
    margin = 1e-4 + 1e-7 * len(identity)
    for index in order[4:]:
        # t I - G is positive definite only if the norm of G is below t.
        try:
            np.linalg.cholesky(best * (1 - margin) * identity - grams[index])
        except np.linalg.LinAlgError:
            best = max(best, squared_norm(index))
    return float(scale * math.sqrt(best))
