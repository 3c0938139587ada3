"""What an unfinished training goes on from, and what its numbers depend on."""

import dataclasses
import json
import os
import platform
import time
import zipfile
import zlib

import keras
import numpy as np
from keras import ops

import keras_spectral
from keras_spectral.files import replacing

# Seconds between two files within an epoch.
PERIOD = 60.0

# How NumPy tells that a file is missing or is not what was written. A byte may make a
# zip look encrypted, too, or compressed as none is: a RuntimeError.
_DAMAGED = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError, TypeError),
    *(zipfile.BadZipFile, zlib.error),
)


def environment() -> dict:
    """Return what bit-equality depends on: versions, devices, numbers of threads."""
    backend = keras.backend.backend()
    module = __import__(backend)
    if backend == "tensorflow":
        details = module.config.experimental.get_device_details
        devices = [
            details(x).get("device_name", x.device_type)
            for x in module.config.list_physical_devices()
        ]
    elif backend == "jax":
        devices = [x.device_kind for x in module.devices()]
    else:
        count = module.cuda.device_count()
        devices = [module.cuda.get_device_name(n) for n in range(count)] or ["cpu"]
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {
        "python": platform.python_version(),
        "keras_spectral": keras_spectral.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        backend: module.__version__,
        "devices": sorted(devices),
        "machine": platform.machine(),
        "threads": {name: os.environ.get(name) for name in names},
        "cores": os.cpu_count(),
    }


@dataclasses.dataclass
class Progress:
    """How far a training is.

    Args:
        history: List of dicts, one a finished epoch.
        seconds: Floats, of wall and of CPU.
        step: Integer, how many batches of the next epoch are done.
        metrics: List of arrays, the running metrics of these batches.
    """

    history: list = dataclasses.field(default_factory=list)
    seconds: tuple = (0.0, 0.0)
    step: int = 0
    metrics: list = dataclasses.field(default_factory=list)


class Checkpoint:
    """All that a training depends on, in one file, written whole or not at all.

    Every variable of the model (seeds of dropout among them) and of its optimizer, and
    of the running metrics within an epoch. A file of other versions or numbers of
    threads is not used: the numbers would not be those of an uninterrupted run.

    Args:
        path: `pathlib.Path` of the `.npz` file.
        environment: Dict, see `environment`.
        writes: Boolean; of several processes only one does.
    """

    def __init__(self, path, environment, writes=True):
        self.path, self.environment, self.writes = path, environment, writes

    def _variables(self, model):
        return [*model.variables, *model.optimizer.variables]

    def _kinds(self, model):
        # Names may have a number that counts the models of the process.
        return [[list(x.shape), str(x.dtype)] for x in self._variables(model)]

    def save(self, model, history, seconds, step=0):
        """Write the state after an epoch, or after some batches of the next one."""
        if not self.writes:
            return
        about = {
            "environment": self.environment,
            "history": history,
            "seconds": seconds,
            "step": step,
            "kinds": self._kinds(model),
        }
        found = {"variable": self._variables(model)}
        # An epoch begins with new ones.
        found["metric"] = model.metrics_variables if step else []
        arrays = {
            f"{kind}_{number}": ops.convert_to_numpy(variable)
            for kind, variables in found.items()
            for number, variable in enumerate(variables)
        }
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    def restore(self, model) -> Progress:
        """Bring the model to the state of the file; return how far it is."""
        try:
            with self.path.open("rb") as raw, np.load(raw) as file:
                about = json.loads(str(file["about"]))
                variables = self._variables(model)
                expected = self.environment, self._kinds(model)
                if (about["environment"], about["kinds"]) != expected:
                    return Progress()
                arrays = [file[f"variable_{n}"] for n in range(len(variables))]
                count = sum(name.startswith("metric_") for name in file.files)
                metrics = [file[f"metric_{n}"] for n in range(count)]
                step = about.get("step", 0)
                progress = Progress(about["history"], about["seconds"], step, metrics)
        except _DAMAGED:
            return Progress()
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return progress


class WithinEpoch(keras.callbacks.Callback):
    """Writes the state within an epoch every `PERIOD`, and goes on within one.

    Args:
        state: A `Checkpoint`.
        progress: The `Progress` at the epoch's begin, or within it.
        seconds: Callable, returns the seconds of the training so far.
        seed: Integer >= 0, the cell's.
    """

    def __init__(self, state, progress, seconds, seed):
        super().__init__()
        self._state, self._progress, self._seconds = state, progress, seconds
        self._seed, self._saved = seed, time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if keras.backend.backend() == "torch":
            # Keras' dropout takes torch's own generators there, which no variable has,
            # and each data loader too: like a batch, a function of epoch and step.
            import torch

            epoch, step = len(self._progress.history), self._progress.step + batch
            sequence = np.random.SeedSequence([self._seed, epoch, step])
            torch.manual_seed(int(sequence.generate_state(1)[0]))

    def on_train_batch_end(self, batch, logs=None):
        step = self._progress.step + batch + 1
        if batch == 0 and self._progress.step:
            # Keras makes some metrics with the first batch; all are sums.
            metrics = self.model.metrics_variables
            for variable, value in zip(metrics, self._progress.metrics, strict=True):
                variable.assign(variable + value)
        due = time.monotonic() - self._saved >= PERIOD
        # The epoch's end is saved anyway.
        if due and batch + 1 < self.params["steps"]:
            history = self._progress.history
            self._state.save(self.model, history, self._seconds(), step)
            self._saved = time.monotonic()
