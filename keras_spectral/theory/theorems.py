"""The papers' theorems and lemmas as functions of numbers, natural logarithms.

What is proved to hold with a stated probability is called a bound; what hides
logarithms or constants is called a measure and orders networks at best.
"""

import math

from keras_spectral.theory import approximation_threshold
from keras_spectral.validation import (
    Variant,
    check_choice,
    check_integer,
    check_positive,
    check_probability,
    check_ratio,
    check_share,
)


def allowed_output_change(margin, norm="max", variant="corrected"):
    """Return by how much outputs may change until a margin is used up.

    Two logits move, so it is half the margin for each, or margin / sqrt(2) in the
    Euclidean norm. The notes print the whole margin for each logit, and then
    L0(g) <= L_gamma(f) fails: f = (1.2, 0), g = (0.3, 0.8), gamma = 1.

    Args:
        margin: Float > 0, the paper's gamma.
        norm: `"max"` or `"euclidean"`, of the change of the logits.
        variant: `"corrected"` or `"as_printed"`.

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> allowed_output_change(1.0)
    0.5

    Source: [orton2018], Definition 2.1 and Theorem 1; [shin2021], Lemma 2.3.
    """
    check_positive("margin", margin)
    check_choice("norm", norm, ("max", "euclidean"))
    check_choice("variant", variant, Variant)
    if norm == "euclidean":
        return margin / math.sqrt(2)
    return margin / 2 if variant == "corrected" else margin


def compression_gap(parameters, values, samples, delta=None):
    """Return the gap of Theorem 1 for q parameters of r values each.

    Args:
        parameters: Integer >= 1, the paper's q. Which weights they are costs more:
            see `occam_bound`.
        values: Integer >= 2, the paper's r, fixed before the training set was seen.
        samples: Integer >= 1, independent training samples, the paper's m.
        delta: Float in (0, 1), probability of failure: then the gap is
            sqrt((q ln r + ln(1 / delta)) / (2 m)). `None`: sqrt(q ln r / m), which
            fails with probability r^-q.

    Returns:
        Float; above 1 it says nothing.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(compression_gap(1000, 16, 50_000), 4)
    0.2355

    Source: [shin2021], Theorem 1; [orton2018], Theorem 1.
    """
    check_integer("parameters", parameters, least=1)
    check_integer("values", values, least=2)
    check_integer("samples", samples, least=1)
    nats = parameters * math.log(values)
    if delta is None:
        return math.sqrt(nats / samples)
    check_probability("delta", delta)
    return math.sqrt((nats + math.log(1 / delta)) / (2 * samples))


def compression_bound(margin_loss, gap, uncompressed=0.0):
    """Return Theorem 1's bound L_gamma(f) + zeta + gap on the compressed network.

    Args:
        margin_loss: Float in [0, 1], of the original network at the margin that the
            compression uses up, see `allowed_output_change`.
        gap: Float >= 0, see `compression_gap`.
        uncompressed: Float in [0, 1], the share zeta of training samples for which
            the outputs changed by more.

    Returns:
        Float; 1 and above is vacuous.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(compression_bound(0.1, 0.25, uncompressed=0.02), 2)
    0.37

    Source: [orton2018], Theorem 1 and its comment.
    """
    check_share("margin_loss", margin_loss)
    check_share("uncompressed", uncompressed)
    if not gap >= 0:
        raise ValueError(f"`gap` must be at least 0. Received: gap={gap}")
    return margin_loss + uncompressed + gap


def sparsity_measure(kept, samples):
    """Return sqrt(sum k / m) of Theorem 2: a measure, for it hides logarithms.

    Args:
        kept: Iterable of integers, the kept weights k_i of each layer.
        samples: Integer >= 1.

    Returns:
        Float.

    Raises:
        ValueError: If `samples` is below 1.

    Example:
    >>> sparsity_measure([300, 100], 40_000)
    0.1

    Source: [shin2021], Theorem 2.
    """
    check_integer("samples", samples, least=1)
    return math.sqrt(sum(kept) / samples)


def margin_measure(margin, samples):
    """Return Lemma 3's sqrt(1 / (gamma^2 m)) for a linear classifier of unit norm.

    Args:
        margin: Float > 0, of samples of unit norm, the notes' gamma.
        samples: Integer >= 1.

    Returns:
        Float: a measure, for logarithms are hidden.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(margin_measure(0.1, 10_000), 3)
    0.1

    Source: [orton2018], Lemma 3.
    """
    check_positive("margin", margin)
    check_integer("samples", samples, least=1)
    return 1 / (margin * math.sqrt(samples))


