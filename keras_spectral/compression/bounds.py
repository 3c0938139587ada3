"""Bounds that hold: the bits of a compressed network, all of them counted."""

import dataclasses
import math

import keras
import numpy as np

from keras_spectral.layers.kernels import has_kernels, kernel_slots
from keras_spectral.measures.margins import margin_loss
from keras_spectral.results import Rows
from keras_spectral.traversal import leaf_layers
from keras_spectral.validation import check_choice, check_integer

# Bits of the one scale that a compressed tensor needs.
_SCALE_BITS = 32


def inverse_kl(error, budget):
    """Return the largest p with kl(error || p) <= budget, in nats.

    Args:
        error: Float in [0, 1], the training error.
        budget: Float >= 0.

    Returns:
        Float in [error, 1].

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(inverse_kl(0.0, math.log(2)), 6)
    0.5

    Source: Langford 2005, the relative-entropy form of Chernoff's bound.
    """
    _check_share("error", error)
    if not budget >= 0:
        raise ValueError(f"`budget` must be at least 0. Received: budget={budget}")
    low, high = error, 1.0
    # Bisection: the divergence grows from 0 at the error to infinity at 1.
    while high - low > 1e-15:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _kl(error, middle) <= budget:
            low = middle
        else:
            high = middle
    return high


def _check_share(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}")


def _kl(q, p):
    total = 0.0
    if q > 0:
        total += q * (math.log(q) - math.log(p)) if p > 0 else math.inf
    if q < 1:
        total += (1 - q) * (math.log1p(-q) - math.log1p(-p)) if p < 1 else math.inf
    return max(total, 0.0)


def description_bits(size, kept, value_bits, scale_bits=_SCALE_BITS):
    """Return the bits that name `kept` of `size` entries and their values.

    log2(n + 1) for the number, log2 C(n, k) for the places, k b for the values and
    one scale.

    Args:
        size: Integer >= 1, the entries n of a tensor.
        kept: Integer in [0, size], the entries k that are not zero.
        value_bits: Integer >= 1, bits b of a value.
        scale_bits: Integer >= 0.

    Returns:
        Float, bits.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(description_bits(4, 2, 3, scale_bits=0), 4)  # log2(5) + log2(6) + 6
    10.9069

    Source: papers/heavy-tail-compression.md, Theorem 2 with its index bits;
    papers/compression-bounds-notes.md, Theorem 1.
    """
    check_integer("size", size, least=1)
    check_integer("value_bits", value_bits, least=1)
    check_integer("scale_bits", scale_bits, least=0)
    if not 0 <= kept <= size:
        raise ValueError(
            f"`kept` must be between 0 and `size`. Received: kept={kept}, size={size}"
        )
    places = (
        math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    )
    return (
        math.log2(size + 1)
        + max(places, 0.0) / math.log(2)
        + kept * value_bits
        + scale_bits
    )


@dataclasses.dataclass(frozen=True)
class Assumption:
    """What a bound rests on.

    Args:
        name: String.
        status: `"PASS"`, `"FAIL"`, or `"UNTESTED"` for what no data can show.
        detail: String.
    """

    name: str
    status: str
    detail: str


@dataclasses.dataclass(frozen=True)
class OccamBound:
    """A bound on the true error of a network that some bits describe.

    Args:
        training_error: Float, share of wrong training samples.
        bits: Float, of the whole description, the search for it among them.
        samples: Integer, independent training samples.
        delta: Float, probability that the bound fails.
        bound: Float, the inverse of the relative entropy.
        hoeffding: Float, the looser training error + sqrt(budget / 2); may be above 1.
        guessing: Float, the error of guessing.
        vacuous: Boolean, whether the bound is not below guessing.
        most_bits: Float, how many bits would not be vacuous at this training error.
    """

    training_error: float
    bits: float
    samples: int
    delta: float
    bound: float
    hoeffding: float
    guessing: float
    vacuous: bool
    most_bits: float


