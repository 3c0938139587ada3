"""One cell of a recipe: a network trained with one seed, which resumes bit for bit."""

import dataclasses
import functools
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.cell_results import accuracy, factor_drift, measured
from keras_spectral.experiments.curves import write_curves
from keras_spectral.experiments.devices import copy_state, devices_of, process_of
from keras_spectral.experiments.recipe_settings import (
    GanRecipe,
    kind_of,
    settings_of,
)
from keras_spectral.experiments.training_state import (
    Checkpoint,
    WithinEpoch,
    environment,
)
from keras_spectral.files import replacing

# Of checkpoints and rows; another one makes a rerun begin anew.
FORMAT = 2

# What an epoch of training tells.
_LOGS = ("loss", "accuracy")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network, a variant and a seed, and all that their row depends on.

    Args:
        recipe: Dict, a `Recipe` or `GanRecipe` of plain types.
        network: String, the name of one of its networks.
        variant: String, the name of one of its variants.
        seed: Integer >= 0.
        folder: String, the run's folder: checkpoints are in `state`, trained networks
            in `models`.
        directory: String, where the data lies, or `None`; see `data.load`.
        row: Dict, the row of an earlier run that lacks measures, or `None`.
        devices: `None`, `"all"` or an integer; see `devices_of`.
    """

    recipe: dict
    network: str
    variant: str
    seed: int
    folder: str
    directory: str | None = None
    row: dict | None = None
    devices: int | str | None = None

    def parts(self):
        """Return the recipe, its network and its variant."""
        kind: Any = kind_of(self.recipe)
        recipe = msgspec.convert(self.recipe, kind)
        (network,) = (x for x in recipe.networks if x.name == self.network)
        (variant,) = (x for x in recipe.variants if x.name == self.variant)
        return recipe, network, variant

    def settings(self):
        """Return what decides the numbers, as a dict: recipes share what is alike."""
        recipe, network, variant = self.parts()
        optimizer, schedule = settings_of(recipe, network, variant)
        used = {
            "data": recipe.data,
            "optimizer": optimizer,
            "schedule": schedule,
            "builder": network.builder,
            "arguments": {**network.arguments, **variant.arguments},
            "normalize": variant.normalize,
            "stable_rank_ratio": variant.stable_rank_ratio,
        }
        return {"format": FORMAT, "seed": self.seed, **msgspec.to_builtins(used)}

    @property
    def key(self):
        """String that names the cell's files."""
        settings = json.dumps(self.settings(), sort_keys=True).encode()
        words = f"{self.network}-{self.variant}-seed{self.seed}"
        word = "".join(c if c.isalnum() or c in "-_." else "_" for c in words)
        if len(word.encode()) > 200:  # Disks have names of 255 bytes.
            settings += words.encode()
            word = word.encode()[:200].decode(errors="ignore")
        return f"{word}-{hashlib.sha256(settings).hexdigest()[:8]}"


@dataclasses.dataclass
class CellRow:
    """What one cell came to.

    Args:
        network, variant, seed: See `Cell`.
        results: Dict from measures to numbers, `None` where there is none.
        reasons: Dict from the measures that have none to strings.
        distributions: Dict, see `cell_results.Results`.
        probes: Dict, the `recipe_settings.Probes` that results are of, or `None`.
        epochs: Integer, how many were trained.
        seconds: Float, of the whole training, in all its parts.
        cpu_seconds: Float, the same in CPU time, of all threads.
        history: List of dicts, one an epoch: `epoch`, `loss`, `accuracy` (running, as
            trained), `test_accuracy` (in inference); see `factor_drift`, too.
        layers: List of dicts: name, spectral norm, stable rank and shorter side of each
            kernel at the end, flattened.
        settings, environment, provenance: Dicts: what was asked for, with which
            versions, on which images.
        error: String, or `None`.
    """

    network: str
    variant: str
    seed: int
    results: dict[str, float | None]
    epochs: int
    seconds: float
    cpu_seconds: float
    history: list[dict]
    layers: list[dict]
    settings: dict
    environment: dict
    provenance: dict
    error: str | None = None
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    probes: dict | None = None
    distributions: dict = dataclasses.field(default_factory=dict)