def margin_error(margin, largest_output):
    """Return the relative output error that a margin allows, Lemma 2.3's epsilon.

    Args:
        margin: Float > 0.
        largest_output: Float > 0, the largest |f(x)| of the training set.

    Returns:
        Float margin / (sqrt(2) largest_output), at most 1; `None` above: no sample
        can have such a margin, and the margin loss is 1.

    Raises:
        ValueError: If an argument is not positive.

    Example:
    >>> margin_error(3.0, 2.0) is None
    True

    Source: [shin2021], Lemma 2.3; [orton2018], Lemma 10.
    """
    check_positive("margin", margin)
    check_positive("largest_output", largest_output)
    epsilon = margin / (math.sqrt(2) * largest_output)
    return epsilon if epsilon <= 1 else None


def layer_tolerances(
    epsilon,
    layer_cushions,
    interlayer_cushions,
    contraction,
    frobenius_norms,
    widths,
    samples,
    delta=0.05,
    variance=0.0,
):
    """Return what each layer may lose by Lemma 2.2, and its certified threshold.

    epsilon_i = epsilon mu_i mu_i-> / (6 c d), eta_i = delta / (2 d m h d), and the
    threshold for an error of epsilon_i |W_i|_F, the factor that Lemma 2.1 misses. It
    needs an interlayer smoothness of at least 3 d.

    Args:
        epsilon: Float in (0, 1], relative error of the outputs.
        layer_cushions: Sequence of floats, mu_i.
        interlayer_cushions: Sequence of floats, the minimal ones mu_i->.
        contraction: Float >= 1, the activation contraction c.
        frobenius_norms: Sequence of floats, |W_i|_F.
        widths: Sequence of integers, rows h_i.
        samples: Integer >= 1, the training set.
        delta: Float in (0, 1), probability of failure.
        variance: Float >= 0, of the noise.

    Returns:
        List of tuples (epsilon_i, eta_i, threshold_i), one a layer.

    Raises:
        ValueError: If an argument is out of range, or the sequences differ in length.

    Example:
    >>> [(e, eta, tau)] = layer_tolerances(0.6, [0.5], [0.1], 1.0, [2.0], [10], 100)
    >>> round(e, 6), eta
    (0.005, 2.5e-05)

    Source: [shin2021], Lemmas 2.1 and 2.2.
    """
    check_ratio("epsilon", epsilon)
    check_probability("delta", delta)
    check_integer("samples", samples, least=1)
    layers = list(
        zip(layer_cushions, interlayer_cushions, frobenius_norms, widths, strict=True)
    )
    depth, width = len(layers), max(widths)
    eta = delta / (2 * depth * samples * width * depth)
    found = []
    for cushion, interlayer, norm, _ in layers:
        error = epsilon * cushion * interlayer / (6 * contraction * depth)
        threshold = approximation_threshold(error * norm, eta, variance)
        found.append((error, eta, threshold))
    return found


def perturbation_bound(spectral_norms, perturbation_norms, input_norm):
    """Bound |f_{A+B}(x) - f_A(x)| by e |x| prod |A_i| sum |B_i| / |A_i|.

    For networks without biases and with 1-Lipschitz activations that keep zero.

    Args:
        spectral_norms: Sequence of floats > 0, |A_i|.
        perturbation_norms: Sequence of floats, |B_i| <= |A_i| / d.
        input_norm: Float >= 0, |x|.

    Returns:
        Float; infinite above float64's range.

    Raises:
        ValueError: If the lengths differ, or a perturbation is too large for the lemma.

    Example:
    >>> round(perturbation_bound([2.0, 1.0], [0.1, 0.2], 1.0), 4)
    1.3591

    Source: [shin2021], Lemma 2.4; [orton2018], Lemmas 6 and 11.
    """
    pairs = list(zip(spectral_norms, perturbation_norms, strict=True))
    for index, (norm, change) in enumerate(pairs):
        if not change <= norm / len(pairs):
            raise ValueError(
                "`perturbation_norms` must be at most the spectral norms over their "
                f"number, {len(pairs)}. Received: {change} for layer {index} of norm "
                f"{norm}; the lemma says nothing then."
            )
    # By the lemma's condition a layer of norm 0 stays so, and the outputs are 0.
    share = sum(change / norm for norm, change in pairs if norm)
    if not (share and input_norm and all(norm for norm, _ in pairs)):
        return 0.0
    # In logarithms: the product itself overflows in deep networks.
    logs = [math.log(norm) for norm, _ in pairs]
    log_bound = 1 + sum(logs) + math.log(share) + math.log(input_norm)
    return math.exp(log_bound) if log_bound < 709 else math.inf