def occam_bound(training_error, bits, samples, delta=0.05, classes=None):
    """Bound the true error of a network by the length of its description.

    With probability 1 - delta over the training set
    kl(training error || true error) <= (bits ln 2 + ln(1 / delta)) / samples, for all
    networks that the code, fixed before, can describe.

    Args:
        training_error: Float in [0, 1], of the compressed network itself.
        bits: Float >= 0, from a prefix code: `description_bits` of each tensor, and
            log2 of the number of settings that were tried.
        samples: Integer >= 1, independent samples; augmented copies do not count.
        delta: Float in (0, 1).
        classes: Integer >= 2: the bound is vacuous from 1 - 1 / classes on; `None`:
            from 1 on, to three digits.

    Returns:
        An `OccamBound`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> found = occam_bound(0.039, 38_975, 50_000)
    >>> round(found.bound, 3), found.vacuous
    (0.507, False)

    Source: papers/compression-bounds-notes.md, Theorem 1, with the relative entropy in
    place of equation 3; Langford 2005.
    """
    _check_share("training_error", training_error)
    if not 0 <= bits < math.inf:
        raise ValueError(f"`bits` must be a number >= 0. Received: bits={bits}")
    check_integer("samples", samples, least=1)
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must be in (0, 1). Received: delta={delta}")
    guessing = 0.9995
    if classes is not None:
        check_integer("classes", classes, least=2)
        guessing = 1 - 1 / classes
    budget = (bits * math.log(2) + math.log(1 / delta)) / samples
    bound = inverse_kl(training_error, budget)
    allowed = 0.0
    if training_error < guessing:
        nats = samples * _kl(training_error, guessing) - math.log(1 / delta)
        allowed = max(nats / math.log(2), 0.0)
    return OccamBound(
        training_error=training_error,
        bits=bits,
        samples=samples,
        delta=delta,
        bound=bound,
        hoeffding=training_error + math.sqrt(budget / 2),
        guessing=guessing,
        vacuous=not bound < guessing,
        most_bits=allowed,
    )


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

    Source: papers/compression-bounds-notes.md, Theorem 1 (r discrete values).
    """
    _check_share("kept", kept)
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
    """One setting of the code, and the bound on the network that it describes."""

    kept: float = dataclasses.field(metadata={"format": ".1%"})
    value_bits: int = dataclasses.field(metadata={"label": "bits a value"})
    bits: float = dataclasses.field(metadata={"format": ",.0f", "label": "all bits"})
    training_error: float = dataclasses.field(metadata={"format": ".2%"})
    bound: float = dataclasses.field(metadata={"format": ".3f"})
    hoeffding: float = dataclasses.field(metadata={"format": ".3f"})
    vacuous: bool = dataclasses.field()
    most_bits: float = dataclasses.field(
        metadata={"format": ",.0f", "label": "most bits"}
    )


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
    >>> x = np.random.default_rng(0).normal(size=(2000, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype(int)
    >>> kernel = np.eye(4, 2, dtype="float32") * [[-9, 9]]
    >>> dense = keras.layers.Dense(2, use_bias=False)
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> model.set_weights([np.eye(4)[:, [1, 0]] * [0, 9.0]])
    >>> certify_error(model, x, y, kept=(0.25,), value_bits=(1,)).best.vacuous
    False

    Source: papers/compression-bounds-notes.md, Theorem 1; Langford 2005.
    """
    check_choice("untouched_bits", untouched_bits, (16, 32))
    check_integer("batch_size", batch_size, least=1)
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"`x` and `y` must be as long. Received: {len(x)} and {len(y)} samples"
        )
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernels = {
        id(slot.variable)
        for layer in leaf_layers(copy)
        if has_kernels(layer)
        for slot in kernel_slots(layer)
    }
    if not kernels:
        raise ValueError(f"`model` must hold a kernel. Received: '{model.name}'")
    settings = [(share, bits) for share in kept for bits in value_bits]
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
        copy.set_weights(changed)
        outputs = copy.predict(x, batch_size=batch_size, verbose=0)
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
    copy.set_weights(weights)
    return ErrorCertificate(
        rows,
        best,
        copy,
        _assumptions(x, settings),
        title=f"True error of {model.name}, compressed, from {len(x):,} samples",
        caption=f"bound: with probability {1 - delta:.4g}, for the compressed network. "
        f"vacuous: not below guessing, {best.guessing:.4g}. most bits: what would not "
        "be vacuous at this training error.",
    )


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
