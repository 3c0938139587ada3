"""How far singular values may be cut, and what that proves."""

import math

from keras_spectral.validation import (
    Variant,
    check_choice,
    check_integer,
    check_positive,
)


def truncation_tolerance(spectral_norms, input_norm, margin):
    """Return Theorem 4's delta = gamma / (e |x| d prod |A_i|).

    Args:
        spectral_norms: Sequence of floats > 0, one a layer.
        input_norm: Float > 0, the largest |x| of the training set.
        margin: Float > 0, by how much the outputs may change, in the Euclidean
            norm: see `allowed_output_change`.

    Returns:
        Float: singular values below delta |A_i| may go. At most 1 / d, for the
        perturbation bound behind it ends there (`perturbation_bound`).

    Raises:
        ValueError: If an argument is not positive, or there is no layer.

    Example:
    >>> round(truncation_tolerance([1.0, 1.0], 1.0, 1.0), 4)
    0.1839

    Source: [orton2018], proof of Theorem 4.
    """
    delta = math.exp(_log_tolerance(spectral_norms, input_norm, margin))
    return min(delta, 1 / len(spectral_norms))


def _log_tolerance(spectral_norms, input_norm, margin):
    check_positive("input_norm", input_norm)
    check_positive("margin", margin)
    if not len(spectral_norms):
        raise ValueError(
            "`spectral_norms` must have one number a layer. Received: none"
        )
    for norm in spectral_norms:
        check_positive("spectral_norms", norm)
    log_product = sum(math.log(norm) for norm in spectral_norms)
    depth = len(spectral_norms)
    return math.log(margin / input_norm) - 1 - math.log(depth) - log_product


def truncation_parameters(
    spectral_norms, stable_ranks, width, input_norm, margin, variant="corrected"
):
    """Return Theorem 4's number of parameters after truncation.

    2 e^2 d^2 h |x|^2 prod |A_i|^2 sum srank_i / gamma^2, and no fewer than for
    delta = 1 / d, see `truncation_tolerance`. The theorem prints |x| for |x|^2, and
    is then not invariant when inputs and margin are scaled together.

    Args:
        spectral_norms: Sequence of floats > 0.
        stable_ranks: Sequence of floats >= 1, as many.
        width: Integer >= 1, the largest dimension h.
        input_norm: Float > 0, the largest |x|.
        margin: Float > 0.
        variant: `"corrected"` or `"as_printed"`.

    Returns:
        Float; compare it with the number that the network has.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(truncation_parameters([1.0], [2.0], 10, 1.0, 1.0), 1)
    295.6

    Source: [orton2018], Theorem 4.
    """
    check_choice("variant", variant, Variant)
    check_integer("width", width, least=1)
    if len(stable_ranks) != len(spectral_norms) or not min(stable_ranks) > 0:
        raise ValueError(
            "`stable_ranks` must be positive, one for each spectral norm. Received: "
            f"stable_ranks={stable_ranks} for {len(spectral_norms)} norms"
        )
    if variant == "corrected":
        delta = truncation_tolerance(spectral_norms, input_norm, margin)
        return 2 * width * sum(stable_ranks) / delta**2
    log_delta = _log_tolerance(spectral_norms, input_norm, margin)
    return 2 * width * sum(stable_ranks) * math.exp(-2 * log_delta) / input_norm


def truncation_measure(
    spectral_norms, stable_ranks, width, input_norm, margin, samples,
    variant="corrected",
):  # fmt: skip
    """Return Theorem 4's sqrt(h d^2 |x|^2 prod |A|^2 sum srank / (gamma^2 m)).

    A measure: logarithms and constants are hidden, and the rank depends on the
    training set, which the theorem does not allow.

    Args:
        spectral_norms: Sequence of floats > 0.
        stable_ranks: Sequence of floats >= 1.
        width: Integer >= 1.
        input_norm: Float > 0.
        margin: Float > 0.
        samples: Integer >= 1.
        variant: See `truncation_parameters`.

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(truncation_measure([1.0], [2.0], 10, 1.0, 1.0, 2000), 3)
    0.1

    Source: [orton2018], equations 10 and 12.
    """
    check_integer("samples", samples, least=1)
    count = truncation_parameters(
        spectral_norms, stable_ranks, width, input_norm, margin, variant
    )
    return math.sqrt(count / (2 * math.e**2) / samples)