def entropy_integral(parameters, kappa, upper):
    """Integrate sqrt(q ln(2 q kappa / epsilon)) over epsilon from 0 to `upper`.

    Args:
        parameters: Integer >= 1, the paper's q.
        kappa: Float > 0, e^2 c^d |f| d / prod mu_i.
        upper: Float in (0, 2 q kappa], the paper's D.

    Returns:
        Float sqrt(q) (D sqrt(ln(a / D)) + sqrt(pi) / 2 a erfc(sqrt(ln(a / D)))), where
        a = 2 q kappa.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(entropy_integral(1, 1.0, 1.0), 4)
    1.2562

    Source: [shin2021], equation 102.
    """
    check_integer("parameters", parameters, least=1)
    check_positive("kappa", kappa)
    a = 2 * parameters * kappa
    if not 0 < upper <= a:
        raise ValueError(f"`upper` must be in (0, {a:.4g}]. Received: upper={upper}")
    root = math.sqrt(math.log(a / upper))
    inner = upper * root + math.sqrt(math.pi) / 2 * a * math.erfc(root)
    return math.sqrt(parameters) * inner


def _inverse_cushions(layer_cushions, interlayer_cushions):
    pairs = zip(layer_cushions, interlayer_cushions, strict=True)
    products = [mu * minimal for mu, minimal in pairs]
    return math.inf if 0 in products else sum(1 / value**2 for value in products)


def projection_parameters(
    epsilon, layer_cushions, interlayer_cushions, contraction, width, samples,
    delta=0.05,
):  # fmt: skip
    """Return Lemma 9's number of parameters after random projection.

    72 c^2 d^2 ln(m d h / delta) / epsilon^2 sum 1 / (mu_i mu_i->)^2: more than the
    network has, for every network that was measured so far.

    Args:
        epsilon: Float in (0, 1], relative error of the outputs.
        layer_cushions: Sequence of floats, mu_i.
        interlayer_cushions: Sequence of floats, mu_i->.
        contraction: Float >= 1, the activation contraction c.
        width: Integer >= 1, the largest dimension h.
        samples: Integer >= 1.
        delta: Float in (0, 1).

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> projection_parameters(1.0, [0.5], [0.1], 1.0, 10, 100) > 10_000
    True

    Source: [orton2018], Lemma 9.
    """
    check_ratio("epsilon", epsilon)
    check_probability("delta", delta)
    check_integer("samples", samples, least=1)
    depth = len(layer_cushions)
    log = math.log(samples * depth * width / delta)
    log *= _inverse_cushions(layer_cushions, interlayer_cushions)
    return 72 * (contraction * depth / epsilon) ** 2 * log


def cushion_measure(
    layer_cushions, interlayer_cushions, contraction, largest_output, margin, samples
):
    """Return Theorem 7's sqrt(c^2 d^2 max |f|^2 sum 1/(mu mu->)^2 / (gamma^2 m)).

    A measure: logarithms, constants and c^d are hidden.

    Args:
        layer_cushions: Sequence of floats, mu_i.
        interlayer_cushions: Sequence of floats, mu_i->.
        contraction: Float >= 1, c.
        largest_output: Float > 0, the largest |f(x)|.
        margin: Float > 0.
        samples: Integer >= 1.

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(cushion_measure([0.5], [0.1], 1.0, 1.0, 1.0, 40_000), 3)
    0.1

    Source: [orton2018], Theorem 7.
    """
    check_positive("margin", margin)
    check_integer("samples", samples, least=1)
    total = _inverse_cushions(layer_cushions, interlayer_cushions)
    factor = contraction * len(layer_cushions) * largest_output / margin
    return factor * math.sqrt(total / samples)
