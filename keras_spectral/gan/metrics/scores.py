"""Metrics of a set of generated images as rows, named by their protocol."""

import dataclasses
from typing import Literal

import numpy as np

from keras_spectral.gan.metrics.features import Features, batches_of
from keras_spectral.gan.metrics.frechet import Side, distance_of, sides_of, warn_of_few
from keras_spectral.gan.metrics.images import to_uint8
from keras_spectral.gan.metrics.inception_score import inception_score
from keras_spectral.gan.metrics.kernel import kernel_distance
from keras_spectral.gan.metrics.manifold import precision_recall_density_coverage
from keras_spectral.gan.metrics.statistics import Statistics, checked_features
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer, check_probability

Kind = Literal["frechet", "kernel", "manifold"]
# Of the inception score.
_SPLITS = 10


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of generated images.

    Args:
        metric: String, the metric and its protocol: network, resize, the reference and
            how many samples it has, how many were generated.
        value: Float.
        direction: `"lower"` or `"higher"`: which is better.
        spread: Float, see `spread_of`, or `None`.
        spread_of: String, what the spread is: `"jackknife standard error"`.
        low: Float, where the 95 % interval begins, or `None`.
        high: Float, where it ends.
        chance: Float, what two samples of one distribution have on average, or `None`
            where that depends on the number of samples.
        generated: Integer, how many images.
        reference: Integer, how many the reference has; `None` if nobody knows.
    """

    metric: str
    value: float = dataclasses.field(metadata={"format": ".5g"})
    direction: Literal["lower", "higher"] = dataclasses.field(
        metadata={"label": "better"}
    )
    # The name has them.
    generated: int = dataclasses.field(metadata={"table": False})
    reference: int | None = dataclasses.field(metadata={"table": False})
    spread: float | None = dataclasses.field(default=None, metadata={"format": ".2g"})
    spread_of: str = dataclasses.field(default="", metadata={"label": "spread is"})
    low: float | None = None
    high: float | None = None
    chance: float | None = None


def protocol_name(
    metric: str, features: Features, generated, reference=None, data: str = ""
) -> str:
    """Return the name of a metric with all that its value depends on.

    Args:
        metric: String, `"Fréchet distance"` or another. On the Inception of 2015-12-05
            the Fréchet distance is named FID; on other networks it is not.
        features: `Features`.
        generated: Integer, how many images.
        reference: Integer, how many the reference has; `None` if nobody knows.
        data: String, what the reference is: `"CIFAR-10 train"`.

    Returns:
        String, with the reference's count before the generated images'.

    Example:
    >>> import keras
    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> protocol_name("Kernel distance", Features(model, "tiny"), 5000, 10000, "digits")
    'Kernel distance on tiny, no resize, symmetric (digits 10,000 / 5,000)'
    """
    known = "unknown" if reference is None else f"{reference:,}"
    counts = f"{data} {known} / {generated:,}".strip()
    if features.is_fid and metric == "Fréchet distance":
        return f"FID ({features.name}, {counts})"
    return f"{metric} on {features.name} ({counts})"


def bootstrap_interval(
    metric, generated, draws: int = 100, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return an interval of a metric over other draws of as many samples.

    Samples are drawn with replacement. A set with samples twice is worse by itself,
    which moves the Fréchet distance up; so the quantiles are taken about the mean of
    the draws and laid around the value. What remains is the spread of numbers with
    this count, not the distance at infinitely many (`frechet_distance_infinity`), and
    the reference is taken as it is. Metrics of neighbours are not for it: a sample that
    is there twice has itself as a neighbour.

    Args:
        metric: Callable from features (samples, dimensions) to a float.
        generated: Features.
        draws: Integer >= 2.
        level: Float in (0, 1).
        seed: Integer.

    Returns:
        Pair of floats.

    Raises:
        ValueError: If `draws` or `level` is out of range, or `generated` no features.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(400, 1))
    >>> low, high = bootstrap_interval(np.mean, x)
    >>> 0.15 < high - low < 0.25
    True
    """
    check_integer("draws", draws, least=2)
    check_probability("level", level)
    generated = checked_features("generated", generated, least=2)
    random = np.random.default_rng(seed)
    count = len(generated)
    values = [metric(generated[random.integers(0, count, count)]) for _ in range(draws)]
    tails = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - np.mean(values)
    low, high = metric(generated) + tails
    return float(low), float(high)


