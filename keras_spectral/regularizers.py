"""Keras regularizers: penalties on the spectrum of a kernel.

Each flattens a kernel to a matrix with the outputs on `output_axis`, computes in
at least float32, and is added to the loss by `kernel_regularizer=`. A zero kernel
has a finite penalty and gradient; NaN and infinity in a kernel are not hidden.
`StableRank`, `DOptimal` and `Divergence` do not depend on a kernel's scale, also
where its squares leave the range of float32; the others, which are squares and fourth
powers, are infinite there, and never NaN.
"""

import keras
from keras import ops

from keras_spectral.linalg import fixed_svd, leading_triplet, turning_singular_value
from keras_spectral.linalg.norms import magnitude, wide
from keras_spectral.models.slots import InViews
from keras_spectral.validation import check_choice, check_positive

__all__ = [
    "DOptimal",
    "Divergence",
    "Frobenius",
    "Orthonormal",
    "SpectralNorm",
    "StableRank",
]


class _SpectralRegularizer(keras.regularizers.Regularizer):
    """Flattens the kernel and multiplies by the factor.

    Args:
        factor: Float > 0, the weight of the penalty in the loss.
        output_axis: Integer, the kernel's axis of outputs: -1 for `Dense` and
            convolutions, -2 for transposed convolutions.
    """

    def __init__(self, factor, output_axis=-1):
        check_positive("factor", factor)
        check_choice("output_axis", output_axis, (-1, -2))
        self.factor = float(factor)
        self.output_axis = output_axis

    def penalty(self, matrix):
        """Return the penalty of a matrix (inputs, outputs), a scalar tensor."""
        raise NotImplementedError

    def __call__(self, x):
        x = wide(x)
        if len(x.shape) < 2:
            raise ValueError(
                f"The regularizer {type(self).__name__} takes a kernel of at least "
                f"two axes. Received: a variable of shape {tuple(x.shape)}."
            )
        x = ops.moveaxis(x, self.output_axis, -1) if self.output_axis != -1 else x
        return self.factor * self.penalty(ops.reshape(x, (-1, x.shape[-1])))

    def get_config(self):
        return {"factor": self.factor, "output_axis": self.output_axis}


def _squared_norm(matrix):
    """Return ||W||_2^2 with its exact gradient 2 sigma u v'."""
    u, sigma, v = leading_triplet(ops.stop_gradient(matrix))
    return ops.square(turning_singular_value(sigma, u, v, matrix))


