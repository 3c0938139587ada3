"""Images of one's own: an .npz file, or a folder."""

import numpy as np

from keras_spectral.data.splits import Data, Split

_SUFFIXES = (".png", ".jpg", ".jpeg")
# Classes. More are numbers of something else, and their names would fill the memory.
_MOST = 1_000_000


def from_npz(path):
    """Return the data set of an `.npz` file, see `load`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = sorted(file.files)
            wanted = ["x", "y"]
            if "x_train" in found:
                wanted = ["x_train", "y_train", "x_test", "y_test"]
            # What is no array in the file is its bytes.
            arrays = [np.asarray(file[name]) for name in wanted if name in found]
    except FileNotFoundError:
        raise ValueError(f"There is no data file at {path}.") from None
    # A file that is no zip is opened as one array, or as text; a damaged zip
    # raises nearly anything.
    except Exception as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays, or it is damaged. Write it "
            "with numpy.savez(path, x=images, y=labels)."
        ) from error
    if len(arrays) < len(wanted):
        raise ValueError(
            "The data file must hold the arrays `x` and `y`, or `x_train`, `y_train`, "
            f"`x_test` and `y_test`. Received: {path} with {found}. Write it with "
            "numpy.savez(path, x=images, y=labels)."
        )
    splits = [
        _split(path, names, pair)
        for names, pair in zip(
            (wanted[:2], wanted[2:]), (arrays[:2], arrays[2:]), strict=True
        )
        if names
    ]
    if len({split.images.shape[1:] for split in splits}) > 1:
        raise ValueError(
            "`x_train` and `x_test` must hold images of one shape. Received: "
            f"{[split.images.shape for split in splits]} in {path}"
        )
    classes = 1 + max(int(split.labels.max()) for split in splits)
    *train, test = splits
    names = tuple(str(label) for label in range(classes))
    return Data(path.stem, train[0] if train else test[:0], test, names, "npz file")


def _split(path, names, arrays):
    (x, y), (images, labels) = arrays, names
    if x.ndim != 4 or y.shape != x.shape[:1] or not x.size:
        raise ValueError(
            f"`{images}` must have the shape (images, height, width, channels) and "
            f"`{labels}` (images,). Received: {images}.shape={x.shape}, "
            f"{labels}.shape={y.shape} in {path}"
        )
    dtype, kind = x.dtype, x.dtype.kind
    # As they are: nothing tells how the numbers of a stranger's network are scaled.
    with np.errstate(over="ignore"):
        x = x.astype("float32") if kind in "fui" else x
    if kind not in "fui" or not np.isfinite(x).all():
        raise ValueError(
            f"`{images}` must hold numbers, finite in float32. Received: dtype "
            f"{dtype} in {path}, or NaN, infinity or what is too large among them."
        )
    if y.dtype.kind not in "ui" or y.min() < 0 or y.max() >= _MOST:
        raise ValueError(
            f"`{labels}` must hold the labels as integers from 0, below {_MOST:,}. "
            f"Received: dtype {y.dtype}, from {y.min()} to {y.max()}, in {path}"
        )
    return Split(x, y.astype("int64"))


def from_folder(path):
    """Return the data set of a folder of images, see `load`."""
    apart = (path / "train").is_dir() and (path / "test").is_dir()
    parts = [path / "train", path / "test"] if apart else [path]
    classes = sorted(
        {
            entry.name
            for part in parts
            for entry in part.iterdir()
            # Hidden ones are made by programs, and would move all labels.
            if entry.is_dir() and not entry.name.startswith(".")
        }
    )
    if not classes:
        raise ValueError(
            "A folder of images must have a folder for each class, below 'train' and "
            f"'test' or else directly. Received: {path} without folders."
        )
    splits, shape, first = [], None, None
    for part in parts:
        images, labels = [], []
        for label, name in enumerate(classes):
            for file in sorted((part / name).glob("*")):
                if file.suffix.lower() not in _SUFFIXES or file.name.startswith("."):
                    continue
                image = _pixels(file)
                if shape is None:
                    shape, first = image.shape, file
                if image.shape != shape:
                    raise ValueError(
                        "Images of a folder must have one size and be all grey or all "
                        f"in colour. Received: {file} with {image.shape}, {first} with "
                        f"{shape}"
                    )
                images.append(image)
                labels.append(label)
        if not images:
            raise ValueError(
                f"A folder of images must hold {', '.join(_SUFFIXES)} files, in a "
                f"folder for each class. Received: none in {part}"
            )
        splits.append(Split(np.stack(images), np.asarray(labels, "int64")))
    *train, test = splits
    return Data(
        path.resolve().name,
        train[0] if train else test[:0],
        test,
        tuple(classes),
        "folder",
    )


def _pixels(path):
    """Return an image file as uint8 (height, width, 1 or 3)."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode not in ("1", "L", "RGB", "P") or "transparency" in image.info:
                raise ValueError(
                    "Images must be grey or RGB with 8 bits and without transparency. "
                    f"Received: {path} of mode {image.mode}. Convert it first, with "
                    "what shall stand behind what is transparent."
                )
            grey = image.mode in ("1", "L")
            return np.array(image.convert("L" if grey else "RGB")).reshape(
                image.height, image.width, -1
            )
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error