def train_in_worker(cell) -> dict:
    """Return the `CellRow` of a cell as a dict; an error becomes a row, too."""
    try:
        return train_cell(cell)
    except Exception as error:  # A row tells it, and the others go on.
        if process_of(cell.devices)[1] > 1:
            raise  # Other processes wait for this one.
        return failed_cell(cell, error)


def failed_cell(cell, error) -> dict:
    """Return the row of a cell that ended in an error."""
    row = CellRow(
        *(cell.network, cell.variant, cell.seed, {}, 0, 0.0, 0.0, [], []),
        *(cell.settings(), {}, {}),
        error=f"{type(error).__name__}: {error}",
    )
    return dataclasses.asdict(row)


def train_cell(cell) -> dict:
    """Train a cell from where its checkpoint is, and measure it."""
    import keras

    recipe, network, variant = cell.parts()
    if isinstance(recipe, GanRecipe):
        from keras_spectral.experiments.gan_cells import train_gan

        return train_gan(cell)
    data = images_of(cell)
    path = Path(cell.folder) / "models" / f"{cell.key}.keras"
    if cell.row is not None and path.is_file():
        return measured(cell.row, kept_model(path), data, recipe)

    def build():
        keras.utils.set_random_seed(cell.seed)
        return _model(network, variant, data)

    # What is measured and kept is on one device.
    model = trained = build()
    where = devices_of(cell.devices)
    if where.count > 1:
        trained = where.built(build)
    state = Checkpoint(
        Path(cell.folder) / "state" / f"{cell.key}.npz",
        {**environment(), **where.record(), "images": list(data.provenance().sha256)},
        writes=where.process == 0,
    )
    history, seconds = _trained(cell, trained, model, data, state, where)
    # What is kept loads without our optimizer, and is half as large.
    model.compiled, model.optimizer = False, None
    if state.writes:
        with replacing(path) as temporary:
            model.save(temporary)
    row = row_of(cell, model, history, seconds, state, data)
    return measured(row, model, data, recipe)


def kept_model(path):
    """Return the network that an earlier run trained."""
    from keras_spectral.experiments.inputs import load_keras

    try:
        return load_keras(path)
    except ValueError as error:
        # Not trained anew unasked: it may be a matter of versions, and takes hours.
        raise ValueError(
            f"{error} Or remove it: the next run trains the network anew."
        ) from error


def row_of(cell, model, history, seconds, state, data) -> dict:
    """Return the `CellRow` of what was trained, without measures, as a dict.

    Args:
        cell: A `Cell`.
        model: The `keras.Model` whose kernels are told.
        history: List of dicts, one an epoch.
        seconds: Pair of floats, of wall and of CPU.
        state: The `Checkpoint`.
        data: The `data.Data`.
    """
    from keras_spectral import measures

    layers = [
        {
            "name": row.name,
            "spectral_norm": row.spectral_norm,
            "stable_rank": row.stable_rank,
            "shorter_side": min(row.shape),
        }
        for row in measures.spectrum(model)
    ]
    row = CellRow(
        cell.network,
        cell.variant,
        cell.seed,
        results={},
        epochs=len(history),
        seconds=seconds[0],
        cpu_seconds=seconds[1],
        history=history,
        layers=layers,
        settings=cell.settings(),
        environment={x: y for x, y in state.environment.items() if x != "images"},
        provenance=dataclasses.asdict(data.provenance()),
    )
    return dataclasses.asdict(row)


