"""Keras constraints: projections applied to a kernel after each update.

A constraint sees the kernel alone and keeps no state, as Keras wants it. So
nothing is iterated from a stored start: the projections are computed anew by SVD
(`LipschitzClip` by a certified bound of the norm), in at least float32, and those by
SVD are within rounding of those of float64 (1e-5 of the kernel's norm), for norms
from 1e-30 to 3e38. Below, digits are lost to TensorFlow and
JAX, which take numbers under 1.2e-38 for zero. A kernel that holds NaN or infinity
stays non-finite.
"""

import math

import keras
from keras import ops

from keras_spectral.linalg import (
    clip_singular_values,
    induced_norm,
    nearest_orthonormal,
    project_stable_rank,
    rank_at_ratio,
    truncate_rank,
)
from keras_spectral.linalg.certificates import KernelKind, spectral_bound
from keras_spectral.linalg.norms import magnitude, wide
from keras_spectral.models.slots import InViews
from keras_spectral.validation import (
    check_choice,
    check_integer,
    check_positive,
    check_ratio,
)

__all__ = ["LipschitzClip", "MaxRank", "Orthonormal", "SpectralClip", "StableRank"]


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class LipschitzClip(keras.constraints.Constraint):
    """Clips a layer's Lipschitz constant: W / max(1, ||W||_p / bound).

    A constraint sees the kernel alone, not the image size, stride or padding.
    Of a convolution it therefore clips a certified bound of the norm that
    holds for all of them (see `linalg.induced_norm`), so the layer's Lipschitz
    constant is at most `bound`. The bias does not matter. For
    `BatchNormalization` see `layers.LipschitzBatchNormalization`.

    The bound holds after each update, up to the rounding of the kernel's dtype (1e-6
    in float32, 0.4 % in bfloat16). For p = 2 the kernel may become smaller than it had
    to, by the share `tolerance`: in place of an SVD a few matrix products bound the
    norm. They must be products in float32: see `linalg.convolution_norm_bound`.

    The cost is one norm a layer and update: for p = 2 and the default tolerance about
    m n^2 + 3 n^3 multiply-adds of a dense kernel (m, n), m >= n, and 30 m n^2 + 300 n^3
    for most 3x3 convolutions with n = min(inputs, filters). That is a small part of a
    step of most convolutional networks, and more than one of wide dense layers on small
    batches: for those `layers.SpectralNormalization(norm="operator", clip=True)` is
    cheaper.

    Args:
        bound: Float > 0, the Lipschitz constant that is allowed.
        p: 1, 2 or `math.inf` (or `"inf"`): the norm on inputs and outputs.
        kind: `"dense"`, `"convolution"`, `"depthwise"` or `"transposed"`, or
            `None` for a dense kernel (two axes) or a convolution (three to
            five). Depthwise and transposed kernels must be named: their axes
            look like a convolution's. Those of `EinsumDense` and attention are
            none of these.
        tolerance: Float > 0, without effect unless p = 2 (see `linalg.induced_norm`).
            It is for the worst kernels (the grid's part by proof, the rest by
            search). At the default of 0.08 Gaussian kernels end 5 to 7 % below the
            bound in convolutions and 4 % in dense layers; 0.01 brings convolutions
            within 1 %, at two to four times the multiply-adds.

    Raises:
        ValueError: On another `bound`, `p`, `kind` or `tolerance`, or a kernel of
            another rank.

    Example:
    >>> import keras, numpy as np
    >>> constraint = LipschitzClip(bound=2.0, p=2)
    >>> layer = keras.layers.Dense(3, kernel_constraint=constraint)
    >>> clipped = constraint(np.diag([6.0, 3.0]).astype("float32"))
    >>> keras.ops.convert_to_numpy(clipped).diagonal().round(4).tolist()
    [2.0, 1.0]

    Source: [zhang2020], eq. 16 ([gouk2018], Algorithm 1).
    """

    def __init__(self, bound=1.0, p=2, kind=None, tolerance=0.08):
        check_positive("bound", bound)
        check_choice("p", p, (1, 2, math.inf, "inf"))
        if kind is not None:
            check_choice("kind", kind, KernelKind)
        check_positive("tolerance", tolerance)
        self.bound = float(bound)
        self.p = math.inf if p == "inf" else p
        self.kind = kind
        self.tolerance = float(tolerance)

    def __call__(self, w):
        kind = self.kind or ("dense" if len(w.shape) == 2 else "convolution")
        w = ops.convert_to_tensor(w)
        scale = magnitude(wide(w))
        # Norms of what was divided by the largest entry stay inside float32.
        scaled = wide(w) / scale
        if self.p == 2:
            norm = spectral_bound(scaled, kind, self.tolerance, differentiable=False)
        else:
            norm = induced_norm(scaled, self.p, kind)
        clipped = ops.cast(scaled * (self.bound / norm), w.dtype)
        return ops.where(norm <= self.bound / scale, w, clipped)

    def get_config(self):
        """Return the arguments; infinity is written as a string for JSON."""
        p = "inf" if self.p == math.inf else self.p
        return {
            "bound": self.bound,
            "p": p,
            "kind": self.kind,
            "tolerance": self.tolerance,
        }


