"""Heavy-tailed weights: the large ones kept, the small ones replaced by noise."""

import dataclasses
from typing import get_args

import keras
import numpy as np

from keras_spectral.compression.kernels import compressible, summary
from keras_spectral.compression.masks import (
    ReplacedKernel,
    Replacement,
    Rule,
    as_numpy,
    compression_of,
    remember,
)
from keras_spectral.measures import fit_power_law
from keras_spectral.models.copying import copy_model
from keras_spectral.results import Rows, column
from keras_spectral.validation import check_choice, check_integer, check_positive

RULES, REPLACEMENTS = get_args(Rule), get_args(Replacement)


@dataclasses.dataclass(frozen=True)
class CompressionRow:
    """What one rule and replacement did to the kernels and to the accuracy.

    Args:
        name: String, the model's.
        rule: `"magnitude"` or `"signed"`: which weights are small.
        replacement: `"gaussian"`, `"matched"` or `"zero"`: what takes their place.
        trials: Integer, draws of the replacement.
        alpha_pdf: Float, the density's exponent of |w|; `None` where there is no fit.
        alpha_tail: Float, the tail's, one less.
        kept: Float in [0, 1], share of the weights that stay.
        relative_error: Float, mean over the trials, in Frobenius norm.
        original_accuracy: Float in [0, 1]; `None` without `evaluate`.
        compressed_accuracy_mean: Float in [0, 1], over the trials, likewise.
        compressed_accuracy_sd: Float, standard deviation, likewise.
    """

    name: str = column(table=False)
    rule: Rule = column("rule")
    replacement: Replacement = column("replaced by")
    trials: int = column(table=False)
    alpha_pdf: float | None = column("alpha", ".2f")
    alpha_tail: float | None = column(table=False)
    kept: float = column("kept", ".1%")
    relative_error: float = column("error", ".3f")
    original_accuracy: float | None = column("before", ".2%")
    compressed_accuracy_mean: float | None = column("after", ".2%")
    compressed_accuracy_sd: float | None = column("sd", ".2%")


class CompressionRows(Rows):
    """Rows of `CompressionRow`.

    Args:
        rows: List of `CompressionRow`.
        left_out: List of `models.LeftOut`, what was not compressed and why.
        **kwargs: `title` and `caption`, see `Rows`.
    """

    def __init__(self, rows, left_out=(), **kwargs):
        super().__init__(rows, **kwargs)
        self.left_out = list(left_out)


def compress_matrix(
    weights, rule="magnitude", replacement="gaussian", seed=0, deviations=1.0
):
    """Replace the small entries of one array by noise.

    The threshold is the standard deviation of all entries, or a multiple of it.

    Args:
        weights: Float array of any shape, finite.
        rule: `"magnitude"` replaces |w| <= threshold; `"signed"` replaces
            w <= threshold, which is how the paper words it, and takes every
            negative weight, the large ones too.
        replacement: `"gaussian"`, normal noise with mean and standard deviation
            of all entries (the paper's); `"matched"`, with those of the
            replaced entries; `"zero"`, the control. Around zero no noise comes
            nearer to the weights in mean square than zero itself does.
        seed: Integer or sequence of integers >= 0; the noise is that of
            `gaussian.normals`, the same on every machine.
        deviations: Float > 0, the threshold in standard deviations; the paper's is 1.

    Returns:
        Tuple (compressed, kept): an array like `weights`, and a boolean mask of
        the entries that were kept, bit for bit.

    Raises:
        ValueError: On another rule or replacement, and an array that is empty
            or not finite.

    Example:
    >>> import numpy as np
    >>> w = np.array([-3.0, -0.1, 0.1, 3.0])
    >>> compress_matrix(w, replacement="zero")[0].tolist()
    [-3.0, 0.0, 0.0, 3.0]

    Source: [shin2021], Appendix E.
    """
    compressed, record = _replace(weights, rule, replacement, seed, deviations)
    return compressed, record.kept


def _replace(weights, rule, replacement, seed, deviations, key=()):
    """Return the compressed array and its `ReplacedKernel`."""
    check_positive("deviations", deviations)
    check_choice("rule", rule, RULES)
    check_choice("replacement", replacement, REPLACEMENTS)
    weights = np.asarray(weights)
    if not weights.size or not np.isfinite(weights).all():
        raise ValueError(
            "`weights` must hold finite numbers. Received: "
            + ("NaN or infinity among them" if weights.size else "an empty array")
        )
    wide = weights.astype("float64")
    threshold = deviations * wide.std()
    kept = (np.abs(wide) if rule == "magnitude" else wide) > threshold
    mean = deviation = 0.0
    source = wide if replacement == "gaussian" else wide[~kept]
    if replacement != "zero" and source.size:
        mean, deviation = float(source.mean()), float(source.std())
    threshold = float(threshold)
    record = ReplacedKernel(
        kept, rule, replacement, threshold, mean, deviation, seed, key
    )
    return np.where(kept, weights, record.frozen(weights.dtype.name)), record


