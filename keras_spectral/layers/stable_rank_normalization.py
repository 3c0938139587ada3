"""Stable rank normalization: the norm fixed and the stable rank capped."""

import warnings

import keras
from keras import ops

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg import (
    clip_norm,
    dense_operator,
    divide_by_norm,
    rescale_remainder,
)


@keras.saving.register_keras_serializable(package="keras_spectral")
class StableRankNormalization(Reparametrization):
    """Stable rank normalization (SRN): norm `bound` and a capped stable rank.

    The stable rank of the flattened kernel, ||W||_F^2 / ||W||_2^2, is brought
    down to r = max(1, stable_rank_ratio * min(outputs, inputs)) where it is
    above, by shrinking every singular value but the first; then the kernel is
    scaled to the bound. It costs one norm more than spectral normalization.

    Gradients take the singular vectors as constants (the paper's estimator).
    For the scale that is exact; for the cap it leaves out how u and v turn
    with W. On Gaussian kernels of 64 x 32 and 576 x 64 its relative distance to
    the gradient of the exact projection is 0.12 and 0.18 at a ratio of 0.3, and
    0.5 at a ratio of 0.1 (`benchmarks/gradient_distance.py`).

    With `norm="operator"` the bound is on the convolution's own norm; the
    stable rank is always that of the flattened kernel. Capping it does not
    raise the operator norm once the singular vectors have converged.

    Args:
        layer: A `keras.layers.Dense` or `keras.layers.Conv2D` instance.
        stable_rank_ratio: Float in (0, 1], the paper's c: the target stable
            rank as a fraction of the largest possible. 1 is spectral
            normalization.
        bound: Float > 0, the norm of the effective kernel.
        power_iterations: Integer >= 1, power iterations a training step.
        epsilon: Float > 0; a kernel with a norm not above it is used as it is.
        norm: `"reshaped"` or `"operator"`: which norm gets the bound.
        input_size: Pair (height, width) in pixels, for `norm="operator"` where
            the input size is not known when the layer is built.
        clip: Boolean; if `True` a kernel whose norm is within the bound keeps
            its norm. Its stable rank is capped all the same.
        update_order: `"v_first"` or `"u_first"`.
        **kwargs: `name` (default: the wrapped layer's) and `trainable`.

    Call arguments:
        inputs: Tensor, what the wrapped layer takes.
        training: Boolean; `True` moves the estimates of a trainable layer.

    Raises:
        ValueError: For another kind of layer, a layer with LoRA or quantized
            weights, and arguments out of range.

    Example:
    >>> import keras, numpy as np
    >>> layer = StableRankNormalization(keras.layers.Dense(16), stable_rank_ratio=0.25)
    >>> outputs = layer(np.ones((2, 16), "float32"))
    >>> effective = keras.ops.convert_to_numpy(layer.effective_kernel())
    >>> singular = np.linalg.svd(effective, compute_uv=False)
    >>> bool((singular**2).sum() / singular[0] ** 2 < 1.1 * 4)
    True

    Source: papers/stable-rank-normalization.md, Algorithm 2.
    """

    def __init__(self, layer, stable_rank_ratio, bound=1.0, **kwargs):
        if (
            isinstance(stable_rank_ratio, bool)
            or not isinstance(stable_rank_ratio, (int, float))
            or not 0 < stable_rank_ratio <= 1
        ):
            raise ValueError(
                "`stable_rank_ratio` must be a number in (0, 1]. "
                f"Received: stable_rank_ratio={stable_rank_ratio}"
            )
        super().__init__(layer, bound=bound, **kwargs)
        self.stable_rank_ratio = float(stable_rank_ratio)

    @property
    def stable_rank(self):
        """The target r, or `None` where it caps nothing (one row or column)."""
        smaller = min(self.matrix_shape)
        if smaller == 1:
            return None
        return max(1.0, self.stable_rank_ratio * smaller)

    def build(self, input_shape):
        super().build(input_shape)
        if self.norm == "operator" and isinstance(self.layer, keras.layers.Conv2D):
            self.rank_state = self.singular_vectors(dense_operator, "rank")
        else:
            self.rank_state = self.norm_state
        if self.stable_rank == 1.0:
            warnings.warn(
                f"The target stable rank of layer '{self.name}' is 1 "
                f"(stable_rank_ratio={self.stable_rank_ratio} of a "
                f"{self.matrix_shape} matrix): its kernel becomes u v', which has "
                "no gradient, so the layer will not train. Raise "
                "`stable_rank_ratio`.",
                stacklevel=2,
            )

    def transform(self, kernel, training):
        """Return the kernel with its stable rank capped and its norm bounded."""
        leading = self.rank_state.triplet(kernel, advance=training)
        sigma = leading.sigma
        if self.norm_state is not self.rank_state:
            sigma = self.norm_state.triplet(kernel, advance=training).sigma
        capped = kernel
        if self.stable_rank is not None:
            # The cap does not depend on the scale, so it comes first, and the
            # raw kernel's norm, which it keeps, then gives the scale.
            component = leading.sigma * ops.reshape(
                ops.outer(leading.v, leading.u), kernel.shape
            )
            capped = rescale_remainder(
                kernel, component, leading.sigma, self.stable_rank
            )
        if self.clip:
            return clip_norm(capped, sigma, self.bound)
        return divide_by_norm(capped, sigma, self.bound, self.epsilon)

    def get_config(self):
        return {**super().get_config(), "stable_rank_ratio": self.stable_rank_ratio}