def _scale_free(tensor, scale):
    """Return `tensor / scale`, or zeros where the scale is zero."""
    return tensor / ops.where(ops.equal(scale, 0), ops.ones_like(scale), scale)


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class SpectralNorm(_SpectralRegularizer):
    """Penalizes the largest singular value: factor / 2 * ||W||_2^2.

    The norm is exact, by an eigendecomposition of the smaller Gram matrix in
    each step: m n min(m, n) multiply-adds and min(m, n)^3 more. Its gradient is
    factor * sigma u v'.

    Args:
        factor: Float > 0, the paper's lambda.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: If `factor` is not above 0, or `output_axis` is neither -1 nor -2.

    Example:
    >>> import numpy as np
    >>> float(SpectralNorm(0.5)(np.diag([2.0, 1.0])))
    1.0

    Source: [yoshida2017], which [zhang2020] cites after eq. 15. They estimate the norm
    by power iteration.
    """

    def penalty(self, matrix):
        return _squared_norm(matrix) / 2.0


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class Frobenius(_SpectralRegularizer):
    """Penalizes all singular values: factor * ||W||_F^2, which is L2.

    Args:
        factor: Float > 0, the slides' lambda.
        output_axis: Integer, without effect here.

    Raises:
        ValueError: If `factor` is not above 0, or `output_axis` is neither -1 nor -2.

    Example:
    >>> import numpy as np
    >>> float(Frobenius(0.5)(np.diag([2.0, 1.0])))
    2.5

    Source: [zhang2020], eq. 15.
    """

    def penalty(self, matrix):
        return ops.sum(ops.square(matrix))


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class Orthonormal(_SpectralRegularizer):
    """Penalizes the distance of W to orthonormal rows or columns.

    With G the Gram matrix of the smaller side, the one that can be orthonormal,
    it is factor * ||G - I||_F^2; with `diagonal=False` only the entries off the
    diagonal count ([brock2019]), which leaves the norms free.

    Args:
        factor: Float > 0.
        diagonal: Boolean, whether the norms of the rows or columns count.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: If `factor` is not above 0, `diagonal` no boolean, or `output_axis`
            neither -1 nor -2.

    Example:
    >>> import numpy as np
    >>> float(Orthonormal(0.5)(np.diag([2.0, 1.0])))
    4.5

    Source: [garg2019], section 3.2; [brock2019], eqs. 2 and 3.
    """

    def __init__(self, factor, diagonal=True, output_axis=-1):
        super().__init__(factor, output_axis)
        if not isinstance(diagonal, bool):
            raise ValueError(
                f"`diagonal` must be True or False. Received: diagonal={diagonal}"
            )
        self.diagonal = diagonal

    def penalty(self, matrix):
        inputs, outputs = matrix.shape
        transposed = ops.transpose(matrix)
        if inputs <= outputs:
            gram = ops.matmul(matrix, transposed)
        else:
            gram = ops.matmul(transposed, matrix)
        identity = ops.eye(min(inputs, outputs), dtype=gram.dtype)
        # Of infinite products of both signs the sum would be NaN.
        overflow = ops.logical_not(ops.all(ops.isfinite(gram)))
        if self.diagonal:
            penalty = ops.sum(ops.square(gram - identity))
        else:
            penalty = ops.sum(ops.square(gram * (1.0 - identity)))
        broken = ops.any(ops.isnan(matrix))
        infinite = ops.logical_and(overflow, ops.logical_not(broken))
        return ops.where(infinite, float("inf"), penalty)

    def get_config(self):
        return {**super().get_config(), "diagonal": self.diagonal}


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class StableRank(_SpectralRegularizer):
    """Penalizes the stable rank: factor * ||W||_F^2 / ||W||_2^2.

    It does not depend on the scale of W. A zero kernel costs nothing. The norm
    is exact, at the cost that `SpectralNorm` states.

    Args:
        factor: Float > 0.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: If `factor` is not above 0, or `output_axis` is neither -1 nor -2.

    Example:
    >>> import numpy as np
    >>> float(StableRank(0.5)(np.diag([2.0, 2.0])))
    1.0

    Source: [sanyal2020], Definition 2.1.
    """

    def penalty(self, matrix):
        # Squares of these neither overflow nor vanish.
        scaled = matrix / magnitude(matrix)
        return _scale_free(ops.sum(ops.square(scaled)), _squared_norm(scaled))


