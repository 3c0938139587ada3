"""Training on several devices of one host, and under JAX of several hosts."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable

import keras
from keras import ops

from keras_spectral.models.keras_internals import flatten_layers

# By which Keras itself is told that a process is one of several.
_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where a network is trained: each batch is shared out, each device has a copy.

    Args:
        count: Integer, how many devices, of all processes.
        process, processes: Integers, which one this is, of how many.
        scope: Callable, returns the context in which a model is built and trained.
    """

    count: int = 1
    process: int = 0
    processes: int = 1
    scope: Callable = contextlib.nullcontext

    def record(self) -> dict:
        """Return what a row's environment says of several devices."""
        if self.count == 1:
            return {}
        kept = {"replicas": self.count, "processes": self.processes}
        if keras.backend.backend() == "tensorflow":
            kept["synchronized_batch_normalization"] = True
        return kept

    def built(self, build):
        """Return the model of a function, on all devices.

        Statistics of `BatchNormalization` are of the whole batch, as on one device:
        TensorFlow's have to be told.
        """
        with self.scope():
            model = build()
        if keras.backend.backend() == "tensorflow":
            for layer in flatten_layers(model):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
        return model

    def check(self, count, batch_size):
        """Raise a ValueError if batches of `count` images cannot be shared out."""
        # Keras weighs all devices alike, so a smaller share would count for more.
        if any(size % self.count for size in (batch_size, count % batch_size)):
            raise ValueError(
                f"`devices` must divide each batch, the last one of {count} images in "
                f"batches of {batch_size} too. Received: {self.count} devices. Choose "
                "other numbers by --set data.count=... and schedule.batch_size=..."
            )


def process_of(wanted) -> tuple:
    """Return the number of this process and of all, and join the others under JAX.

    Before the first operation; which processes there are is told by Keras' variables,
    `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `_NUM_PROCESSES` and `_PROCESS_ID`.
    """
    if wanted is None or _PROCESSES not in os.environ:
        return 0, 1
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"`devices` of several processes need JAX. Received: {_PROCESSES}="
            f"{os.environ[_PROCESSES]} on {keras.backend.backend()}. Set "
            "KERAS_BACKEND=jax, or unset the variable."
        )
    import jax

    if not jax.distributed.is_initialized():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # Or Keras would agree on a seed by a computation.
        keras.utils.set_random_seed(0)
        keras.distribution.initialize()
    return jax.process_index(), jax.process_count()


def devices_of(wanted) -> Devices:
    """Return the devices to train on.

    Args:
        wanted: `None` for one, `"all"`, or an integer >= 1.

    Raises:
        ValueError: If there are fewer, or on torch.
    """
    if wanted is None:
        return Devices()
    process, processes = process_of(wanted)
    backend = keras.backend.backend()
    names = _names(backend)
    count = len(names) if wanted == "all" else wanted
    least = len(names) if processes > 1 else 1
    if not (isinstance(count, int) and least <= count <= len(names)):
        expected = "'all'" if processes > 1 else f"'all' or from 1 to {len(names)}"
        raise ValueError(
            f"`devices` must be {expected}: {backend} sees {', '.join(names)}. "
            f"Received: devices={wanted}"
        )
    if count == 1:
        return Devices()
    if backend == "tensorflow":
        scope = _mirrored(tuple(names[:count])).scope
    else:
        # Each process has its share of the batches already.
        scope = keras.distribution.DataParallel(
            devices=names[:count], auto_shard_dataset=False
        ).scope
    return Devices(count, process, processes, scope)


@functools.cache
def _mirrored(names):
    """Return the process's `MirroredStrategy` of devices.

    TensorFlow numbers the reductions of each strategy from 100 on, and aborts where two
    of one number have other shapes: as of two networks, each in a strategy of its own.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


def _names(backend):
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_logical_devices
        return [device.name for device in found("GPU") or found("CPU")]
    if backend == "jax":
        return keras.distribution.list_devices()
    raise ValueError(
        "`devices` need TensorFlow or JAX, which share out a batch. "
        f"Received: devices on {backend}. Set KERAS_BACKEND."
    )


def copy_state(source, target):
    """Give a model the variables of another one of its kind."""
    if source is target:
        return
    for one, other in zip(source.variables, target.variables, strict=True):
        other.assign(ops.convert_to_numpy(one))
