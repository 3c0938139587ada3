"""Independent NumPy formulas that the layers are compared with."""

import numpy as np


def sn_gradient(kernel, cotangent):
    """Gradient of <cotangent, W / sigma(W)> by the SVD formula, W = kernel'."""
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    c = cotangent.reshape(-1, kernel.shape[-1]).T
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    gradient = c / s[0] - (c * matrix).sum() / s[0] ** 2 * np.outer(u[:, 0], vt[0])
    return gradient.T.reshape(kernel.shape)


def algorithm_2(kernel, u, v, r):
    """Lines 4 to 10 of Algorithm 2 for the flattened kernel, given u and v."""
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    normalized = matrix / (u @ matrix @ v)
    remainder = normalized - np.outer(u, v)
    norm = np.linalg.norm(remainder)
    if norm > np.sqrt(r - 1):
        normalized = np.outer(u, v) + remainder * np.sqrt(r - 1) / norm
    return normalized.T.reshape(kernel.shape)


def finite_differences(function, kernel, step=1e-6):
    gradient = np.zeros_like(kernel)
    for index in np.ndindex(kernel.shape):
        shift = np.zeros_like(kernel)
        shift[index] = step
        gradient[index] = (function(kernel + shift) - function(kernel - shift)) / (
            2 * step
        )
    return gradient


def stable_rank(kernel):
    matrix = np.asarray(kernel, "float64").reshape(-1, kernel.shape[-1])
    return (matrix**2).sum() / np.linalg.norm(matrix, 2) ** 2


def convolution_matrix(kernel, size, padding="valid", stride=1):
    """The matrix of a 2-D convolution, (outputs, inputs), from its definition.

    Args:
        kernel: Array (height, width, inputs, filters).
        size: Pair, pixels of the image.
        padding: "valid" or "same", where the odd pixel goes to the end.
        stride: Integer.
    """
    kernel = np.asarray(kernel, "float64")
    taps, channels, filters = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    if padding == "same":
        out = [-(-n // stride) for n in size]
        total = zip(out, taps, size, strict=True)
        before = [max((o - 1) * stride + k - n, 0) // 2 for o, k, n in total]
    else:
        out = [(n - k) // stride + 1 for n, k in zip(size, taps, strict=True)]
        before = [0, 0]
    matrix = np.zeros((*out, filters, *size, channels))
    for y, x, i, j in np.ndindex(*out, *taps):
        row, column = y * stride + i - before[0], x * stride + j - before[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            matrix[y, x, :, row, column, :] = kernel[i, j].T
    return matrix.reshape(out[0] * out[1] * filters, -1)