def _accuracy(evaluate, model):
    accuracy = float(evaluate(model))
    if not 0 <= accuracy <= 1:
        raise ValueError(
            "`evaluate` must return an accuracy in [0, 1]. "
            f"Received: {accuracy} (a percentage must be divided by 100)."
        )
    return accuracy


def _kernels(chosen):
    """Return the arrays of `Weights`, all finite."""
    kernels = [as_numpy(weight.variable) for weight in chosen]
    for weight, kernel in zip(chosen, kernels, strict=True):
        if not np.isfinite(kernel).all():
            raise ValueError(
                "`model` must have finite kernels. Received: NaN or infinity in "
                f"'{weight.name}'. Use an earlier checkpoint."
            )
    return kernels


def _compressed_kernels(kernels, rule, replacement, seed, deviations, trial):
    """Return (array, `ReplacedKernel`) of each kernel, each by a stream of its own."""
    stream = (RULES.index(rule), REPLACEMENTS.index(replacement), trial)
    return [
        _replace(kernel, rule, replacement, seed, deviations, (*stream, index))
        for index, kernel in enumerate(kernels)
    ]


def _joined(names):
    """Return what a row is called: all of its kernels, or the ends of a long list."""
    if len(names) > 4:
        return f"{names[0]} ... {names[-1]} ({len(names)} kernels)"
    return ", ".join(names)


def compress(
    model: keras.Model,
    where=None,
    rule: str = "magnitude",
    replacement: str = "matched",
    seed: int = 0,
    deviations: float = 1.0,
    **others,
) -> keras.Model:
    """Return a copy of a model with its small weights replaced, once.

    Args:
        model: A built `keras.Model`; it is left as it is.
        where: Which kernels, see `models.weights`: a list of names, of kernels
            (`mha/query`) or of layers (all that they have), or a callable that gets a
            `Weight` and returns a boolean. By default all, of every kind of layer.
            Masked and quantized kernels and those with a LoRA adapter are left out
            unless they are named; those in a wrapper are refused, see `unwrap`.
            The paper compresses the final dense layer only.
        rule: See `compress_matrix`; each kernel has a threshold of its own.
        replacement: See `compress_matrix`.
        seed: Integer >= 0. The result is that of the first trial of
            `compare_replacements`.
        deviations: See `compress_matrix`.
        **others: None: those of `compare_replacements` are refused by name.

    Returns:
        A `keras.Model` of the same architecture. What was kept and how the noise was
        made is remembered with it, for `save_compressed` and `keep_mask`;
        `compression_of` has it. It is compiled as `model` is, with a new optimizer; if
        Keras cannot save what `model` was compiled with, such as a loss of your own,
        compile the copy yourself.

    Raises:
        TypeError: On an argument of `compare_replacements`.
        ValueError: As `compare_replacements`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> copy = compress(model, replacement="zero")
    >>> copy.count_params() == model.count_params()
    True

    Source: [shin2021], Appendix E.
    """
    if others:
        raise TypeError(
            f"compress() got an unexpected keyword argument '{next(iter(others))}'. It "
            "returns a compressed copy of the model; the table of rules and "
            "replacements is `compare_replacements`, and `layers=` is `where=` in both."
        )
    chosen = compressible(model, where)
    results = _compressed_kernels(
        _kernels(chosen), rule, replacement, seed, deviations, 0
    )
    # By place: a callable may know the layers of the model, and those of the copy not.
    places = {id(variable): index for index, variable in enumerate(model.weights)}
    copy = copy_model(model)
    variables = copy.weights
    # What an earlier compression froze in other kernels was copied with the weights.
    compression = compression_of(model)
    for weight, (array, record) in zip(chosen, results, strict=True):
        place = places[id(weight.variable)]
        variables[place].assign(array)
        compression[place] = record
    remember(copy, compression)
    return copy


