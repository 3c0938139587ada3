"""The singular values of a model's kernels, layer by layer."""

import dataclasses
import math

import keras
import numpy as np

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.kinds import has_kernels, kernel_slots
from keras_spectral.models.weights import leaf_layers
from keras_spectral.results import Rows

# Layers whose `kernel` adds the LoRA adapter.
_ADAPTED = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


@dataclasses.dataclass(frozen=True)
class SpectrumRow:
    """The spectrum of one layer's flattened kernel."""

    name: str
    kind: str
    shape: tuple
    norm: str
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    singular_values: tuple = dataclasses.field(metadata={"table": False}, repr=False)


class Spectrum(Rows):
    """Rows of `SpectrumRow`, with the two sums the papers print.

    Args:
        rows: List of `SpectrumRow`.
        skipped: List of strings, weighted layers that were left out and why.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> import keras
    >>> dense = keras.layers.Dense(3, kernel_initializer="identity")
    >>> spectrum(keras.Sequential([keras.Input((3,)), dense])).sum_of_stable_ranks
    3.0
    """

    def __init__(self, rows, skipped=(), **kwargs):
        super().__init__(rows, **kwargs)
        self.skipped = list(skipped)

    @property
    def sum_of_stable_ranks(self) -> float:
        """Sum over layers; a zero kernel, which has no stable rank, makes it NaN."""
        return float(sum(row.stable_rank for row in self.rows))

    @property
    def log_product_of_spectral_norms(self) -> float:
        """Natural logarithm of the product, which itself overflows on deep nets."""
        norms = [row.spectral_norm for row in self.rows]
        return sum(math.log(norm) if norm > 0 else -math.inf for norm in norms)


def kernels(model, skipped):
    """Yield (name, kind, matrix as the layer computes with it)."""
    for layer in leaf_layers(model):
        wrapped = isinstance(layer, Reparametrization)
        inner = layer.layer if wrapped else layer
        if hasattr(layer, "to_layer") and layer.built:
            # An SVD layer never forms its kernel; its plain layer has it.
            inner = layer.to_layer()
        if getattr(inner, "lora_enabled", False) and isinstance(inner, _ADAPTED):
            kernel = keras.ops.convert_to_numpy(inner.kernel).astype("float64")
            matrix = kernel.reshape(-1, kernel.shape[-1])
            yield layer.name, type(inner).__name__, matrix.T
            continue
        if not has_kernels(inner):
            if layer.weights:
                reason = "no rule for its kernel"
                if isinstance(layer, keras.layers.BatchNormalization):
                    reason = "scales channels, not folded into the layer before"
                elif getattr(layer, "quantization_mode", None):
                    reason = f"{layer.quantization_mode} kernel"
                skipped.append(f"{layer.name} ({type(layer).__name__}): {reason}")
            continue
        if not inner.built:
            raise ValueError(
                f"`model` must be built. Received: '{model.name}', whose layer "
                f"'{layer.name}' has no weights yet. Call it on a batch first."
            )
        slots = kernel_slots(inner)
        for slot in slots:
            kernel = layer.effective_kernel(slot.name) if wrapped else slot.value
            # One kernel goes by the layer's name.
            name = layer.name if len(slots) == 1 else f"{layer.name}/{slot.name}"
            kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
            matrix = keras.ops.convert_to_numpy(slot.view.flatten(kernel))
            yield name, type(inner).__name__, matrix.T


def spectrum(model):
    """Compute the singular values of every kernel of a model.

    A wrapped layer is measured by its effective kernel. A convolution is
    measured as its flattened kernel (inputs x height x width to filters), which
    is what `norm="reshaped"` in the rows says; that is no bound on the
    convolution. A layer with several kernels (separable convolutions, attention,
    recurrent layers) has a row for each, `layer/kernel`.

    Args:
        model: A built `keras.Model`; nested models are entered.

    Returns:
        A `Spectrum`: rows with name, kind, matrix shape, spectral norm,
        Frobenius norm, stable rank and the singular values, computed in
        float64; `.skipped` lists the other weighted layers.

    Raises:
        ValueError: If a layer is not built, a kernel holds NaN or infinity, or
            no layer is left.

    Example:
    >>> import keras
    >>> layers = [keras.Input((3,)), keras.layers.Dense(2, name="head")]
    >>> spectrum(keras.Sequential(layers))[0].shape
    (2, 3)

    Source: papers/stable-rank-normalization.md, Definition 2.1.
    """
    rows, skipped = [], []
    for name, kind, matrix in kernels(model, skipped):
        if not np.isfinite(matrix).all():
            raise ValueError(
                f"`model` must have finite kernels. Received: NaN or infinity in "
                f"'{name}'. Use an earlier checkpoint."
            )
        values = np.linalg.svd(matrix, compute_uv=False)
        squares = float((values**2).sum())
        rows.append(
            SpectrumRow(
                name=name,
                kind=kind,
                shape=matrix.shape,
                norm="reshaped",
                spectral_norm=float(values[0]),
                frobenius_norm=math.sqrt(squares),
                stable_rank=squares / values[0] ** 2 if values[0] else math.nan,
                singular_values=tuple(values.tolist()),
            )
        )
    if not rows:
        raise ValueError(
            "`model` must hold a layer with a kernel. Received: "
            f"'{model.name}' with {', '.join(skipped) or 'no weights'}."
        )
    return Spectrum(
        rows,
        skipped,
        title=f"Spectrum of {model.name}",
        caption="Norms of the flattened kernels that the layers compute with.",
    )
