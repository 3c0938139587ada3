"""A bound on the true error of a network, compressed until it is not vacuous."""

import dataclasses
import math

import numpy as np

from keras_spectral.measures.margins import margin_loss
from keras_spectral.models import weights as kernels_of
from keras_spectral.models.copying import copy_model, set_weights
from keras_spectral.results import Rows, column
from keras_spectral.theory.bounds import (
    Assumption,
    description_bits,
    occam_bound,
)
from keras_spectral.validation import check_choice, check_integer, check_share


def quantize_large_weights(weights, kept, value_bits):
    """Keep the largest share of an array's entries, rounded to a few levels.

    Args:
        weights: Float array, finite.
        kept: Float in [0, 1], the share of entries that are kept, by magnitude.
        value_bits: Integer in [1, 16]: 2^b levels, symmetric around zero.

    Returns:
        Array like `weights`: zero, or (i + 1/2) s for the scale s = max|w| / 2^(b-1).

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> quantize_large_weights(np.array([0.1, -1.0, 0.7, 0.2]), 0.5, 2).tolist()
    [0.0, -0.75, 0.75, 0.0]

    Source: [orton2018], Theorem 1 (r discrete values).
    """
    check_share("kept", kept)
    check_integer("value_bits", value_bits, least=1)
    if value_bits > 16:
        raise ValueError(f"`value_bits` must be at most 16. Received: {value_bits}")
    weights = np.asarray(weights)
    count = round(kept * weights.size)
    result = np.zeros(weights.size, weights.dtype)
    if count:
        # The order of equals is that of the array, so the count is exact.
        places = np.argsort(-np.abs(weights.ravel()), kind="stable")[:count]
        values = weights.ravel()[places].astype("float64")
        # As float32, which is what the scale's bits pay for.
        scale = float(np.float32(np.abs(values).max())) / 2 ** (value_bits - 1)
        if scale:
            levels = np.clip(
                np.floor(values / scale),
                -(2 ** (value_bits - 1)),
                2 ** (value_bits - 1) - 1,
            )
            result[places] = (levels + 0.5) * scale
    return result.reshape(weights.shape)


@dataclasses.dataclass(frozen=True)
class CertificateRow:
    """One setting of the code, and the bound on the network that it describes.

    Args:
        kept: Float in [0, 1], share of the entries that are described.
        value_bits: Integer, bits of each of their values.
        bits: Float, of the whole description, the choice of the setting among them.
        training_error: Float in [0, 1], of the compressed network.
        bound: Float, on its true error.
        hoeffding: Float, the looser bound; may be above 1.
        vacuous: Boolean, whether the bound is not below guessing.
        most_bits: Float, how many would not be vacuous at this training error.
    """

    kept: float = column(form=".1%")
    value_bits: int = column("bits")
    bits: float = column("all bits", ",.0f")
    training_error: float = column("error", ".2%")
    bound: float = column(form=".3f")
    hoeffding: float = column(form=".3f")
    vacuous: bool
    most_bits: float = column("most bits", ",.0f")


class ErrorCertificate(Rows):
    """Rows of `CertificateRow`, the best setting, and what it rests on.

    Args:
        rows: List of `CertificateRow`.
        best: `OccamBound` of the best setting.
        model: `keras.Model`, the network that it is a bound on.
        assumptions: List of `Assumption`.
        **kwargs: `title` and `caption`, see `Rows`.
    """

    def __init__(self, rows, best, model, assumptions, **kwargs):
        super().__init__(rows, **kwargs)
        self.best, self.model = best, model
        self.assumptions = list(assumptions)

    def content(self):
        return {
            "settings": self.to_dicts(),
            "best": dataclasses.asdict(self.best),
            "assumptions": [dataclasses.asdict(each) for each in self.assumptions],
        }


