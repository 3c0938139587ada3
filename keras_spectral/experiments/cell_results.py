"""What a trained network comes to: the measures that a recipe can ask for."""

import math
from typing import NamedTuple, get_args

import msgspec

from keras_spectral.experiments.recipe_settings import (
    GAN_MEASURES_OF_TRAINING,
    GanMeasure,
)

# The toolkit's names and ours. Jac-Norm knows no kernels.
_FOLDED = {"Spec-Fro": "log_spectral_frobenius", "Spec-L1": "log_spectral_l1"}
_BARE = {
    "Spec-Fro": "log_bare_spectral_frobenius",
    "Spec-L1": "log_bare_spectral_l1",
    "Jac-Norm": "log_jacobian_norm",
    "margin": "margin",
}
_PERCENTS = (10, 50, 90)

# Ranks kept, in percent of all, and more than any kernel has.
_RATIOS = (75, 50, 25)
_WHOLE = 10**9


class Results(NamedTuple):
    """What `results_of` returns.

    Args:
        values: Dict from the measures' names to numbers, `None` where there is none.
        reasons: Dict from the names of those to strings.
        distributions: Dict from measures whose percentiles were asked for to lists of
            101 numbers, all their percentiles.
    """

    values: dict
    reasons: dict
    distributions: dict


def results_of(model, data, names, probes, history=()) -> Results:
    """Return the values of measures of a trained network.

    Accuracies and errors are of all images. What depends on samples besides is of
    `probes`. Logarithms are natural; samples that are misclassified have none, and only
    `misclassified`, their share, and the margins count them. Batch normalization, in
    inference, is part of the kernel before it; `bare` measures are of the kernels
    alone. A number that is not finite, or is refused for a network, is `None`, with the
    reason.

    Args:
        model: A `keras.Model` that returns logits.
        data: A `data.Data` of the images it was trained and is tested on.
        names: List of strings, of `recipe_settings.Measure`.
        probes: A `recipe_settings.Probes`.
        history: List of dicts, the learning curve; see `CellRow`.

    Returns:
        `Results`.
    """
    split = getattr(data, probes.split)[: probes.images]
    found, reasons = _accuracies(model, data, names) | _of_history(history), {}
    for group, compute in _GROUPS.items():
        if not set(group) & set(names):
            continue
        try:
            found |= compute(model, split, probes.draws)
        except Exception as error:  # What was trained counts without this measure.
            reasons |= dict.fromkeys(group, f"{type(error).__name__}: {error}")
    return chosen(found, reasons, names)


def chosen(found, reasons, names) -> Results:
    """Return what was asked for of what was computed.

    Args:
        found: Dict from names to numbers, and to arrays of which they are percentiles.
        reasons: Dict from names to strings.
        names: List of strings, the measures asked for.
    """
    import numpy as np

    values, distributions = {}, {}
    for name, samples in found.items():
        if isinstance(samples, np.ndarray):
            counted = samples[np.isfinite(samples)]
            if len(counted):
                percentiles = np.percentile(counted, np.arange(101))
                # Seven digits draw any histogram.
                distributions[name] = [float(f"{x:.7g}") for x in percentiles]
    for name in names:
        value = found.get(name)
        fits = value is not None and math.isfinite(value)
        values[name] = value if fits else None
        if not fits:
            reasons.setdefault(name, f"there is no such number: {value}")
    reasons = {x: y for x, y in reasons.items() if x in values}
    return Results(values, reasons, distributions)


def missing_measures(row, recipe) -> list:
    """Return the measures of a `Recipe` that a row has not, or of other probes.

    Args:
        row: Dict, see `CellRow`.
        recipe: A `Recipe`.
    """
    kept = row["probes"] == msgspec.to_builtins(recipe.probes)
    return [
        name
        for name in recipe.measures
        if name not in row["results"] or (_of_probes(name) and not kept)
    ]


def measured(row, model, data, recipe, results_of=results_of) -> dict:
    """Return a row with the measures of a recipe that it lacks.

    Args:
        row: Dict, see `CellRow`.
        model: The trained `keras.Model`.
        data: Its `data.Data`.
        recipe: A `Recipe` or `GanRecipe`.
        results_of: Callable as `results_of`, which computes them.
    """
    names = missing_measures(row, recipe)
    found = results_of(model, data, names, recipe.probes, row["history"])
    results, reasons, probes = row["results"], row["reasons"], row["probes"]
    # Rows of before have none.
    distributions = row.get("distributions", {})
    if any(map(_of_probes, names)):
        probes = msgspec.to_builtins(recipe.probes)
    if probes != row["probes"]:  # Nothing of others stays beside what is of these.
        results = {x: y for x, y in results.items() if not _of_probes(x)}
        reasons = {x: y for x, y in reasons.items() if x in results}
        distributions = {}
    return {
        **row,
        "results": {**results, **found.values},
        "reasons": {**reasons, **found.reasons},
        "distributions": {**distributions, **found.distributions},
        "probes": probes,
    }


def _of_probes(name):
    if name in get_args(GanMeasure):
        return name not in GAN_MEASURES_OF_TRAINING
    return any(name in group for group in _GROUPS if group not in _OF_WEIGHTS)


def accuracy(model, x, labels) -> float:
    """Return the share of inputs whose largest logit is their label's."""
    import numpy as np

    logits = model.predict(x, batch_size=256, verbose=0)
    logits = logits.reshape(len(logits), -1)
    return float(np.mean(logits.argmax(-1) == labels))


