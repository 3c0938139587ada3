"""Data sets by name: scikit-learn's bundled digits, or a file of one's own."""

import dataclasses
import difflib
from pathlib import Path

import numpy as np

from keras_spectral.validation import check_integer

NAMES = ("digits",)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels, split into a training and a test part.

    Args:
        name: String.
        x_train: Float32 array (images, height, width, channels); empty for a
            file, which holds test data only.
        y_train: Int64 array (images,).
        x_test: Float32 array, as `x_train`.
        y_test: Int64 array (images,).
        classes: Integer, how many labels there are.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int


def load(name, image_size=32, channels=3):
    """Load a data set.

    Args:
        name: `"digits"`: scikit-learn's 1,797 handwritten digits in a fixed,
            stratified split (1,347 to train on, 450 to test), with pixels
            scaled to [-1, 1] and repeated up to `image_size`. Or the path of
            an `.npz` file with arrays `x` (images, height, width, channels)
            and `y` (images,), which become the test part as they are.
        image_size: Integer, a multiple of 8: height and width of the digits in
            pixels.
        channels: Integer >= 1; the digits are grey, so all channels are equal.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: On an unknown name, a size that is no multiple of 8, or a
            file without such arrays.

    Example:
    >>> digits = load("digits", image_size=8, channels=1)
    >>> digits.x_train.shape, digits.x_test.shape
    ((1347, 8, 8, 1), (450, 8, 8, 1))
    """
    if name == "digits":
        return _digits(image_size, channels)
    if Path(name).suffix == ".npz":
        return _npz(Path(name))
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ValueError(
        f"`name` must be one of {NAMES} or the path of an .npz file. "
        f"Received: name={name!r}.{hint}"
    )


def _digits(image_size, channels):
    if image_size < 8 or image_size % 8:
        raise ValueError(
            "`image_size` must be a positive multiple of 8, the size of the digits. "
            f"Received: image_size={image_size}"
        )
    check_integer("channels", channels, least=1)
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 8.0 - 1.0
    factor = image_size // 8
    # Repetition, not interpolation: the same pixels in every library.
    images = images.repeat(factor, 1).repeat(factor, 2).repeat(channels, 3)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype("int64"), test_size=0.25, random_state=0, stratify=labels
    )
    return Dataset("digits", x_train, y_train, x_test, y_test, classes=10)


def _npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted(file.files)
            arrays = [file[name] for name in ("x", "y") if name in names]
    except FileNotFoundError:
        raise ValueError(f"There is no data file at {path}.") from None
    # A file that is no zip is opened as one array, or as text; a damaged zip
    # raises nearly anything.
    except Exception as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays, or it is damaged. Write it "
            "with numpy.savez(path, x=images, y=labels)."
        ) from error
    if len(arrays) < 2:
        raise ValueError(
            f"The data file must hold the arrays `x` and `y`. Received: {path} with "
            f"{names}. Write it with numpy.savez(path, x=images, y=labels)."
        )
    x, y = arrays
    if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(
            "`x` must have the shape (images, height, width, channels) and `y` "
            f"(images,). Received: x.shape={x.shape}, y.shape={y.shape} in {path}"
        )
    if x.dtype.kind not in "fui" or not np.isfinite(x).all():
        raise ValueError(
            f"`x` must hold finite numbers. Received: dtype {x.dtype} in {path}, "
            "or NaN or infinity among them."
        )
    if y.dtype.kind not in "ui" or y.min() < 0:
        raise ValueError(
            "`y` must hold the labels as integers from 0. "
            f"Received: dtype {y.dtype} in {path}"
        )
    x, y = x.astype("float32"), y.astype("int64")
    return Dataset(path.stem, x[:0], y[:0], x, y, classes=int(y.max()) + 1)
