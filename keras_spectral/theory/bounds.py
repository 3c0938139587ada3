"""Bounds that hold: by the bits that describe a network, all of them counted."""

import dataclasses
import math
from typing import Literal

from keras_spectral.validation import check_integer, check_share

# Bits of the one scale that a compressed tensor needs.
_SCALE_BITS = 32

# Of an assumption; no data can show what is "UNTESTED".
Verdict = Literal["PASS", "FAIL", "UNTESTED"]


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

    Source: [langford2005], the relative-entropy form of Chernoff's bound.
    """
    check_share("error", error)
    if not budget >= 0:
        raise ValueError(f"`budget` must be at least 0. Received: budget={budget}")
    error, budget = float(error), float(budget)
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

    Source: [shin2021], Theorem 2 with its index bits; [orton2018], Theorem 1.
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
    status: Verdict
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
    >>> found = occam_bound(0.039, bits=38_975, samples=50_000)
    >>> round(found.bound, 3), found.vacuous
    (0.506, False)

    Source: [orton2018], Theorem 1, with the relative entropy in place of equation 3;
    [langford2005].
    """
    check_share("training_error", training_error)
    if not 0 <= bits < math.inf:
        raise ValueError(f"`bits` must be a number >= 0. Received: bits={bits}")
    check_integer("samples", samples, least=1)
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must be in (0, 1). Received: delta={delta}")
    guessing = 0.9995
    if classes is not None:
        check_integer("classes", classes, least=2)
        guessing = 1 - 1 / classes
    # Not in the precision of a framework's metric.
    training_error, bits = float(training_error), float(bits)
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
