"""Keras callbacks for training with spectral layers."""

import csv
import dataclasses
import math

import keras
import numpy as np
import scipy.linalg

from keras_spectral.layers import restart_power_iteration
from keras_spectral.linalg import induced_norm
from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.measures.certified_accuracy import RADII, certify
from keras_spectral.measures.lipschitz_bound import lipschitz_bound
from keras_spectral.models import weights
from keras_spectral.validation import check_integer


class RestartPowerIteration(keras.callbacks.Callback):
    """Finds the singular vectors anew where kernels may have been set from outside.

    The layers follow kernels that the optimizer moves. Kernels that something else
    sets (weights that were loaded in part, `optimizer.finalize_variable_values`, the
    averages of `keras.callbacks.SwapEMAWeights`) have other singular vectors; the
    norms are then off until training has found them. This finds them at the start of
    training and before and after each epoch, evaluation and prediction, on the host: a
    few milliseconds a kernel, a tenth of a second for one of 2048 x 2048.

    Pass it after the callback that sets the kernels.

    Example:
    >>> import numpy as np
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layers = [keras.Input((4,)), SpectralNormalization(keras.layers.Dense(2))]
    >>> model = keras.Sequential(layers)
    >>> model.compile(keras.optimizers.SGD(use_ema=True), "mse")
    >>> callbacks = [keras.callbacks.SwapEMAWeights(), RestartPowerIteration()]
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(x, y, callbacks=callbacks, verbose=0)
    """

    def _restart(self):
        restart_power_iteration(self.model)

    def on_train_begin(self, logs=None):
        self._restart()

    def on_epoch_begin(self, epoch, logs=None):
        self._restart()

    def on_epoch_end(self, epoch, logs=None):
        self._restart()

    def on_test_begin(self, logs=None):
        self._restart()

    def on_test_end(self, logs=None):
        self._restart()

    def on_predict_begin(self, logs=None):
        self._restart()

    def on_predict_end(self, logs=None):
        self._restart()


class CertifiedAccuracy(keras.callbacks.Callback):
    """Adds certified accuracies and the bound that they stand on to an epoch's logs.

    A Keras metric cannot know them: the bound moves with each step. The keys are
    `certified_36_255` and so on (`certified_0.5` for a radius that is no such
    fraction) and `lipschitz_constant`; they are in the logs of the first epoch and of
    each `every`-th after it. Pass this before the callbacks that read logs, such as
    `CSVLogger` and `EarlyStopping`.

    Args:
        data: Pair of arrays (x, y), or an iterable of such batches that can be gone
            through again, such as a `tf.data.Dataset`.
        radii: As in `measures.certify`.
        every: Integer >= 1, epochs from one time to the next.
        **kwargs: `pixel_scale`, `method` and `batch_size` of `measures.certify`.

    Raises:
        ValueError: When training begins, if the model has no bound; and as `certify`.

    Example:
    >>> dense = keras.layers.Dense(2, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> model.compile(keras.optimizers.SGD(0.0), "mse")
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    >>> callback = CertifiedAccuracy((x, y), radii=[0.5])
    >>> history = model.fit(x, x, callbacks=[callback], verbose=0).history
    >>> history["certified_0.5"]
    [1.0]
    """

    def __init__(self, data, radii=RADII, every=1, **kwargs):
        super().__init__()
        check_integer("every", every, least=1)
        self.data, self.radii, self.every = data, radii, every
        self.arguments = {"progress": False, **kwargs}

    def on_train_begin(self, logs=None):
        if self.model.built:  # Refused now and not after an epoch.
            lipschitz_bound(self.model, progress=False)

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every:
            return
        # A pair of arrays is no list of two batches.
        pair = isinstance(self.data, (tuple, list)) and len(self.data) == 2
        x, y = self.data if pair else (self.data, None)
        found = certify(self.model, x, y, self.radii, **self.arguments)
        if logs is not None:
            logs |= {_key(row): row.certified_accuracy for row in found}
            logs["lipschitz_constant"] = found.lipschitz_constant


def _key(row):
    whole = round(row.radius_255)
    if whole and math.isclose(row.radius_255, whole, rel_tol=1e-9):
        return f"certified_{whole}_255"
    return f"certified_{row.radius:g}"


@dataclasses.dataclass(frozen=True)
class LoggedWeight:
    """What `SpectralLogger` says of a kernel after an epoch.

    Args:
        epoch: Integer, from 0.
        name: String, as in `models.weights`.
        norm: Float, the largest singular value of the flattened kernel.
        stable_rank: Float.
        gap: Float in [0, 1], by what share of the norm the second singular value is
            below it.
        bound: Float, not below the norm of what the layer does with the kernel, or
            `None`.
    """

    epoch: int
    name: str
    norm: float
    stable_rank: float
    gap: float
    bound: float | None


