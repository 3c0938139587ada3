"""The singular values of a model's kernels, layer by layer."""

import dataclasses
import math

import keras
import numpy as np

from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.models import weights
from keras_spectral.models.reasons import nothing_left
from keras_spectral.results import Rows
from keras_spectral.validation import Norm


@dataclasses.dataclass(frozen=True)
class SpectrumRow:
    """The spectrum of one layer's flattened kernel.

    Args:
        name: String, the layer's, or `layer/kernel` of one with several.
        kind: String, the layer's class.
        shape: Pair of integers, (inputs, outputs) of the flattened kernel.
        norm: `"reshaped"`: the numbers are of the flattened kernel.
        spectral_norm: Float, the largest singular value.
        frobenius_norm: Float.
        stable_rank: Float, the squared quotient of the two; NaN of zeros.
        singular_values: Tuple of floats, the largest first.
    """

    name: str
    kind: str
    shape: tuple
    norm: Norm
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    singular_values: tuple = dataclasses.field(metadata={"spectrum": True}, repr=False)


class Spectrum(Rows):
    """Rows of `SpectrumRow`, with the two sums the papers print.

    Args:
        rows: List of `SpectrumRow`.
        left_out: List of `models.LeftOut`, weighted layers that were left out and why.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> import keras
    >>> dense = keras.layers.Dense(3, kernel_initializer="identity")
    >>> spectrum(keras.Sequential([keras.Input((3,)), dense])).sum_of_stable_ranks
    3.0
    """

    def __init__(self, rows, left_out=(), **kwargs):
        super().__init__(rows, **kwargs)
        self.left_out = list(left_out)

    @property
    def skipped(self):
        """List of strings, the sentences of `left_out`."""
        return [str(layer) for layer in self.left_out]

    @property
    def sum_of_stable_ranks(self) -> float:
        """Sum over layers; a zero kernel, which has no stable rank, makes it NaN."""
        return float(sum(row.stable_rank for row in self.rows))

    @property
    def log_product_of_spectral_norms(self) -> float:
        """Natural logarithm of the product, which itself overflows on deep nets."""
        norms = [row.spectral_norm for row in self.rows]
        return sum(math.log(norm) if norm > 0 else -math.inf for norm in norms)


def spectrum(model: keras.Model, where=None) -> Spectrum:
    """Compute the singular values of every kernel of a model.

    A wrapped layer is measured by its effective kernel. A convolution is
    measured as its flattened kernel (inputs x height x width to filters), which
    is what `norm="reshaped"` in the rows says; that is no bound on the
    convolution. A layer with several kernels (separable convolutions, attention,
    recurrent layers) has a row for each, `layer/kernel`.

    Args:
        model: A built `keras.Model`; nested models are entered.
        where: Which kernels, see `models.weights`; by default all.

    Returns:
        A `Spectrum`: rows with name, kind, matrix shape, spectral norm,
        Frobenius norm, stable rank and the singular values, computed in
        float64; `.left_out` lists the other weighted layers.

    Raises:
        ValueError: If a layer is not built, `where` has a name that the model has
            not, a kernel holds NaN or infinity, or no layer is left.

    Example:
    >>> import keras
    >>> layers = [keras.Input((3,)), keras.layers.Dense(2, name="head")]
    >>> spectrum(keras.Sequential(layers))[0].shape
    (2, 3)

    Source: [sanyal2020], Definition 2.1.
    """
    found, rows = weights(model, where), []
    for weight in found:
        name, matrix = weight.name, weight.matrix()
        if not np.isfinite(matrix).all():
            raise ValueError(
                f"`model` must have finite kernels. Received: NaN or infinity in "
                f"'{name}'. Use an earlier checkpoint."
            )
        values = np.linalg.svd(matrix, compute_uv=False)
        rows.append(
            SpectrumRow(
                name=name,
                kind=weight.kind,
                shape=matrix.shape,
                norm="reshaped",
                spectral_norm=float(values[0]),
                frobenius_norm=math.sqrt((values**2).sum()),
                stable_rank=stable_rank_of(values),
                singular_values=tuple(values.tolist()),
            )
        )
    if not rows:
        reasons = {f"{left.name} ({left.kind})": left.reason for left in found.left_out}
        raise nothing_left("model", "a layer with a kernel", f"'{model.name}'", reasons)
    return Spectrum(
        rows,
        found.left_out,
        title=f"Spectrum of {model.name}",
        caption="Norms of the flattened kernels that the layers compute with.",
    )