def _accuracies(model, data, names):
    found = {}
    if {"train_accuracy", "train_error", "gap"} & set(names):
        found["train_accuracy"] = accuracy(
            model, data.train.inputs(), data.train.labels
        )
        found["train_error"] = 1 - found["train_accuracy"]
    if {"test_accuracy", "test_error", "test_correct", "gap"} & set(names):
        found["test_accuracy"] = accuracy(model, data.test.inputs(), data.test.labels)
        found["test_error"] = 1 - found["test_accuracy"]
        found["test_correct"] = round(found["test_accuracy"] * len(data.test))
    if "gap" in names:
        found["gap"] = found["train_accuracy"] - found["test_accuracy"]
    return found


def factor_drift(model) -> dict:
    """Return how far the factors of SVD layers are from what they stand for.

    Args:
        model: A `keras.Model`.

    Returns:
        Dict, empty without such layers: `orthogonality_error`, the largest one, and
        `singular_value_ratio`, the smallest one of the layers' smallest singular
        value to their largest.
    """
    from keras import ops

    from keras_spectral.layers.svd_layer import SVDLayer
    from keras_spectral.models.keras_internals import flatten_layers

    found = [layer for layer in flatten_layers(model) if isinstance(layer, SVDLayer)]
    if not found:
        return {}
    errors = [float(layer.orthogonality_error()) for layer in found]
    values = [abs(ops.convert_to_numpy(layer.singular_values())) for layer in found]
    ratios = [float(x.min() / x.max()) if x.max() else 0.0 for x in values]
    return {"orthogonality_error": max(errors), "singular_value_ratio": min(ratios)}


def _of_history(history):
    """Return how fast a network learned, by its accuracies as it was trained."""
    accuracies = [epoch["accuracy"] for epoch in history]
    found = {}
    if accuracies:
        found["mean_train_error"] = 1 - sum(accuracies) / len(accuracies)
    for percent in (50, 90, 99):
        epochs = [row for row in history if row["accuracy"] >= percent / 100]
        if epochs:
            found[f"epochs_to_{percent}"] = epochs[0]["epoch"]
            found[f"test_accuracy_at_{percent}"] = epochs[0]["test_accuracy"]
    return found


def _noise(model, split, draws):
    from keras_spectral.measures import noise_sensitivity

    found = noise_sensitivity(model, split.inputs(), draws=draws, progress=False)
    percents = {"50": 50, "95": 95, "maximum": 100}
    (row,) = found
    values = {
        f"noise_sensitivity_{name}": found.percentile(row.name, percent)
        for name, percent in percents.items()
    }
    return {**values, "noise_sensitivity": found.values[row.name]}


def _complexity(names, batch_normalization):
    """Return a function that computes percentiles of measures, and `misclassified`."""

    def compute(model, split, draws):
        from keras_spectral.measures import complexity_measures

        found = complexity_measures(
            model,
            split.inputs(),
            split.labels,
            measures=[name for name in names if name != "margin"],
            batch_normalization=batch_normalization,
            progress=False,
        )
        values = {
            f"{name}_{percent}": found.percentile(key, percent)
            for key, name in names.items()
            for percent in _PERCENTS
        }
        samples = {name: found.values[key] for key, name in names.items()}
        return {**values, **samples, "misclassified": found.error}

    return compute


def _percentiles(names):
    return [f"{name}_{x}" for name in names.values() for x in _PERCENTS]


def _bound(model, split, draws):
    from keras_spectral.measures import lipschitz_bound

    found = lipschitz_bound(model, input_shape=split.images.shape[1:], progress=False)
    return {"log_lipschitz_bound": found.log10_bound * math.log(10)}


def _stable_ranks(model, split, draws):
    from keras_spectral.measures import spectrum

    ratios = [row.stable_rank / min(row.shape) for row in spectrum(model)]
    return {"stable_rank_ratio": sum(ratios) / len(ratios)}


def _truncation(model, split, draws):
    """Return Theorem 1's bounds for the images, and the most that outputs move."""
    import numpy as np

    from keras_spectral.theory import low_rank_error_bound

    x = split.inputs()
    largest = float(np.linalg.norm(x.reshape(len(x), -1), axis=1).max())
    whole = low_rank_error_bound(model, _WHOLE, largest)
    outputs, found = whole.model.predict(x, verbose=0), {}
    for percent in _RATIOS:
        # As the paper's networks have them: k = max(1, floor(S min(m, n))).
        ranks = {x.name: max(1, percent * x.largest_rank // 100) for x in whole}
        cut = low_rank_error_bound(model, ranks, largest)
        moved = outputs - cut.model.predict(x, verbose=0)
        error = np.linalg.norm(moved.reshape(len(x), -1), axis=1).max()
        found[f"log_low_rank_bound_{percent}"] = math.log(cut.bound)
        found[f"log_low_rank_error_{percent}"] = math.log(error)
    return found


def _parameters(model, split, draws):
    # As the papers count: what is trained.
    return {"parameters": sum(math.prod(x.shape) for x in model.trainable_variables)}


# Measures that are computed together, or refused together.
_OF_WEIGHTS = {
    ("parameters",): _parameters,
    ("log_lipschitz_bound",): _bound,
    ("stable_rank_ratio",): _stable_ranks,
}
_GROUPS = _OF_WEIGHTS | {
    tuple(
        f"log_low_rank_{x}_{percent}" for x in ("bound", "error") for percent in _RATIOS
    ): _truncation,
    tuple(f"noise_sensitivity_{x}" for x in ("50", "95", "maximum")): _noise,
    tuple(_percentiles(_FOLDED)): _complexity(_FOLDED, "fold"),
    (*_percentiles(_BARE), "misclassified"): _complexity(_BARE, "ignore"),
}
