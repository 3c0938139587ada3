"""Empirical Lipschitz constants: how far apart pairs of samples come out."""

from typing import Literal, get_args

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.samples import Samples, floats, forward
from keras_spectral.validation import check_choice, check_integer

Pairs = Literal["real", "fake", "real-fake", "same class", "real-fake of a class"]
_KINDS = get_args(Pairs)
# Norms of what goes in; what comes out is in the Euclidean.
ORDERS = (1, 2, np.inf)


def empirical_lipschitz(
    model: keras.Model,
    real,
    fake=None,
    *,
    labels=None,
    fake_labels=None,
    pairs="real",
    count: int = 2000,
    order: float = 2,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
) -> Distributions:
    """Return |f(x) - f(y)| / |x - y| of random pairs of samples.

    Its histogram is the paper's eLhist. It lies below a Lipschitz constant, which is of
    all pairs there are. Pairs of equal inputs have none, and are counted as left out.

    Args:
        model: A built `keras.Model`, such as a discriminator. All outputs count
            together, in the Euclidean norm.
        real: Array of inputs, or a stream of batches of x or (x, y), such as a
            `tf.data.Dataset`; all of it is read. Of several inputs the distance is that
            of all floats together; others, such as labels, go with their sample.
        fake: The same, of generated samples, for the kinds that name it.
        labels: Integer array, of `real`, for kinds of a class; a stream may yield them.
        fake_labels: Likewise, of `fake`.
        pairs: A kind of pair, or a list of kinds, which have a row each: `"real"` and
            `"fake"` (two different samples of one set), `"real-fake"`,
            `"same class"` (two different real samples of a class, which is as likely as
            it is large; a class of one has none), and `"real-fake of a class"` (of the
            classes that both sets have each is as likely: the paper's for conditional
            discriminators).
        count: Integer >= 1, pairs of each kind. The paper's is 2000.
        order: 1, 2 or infinity, the norm of x - y.
        seed: Integer >= 0.
        batch_size: Integer >= 1.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Distributions`: a row a kind, of which the paper marks the 95th percentile;
        `.histogram(kind)` and `.values`.

    Raises:
        ValueError: If the model is not built or finite, inputs or labels do not fit, or
            there are no such pairs.

    Example: no pair exceeds the norm of a linear map.
    >>> layer = keras.layers.Dense(2, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> found = empirical_lipschitz(model, x)
    >>> found[0].name, found[0].maximum <= 1
    ('real', True)

    Source: [sanyal2020], sections 3 and 5.3, Figures 5 and 12 to 14.
    """
    kinds = [pairs] if isinstance(pairs, str) else list(pairs)
    for kind in kinds or [None]:
        check_choice("pairs", kind, Pairs)
    check_choice("order", order, ORDERS)
    check_integer("count", count, least=1)
    check_integer("seed", seed, least=0)
    sets = {}
    if any("fake" in kind for kind in kinds):
        if fake is None:
            raise ValueError(
                f"`fake` must be given for pairs={pairs!r}. Received: fake=None"
            )
        given = model, fake, fake_labels, batch_size, progress, "fake"
        sets["fake"] = _Set(*given, truth="fake_labels")
    if kinds != ["fake"]:
        sets["real"] = _Set(model, real, labels, batch_size, progress, "real")
    chosen = {}
    for kind in kinds:
        # Of a kind's own, so that the others change nothing.
        random = np.random.default_rng([seed, _KINDS.index(kind)])
        chosen[kind] = _chosen(kind, sets, count, random)
    run = forward(model)
    for found in sets.values():
        found.run(run, progress)
    values = {}
    for kind, (first, one, second, other) in chosen.items():
        x, y = sets[first], sets[second]
        moved = np.linalg.norm(x.outputs[one] - y.outputs[other], axis=1)
        # In parts, as the differences of all pairs are larger than all samples.
        distance = np.concatenate(
            [
                np.linalg.norm(
                    x.numbers(one[at : at + batch_size])
                    - y.numbers(other[at : at + batch_size]),
                    ord=order,
                    axis=1,
                )
                for at in range(0, count, batch_size)
            ]
        )
        values[kind] = moved / np.where(distance > 0, distance, np.nan)
    return Distributions(
        values,
        title=f"Empirical Lipschitz constants of {model.name}",
        caption=f"{count} pairs each; inputs in the {order:g}-norm, outputs in the "
        "Euclidean. Left out: pairs of equal inputs.",
    )


class _Set:
    """All samples of one kind, and what the model makes of them."""

    def __init__(self, model, x, labels, batch_size, progress, name, truth="labels"):
        samples = Samples(model, x, labels, batch_size, name=name, truth=truth)
        self.inputs, self.labels = samples.arrays("Reading", progress)
        floats([array[:1] for array in self.inputs])  # Raises before any work.
        self.samples = Samples(model, _given(self.inputs), None, batch_size, name=name)
        self.size, self.name = len(self.inputs[0]), name

    def run(self, run, progress):
        batches = self.samples.each("Empirical Lipschitz constants", progress)
        self.outputs = np.concatenate([run(inputs) for inputs, _ in batches])

    def numbers(self, rows):
        return floats([array[rows] for array in self.inputs])


def _given(inputs):
    return inputs[0] if len(inputs) == 1 else inputs


def _of_both(real, fake, count, random):
    for found, name in (real, "labels"), (fake, "fake_labels"):
        if found.labels is None:
            raise ValueError(
                f'`{name}` must be given for pairs="real-fake of a class". Received: '
                f"{name}=None"
            )
    classes = np.intersect1d(real.labels, fake.labels)
    if not len(classes):
        raise ValueError(
            "`labels` and `fake_labels` must have a class in common. Received: none"
        )
    group = random.integers(len(classes), size=count)
    chosen = []
    for found in real, fake:
        rows = [np.flatnonzero(found.labels == label) for label in classes]
        sizes = np.array([len(x) for x in rows])
        place = (np.cumsum(sizes) - sizes)[group] + random.integers(sizes[group])
        chosen += [found.name, np.concatenate(rows)[place]]
    return tuple(chosen)


def _chosen(kind, sets, count, random):
    """Return (set, indices, set, indices) of random pairs."""
    if kind == "real-fake":
        one = random.integers(sets["real"].size, size=count)
        return "real", one, "fake", random.integers(sets["fake"].size, size=count)
    if kind == "real-fake of a class":
        return _of_both(sets["real"], sets["fake"], count, random)
    found = sets["real" if kind == "same class" else kind]
    groups = np.zeros(found.size, int)
    if kind == "same class":
        if found.labels is None:
            raise ValueError(
                '`labels` must be given for pairs="same class". Received: labels=None'
            )
        groups = np.unique(found.labels, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    usable = np.flatnonzero(sizes[groups] > 1)
    if not len(usable):
        where = "a class" if kind == "same class" else f"`{found.name}`"
        raise ValueError(
            f"`pairs` need two samples of {where}. Received: {found.size} samples"
        )
    one = usable[random.integers(len(usable), size=count)]
    group = groups[one]
    rank = np.empty(found.size, int)
    rank[order] = np.arange(found.size) - starts[groups[order]]
    # One of the others of its group, each as likely.
    step = random.integers(1, sizes[group])
    other = order[starts[group] + (rank[one] + step) % sizes[group]]
    return found.name, one, found.name, other
