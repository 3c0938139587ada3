"""One cell of a recipe: a network trained with one seed, which resumes bit for bit."""

import dataclasses
import hashlib
import json
import os
import platform
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.cell_results import accuracy, measured
from keras_spectral.experiments.recipes import Recipe, settings_of
from keras_spectral.files import replacing

# Of checkpoints and rows; another one makes a rerun begin anew.
FORMAT = 2

# How NumPy tells that a file is missing or is not what was written.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)

# What an epoch of training tells.
_LOGS = ("loss", "accuracy")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network, a variant and a seed, and all that their row depends on.

    Args:
        recipe: Dict, a `Recipe` of plain types.
        network: String, the name of one of its networks.
        variant: String, the name of one of its variants.
        seed: Integer >= 0.
        folder: String, the run's folder: checkpoints are in `state`, trained networks
            in `models`.
        directory: String, where the data lies, or `None`; see `data.load`.
        row: Dict, the row of an earlier run that lacks measures, or `None`.
    """

    recipe: dict
    network: str
    variant: str
    seed: int
    folder: str
    directory: str | None = None
    row: dict | None = None

    def parts(self):
        """Return the `Recipe`, its network and its variant."""
        recipe = msgspec.convert(self.recipe, Recipe)
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
        return f"{word}-{hashlib.sha256(settings).hexdigest()[:8]}"


@dataclasses.dataclass
class CellRow:
    """What one cell came to.

    Args:
        network, variant, seed: See `Cell`.
        results: Dict from measures to numbers, `None` where there is none.
        reasons: Dict from the measures that have none to strings.
        probes: Dict, the `recipe_settings.Probes` that results are of, or `None`.
        epochs: Integer, how many were trained.
        seconds: Float, of the whole training, in all its parts.
        cpu_seconds: Float, the same in CPU time, of all threads.
        history: List of dicts, one an epoch: `epoch`, `loss`, `accuracy` (running, as
            trained), `test_accuracy` (in inference).
        layers: List of dicts: name, spectral norm, stable rank and shorter side of each
            kernel at the end, flattened.
        settings, environment, provenance: Dicts: what was asked for, with which
            versions, on which images.
        error: String, or `None`.
    """

    network: str
    variant: str
    seed: int
    results: dict
    epochs: int
    seconds: float
    cpu_seconds: float
    history: list
    layers: list
    settings: dict
    environment: dict
    provenance: dict
    error: str | None = None
    reasons: dict = dataclasses.field(default_factory=dict)
    probes: dict | None = None


def environment() -> dict:
    """Return what bit-equality depends on: versions, device and numbers of threads."""
    import keras
    import numpy

    backend = keras.backend.backend()
    module = __import__(backend)
    if backend == "tensorflow":
        devices = [x.device_type for x in module.config.list_physical_devices()]
    elif backend == "jax":
        devices = [x.platform for x in module.devices()]
    else:
        devices = ["cuda" if module.cuda.is_available() else "cpu"]
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        backend: module.__version__,
        "devices": sorted(devices),
        "machine": platform.machine(),
        "threads": {name: os.environ.get(name) for name in names},
        "cores": os.cpu_count(),
    }


def train_in_worker(cell) -> dict:
    """Return the `CellRow` of a cell as a dict; an error becomes a row, too."""
    from keras_spectral.experiments.checkpoint_task import one_at_a_time
    from keras_spectral.experiments.inputs import start_keras
    from keras_spectral.terminal import Console

    with one_at_a_time():
        start_keras(Console(quiet=True))
        try:
            return train_cell(cell)
        except Exception as error:  # A row tells it, and the others go on.
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

    from keras_spectral import measures
    from keras_spectral.experiments.inputs import load_keras

    recipe, network, variant = cell.parts()
    data = _data(recipe, cell)
    trained = Path(cell.folder) / "models" / f"{cell.key}.keras"
    if cell.row is not None and trained.is_file():
        return measured(cell.row, load_keras(trained), data, recipe)
    keras.utils.set_random_seed(cell.seed)
    model = _model(network, variant, data)
    state = Checkpoint(Path(cell.folder) / "state" / f"{cell.key}.npz", environment())
    history, seconds = _trained(cell, model, data, state)
    # What is kept loads without our optimizer, and is half as large.
    model.compiled, model.optimizer = False, None
    with replacing(trained) as temporary:
        model.save(temporary)
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
        environment=state.environment,
        provenance=dataclasses.asdict(data.provenance()),
    )
    return measured(dataclasses.asdict(row), model, data, recipe)


def _trained(cell, model, data, state):
    """Train to the end; return the history and the seconds, of wall and of CPU."""
    recipe, network, variant = cell.parts()
    optimizer, schedule = settings_of(recipe, network, variant)
    _compile(model, optimizer, schedule, len(data.train))
    history, seconds = state.restore(model)
    test, stop = data.test.inputs(), schedule.stop_at_train_accuracy
    while len(history) < schedule.epochs and not (
        stop is not None and history and history[-1]["accuracy"] >= stop
    ):
        begun, epoch = (time.perf_counter(), time.process_time()), len(history)
        batches = Batches(
            data.train, schedule.batch_size, cell.seed, epoch, recipe.data.augment
        )
        fitted = model.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0
        )
        logs = {name: float(fitted.history[name][-1]) for name in _LOGS}
        logs["test_accuracy"] = accuracy(model, test, data.test.labels)
        history.append({"epoch": epoch + 1, **logs})
        ended = time.perf_counter(), time.process_time()
        seconds = [s + e - b for s, e, b in zip(seconds, ended, begun, strict=True)]
        state.save(model, history, seconds)
    return history, seconds


def _data(recipe, cell):
    from keras_spectral import data as sets

    settings = recipe.data
    data = sets.load(
        settings.name, settings.image_size, settings.channels, cell.directory
    )
    # The same images and labels for every variant of a seed.
    if settings.count is not None:
        data = data.subset(settings.count, cell.seed)
    if settings.test_count is not None:
        test = data.test[: settings.test_count]
        data = dataclasses.replace(data, test=test)
    if settings.labels == "random":
        data = data.random_labels(cell.seed)
    return data


def _model(network, variant, data):
    """Return a variant's network, which begins with the plain network's kernels."""
    import keras_spectral as ks

    build = getattr(ks.zoo, network.builder, None)
    if build is None or network.builder.startswith("_"):
        raise ValueError(
            "`networks.builder` must be a function of keras_spectral.zoo. "
            f"Received: '{network.builder}'"
        )
    arguments = {**network.arguments, **variant.arguments}
    plain = build(**arguments)
    shape = plain.input_shape[1:]
    if shape != data.test.images.shape[1:]:
        raise ValueError(
            f"`networks.arguments` must fit the images, {data.test.images.shape[1:]}. "
            f"Received: {network.builder} with the input shape {shape}"
        )
    if variant.normalize == "none":
        return plain
    if variant.normalize == "spectral":

        def normalize(layer):
            return ks.layers.SpectralNormalization(layer)
    else:

        def normalize(layer):
            return ks.layers.StableRankNormalization(
                layer, stable_rank_ratio=variant.stable_rank_ratio
            )

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
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


class Checkpoint:
    """All that a training depends on, in one file, written whole or not at all.

    Every variable of the model (seeds of dropout and metrics among them) and of its
    optimizer. A file of other versions or numbers of threads is not used: the numbers
    would not be those of an uninterrupted run.

    Args:
        path: `pathlib.Path` of the `.npz` file.
        environment: Dict, see `environment`.
    """

    def __init__(self, path, environment):
        self.path, self.environment = path, environment

    def _variables(self, model):
        return [*model.variables, *model.optimizer.variables]

    def _kinds(self, model):
        # Names may have a number that counts the models of the process.
        return [[list(x.shape), str(x.dtype)] for x in self._variables(model)]

    def save(self, model, history, seconds):
        """Write the state after an epoch."""
        import numpy as np
        from keras import ops

        about = {
            "environment": self.environment,
            "history": history,
            "seconds": seconds,
            "kinds": self._kinds(model),
        }
        arrays = {
            f"variable_{number}": ops.convert_to_numpy(variable)
            for number, variable in enumerate(self._variables(model))
        }
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    def restore(self, model):
        """Bring the model to the state of the file; return history and seconds."""
        import numpy as np

        try:
            with self.path.open("rb") as raw, np.load(raw) as file:
                about = json.loads(str(file["about"]))
                variables = self._variables(model)
                expected = self.environment, self._kinds(model)
                if (about["environment"], about["kinds"]) != expected:
                    return [], (0.0, 0.0)
                arrays = [file[f"variable_{n}"] for n in range(len(variables))]
        except _DAMAGED:
            return [], (0.0, 0.0)
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return about["history"], about["seconds"]
