"""Stable rank normalization: the norm fixed and the stable rank capped."""

import warnings

import keras
from keras import ops

from keras_spectral.layers.compilation import warn_of_factorization
from keras_spectral.layers.rank_one import OR_NOT_TWICE, RankOneReparametrization
from keras_spectral.layers.rank_one_forms import StableRankScaling
from keras_spectral.layers.singular_vectors import ExactSingularVectors
from keras_spectral.linalg import (
    capped_matrix,
    normalize_stable_rank,
    project_stable_rank,
)
from keras_spectral.linalg.arrays import largest_entry
from keras_spectral.validation import check_choice, check_integer, check_ratio


@keras.saving.register_keras_serializable(package="keras_spectral")
class StableRankNormalization(RankOneReparametrization):
    """Stable rank normalization (SRN): norm `bound` and a capped stable rank.

    The stable rank of the flattened kernel, ||W||_F^2 / ||W||_2^2, is brought
    down to r = max(1, stable_rank_ratio * min(outputs, inputs)) where it is
    above, by shrinking every singular value but the first; then the kernel is
    scaled to the bound. It costs one norm more than spectral normalization.

    That is Algorithm 2, which keeps the largest singular value. With
    `preserved` k > 1, Algorithm 1, the k largest are kept as far as the target
    allows and only the others shrink; with k = 0, Theorem 1, the largest may
    grow, which moves the kernel least of all. Both take an SVD of the flattened
    kernel in each call; the result is scaled to the bound all the same.

    `gradient="estimator"`, the paper's, takes u and v as constants. For the scale
    that is exact; for the cap it leaves out how u and v turn with W. On Gaussian
    kernels of 64 x 32 and 576 x 64 its relative distance to the exact gradient is
    0.12 and 0.18 at a ratio of 0.3, and 0.5 at a ratio of 0.1
    (`benchmarks/gradient_distance.py`). With a target of 1 it is zero.
    It is not differentiated by the kernel again: that raises `NotImplementedError`.
    `gradient="exact"` is the gradient of the projection itself, as it always is for
    `preserved` other than 1: where the kept and the shrunk singular values are
    more than 1e-3 of the norm apart. Closer, the true gradient grows without bound,
    and this stays finite. It takes an SVD in each call, which XLA makes 25 to 1,000
    times slower for 256 rows: a warning says so on TensorFlow with `jit_compile`.

    With `norm="operator"` the bound is on the convolution's own norm, that of the
    capped kernel; the stable rank is always that of the flattened kernel. `epsilon` and
    `clip` compare the norm of the capped kernel, too.

    Args:
        layer: A layer, see `Reparametrization`.
        stable_rank_ratio: Float in (0, 1], the paper's c: the target stable
            rank as a fraction of the largest possible. 1 is spectral
            normalization.
        bound: Float > 0, the norm of the effective kernel.
        preserved: Integer k >= 0, how many of the largest singular values the
            cap leaves in proportion to each other.
        gradient: `"estimator"` or `"exact"`.
        power_iterations: Integer >= 1, iterations a training step.
        epsilon: Float > 0; a kernel with a norm not above it is used as it is.
        norm: `"reshaped"` or `"operator"`: which norm gets the bound.
        input_size: Pair (height, width) in pixels, for `norm="operator"` where
            the input size is not known when the layer is built.
        clip: Boolean; if `True` a kernel whose norm is within the bound keeps
            its norm. Its stable rank is capped all the same.
        update_order: `"v_first"` or `"u_first"`, for `method="power_iteration"`.
        method: `"block"`, `"power_iteration"` or `"exact"`, see
            `SpectralNormalization`.
        block_size: Integer >= 1, for `method="block"`.
        **kwargs: `name` (default: the wrapped layer's), `trainable` and `dtype`.

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

    Source: [sanyal2020], Algorithm 2.
    """

    def __init__(
        self,
        layer,
        stable_rank_ratio,
        bound=1.0,
        preserved=1,
        gradient="estimator",
        **kwargs,
    ):
        check_ratio("stable_rank_ratio", stable_rank_ratio)
        check_integer("preserved", preserved, least=0)
        check_choice("gradient", gradient, ("estimator", "exact"))
        super().__init__(layer, bound=bound, **kwargs)
        self.gradient = gradient
        self.stable_rank_ratio = float(stable_rank_ratio)
        self.preserved = preserved

    def stable_rank(self, name=None):
        """Return the target r of a kernel.

        Args:
            name: String, one of `kernel_names`; needed where there are several.

        Returns:
            Float, or `None` where it caps nothing (one row or column).
        """
        return self._target(self._index(name))

    def _target(self, index):
        smaller = min(self.slots[index].view.shape)
        if smaller == 1:
            return None
        return max(1.0, self.stable_rank_ratio * smaller)

    def build(self, input_shape=None):
        super().build(input_shape)
        # The bounded norm of a convolution is not that of its flattened kernel,
        # whose stable rank is capped.
        self.rank_states = [
            self.singular_vectors(index, "reshaped", "rank")
            for index, slot in enumerate(self.slots)
            if self.bounds_operator(index) and self.is_rank_one
        ]
        for index, slot in enumerate(self.slots):
            if self._target(index) == 1.0 and self.is_rank_one:
                warnings.warn(
                    f"The target stable rank of layer '{self.name}' is 1 "
                    f"(stable_rank_ratio={self.stable_rank_ratio} of a kernel "
                    f"flattened to {slot.view.shape}): its '{slot.name}' becomes "
                    "v u', for which the paper's estimator of the gradient is zero, "
                    "so it will not train. Raise `stable_rank_ratio`, or pass "
                    '`gradient="exact"`.',
                    stacklevel=2,
                )

    def singular_vectors(self, index, norm, name):
        if self.is_rank_one or self.bounds_operator(index):
            return super().singular_vectors(index, norm, name)
        # The SVD of the cap gives the norm as well: no state is needed.
        state = ExactSingularVectors(name=name)
        state.built = True
        return state

    def _refusal(self, slot, norm):
        if not self.is_rank_one:
            return super()._refusal(slot, norm)
        operator = norm == "operator" and slot.operator is not None
        also = ' and `norm="reshaped"`' if operator else ""
        return (
            '`gradient` must be "exact" for a second derivative by the kernel: the '
            "estimator leaves out how the singular vectors turn. Received: "
            f"gradient={self.gradient!r}. Pass "
            f'`gradient="exact"`{also}{OR_NOT_TWICE}'
        )

    def _rank_state(self, index):
        position = sum(map(self.bounds_operator, range(index)))
        return self.rank_states[position]

    def form(self, index):
        target = self._target(index)
        if target is None:
            return super().form(index)
        return StableRankScaling(self.bound, self.epsilon, self.clip, target)

    def transform(self, matrix, index, advance):
        target = self._target(index)
        bounds_operator = self.bounds_operator(index)
        if target is None or (self.is_rank_one and not bounds_operator):
            return super().transform(matrix, index, advance)
        if not self.is_rank_one:
            # The exact gradient, Algorithm 1 for k > 1 and Theorem 1 for k = 0 need
            # more of the spectrum.
            warn_of_factorization(self, matrix)
        if bounds_operator:
            form = self.form(index)
            # The cap keeps the norm of the flattened kernel, but lowers that of the
            # operator: 2 to 8 % on small convolutions. So that is the capped kernel's.
            if self.is_rank_one:
                leading = self._rank_state(index).triplet(matrix, advance)
                factor, rank_one = form.shrinkage(matrix, leading.sigma)
                capped = factor * matrix + ops.outer(rank_one * leading.v, leading.u)
            else:
                capped, _ = project_stable_rank(matrix, target, self.preserved)
            norm = self.norm_states[index].triplet(capped, advance).sigma
            return form.scale(norm) * capped
        least = self.bound if self.clip else self.epsilon
        return normalize_stable_rank(
            matrix,
            target,
            self.preserved,
            lambda norm: ops.where(norm > least, self.bound, norm),
        )

    @property
    def is_rank_one(self):
        return self.preserved == 1 and self.gradient == "estimator"

    def capped(self, matrix, index):
        target = self._target(index)
        if target is None or largest_entry(matrix) is None:
            return matrix
        if self.preserved != 1:
            capped, _ = project_stable_rank(matrix, target, self.preserved)
            return ops.convert_to_numpy(capped)
        return capped_matrix(matrix, target)

    def _bounded_matrix(self, index, norm):
        matrix = self.matrix(index)
        if norm != "operator" or not self.bounds_operator(index):
            return matrix
        matrix = ops.convert_to_numpy(matrix)
        return self.capped(matrix, index).astype(matrix.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "stable_rank_ratio": self.stable_rank_ratio,
            "preserved": self.preserved,
            "gradient": self.gradient,
        }