def score_images(
    generated,
    reference,
    features: Features,
    metrics=("frechet", "kernel", "manifold"),
    logits: Features | None = None,
    data: str = "",
    neighbours: int = 3,
    draws: int = 0,
    seed: int = 0,
) -> Rows:
    """Judge generated images by metrics of features.

    Args:
        generated: Images (samples, height, width, channels), uint8 or floats in
            [-1, 1], or an iterable of batches of them.
        reference: Images, likewise; or `Statistics` of their features, as
            `features.statistics(images, keep_features=True)` makes them. Without kept
            features only `"frechet"` can be had.
        features: `Features`.
        metrics: Tuple of `"frechet"`, `"kernel"` (of all samples) and `"manifold"`
            (precision, recall, density, coverage).
        logits: Optional `Features` that give logits, for the inception score in 10
            splits.
        data: String, what the reference is, for the names. Default: what the
            provenance of statistics has as `"data"`.
        neighbours: Integer, of `precision_recall_density_coverage`.
        draws: Integer, of the bootstrap for an interval of the Fréchet distance; 0 for
            none.
        seed: Integer, of the bootstrap.

    Returns:
        `Rows` of `Score`.

    Raises:
        ValueError: If the statistics are of other features, or have none where they
            are needed, or a side has too few samples; see `check_scores`.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D()])
    >>> x = np.random.default_rng(0).uniform(-1, 1, (2, 50, 4, 4, 1))
    >>> scores = score_images(*x, Features(model, "grey level"), ["frechet"])
    >>> scores[0].metric
    'Fréchet distance on grey level, no resize, symmetric (50 / 50)'
    """
    check_scores(generated, reference, features, metrics, logits, neighbours, draws)
    if isinstance(reference, Statistics):
        data = data or str(reference.provenance.get("data", ""))
    else:
        reference = features.statistics(reference, keep_features=True)
    # A stream is read once.
    if not hasattr(generated, "__array__") and logits is not None:
        generated = np.concatenate(list(map(to_uint8, batches_of(generated))))
    found = checked_features("generated", features(generated), least=2)
    ours, theirs = sides_of(found, reference)
    count, whole = len(found), reference.count

    def score(metric, value, direction, **more):
        name = protocol_name(metric, features, count, whole, data)
        return Score(name, float(value), direction, count, whole, **more)

    rows = []
    if "frechet" in metrics:
        warn_of_few(ours, theirs)
        more = {}
        if draws:
            interval = bootstrap_interval(
                lambda drawn: distance_of(Side("generated", drawn), theirs),
                found,
                draws,
                seed=seed,
            )
            more = {"low": max(interval[0], 0.0), "high": interval[1]}
        rows.append(
            score("Fréchet distance", distance_of(ours, theirs), "lower", **more)
        )
    if "kernel" in metrics:
        kernel = kernel_distance(found, reference.features)
        error = {"spread": kernel.error, "spread_of": "jackknife standard error"}
        metric = "Kernel distance, all samples"
        rows.append(score(metric, kernel.value, "lower", chance=0.0, **error))
    if "manifold" in metrics:
        shared = precision_recall_density_coverage(
            found, reference.features, neighbours
        )
        for name in ("precision", "recall", "density", "coverage"):
            metric = f"{name.capitalize()}, k = {neighbours},"
            rows.append(score(metric, getattr(shared, name), "higher"))
    if logits is not None:
        rows.append(_inception_score(generated, logits, count))
    return Rows(
        rows,
        title="Generated images",
        caption=(
            "In brackets: samples of the reference / generated. Only numbers of one "
            "network, resize and counts can be compared."
        ),
    )


def check_scores(
    generated,
    reference,
    features: Features,
    metrics=("frechet", "kernel", "manifold"),
    logits: Features | None = None,
    neighbours: int = 3,
    draws: int = 0,
):
    """Raise a ValueError if `score_images` would, before an image is made for it.

    Args:
        generated: As of `score_images`, or an integer, how many there will be. Of a
            stream nobody knows.
        reference: Likewise.
        features: As of `score_images`.
        metrics: Likewise.
        logits: Likewise.
        neighbours: Likewise.
        draws: Likewise.
    """
    for kind in metrics:
        check_choice("metrics", kind, Kind)
    check_integer("neighbours", neighbours, least=1)
    check_integer("draws", draws, least=0)
    if draws:
        check_integer("draws", draws, least=2)
    if isinstance(reference, Statistics):
        _check_statistics(reference, features, metrics)
    needs = {"a covariance": 2}
    if "manifold" in metrics:
        needs["'manifold' with its neighbours"] = neighbours + 1
    for name, given, more in (
        ("generated", generated, {"an inception score": _SPLITS} if logits else {}),
        ("reference", reference, {}),
    ):
        count = _count(given)
        for what, least in {**needs, **more}.items():
            if count is not None and count < least:
                raise ValueError(
                    f"`{name}` must be at least {least} images, as {what} needs. "
                    f"Received: {count}"
                )


def _count(given):
    """Return how many samples there are, or `None`."""
    if isinstance(given, Statistics):
        return given.count
    if hasattr(given, "__array__"):
        return len(given)
    return given if isinstance(given, int) else None


def _inception_score(images, logits, count):
    found = inception_score(logits(images), _SPLITS)
    return Score(
        f"Inception score on {logits.name} ({found.splits} splits, {count:,})",
        found.mean,
        "higher",
        count,
        None,
        spread=found.deviation,
        spread_of=f"deviation over {found.splits} splits",
    )


def _check_statistics(statistics, features, metrics):
    made_by = statistics.provenance.get("features", features.name)
    if made_by != features.name:
        raise ValueError(
            "`reference` must be statistics of the same features. Received: those of "
            f"{made_by!r}, and features={features.name!r}"
        )
    digest = statistics.provenance.get("weights_sha256")
    if digest is not None and digest != features.weights_sha256:
        raise ValueError(
            "`reference` must be statistics of the same network. Received: those of "
            f"another one of the name {made_by!r}, whose weights differ. Make them "
            "anew."
        )
    dimensions = features.dimensions, len(statistics.mean)
    # Of none yet the count says more.
    if statistics.count != 0 and None not in dimensions and len(set(dimensions)) > 1:
        raise ValueError(
            "`reference` must have the dimensions of the features. Received: "
            f"{dimensions[1]}, and {dimensions[0]} of {features.name!r}"
        )
    if statistics.features is None and set(metrics) - {"frechet"}:
        raise ValueError(
            f"`metrics` other than 'frechet' need the reference's features. Received: "
            f"metrics={tuple(metrics)} and statistics without. Make them by "
            "`features.statistics(images, keep_features=True)`."
        )
