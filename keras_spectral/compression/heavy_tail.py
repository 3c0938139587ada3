"""Heavy-tailed weights: the large ones kept, the small ones replaced by noise."""

import dataclasses
import difflib
from typing import get_args

import keras
import numpy as np

from keras_spectral.compression.masks import (
    ReplacedKernel,
    Replacement,
    Rule,
    compression_of,
    remember,
)
from keras_spectral.layers import MaskedConv2D
from keras_spectral.measures import fit_power_law
from keras_spectral.models.copying import copy_model
from keras_spectral.models.weights import leaf_layers
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer, check_positive

RULES, REPLACEMENTS = get_args(Rule), get_args(Replacement)


def _column(label=None, form=None, table=True):
    return dataclasses.field(metadata={"label": label, "format": form, "table": table})


@dataclasses.dataclass(frozen=True)
class CompressionRow:
    """What one rule and replacement did to the layers and to the accuracy."""

    name: str = _column(table=False)
    rule: Rule = _column("rule")
    replacement: Replacement = _column("replaced by")
    trials: int = _column(table=False)
    alpha_pdf: float | None = _column("alpha", ".2f")
    alpha_tail: float | None = _column(table=False)
    kept: float = _column("kept", ".1%")
    relative_error: float = _column("error", ".3f")
    original_accuracy: float | None = _column("before", ".2%")
    compressed_accuracy_mean: float | None = _column("after", ".2%")
    compressed_accuracy_sd: float | None = _column("sd", ".2%")


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

    Source: papers/heavy-tail-compression.md, Appendix E.
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


def _chosen_layers(model, names):
    """Return the layers to compress, by name; by default the last Dense."""
    leaves = list(dict.fromkeys(leaf_layers(model)))
    found = {}
    for layer in leaves:
        found.setdefault(layer.name, []).append(layer)
    if names is None:
        dense = [
            layer
            for layer in leaves
            if isinstance(getattr(layer, "layer", layer), keras.layers.Dense)
        ]
        if not dense:
            raise ValueError(
                "`layers` must be given for a model without a Dense layer. "
                f"Received: layers=None for '{model.name}'."
            )
        chosen = dense[-1:]
    elif isinstance(names, str) and names == "all":
        kinds = (keras.layers.Dense, keras.layers.Conv2D)
        chosen = [
            layer
            for layer in leaves
            if isinstance(getattr(layer, "layer", layer), kinds)
            and not isinstance(layer, MaskedConv2D)
        ]
        if not chosen:
            raise ValueError(
                f"`model` must hold a Dense or Conv2D layer. Received: '{model.name}'"
            )
    elif isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ValueError(
            "`layers` must be a list of different layer names, or 'all'. "
            f"Received: layers={names!r}"
        )
    else:
        chosen = [_named(model, found, name) for name in names]
    for layer in chosen:
        _check_layer(layer)
    return chosen


def _named(model, found, name):
    """Return the one layer called `name`."""
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"`layers` must name layers of '{model.name}'. Received: {name!r}.{hint}"
        )
    if len(found[name]) > 1:
        raise ValueError(
            f"`layers` must name one layer each. Received: {name!r}, the name of "
            f"{len(found[name])} layers in the nested models of '{model.name}'. "
            "Compress the nested model itself."
        )
    return found[name][0]


def _check_layer(layer):
    """Raise a ValueError unless the layer computes with a float kernel of its own."""
    name = layer.name
    if hasattr(layer, "effective_kernel"):
        raise ValueError(
            f"`layers` must name plain layers: '{name}' computes with a function "
            "of its kernel. Take the plain model: `keras_spectral.unwrap(model)`."
        )
    if isinstance(layer, MaskedConv2D):
        raise ValueError(
            f"`layers` must name plain layers: '{name}' is sparse already, and what "
            "lies under its mask is no weight of the network. Leave it out."
        )
    if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
        raise ValueError(
            f"`layers` must name Dense or Conv2D layers. Received: '{name}', "
            f"a {type(layer).__name__}."
        )
    if not layer.built:
        raise ValueError(
            f"`model` must be built. Received: a model whose layer '{name}' has no "
            "weights yet. Call it on a batch first."
        )
    if getattr(layer, "lora_enabled", False):
        raise ValueError(
            f"`layers` must name plain layers: '{name}' adds a LoRA adapter to its "
            "kernel. `model.save_weights` merges the two; load them into the plain "
            "model."
        )
    dtype = keras.backend.standardize_dtype(layer.kernel.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"`layers` must name layers with float kernels. Received: '{name}', "
            f"quantized to {dtype}. Compress the model before quantizing it."
        )


def _accuracy(evaluate, model):
    accuracy = float(evaluate(model))
    if not 0 <= accuracy <= 1:
        raise ValueError(
            "`evaluate` must return an accuracy in [0, 1]. "
            f"Received: {accuracy} (a percentage must be divided by 100)."
        )
    return accuracy


def _compressed_kernels(kernels, rule, replacement, seed, deviations, trial):
    """Return (array, `ReplacedKernel`) of each kernel, each by a stream of its own."""
    stream = (RULES.index(rule), REPLACEMENTS.index(replacement), trial)
    return [
        _replace(kernel, rule, replacement, seed, deviations, (*stream, index))
        for index, kernel in enumerate(kernels)
    ]


