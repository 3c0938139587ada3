"""What a GAN trains on: images in [-1, 1] and labels of its classes."""

import sys
import types

import keras
import numpy as np

# Rounding, as that of a resized image, is no other scale.
LARGEST = 1.001
_IMAGES = (
    "`x` must hold images in [-1, 1]; pixels of 0 to 255 get there by "
    "`x / 127.5 - 1`. Received: "
)


def check_floats(images):
    """Raise a ValueError for images of integers, which are pixels as they are.

    Args:
        images: Tensor (batch, height, width, channels), also a symbolic one.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"{_IMAGES}images of {dtype}")


def check_labels(name, labels, classes):
    """Raise a ValueError unless labels are of a GAN's classes.

    Args:
        name: String, the argument's name.
        labels: Array of integers.
        classes: Integer.

    Example:
    >>> check_labels("y", [0, 3], classes=3)
    Traceback (most recent call last):
    ...
    ValueError: `y` must hold labels from 0 to 2. Received: labels from 0 to 3
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biuf":
        received = f"labels of {labels.dtype}"
    elif not labels.size:
        return
    elif not (labels.min() >= 0 and labels.max() < classes):
        received = f"labels from {labels.min()} to {labels.max()}"
    elif (labels != np.floor(labels)).any():
        received = f"{labels[labels != np.floor(labels)][0]}"
    else:
        return
    raise ValueError(
        f"`{name}` must hold labels from 0 to {classes - 1}. Received: {received}"
    )


def check_label_shape(labels):
    """Raise a ValueError unless there is one label an image.

    Args:
        labels: Tensor (batch,) or (batch, 1), also a symbolic one.
    """
    rank = getattr(labels.shape, "rank", 1)
    # Of a pipeline that knows no rank nobody can say.
    shape = () if rank is None else tuple(labels.shape[1:])
    if shape not in ((), (1,), (None,)):
        raise ValueError(
            "`y` must hold one label an image, (batch,). Received: labels of shape "
            f"{tuple(labels.shape)}. Of one-hot rows take `y.argmax(axis=1)`"
        )


def refuse_weights(*weights):
    """Raise a ValueError if a weight of an image is given.

    Keras drops those of images without labels before a step can see them.

    Args:
        *weights: What Keras takes, each `None` for none.
    """
    if any(weight is not None for weight in weights):
        raise ValueError(
            "`sample_weight` has no place in the losses of a GAN, and neither has "
            "`class_weight`. Received: weights. Leave them out, or choose images."
        )


def checked(x, y, classes, steps=None):
    """Return `x` of `fit`, checked: arrays now, batches as they come.

    What XLA compiles drops assertions, so they are made before.

    Args:
        x: What `keras.Model.fit` takes.
        y: Likewise.
        classes: Integer, or `None` for a GAN without labels.
        steps: Integer, batches of an epoch that were asked for, or `None`.

    Raises:
        ValueError: If images are not in [-1, 1], or labels not of the classes, or `x`
            is of a kind whose batches cannot be checked. Batches raise TensorFlow's
            `InvalidArgumentError` once training has begun.
    """
    if hasattr(x, "__array__"):
        _check_arrays(x, y, classes)
        return x
    if _is_pipeline(x):
        return x.map(lambda *batch: _asserted(batch, classes))
    if isinstance(x, keras.utils.PyDataset):
        return _CheckedBatches(x, classes)
    if _is_loader(x):
        batches = _Loaded(x)
        if batches.num_batches is None and steps is None:
            raise ValueError(
                "`steps_per_epoch` must be given (`steps`, `validation_steps`) for a "
                "DataLoader of a dataset without a length, whose end nobody knows. "
                "Received: None"
            )
        return _CheckedBatches(batches, classes)
    if isinstance(x, types.GeneratorType):
        return (_checked_batch(batch, classes) for batch in x)
    raise ValueError(
        "`x` must be an array, a tf.data.Dataset, a keras.utils.PyDataset, a "
        "DataLoader of torch or a generator, whose images can be checked. Received: "
        f"{type(x).__name__}. A generator of its batches does: `(batch for batch in x)`"
    )