def _trained(cell, model, copy, data, state, where):
    """Train to the end; return the history and the seconds, of wall and of CPU.

    `copy` has the model's variables after each epoch.
    """
    recipe, network, variant = cell.parts()
    optimizer, schedule = settings_of(recipe, network, variant)
    count, test = len(data.train), data.test.inputs()
    where.check(count, schedule.batch_size)
    with where.scope():
        _compile(model, optimizer, schedule, count)
        progress = state.restore(model)
    wall, cpu = time.perf_counter(), time.process_time()
    before, history = progress.seconds, progress.history

    def seconds():
        now = time.perf_counter() - wall, time.process_time() - cpu
        return [one + other for one, other in zip(before, now, strict=True)]

    def ended():
        stop = schedule.stop_at_train_accuracy
        enough = stop is not None and history and history[-1]["accuracy"] >= stop
        return enough or len(history) >= schedule.epochs

    while not ended():
        batches = Batches(
            *(data.train, schedule.batch_size, cell.seed, len(history)),
            augment=recipe.data.augment,
            first=progress.step,
            share=(where.process, where.processes),
        )
        # Sums over devices cannot be divided again without rounding.
        within = []
        if where.count == 1:
            within = [WithinEpoch(state, progress, seconds, cell.seed)]
        with where.scope():
            fitted = model.fit(batches, shuffle=False, verbose=0, callbacks=within)
        progress.step = 0
        copy_state(model, copy)
        logs = {name: float(fitted.history[name][-1]) for name in _LOGS}
        logs["test_accuracy"] = accuracy(copy, test, data.test.labels)
        logs |= factor_drift(copy)
        history.append({"epoch": len(history) + 1, **logs})
        if state.writes:
            write_curves(Path(cell.folder), cell.key, history)
        state.save(model, history, seconds())
    copy_state(model, copy)
    return history, seconds()


def images_of(cell):
    """Return the `data.Data` of a cell."""
    from keras_spectral import data as sets

    recipe, _, _ = cell.parts()
    settings = recipe.data
    data = sets.load(
        settings.name, settings.image_size, settings.channels, cell.directory
    )
    # The same images and labels for every variant of a seed.
    if settings.count is not None:
        data = data.subset(settings.count, cell.seed)
    if settings.test_count is not None:
        if settings.test_count > len(data.test):
            raise ValueError(
                f"`data.test_count` must be at most {len(data.test)}: {data.name} has "
                f"no more images to test with. Received: {settings.test_count}"
            )
        test = data.test[: settings.test_count]
        data = dataclasses.replace(data, test=test)
    if settings.labels == "random":
        data = data.random_labels(cell.seed)
    return data


def builder_of(network):
    """Return the function of `keras_spectral.zoo` that a network names."""
    import keras_spectral as ks

    build = getattr(ks.zoo, network.builder, None)
    if build is None or network.builder.startswith("_"):
        raise ValueError(
            "`networks.builder` must be a function of keras_spectral.zoo. "
            f"Received: '{network.builder}'"
        )
    return build


def normalizer_of(variant):
    """Return a variant's function from layer to layer, or `None`."""
    import keras_spectral as ks

    if variant.normalize == "none":
        return None
    if variant.normalize == "spectral":
        return ks.layers.SpectralNormalization
    return functools.partial(
        ks.layers.StableRankNormalization, stable_rank_ratio=variant.stable_rank_ratio
    )


def _model(network, variant, data):
    """Return a variant's network, which begins with the plain network's kernels."""
    import keras_spectral as ks

    build = builder_of(network)
    arguments = {**network.arguments, **variant.arguments}
    plain = build(**arguments)
    shape = plain.input_shape[1:]
    if shape != data.test.images.shape[1:]:
        raise ValueError(
            f"`networks.arguments` must fit the images, {data.test.images.shape[1:]}. "
            f"Received: {network.builder} with the input shape {shape}"
        )
    normalize = normalizer_of(variant)
    if normalize is None:
        return plain
    model = build(**arguments, normalize=normalize)
    ks.surgery.copy_weights(plain, model)
    return model


def _compile(model, settings, schedule, count):
    import keras

    from keras_spectral.experiments.optimizers import sgd

    rate: Any = settings.learning_rate
    if schedule.decay_epochs:
        steps = -(-count // schedule.batch_size)
        values = [
            rate * schedule.decay**n for n in range(len(schedule.decay_epochs) + 1)
        ]
        boundaries = [epoch * steps - 1 for epoch in schedule.decay_epochs]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    model.compile(
        sgd(rate, settings.momentum, settings.nesterov, settings.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # TensorFlow's graphs are compiled sooner without XLA; JAX has nothing else.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)