class SpectralLogger(keras.callbacks.Callback):
    """Follows the kernels that a model computes with: norm, stable rank and gap.

    After the first epoch and each `every`-th from it, in float64, by an eigenvalue
    problem of the smaller side of each kernel. Measured on a ResNet-20: 0.01 % of an
    epoch of 50,000 images, 1.7 % with `bounds` (`benchmarks/callbacks.py`). A dense
    kernel of 4096 x 4096 takes many seconds.

    Args:
        every: Integer >= 1, epochs from one time to the next.
        where: Which kernels, see `models.weights`; by default all.
        bounds: Boolean, whether each kernel also has a certified bound of the norm as
            an operator: of a convolution that of any image size.
        logs: Boolean, whether the epoch's logs get `<name>/norm` and so on, for the
            history and the callbacks that come after this one. The progress bar prints
            them, too.
        csv: Path of a file with a line for each kernel and epoch, which training begins
            anew; or `None`.
        tensorboard: Path of a folder for TensorBoard, or `None`.
        network: String, the attribute of the model that is followed, such as
            `"discriminator"` of a `gan.GAN`; by default the whole model.

    Attributes:
        rows: List of `LoggedWeight`.

    Raises:
        ValueError: If `every` is no such integer; when training begins, if the model
            has no such network, or two kernels of one name, as the two networks of a
            GAN may have; in training as `models.weights`.

    Example:
    >>> dense = keras.layers.Dense(2, kernel_initializer="identity", name="head")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> model.compile(keras.optimizers.SGD(0.0), "mse")
    >>> logger = SpectralLogger()
    >>> history = model.fit(np.eye(2), np.eye(2), callbacks=[logger], verbose=0).history
    >>> history["head/norm"], history["head/stable_rank"], history["head/gap"]
    ([1.0], [2.0], [0.0])

    Source: [sanyal2020], Definition 2.1, the stable rank.
    """

    def __init__(
        self,
        every=1,
        where=None,
        bounds=False,
        logs=True,
        csv=None,
        tensorboard=None,
        network=None,
    ):
        super().__init__()
        check_integer("every", every, least=1)
        self.every, self.where, self.bounds = every, where, bounds
        self.network = network
        self.logs, self.csv, self.tensorboard = logs, csv, tensorboard
        self.rows, self._writer = [], None

    def on_train_begin(self, logs=None):
        self.rows = []
        self._check_names()
        if self.csv is not None:
            names = [field.name for field in dataclasses.fields(LoggedWeight)]
            self._write("w", [names])
        if self.tensorboard is not None:
            import tensorflow as tf

            # Unlike `tf.summary.scalar` it does not need TensorBoard to be installed.
            with tf.Graph().as_default():
                self._writer = tf.compat.v1.summary.FileWriter(str(self.tensorboard))

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every:
            return
        followed = weights(self._followed(), self.where)
        found = [self._measured(epoch, weight) for weight in followed]
        self.rows += found
        if self.csv is not None:
            self._write("a", map(dataclasses.astuple, found))
        scalars = {
            f"{row.name}/{what}": getattr(row, what)
            for row in found
            for what in ("norm", "stable_rank", "gap", "bound")
            if getattr(row, what) is not None
        }
        if self.logs and logs is not None:
            logs |= scalars
        if self._writer is not None:
            import tensorflow as tf

            summary = tf.compat.v1.Summary()
            for name, value in scalars.items():
                summary.value.add(tag=name, simple_value=value)
            self._writer.add_summary(summary, epoch)
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _followed(self):
        if self.network is None:
            return self.model
        network = getattr(self.model, self.network, None)
        if not isinstance(network, keras.Model):
            raise ValueError(
                "`network` must be an attribute of the model that is a `keras.Model`. "
                f"Received: network={self.network!r} of {self.model!r}"
            )
        return network

    def _check_names(self):
        """Refuse what one line of the logs, or of the file, would be two kernels."""
        model = self._followed()
        if not model.built:
            return
        names = [weight.name for weight in weights(model, self.where)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                "The kernels that are followed must have names of their own. Received: "
                f"two of '{twice[0]}'. Of a GAN follow one network: "
                'network="discriminator"; else choose with `where`.'
            )

    def _measured(self, epoch, weight):
        matrix = weight.matrix()
        norm, second = _largest_two(matrix)
        bound = norm if self.bounds else None
        if self.bounds and weight.slot.induced != "dense":
            bound = float(induced_norm(weight.effective(), 2, weight.slot.induced))
        return LoggedWeight(
            epoch,
            weight.name,
            norm,
            stable_rank_of(matrix, norm),
            1 - second / norm if norm else math.nan,
            bound,
        )

    def _write(self, mode, lines):
        with open(self.csv, mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)


def _largest_two(matrix):
    """Return the two largest singular values; NaN where the matrix is not finite."""
    scale = np.abs(matrix).max(initial=0.0)
    if not scale or not np.isfinite(scale):
        return (0.0, 0.0) if scale == 0 else (math.nan, math.nan)
    matrix = matrix / scale
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    most = len(gram) - 1
    values = scipy.linalg.eigvalsh(gram, subset_by_index=[max(0, most - 1), most])
    second, first = np.sqrt(np.maximum([0.0, *values][-2:], 0.0)) * scale
    return float(first), float(second)
