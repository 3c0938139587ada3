"""Callbacks for a GAN in training: its images, and the metrics of them."""

import io
import numbers
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_spectral.files import output_folder, replacing
from keras_spectral.gan.inputs import check_labels
from keras_spectral.gan.metrics.images import to_uint8
from keras_spectral.validation import check_integer

# Pixels between the images of a grid, and their grey.
_GAP, _GREY = 2, 255
# The shorter side of an enlarged image.
_READABLE = 64


class SampleGrid(keras.callbacks.Callback):
    """Writes a grid of generated images of a fixed latent after an epoch.

    Those of the first `count` latents of the seed, row by row, the same each time and
    never chosen by how they look: what changes from file to file is the generator. Of
    an averaged generator where there is one, as `GAN.generate`. Images of fewer than 64
    pixels are enlarged by a whole factor, each pixel a square.

    Args:
        folder: Path for files `epoch_0001.png` and so on, counted from 1; made where it
            is missing.
        count: Integer >= 1, images of a grid.
        columns: Integer >= 1, images of a row.
        every: Integer >= 1, epochs from one grid to the next; the first epoch has one.
        labels: Integer or array (count,), of a conditional GAN; default all labels in
            turns.
        seed: Integer >= 0, of the latents.
        tensorboard: Path of a folder for TensorBoard, or `None`.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model
            has no `generate`, or its images are neither grey nor of three colours.
        OSError: When training begins, if the folder cannot be written.

    Example:
    >>> import tempfile
    >>> from keras_spectral import zoo
    >>> gan = zoo.sn_resnet_gan(width=4, generator_width=4, discriminator_steps=1)
    >>> gan.compile()
    >>> images = np.zeros((2, 32, 32, 3), "float32")
    >>> folder = Path(tempfile.mkdtemp())
    >>> grid = SampleGrid(folder, count=4, columns=2)
    >>> history = gan.fit(images, callbacks=[grid], verbose=0)
    >>> [path.name for path in folder.iterdir()]
    ['epoch_0001.png']
    """

    def __init__(
        self, folder, count=64, columns=8, every=1, labels=None, seed=0,
        tensorboard=None,
    ):  # fmt: skip
        super().__init__()
        check_integer("count", count, least=1)
        check_integer("columns", columns, least=1)
        check_integer("every", every, least=1)
        check_integer("seed", seed, least=0)
        _check_labels(labels, count)
        self.folder = Path(folder)
        self.count, self.columns, self.every = count, columns, every
        self.labels, self.seed, self.tensorboard = labels, seed, tensorboard
        self._writer = None

    def on_train_begin(self, logs=None):
        output_folder(self.folder)
        sample_grid(_tried(self.model, self.labels, self.seed), 1)
        if self.tensorboard is not None:
            import tensorflow as tf

            # Unlike `tf.summary.image` it does not need TensorBoard to be installed.
            with tf.Graph().as_default():
                self._writer = tf.compat.v1.summary.FileWriter(str(self.tensorboard))

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every:
            return
        images = _generated(self.model, self.count, self.labels, self.seed)
        grid = sample_grid(images, self.columns)
        content = io.BytesIO()
        grid.save(content, "PNG")
        with replacing(self.folder / f"epoch_{epoch + 1:04d}.png") as temporary:
            temporary.write_bytes(content.getvalue())
        if self._writer is not None:
            import tensorflow as tf

            shown = tf.compat.v1.Summary.Image(
                height=grid.height,
                width=grid.width,
                colorspace=len(grid.getbands()),
                encoded_image_string=content.getvalue(),
            )
            summary = tf.compat.v1.Summary()
            summary.value.add(tag="samples", image=shown)
            self._writer.add_summary(summary, epoch)
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def sample_grid(images, columns=8):
    """Return images row by row as a `PIL.Image`.

    Images of fewer than 64 pixels are enlarged by a whole factor.

    Args:
        images: Array (count, height, width, channels) of floats in [-1, 1], or uint8.
        columns: Integer >= 1, images of a row.

    Returns:
        A `PIL.Image.Image`, grey or in colours.

    Raises:
        ValueError: If images have neither 1 nor 3 channels.

    Example:
    >>> sample_grid(np.zeros((3, 64, 64, 1)), columns=2).size
    (134, 134)
    """
    # A generator that has diverged is shown as it is: black.
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = np.clip(np.nan_to_num(images, nan=-1.0), -1.0, 1.0)
    images = to_uint8(images)
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(
            "A grid needs images of 1 or 3 channels. Received: images of "
            f"{channels} channels"
        )
    factor = max(1, -(-_READABLE // min(height, width)))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = height * factor + _GAP, width * factor + _GAP
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = rows * height + _GAP, columns * width + _GAP, channels
    canvas = np.full(shape, _GREY, "uint8")
    for index, image in enumerate(images):
        top, left = index // columns * height + _GAP, index % columns * width + _GAP
        canvas[top : top + height - _GAP, left : left + width - _GAP] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


class SampleMetrics(keras.callbacks.Callback):
    """Adds metrics of generated images to the logs of an epoch.

    They are in the logs, and so in the history, of the first epoch and of each
    `every`-th after it. Each time they are of the same latents. Pass this before the
    callbacks that read logs, such as `CSVLogger`.

    Args:
        metrics: Dict from a key of the logs, one that training has not, to a callable
            of generated images, an array (samples, height, width, channels) of float32
            in [-1, 1], that returns a number or an object with a number `value`, such
            as a `gan.metrics.Score`.
        samples: Integer >= 1, images that are generated.
        every: Integer >= 1, epochs from one time to the next.
        labels: Integer or array (samples,), of a conditional GAN; default all labels in
            turns.
        seed: Integer >= 0, of the latents.

    Attributes:
        results: List of (epoch, key, what the callable returned).

    Raises:
        ValueError: If an argument is of another kind; when training begins, if the
            model has no `generate`, or a key is that of a loss; after an epoch, if a
            metric is no number.

    Example:
    >>> from keras_spectral import zoo
    >>> gan = zoo.sn_resnet_gan(width=4, generator_width=4, discriminator_steps=1)
    >>> gan.compile()
    >>> images = np.zeros((2, 32, 32, 3), "float32")
    >>> metrics = SampleMetrics({"contrast": np.std}, samples=4)
    >>> history = gan.fit(images, callbacks=[metrics], verbose=0)
    >>> len(history.history["contrast"])
    1
    """

    def __init__(self, metrics, samples=5000, every=1, labels=None, seed=0):
        super().__init__()
        check_integer("samples", samples, least=1)
        check_integer("every", every, least=1)
        check_integer("seed", seed, least=0)
        _check_labels(labels, samples)
        if not isinstance(metrics, dict) or not all(map(callable, metrics.values())):
            raise ValueError(
                "`metrics` must be a dict from names to callables of images. Received: "
                f"metrics={metrics!r}"
            )
        self.metrics, self.samples, self.every = dict(metrics), samples, every
        self.labels, self.seed, self.results = labels, seed, []

    def on_train_begin(self, logs=None):
        self.results = []
        _tried(self.model, self.labels, self.seed)
        own = {metric.name for metric in self.model.metrics}
        taken = sorted({x for x in self.metrics if x.removeprefix("val_") in own})
        if taken:
            raise ValueError(
                "`metrics` must have other keys than what training logs. Received: "
                f"{', '.join(map(repr, taken))}"
            )

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every:
            return
        images = _generated(self.model, self.samples, self.labels, self.seed)
        for name, metric in self.metrics.items():
            result = metric(images)
            number = getattr(result, "value", result)
            if not isinstance(number, numbers.Real):
                raise ValueError(
                    "`metrics` must return a number, or an object with a number "
                    f"`value`. Received: {result!r} of '{name}'"
                )
            self.results.append((epoch, name, result))
            if logs is not None:
                logs[name] = float(number)


def _generated(model, count, labels, seed):
    if not hasattr(model, "generate"):
        raise ValueError(
            "The model must be a `keras_spectral.gan.GAN`, or have its `generate`. "
            f"Received: {model!r}"
        )
    return model.generate(count, labels=labels, seed=seed)


def _check_labels(labels, count):
    if np.ndim(labels) and np.shape(labels) != (count,):
        raise ValueError(
            f"`labels` must be one integer, or one for each of {count} images. "
            f"Received: labels of shape {np.shape(labels)}"
        )


def _tried(model, labels, seed):
    """Return one image, once all labels are checked: later an epoch would be lost."""
    if not np.ndim(labels):
        return _generated(model, 1, labels, seed)
    images = _generated(model, 1, labels[:1], seed)
    # Another model with `generate` may count its classes otherwise.
    if getattr(model, "classes", None) is not None:
        check_labels("labels", labels, model.classes)
    return images