def compare_replacements(
    model: keras.Model,
    where=None,
    rules=RULES,
    replacements=REPLACEMENTS,
    trials: int = 10,
    seed: int = 0,
    evaluate=None,
    deviations: float = 1.0,
) -> CompressionRows:
    """Compress a model by each rule and replacement, and tabulate what it costs.

    Every rule and replacement is one row, the control `"zero"` among them by
    default. The model is left as it was.

    Args:
        model: A built `keras.Model`.
        where: Which kernels, as in `compress`; by default all.
        rules: Tuple of rules, see `compress_matrix`.
        replacements: Tuple of replacements, see `compress_matrix`.
        trials: Integer >= 2, draws of the noise; the control has one outcome
            and is evaluated once.
        seed: Integer >= 0.
        evaluate: Optional callable, model to accuracy in [0, 1]. Without it the
            accuracies are `None`.
        deviations: Float > 0, the threshold in standard deviations.

    Returns:
        `CompressionRows` of `CompressionRow`: the exponents fitted to |w| of the
        chosen kernels together, the fraction kept, the mean relative error in
        Frobenius norm, and accuracy before, mean and standard deviation after;
        `.left_out` lists the other kernels and weighted layers, and why.

    Raises:
        ValueError: On unknown or ambiguous names, a kernel that is wrapped, or is
            named and masked, quantized or has a LoRA adapter, kernels that are not
            finite, or arguments out of range, all before anything is evaluated; and
            when `evaluate` returns no accuracy.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> rows = compare_replacements(model, rules=("magnitude",), trials=2)
    >>> [row.replacement for row in rows]
    ['gaussian', 'matched', 'zero']

    Source: [shin2021], Appendix E and Table 1.
    """
    check_integer("trials", trials, least=2)
    check_integer("seed", seed, least=0)
    check_positive("deviations", deviations)
    for rule in rules:
        check_choice("rules", rule, RULES)
    for replacement in replacements:
        check_choice("replacements", replacement, REPLACEMENTS)
    chosen = compressible(model, where)
    kernels = _kernels(chosen)
    weights = np.concatenate([kernel.ravel() for kernel in kernels])
    # Wide, because the squares of float16 weights overflow.
    weights = weights.astype("float64")
    norm = np.linalg.norm(weights)
    fit = fit_power_law(weights)
    original = None if evaluate is None else _accuracy(evaluate, model)
    rows, name = [], _joined([weight.name for weight in chosen])
    try:
        for rule in rules:
            for replacement in replacements:
                draws = 1 if replacement == "zero" else trials
                kept, errors, accuracies = 0, [], []
                for trial in range(draws):
                    results = _compressed_kernels(
                        kernels, rule, replacement, seed, deviations, trial
                    )
                    kept = sum(int(record.kept.sum()) for _, record in results)
                    change = np.concatenate([array.ravel() for array, _ in results])
                    change = change.astype("float64") - weights
                    # Weights that are all zero stay so.
                    errors.append(float(np.linalg.norm(change) / norm) if norm else 0.0)
                    if evaluate is None:
                        continue
                    for weight, (array, _) in zip(chosen, results, strict=True):
                        weight.variable.assign(array)
                    accuracies.append(_accuracy(evaluate, model))
                mean = deviation = None
                if accuracies:
                    mean = float(np.mean(accuracies))
                    # The control has one outcome: its spread is exactly zero.
                    deviation = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
                rows.append(
                    CompressionRow(
                        name=name,
                        rule=rule,
                        replacement=replacement,
                        trials=draws,
                        alpha_pdf=fit.alpha_pdf,
                        alpha_tail=fit.alpha_tail,
                        kept=kept / weights.size,
                        relative_error=float(np.mean(errors)),
                        original_accuracy=original,
                        compressed_accuracy_mean=mean,
                        compressed_accuracy_sd=deviation,
                    )
                )
    finally:
        for weight, kernel in zip(chosen, kernels, strict=True):
            weight.variable.assign(kernel)
    share = weights.size / model.count_params()
    told = ""
    if (where is None or callable(where)) and chosen.left_out:
        told = f" Left out: {summary(chosen.left_out)}."
    return CompressionRows(
        rows,
        chosen.left_out,
        title=f"{model.name}: small weights of {name} "
        f"replaced ({weights.size:,} weights, {100 * share:.2g}% of the network)",
        caption=f"{trials} trials each. alpha: density exponent of the power law of "
        f"|w| (the tail's is one less), +- {fit.standard_error:.2g}, fitted to "
        f"{fit.tail_size} weights, {fit.status}. error: relative, Frobenius norm. "
        "before, after: accuracy. zero: the control, one outcome; "
        f"noise that does not beat it has not helped.{told}",
    )