def _check_arrays(x, y, classes):
    images = np.asarray(x)
    if images.dtype.kind in "OSUMm":
        raise ValueError(f"{_IMAGES}images of {images.dtype}")
    if not images.size:
        raise ValueError(f"{_IMAGES}none, an array of shape {images.shape}")
    low, high = images.min(), images.max()
    # NaN is in no range.
    if not (low >= -LARGEST and high <= LARGEST):
        raise ValueError(f"{_IMAGES}numbers from {low} to {high}")
    if y is not None and classes is not None:
        check_labels("y", y, classes)


def _checked_batch(batch, classes):
    # Of images alone it may be no tuple; Keras says what else it cannot be.
    images, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
    _check_arrays(images, labels, classes)
    return batch


class _CheckedBatches(keras.utils.PyDataset):
    """Another `PyDataset`, whose batches are checked as they come."""

    def __init__(self, batches, classes):
        super().__init__(
            batches.workers, batches.use_multiprocessing, batches.max_queue_size
        )
        self._batches, self._classes = batches, classes

    @property
    def num_batches(self):
        return self._batches.num_batches

    def __getitem__(self, index):
        return _checked_batch(self._batches[index], self._classes)

    def on_epoch_begin(self):
        self._batches.on_epoch_begin()

    def on_epoch_end(self):
        self._batches.on_epoch_end()


class _Loaded(keras.utils.PyDataset):
    """The batches of torch's `DataLoader`, whose order is its own."""

    def __init__(self, loader):
        super().__init__()
        self._loader, self._batches = loader, iter(())

    @property
    def num_batches(self):
        try:
            return len(self._loader)
        except TypeError:  # Of a dataset that says no length.
            return None

    def __getitem__(self, index):
        batch = next(self._batches, None)
        if batch is None:  # Keras looks at batches before the first epoch.
            self.on_epoch_begin()
            batch = next(self._batches)
        arrays = keras.tree.map_structure(
            lambda part: part.numpy(force=True) if hasattr(part, "numpy") else part,
            batch,
        )
        return tuple(arrays) if isinstance(arrays, list) else arrays

    def on_epoch_begin(self):
        self._batches = iter(self._loader)


def _is_loader(x):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.utils.data.DataLoader)


def _is_pipeline(x):
    # Whoever has one has imported TensorFlow, whatever the backend is.
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(x, tf.data.Dataset)


def _asserted(batch, classes):
    import tensorflow as tf

    # A dataset of images alone has no tuples.
    batch = batch[0] if len(batch) == 1 else batch
    images, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not hasattr(images, "dtype") or images.dtype == tf.string:
        what = "strings" if hasattr(images, "dtype") else f"a {type(images).__name__}"
        raise ValueError(f"{_IMAGES}{what}. A batch is images, or (images, labels)")
    largest = tf.reduce_max(tf.abs(tf.cast(images, "float32")))
    fits = tf.reduce_all(tf.abs(tf.cast(images, "float32")) <= LARGEST)
    made = [tf.debugging.Assert(fits, [f"{_IMAGES}numbers of up to", largest])]
    if labels is not None and classes is not None:
        check_labels("y", np.empty(0, labels.dtype.as_numpy_dtype), classes)
        labels = tf.cast(labels, "int32") if labels.dtype == tf.bool else labels
        fits = tf.reduce_all((labels >= 0) & (labels < classes))
        if labels.dtype.is_floating:
            fits &= tf.reduce_all(labels == tf.floor(labels))
        wanted = f"`y` must hold labels from 0 to {classes - 1}. Received:"
        made.append(tf.debugging.Assert(fits, [wanted, labels]))
    with tf.control_dependencies(made):
        return tf.nest.map_structure(tf.identity, batch)


def with_labels(tensor, labels):
    """Return what a network takes: images or latents, and labels where there are any.

    Args:
        tensor: Tensor or array.
        labels: Likewise, or `None`.
    """
    return tensor if labels is None else [tensor, labels]