class _SpectrumConstraint(keras.constraints.Constraint):
    """Projects the kernel flattened to a matrix (the rest, outputs), by SVD.

    The cost is about 20 m n min(m, n) multiply-adds an update for a matrix (m, n):
    some tens of milliseconds on a CPU for 1152 x 128, a 3x3 convolution of 128
    channels.

    Args:
        output_axis: Integer, the kernel's axis of outputs: -1, or -2 for
            transposed convolutions. A depthwise kernel has no such axis.
    """

    def __init__(self, output_axis=-1):
        check_choice("output_axis", output_axis, (-1, -2))
        self.output_axis = output_axis

    def project(self, matrix):
        """Return the projection of a matrix (inputs, outputs)."""
        raise NotImplementedError

    def __call__(self, w):
        if len(w.shape) < 2:
            raise ValueError(
                f"The constraint {type(self).__name__} takes a kernel of at least two "
                f"axes. Received: a variable of shape {tuple(w.shape)}."
            )
        w = ops.convert_to_tensor(w)
        moved = ops.moveaxis(w, self.output_axis, -1) if self.output_axis != -1 else w
        matrix = self.project(ops.reshape(moved, (-1, moved.shape[-1])))
        projected = ops.reshape(matrix, moved.shape)
        if self.output_axis != -1:
            projected = ops.moveaxis(projected, -1, self.output_axis)
        return projected

    def get_config(self):
        return {"output_axis": self.output_axis}