class _SpectrumRegularizer(_SpectralRegularizer):
    """A penalty of the singular values divided by the largest.

    It takes a kernel, or a vector that is the spectrum itself, of any order and
    sign.

    Args:
        factor: Float > 0, the weight of the penalty in the loss.
        epsilon: Float > 0, below which a logarithm's argument counts as it is.
        output_axis: Integer, -1, or -2 for transposed convolutions.
    """

    def __init__(self, factor, epsilon=1e-7, output_axis=-1):
        super().__init__(factor, output_axis)
        check_positive("epsilon", epsilon)
        self.epsilon = float(epsilon)

    def spectrum_penalty(self, ratios):
        """Return the penalty of a tensor (p,) of numbers from 0 to 1, a scalar."""
        raise NotImplementedError

    def __call__(self, x):
        if len(x.shape) != 1:
            return super().__call__(x)
        return self.factor * self._normalized_penalty(ops.abs(wide(x)))

    def penalty(self, matrix):
        # Of entries near the end of float32 the norm would be beyond it.
        return self._normalized_penalty(fixed_svd(matrix / magnitude(matrix))[1])

    def _normalized_penalty(self, spectrum):
        largest = ops.max(spectrum)
        penalty = self.spectrum_penalty(_scale_free(spectrum, largest))
        return ops.where(ops.equal(largest, 0), ops.zeros_like(penalty), penalty)

    def _log(self, x):
        return ops.log(ops.maximum(x, self.epsilon))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class DOptimal(_SpectrumRegularizer):
    """Penalizes a fast decay of the spectrum: -factor * sum log(s_i / s_1).

    The singular values are divided by the largest, as the reparametrization of
    the paper does before eq. 5, so the penalty does not depend on the scale. It
    also takes a vector, which is then the spectrum itself; that is how
    `layers.SVDDense` uses it. A kernel costs an SVD a step; a zero kernel or
    spectrum costs nothing.

    Args:
        factor: Float > 0, the paper's gamma.
        epsilon: Float > 0; ratios below it count as it is, without gradient.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: If `factor` or `epsilon` is not above 0, or `output_axis` is neither
            -1 nor -2.

    Example:
    >>> import numpy as np
    >>> round(float(DOptimal(1.0)(np.array([2.0, 1.0]))), 4)
    0.6931

    Source: [garg2019], eq. 5 ([jiang2019]).
    """

    def spectrum_penalty(self, ratios):
        return -ops.sum(self._log(ratios))


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class Divergence(_SpectrumRegularizer):
    """Draws the spectrum to a density that falls from the largest value.

    With r_1 = 1 >= r_2 >= ... the singular values divided by the largest, it is
    factor times the mean over k of

        ((1 - r_{k+1}) / width)^2 - log(r_k - r_{k+1}),

    but for a constant the Kullback-Leibler divergence of the spectrum, by its
    spacings, from the density proportional to exp(-((1 - r) / width)^2). Unlike
    `DOptimal` it keeps singular values apart. It also takes a vector, the
    spectrum itself. A kernel costs an SVD a step; a spectrum of zeros, or of one
    number, costs nothing.

    Args:
        factor: Float > 0.
        width: Float > 0, how far below the largest the others spread.
        epsilon: Float > 0; spacings below it count as it is, without gradient.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: If `factor`, `width` or `epsilon` is not above 0, or `output_axis`
            is neither -1 nor -2.

    Example:
    >>> import numpy as np
    >>> round(float(Divergence(1.0, width=0.5)(np.array([2.0, 1.0]))), 4)
    1.6931

    Source: the idea is [jiang2019]'s divergence regularizer; the constants are those of
    the density above and were not compared with that paper.
    """

    def __init__(self, factor, width=0.1, epsilon=1e-7, output_axis=-1):
        super().__init__(factor, epsilon, output_axis)
        check_positive("width", width)
        self.width = float(width)

    def spectrum_penalty(self, ratios):
        if ratios.shape[0] < 2:
            return ops.zeros_like(ops.sum(ratios))
        ordered = ops.sort(ratios)
        distances = ops.square((1.0 - ordered[:-1]) / self.width)
        return ops.mean(distances - self._log(ordered[1:] - ordered[:-1]))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="keras_spectral.regularizers")
class InView(InViews, keras.regularizers.Regularizer):
    """Penalizes a kernel as the matrix that its layer computes with.

    `keras_spectral.regularize` makes them, see `constraints.InView`.

    Args:
        inner: A `keras.regularizers.Regularizer` that takes a matrix (inputs,
            outputs).
        views: List of pairs (shape, output axes), one for each shape of kernel that
            the layer hands to its regularizer.

    Raises:
        ValueError: When called on a kernel of another shape.

    Example:
    >>> import numpy as np
    >>> regularizer = InView(SpectralNorm(1.0), [((2, 2, 1), (1, 2))])
    >>> float(regularizer(np.diag([2.0, 0.5]).reshape(2, 2, 1)))
    2.0
    """

    def __call__(self, x):
        return self.inner(self.view_of(x).flatten(ops.convert_to_tensor(x)))