def certify_error(
    model,
    x,
    y,
    kept=(0.1, 0.3),
    value_bits=(2, 3, 4),
    untouched_bits=16,
    delta=0.05,
    batch_size=128,
):
    """Bound the true error of a compressed copy of a classifier.

    Every kernel keeps its largest entries in 2^b levels; all other tensors (biases,
    normalization with its statistics) are rounded to 16 bits or left at 32, and
    counted. The best setting is chosen on the training set, and the choice is counted.
    The bound is one on the compressed network, not on `model`.

    Args:
        model: A built `keras.Model` from samples to logits or probabilities.
        x: Array (samples, ...), the training set, once each.
        y: Integer array (samples,), labels.
        kept: Tuple of floats in [0, 1], shares of the entries to try.
        value_bits: Tuple of integers, bits of a value to try.
        untouched_bits: 16 or 32, of the numbers in all other tensors.
        delta: Float in (0, 1), probability that the bound fails.
        batch_size: Integer >= 1.

    Returns:
        An `ErrorCertificate`: a row a setting, `.best`, `.model` and `.assumptions`.

    Raises:
        ValueError: If an argument is out of range, or the model has no kernel.

    Example:
    >>> import keras
    >>> x = np.random.default_rng(0).normal(size=(2000, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype(int)
    >>> dense = keras.layers.Dense(2, use_bias=False)
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> model.set_weights([np.eye(4, 2) @ [[-1.0, 1.0], [0.0, 0.0]]])
    >>> certify_error(model, x, y, kept=(0.25,), value_bits=(1,)).best.vacuous
    False

    Source: [orton2018], Theorem 1; [langford2005].
    """
    check_choice("untouched_bits", untouched_bits, (16, 32))
    check_integer("batch_size", batch_size, least=1)
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"`x` and `y` must be as long. Received: {len(x)} and {len(y)} samples"
        )
    settings = _settings(kept, value_bits)
    copy = copy_model(model)
    # A wrapped kernel is paid as it is trained.
    kernels = {id(w.variable) for w in kernels_of(copy) if not w.is_wrapped}
    if not kernels:
        raise ValueError(f"`model` must hold a kernel. Received: '{model.name}'")
    search = math.log2(len(settings))
    rows, best, weights = [], None, None
    for share, width in settings:
        changed, bits = [], search
        for variable, value in zip(copy.weights, model.get_weights(), strict=True):
            if id(variable) in kernels:
                value = quantize_large_weights(value, share, width)
                bits += description_bits(value.size, round(share * value.size), width)
            elif untouched_bits == 16 and value.dtype.kind == "f":
                value = _sixteen_bits(value)
                bits += 16 * value.size
            else:
                bits += 8 * value.dtype.itemsize * value.size
            changed.append(value)
        set_weights(copy, changed)
        outputs = copy.predict(x, batch_size=batch_size, verbose=0)
        if not isinstance(outputs, np.ndarray) or outputs.ndim != 2:
            outputs = np.empty((len(x), 0))
        if outputs.shape[1] < 2:
            raise ValueError(
                "`model` must give one array (samples, classes) of two classes or more."
                f" Received: '{model.name}' with outputs {model.output_shape}"
            )
        error = margin_loss(outputs, y)
        found = occam_bound(error, bits, len(x), delta, classes=outputs.shape[1])
        rows.append(
            CertificateRow(
                share, width, bits, error, found.bound, found.hoeffding,
                found.vacuous, found.most_bits,
            )
        )  # fmt: skip
        if best is None or found.bound < best.bound:
            best, weights = found, changed
    set_weights(copy, weights)
    return ErrorCertificate(
        rows,
        best,
        copy,
        _assumptions(x, settings),
        title=f"True error of {model.name}, compressed, from {len(x):,} samples",
        caption="bits: of a value; all bits: of the description. error: of the "
        "compressed network on the training set. bound: on its true error, with "
        f"probability {1 - delta:.4g}. vacuous: not below guessing, "
        f"{best.guessing:.4g}. most bits: what would not be vacuous at this error.",
    )


def _settings(kept, value_bits):
    """Return all pairs of a share and a number of bits."""
    if not (
        np.ndim(kept) == np.ndim(value_bits) == 1 and len(kept) and len(value_bits)
    ):
        raise ValueError(
            "`kept` and `value_bits` must be tuples with an entry at least. Received: "
            f"kept={kept}, value_bits={value_bits}"
        )
    return [(share, bits) for share in kept for bits in value_bits]


def _sixteen_bits(value):
    """Round to bfloat16, whose range is float32's, without its package."""
    words = np.ascontiguousarray(value, "float32").view("uint32").astype("uint64")
    rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16 << 16
    return rounded.astype("uint32").view("float32").reshape(value.shape)


def _assumptions(x, settings):
    different = len({row.tobytes() for row in np.ascontiguousarray(x)})
    return [
        Assumption(
            "every sample once",
            "PASS" if different == len(x) else "FAIL",
            f"{different:,} different ones of {len(x):,}",
        ),
        Assumption("independent samples", "UNTESTED", "from the distribution of use"),
        Assumption(
            "code before training", "UNTESTED", "architecture, kept, value_bits, delta"
        ),
        Assumption("search is counted", "PASS", f"{len(settings)} settings"),
        Assumption("all tensors are counted", "PASS", "kernels, biases, statistics"),
        Assumption("zero-one loss", "PASS", "ties are errors"),
    ]