def _check_one(**arguments):
    """Raise a ValueError unless one of two arguments is given, and only one."""
    if sum(value is not None for value in arguments.values()) != 1:
        names = " or ".join(f"`{name}`" for name in arguments)
        received = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise ValueError(f"Pass either {names}. Received: {received}")


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class SpectralClip(_SpectrumConstraint):
    """Clips every singular value of the flattened kernel at `bound`.

    The nearest kernel whose norm is at most the bound, where dividing by the norm
    would shrink the singular values below it too. An SVD an update.

    Args:
        bound: Float > 0.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: On a bound that is not positive, or a kernel of one axis.

    Example:
    >>> import keras, numpy as np
    >>> clipped = SpectralClip(2.0)(np.diag([6.0, 1.0]).astype("float32"))
    >>> keras.ops.convert_to_numpy(clipped).diagonal().round(4).tolist()
    [2.0, 1.0]

    Source: [sanyal2020], Algorithm 3 and eq. 18.
    """

    def __init__(self, bound=1.0, output_axis=-1):
        super().__init__(output_axis)
        check_positive("bound", bound)
        self.bound = float(bound)

    def project(self, matrix):
        return clip_singular_values(matrix, self.bound)

    def get_config(self):
        return {**super().get_config(), "bound": self.bound}


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class StableRank(_SpectrumConstraint):
    """Caps the stable rank of the flattened kernel, keeping its norm.

    The nearest kernel with the same `preserved` leading singular values and a
    stable rank of at most `stable_rank`, or max(1, stable_rank_ratio *
    min(inputs, outputs)). An SVD an update.

    Args:
        stable_rank_ratio: Float in (0, 1], the paper's c. Either this or
            `stable_rank`.
        preserved: Integer k >= 0, how many of the largest singular values stay;
            for 0 the norm may grow and the kernel moves least.
        output_axis: Integer, -1, or -2 for transposed convolutions.
        stable_rank: Float >= 1, the paper's r.

    Raises:
        ValueError: On arguments out of range, or a kernel of one axis.

    Example:
    >>> import keras, numpy as np
    >>> capped = StableRank(0.5)(np.eye(4, dtype="float32"))
    >>> round(float(keras.ops.sum(capped**2)), 4)
    2.0

    Source: [sanyal2020], Theorem 1, Algorithm 1.
    """

    def __init__(
        self, stable_rank_ratio=None, preserved=1, output_axis=-1, stable_rank=None
    ):
        super().__init__(output_axis)
        _check_one(stable_rank_ratio=stable_rank_ratio, stable_rank=stable_rank)
        if stable_rank is None:
            check_ratio("stable_rank_ratio", stable_rank_ratio)
        else:
            check_positive("stable_rank", stable_rank)
            if stable_rank < 1:
                raise ValueError(
                    "`stable_rank` must be at least 1: no kernel has a smaller one. "
                    f"Received: stable_rank={stable_rank}"
                )
        check_integer("preserved", preserved, least=0)
        self.stable_rank_ratio = stable_rank_ratio
        self.stable_rank = stable_rank
        self.preserved = preserved

    def project(self, matrix):
        target = self.stable_rank
        if target is None:
            target = max(1.0, self.stable_rank_ratio * min(matrix.shape))
        return project_stable_rank(matrix, target, self.preserved)[0]

    def get_config(self):
        return {
            **super().get_config(),
            "stable_rank_ratio": self.stable_rank_ratio,
            "stable_rank": self.stable_rank,
            "preserved": self.preserved,
        }


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class MaxRank(_SpectrumConstraint):
    """Cuts the flattened kernel to its leading singular triplets.

    The nearest kernel of rank k, which is `rank` or max(1, floor(rank_ratio *
    min(inputs, outputs))). An SVD an update; `layers.SVDDense` has such kernels by
    its form, with fewer weights.

    Args:
        rank_ratio: Float in (0, 1], the low-rank paper's S. Either this or `rank`.
        output_axis: Integer, -1, or -2 for transposed convolutions.
        rank: Integer >= 1.

    Raises:
        ValueError: On a ratio out of range, or a kernel of one axis.

    Example:
    >>> import keras, numpy as np
    >>> cut = MaxRank(0.5)(np.diag([4.0, 3.0, 2.0, 1.0]).astype("float32"))
    >>> keras.ops.convert_to_numpy(cut).diagonal().round(4).tolist()
    [4.0, 3.0, 0.0, 0.0]

    Source: [garg2019], section 3.1 and eq. 4.
    """

    def __init__(self, rank_ratio=None, output_axis=-1, rank=None):
        super().__init__(output_axis)
        _check_one(rank_ratio=rank_ratio, rank=rank)
        if rank is None:
            check_ratio("rank_ratio", rank_ratio)
        else:
            check_integer("rank", rank, least=1)
        self.rank_ratio = rank_ratio
        self.rank = rank

    def project(self, matrix):
        rank = self.rank or rank_at_ratio(self.rank_ratio, min(matrix.shape))
        return truncate_rank(matrix, rank)

    def get_config(self):
        return {
            **super().get_config(),
            "rank_ratio": self.rank_ratio,
            "rank": self.rank,
        }


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class Orthonormal(_SpectrumConstraint):
    """Moves the flattened kernel to the nearest one with all singular values `gain`.

    Its shorter side becomes orthonormal times the gain. An SVD an update.

    Args:
        gain: Float > 0.
        output_axis: Integer, -1, or -2 for transposed convolutions.

    Raises:
        ValueError: On a gain that is not positive, or a kernel of one axis.

    Example:
    >>> import keras, numpy as np
    >>> nearest = Orthonormal()(np.diag([6.0, 0.5]).astype("float32"))
    >>> keras.ops.convert_to_numpy(nearest).diagonal().round(4).tolist()
    [1.0, 1.0]

    Source: [fan1955], Theorem 1 (the polar factor).
    """

    def __init__(self, gain=1.0, output_axis=-1):
        super().__init__(output_axis)
        check_positive("gain", gain)
        self.gain = float(gain)

    def project(self, matrix):
        return self.gain * nearest_orthonormal(matrix)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


@keras.saving.register_keras_serializable(package="keras_spectral.constraints")
class InView(InViews, keras.constraints.Constraint):
    """Applies a constraint to a kernel as the matrix that its layer computes with.

    `keras_spectral.constrain` makes them: the axes of outputs are not the last ones in
    `EinsumDense`, attention, depthwise and transposed convolutions.

    Args:
        inner: A `keras.constraints.Constraint` that takes a matrix (inputs,
            outputs).
        views: List of pairs (shape, output axes), one for each shape of kernel that
            the layer hands to its constraint.

    Raises:
        ValueError: When called on a kernel of another shape.

    Example:
    >>> import numpy as np
    >>> constraint = InView(SpectralClip(1.0), [((2, 2, 1), (1, 2))])
    >>> kernel = np.diag([3.0, 0.5]).reshape(2, 2, 1).astype("float32")
    >>> keras.ops.convert_to_numpy(constraint(kernel))[..., 0].diagonal().tolist()
    [1.0, 0.5]
    """

    def __call__(self, w):
        view = self.view_of(w)
        return view.unflatten(self.inner(view.flatten(ops.convert_to_tensor(w))))
