"""What becomes of a kernel whose norm is known: a W + b v u', as a function of numbers.

A form is a value, so that layers that do the same share what TensorFlow traces.
"""

from dataclasses import dataclass

from keras import ops

from keras_spectral.linalg import (
    clipping_scale,
    normalizing_scale,
    remainder_factor,
    squared_frobenius_norm,
)


@dataclass(frozen=True)
class Scaling:
    """A scale that brings the norm to a bound.

    Args:
        bound: Float > 0.
        epsilon: Float > 0; a kernel with a norm not above it is used as it is.
        clip: Boolean; whether a kernel within the bound is used as it is.
    """

    bound: float
    epsilon: float
    clip: bool

    def scale(self, norm):
        """Return what brings a kernel of this norm to the bound."""
        if self.clip:
            return clipping_scale(norm, self.bound)
        return normalizing_scale(norm, self.bound, self.epsilon)

    def coefficients(self, matrix, sigma):
        """Return scalars (a, b) of a W + b v u'; b is `None` for no such term.

        Args:
            matrix: Float tensor (inputs, outputs).
            sigma: Scalar tensor v' W u, the norm that is bounded.
        """
        return self.scale(sigma), None

    def transformed(self, matrix, u, sigma, v):
        """Return a W + b v u'.

        Args:
            matrix: Float tensor (inputs, outputs).
            u: Unit tensor (outputs,).
            sigma: Scalar tensor v' W u.
            v: Unit tensor (inputs,).
        """
        scale, rank_one = self.coefficients(matrix, sigma)
        scaled = scale * matrix
        return scaled if rank_one is None else scaled + ops.outer(rank_one * v, u)


@dataclass(frozen=True)
class StableRankScaling(Scaling):
    """A scale to a bound after all but the leading singular value was shrunk.

    Args:
        target: Float >= 1, the stable rank that is not to be exceeded.
    """

    target: float

    def shrinkage(self, matrix, sigma):
        """Return (a, b) before the scale: what caps the stable rank."""
        squares = squared_frobenius_norm(matrix)
        factor = remainder_factor(squares, sigma, self.target, min(matrix.shape))
        return factor, (1.0 - factor) * sigma

    def coefficients(self, matrix, sigma):
        # The cap does not depend on the scale, so it comes first, and the raw
        # kernel's norm, which it keeps, then gives the scale.
        scale = self.scale(sigma)
        factor, rank_one = self.shrinkage(matrix, sigma)
        return scale * factor, scale * rank_one
