"""Keras constraints: projections applied to a kernel after each update."""

import math

import keras

from keras_spectral.linalg import clip_norm, induced_norm
from keras_spectral.validation import check_choice, check_positive

_KIND_OF_RANK = {2: "dense", 4: "convolution"}


@keras.saving.register_keras_serializable(package="keras_spectral")
class LipschitzClip(keras.constraints.Constraint):
    """Clips a layer's Lipschitz constant: W / max(1, ||W||_p / bound).

    A constraint sees the kernel alone, not the image size, stride or padding.
    Of a convolution it therefore clips a certified bound of the norm that
    holds for all of them (see `linalg.induced_norm`), so the layer's Lipschitz
    constant is at most `bound`. The bias does not matter.

    The cost is one norm a layer and update: for p = 2 an SVD of a dense kernel,
    and for a 3x3 convolution about 42,000 min(inputs, filters)^3 multiply-adds.
    On wide convolutions `layers.SpectralNormalization(norm="operator",
    clip=True)` is cheaper.

    Args:
        bound: Float > 0, the Lipschitz constant that is allowed.
        p: 1, 2 or `math.inf` (or `"inf"`): the norm on inputs and outputs.
        kind: `"dense"`, `"convolution"`, or `None` to tell from the kernel's
            rank (2 or 4).

    Raises:
        ValueError: On another `bound`, `p` or `kind`, or a kernel of another rank.

    Example:
    >>> import keras, numpy as np
    >>> constraint = LipschitzClip(bound=2.0, p=2)
    >>> layer = keras.layers.Dense(3, kernel_constraint=constraint)
    >>> clipped = constraint(np.diag([6.0, 3.0]).astype("float32"))
    >>> keras.ops.convert_to_numpy(clipped).diagonal().round(4).tolist()
    [2.0, 1.0]

    Source: papers/lipschitz-slides.md, eq. 16 (Gouk et al. 2018, Algorithm 1).
    """

    def __init__(self, bound=1.0, p=2, kind=None):
        check_positive("bound", bound)
        check_choice("p", p, (1, 2, math.inf, "inf"))
        check_choice("kind", kind, (None, "dense", "convolution"))
        self.bound = float(bound)
        self.p = math.inf if p == "inf" else p
        self.kind = kind

    def __call__(self, w):
        rank = len(w.shape)
        kind = self.kind or _KIND_OF_RANK.get(rank)
        if kind is None or rank != {"dense": 2, "convolution": 4}[kind]:
            raise ValueError(
                "The constraint takes a dense kernel (inputs, units) or a "
                "convolution kernel (height, width, inputs, filters). Received: "
                f"a kernel of shape {tuple(w.shape)} with kind={self.kind}"
            )
        w = keras.ops.convert_to_tensor(w)
        norm = induced_norm(w, self.p, kind)
        return keras.ops.cast(
            clip_norm(keras.ops.cast(w, norm.dtype), norm, self.bound), w.dtype
        )

    def get_config(self):
        """Return the arguments; infinity is written as a string for JSON."""
        p = "inf" if self.p == math.inf else self.p
        return {"bound": self.bound, "p": p, "kind": self.kind}