def compress(
    model,
    layers=None,
    rules=RULES,
    replacements=REPLACEMENTS,
    trials=10,
    seed=0,
    evaluate=None,
    deviations=1.0,
):
    """Compress chosen layers several times and tabulate what it costs.

    Every rule and replacement is one row, the control `"zero"` among them by
    default. The model is left as it was.

    Args:
        model: A built `keras.Model`.
        layers: List of names of Dense or Conv2D layers, or `"all"`; default the
            last Dense.
        rules: Tuple of rules, see `compress_matrix`.
        replacements: Tuple of replacements, see `compress_matrix`.
        trials: Integer >= 2, draws of the noise; the control has one outcome
            and is evaluated once.
        seed: Integer >= 0.
        evaluate: Optional callable, model to accuracy in [0, 1]. Without it the
            accuracies are `None`.
        deviations: Float > 0, the threshold in standard deviations.

    Returns:
        `Rows` of `CompressionRow`: the exponents fitted to |w| of the layers'
        weights, the fraction kept, the mean relative error in Frobenius norm,
        and accuracy before, mean and standard deviation after.

    Raises:
        ValueError: On unknown or ambiguous names, a layer that is wrapped,
            quantized or has a LoRA adapter, weights that are not finite, or
            arguments out of range, all before anything is evaluated; and when
            `evaluate` returns no accuracy.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> rows = compress(model, rules=("magnitude",), trials=2)
    >>> [row.replacement for row in rows]
    ['gaussian', 'matched', 'zero']

    Source: papers/heavy-tail-compression.md, Appendix E and Table 1.
    """
    check_integer("trials", trials, least=2)
    check_integer("seed", seed, least=0)
    check_positive("deviations", deviations)
    for rule in rules:
        check_choice("rules", rule, RULES)
    for replacement in replacements:
        check_choice("replacements", replacement, REPLACEMENTS)
    chosen = _chosen_layers(model, layers)
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in chosen]
    weights = np.concatenate([kernel.ravel() for kernel in kernels])
    # Wide, because the squares of float16 weights overflow.
    weights = weights.astype("float64")
    norm = np.linalg.norm(weights)
    fit = fit_power_law(weights)
    original = None if evaluate is None else _accuracy(evaluate, model)
    rows = []
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
                    errors.append(np.linalg.norm(change) / norm if norm else 0.0)
                    if evaluate is None:
                        continue
                    for layer, (array, _) in zip(chosen, results, strict=True):
                        layer.kernel.assign(array)
                    accuracies.append(_accuracy(evaluate, model))
                mean = deviation = None
                if accuracies:
                    mean = float(np.mean(accuracies))
                    # The control has one outcome: its spread is exactly zero.
                    deviation = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
                rows.append(
                    CompressionRow(
                        name=", ".join(layer.name for layer in chosen),
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
        for layer, kernel in zip(chosen, kernels, strict=True):
            layer.kernel.assign(kernel)
    share = weights.size / model.count_params()
    return Rows(
        rows,
        title=f"{model.name}: small weights of {', '.join(x.name for x in chosen)} "
        f"replaced ({weights.size:,} weights, {100 * share:.2g}% of the network)",
        caption=f"{trials} trials each. alpha: density exponent of the power law of "
        f"|w| (the tail's is one less), +- {fit.standard_error:.2g}, fitted to "
        f"{fit.tail_size} weights, {fit.status}. error: relative, Frobenius norm. "
        "before, after: accuracy. zero: the control, one outcome; "
        "noise that does not beat it has not helped.",
    )


def apply(
    model,
    layers=None,
    rule="magnitude",
    replacement="matched",
    seed=0,
    deviations=1.0,
):
    """Return a copy of a model with chosen layers compressed once.

    Args:
        model: A built `keras.Model`; it is left as it is.
        layers: List of names, or `"all"`, as in `compress`.
        rule: See `compress_matrix`.
        replacement: See `compress_matrix`.
        seed: Integer >= 0. The result is that of the first trial of `compress`.
        deviations: See `compress_matrix`.

    Returns:
        A `keras.Model` of the same architecture. What was kept and how the noise was
        made is remembered with it, for `save_compressed` and `keep_mask`. It is
        compiled as `model` is, with a new optimizer; if Keras cannot save what `model`
        was compiled with, such as a loss of your own, compile the copy yourself.

    Raises:
        ValueError: As `compress`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> copy = apply(model, replacement="zero")
    >>> copy.count_params() == model.count_params()
    True

    Source: papers/heavy-tail-compression.md, Appendix E.
    """
    copy = copy_model(model)
    chosen = _chosen_layers(copy, layers)
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in chosen]
    results = _compressed_kernels(kernels, rule, replacement, seed, deviations, 0)
    # What an earlier compression froze in other layers was copied with the weights.
    compression = compression_of(model)
    places = {id(weight): index for index, weight in enumerate(copy.weights)}
    for layer, (array, record) in zip(chosen, results, strict=True):
        layer.kernel.assign(array)
        compression[places[id(layer.kernel)]] = record
    remember(copy, compression)
    return copy
