"""Which data sets there are, and where each of them is looked for."""

import dataclasses
import difflib
import os
from pathlib import Path

import numpy as np

from keras_spectral.data.splits import Data, Split
from keras_spectral.validation import check_integer


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set that is not bundled.

    Args:
        name: String, also TensorFlow Datasets'.
        version: String, of TensorFlow Datasets' builder.
        shape: Tuple (height, width, channels).
        counts: Tuple, the images to train on and to test with.
        class_names: Tuple of strings.
        files: Dict from the archives' names to their megabytes.
        folders: Tuple of paths where other packages put the files.
        mapped: Boolean, whether the images are kept in a memory-mapped file.
        advice: String, a way to get it besides the archives.
    """

    name: str
    version: str
    shape: tuple
    counts: tuple
    class_names: tuple
    files: dict
    folders: tuple = ()
    mapped: bool = False
    advice: str = ""

    @property
    def idx(self):
        """Whether the archives are IDX files, which are read here."""
        return all(name.endswith("-ubyte.gz") for name in self.files)


_DIGITS = tuple("0123456789")
_IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_ENTRIES = [
    Entry(
        "mnist",
        "3.0.1",
        (28, 28, 1),
        (60000, 10000),
        _DIGITS,
        dict(zip(_IDX, (9.9, 0.03, 1.6, 0.005), strict=True)),
        ("~/.keras/datasets/mnist",),
    ),
    Entry(
        "fashion_mnist",
        "3.0.1",
        (28, 28, 1),
        (60000, 10000),
        tuple(_FASHION.split(",")),
        dict(zip(_IDX, (26.4, 0.03, 4.4, 0.005), strict=True)),
        ("/usr/share/datasets/fashion-mnist", "~/.keras/datasets/fashion-mnist"),
        advice="On Debian: apt-get install dataset-fashion-mnist. ",
    ),
    Entry(
        "cifar10",
        "3.0.2",
        (32, 32, 3),
        (50000, 10000),
        tuple(_CIFAR10.split()),
        {"cifar-10-binary.tar.gz": 170},
    ),
    Entry(
        "cifar100",
        "3.0.2",
        (32, 32, 3),
        (50000, 10000),
        tuple(str(label) for label in range(100)),
        {"cifar-100-binary.tar.gz": 169},
    ),
    Entry(
        "svhn",
        "3.1.0",
        (32, 32, 3),
        (73257, 26032),
        _DIGITS,
        {"train_32x32.mat": 182, "test_32x32.mat": 64, "extra_32x32.mat": 1330},
    ),
    Entry(
        "celeb_a",
        "2.1.0",
        (64, 64, 3),
        (162770, 19962),
        ("face",),
        {
            "img_align_celeba.zip": 1440,
            "list_eval_partition.txt": 2.8,
            "list_attr_celeba.txt": 26.7,
            "list_landmarks_align_celeba.txt": 12.2,
            "identity_CelebA.txt": 3.4,
        },
        mapped=True,
    ),
    Entry(
        "stl10",
        "1.0.0",
        (96, 96, 3),
        (5000, 8000),
        tuple(_STL10.split()),
        {"stl10_binary.tar.gz": 2640},
        mapped=True,
    ),
]
ENTRIES = {entry.name: entry for entry in _ENTRIES}


def names() -> tuple:
    """Return the names that `load` knows.

    Returns:
        Tuple of strings.

    Example:
    >>> names()[:3]
    ('digits', 'mnist', 'fashion_mnist')
    """
    return ("digits", *ENTRIES)


def load(
    name,
    image_size: int | None = None,
    channels: int | None = None,
    directory=None,
    download: bool = False,
) -> Data:
    """Load a data set.

    | name | images | to train on, to test with |
    |---|---|---|
    | `"digits"` | 8x8x1, bundled with scikit-learn | 1,347, 450: a fixed split |
    | `"mnist"`, `"fashion_mnist"` | 28x28x1 | 60,000, 10,000 |
    | `"cifar10"`, `"cifar100"` | 32x32x3 | 50,000, 10,000 |
    | `"svhn"` | 32x32x3, the cropped digits | 73,257, 26,032 |
    | `"celeb_a"` | 64x64x3, no classes: see below | 162,770, 19,962 |
    | `"stl10"` | 96x96x3, those with labels | 5,000, 8,000 |

    All but the digits are taken from where they lie, in this order: `directory`,
    `$KERAS_SPECTRAL_DATA`, and for Fashion-MNIST the folder of Debian's package
    `dataset-fashion-mnist`, where IDX files are read; then what TensorFlow Datasets has
    prepared (`$TFDS_DATA_DIR`, `~/tensorflow_datasets`); then archives in `directory`,
    which TensorFlow Datasets prepares. Nothing is downloaded unless `download` says so.

    Faces of CelebA are the 178 x 178 pixels in the middle, averaged down to
    `image_size`. They and STL-10's images are kept in a memory-mapped file under
    `$KERAS_SPECTRAL_DATA`, or `~/.cache/keras_spectral`.

    Args:
        name: One of `names()`. Or the path of an `.npz` file with arrays `x` (images,
            height, width, channels) and `y` (images,), which become the test split as
            they are, or with `x_train`, `y_train`, `x_test`, `y_test`. Or of a folder
            of PNG and JPEG images of one size, a folder a class, below `train` and
            `test`, or else all to test with.
        image_size: Integer, height and width, or `None` for the images' own. A multiple
            of it repeats each pixel; another larger size adds black on all sides.
        channels: Integer, or `None`. Grey images have it in all channels alike.
        directory: Path, or `None`. A folder with the archives, or of data that
            TensorFlow Datasets prepared.
        download: Boolean, whether TensorFlow Datasets may download.

    Returns:
        A `Data`.

    Raises:
        FileNotFoundError: If the data is not there; the files, their sizes and the
            commands that get them are named.
        ValueError: On an unknown name, a size that cannot be, or a damaged file.

    Example:
    >>> digits = load("digits", image_size=32, channels=3)
    >>> digits.train.images.shape, digits.test.inputs().dtype.name
    ((1347, 32, 32, 3), 'float32')
    """
    for argument, value in ("image_size", image_size), ("channels", channels):
        if value is not None:
            check_integer(argument, value, least=1)
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(
            f"`name` must be one of {names()}, or a path. Received: name={name!r}"
        )
    path = Path(name).expanduser()
    if name == "digits":
        found = _digits()
    elif name in ENTRIES:
        found = _found(ENTRIES[name], image_size, directory, download)
    elif path.suffix == ".npz" or (str(name) and path.is_dir()):
        from keras_spectral.data.own_files import from_folder, from_npz

        found = (from_folder if path.is_dir() else from_npz)(path)
    else:
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"`name` must be one of {names()}, the path of an .npz file or of a folder "
            f"of images. Received: name={name!r}.{hint}"
        )
    return _shaped(found, image_size, channels)


def _digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("uint8")
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype("int64"), test_size=0.25, random_state=0, stratify=labels
    )
    train, test = Split(x_train, y_train, 16), Split(x_test, y_test, 16)
    return Data("digits", train, test, _DIGITS, "scikit-learn")


def own_folder():
    """Return `$KERAS_SPECTRAL_DATA`, or `None` where it is not set."""
    folder = os.environ.get("KERAS_SPECTRAL_DATA")
    return Path(folder).expanduser() if folder else None


def _found(entry, image_size, directory, download):
    """Return a data set from the first place that has it."""
    from keras_spectral.data import idx_files, prepared

    if directory is not None and not Path(directory).expanduser().is_dir():
        raise FileNotFoundError(
            "`directory` must be a folder with the data's files. "
            f"Received: directory={str(directory)!r}"
        )
    given = [Path(directory).expanduser()] if directory is not None else []
    if own := own_folder():
        given += [own, own / entry.name]
    if entry.idx:
        for folder in [*given, *(Path(place).expanduser() for place in entry.folders)]:
            if idx_files.present(folder, entry.files):
                return idx_files.read(entry, folder)
    source = prepared.find(entry, given)
    if source is None and not download:
        raise FileNotFoundError(_missing(entry, given))
    return prepared.read(entry, source, image_size)


def _missing(entry, given):
    files = ", ".join(f"{name} ({size:g} MB)" for name, size in entry.files.items())
    needed = "" if entry.idx else ", with tensorflow-datasets installed"
    looked = "".join(f", not in {folder}" for folder in given)
    return (
        f"'{entry.name}' is not here. Put {files} into a folder and set "
        f"KERAS_SPECTRAL_DATA to it{needed}. {entry.advice}Or let "
        f"TensorFlow Datasets download it: pip install tensorflow-datasets "
        f"importlib_resources, then keras_spectral.data.load('{entry.name}', "
        f"download=True). Received: name='{entry.name}'{looked}; nor is it among "
        "what TensorFlow Datasets has prepared."
    )


def _shaped(data, image_size, channels):
    """Return the data with images of another size, or more channels."""
    height, width, depth = data.test.images.shape[1:]
    size = (image_size, image_size) if image_size else (height, width)
    steps, change = [], []
    if size != (height, width):
        if height > size[0] or width > size[1]:
            raise ValueError(
                f"`image_size` must be at least {max(height, width)}, the size of the "
                f"images of {data.name}. Received: image_size={image_size}"
            )
        if size[0] % height == 0 and size[1] % width == 0:
            factors = size[0] // height, size[1] // width
            # Repetition, not interpolation: the same pixels in every library.
            change.append(lambda x: x.repeat(factors[0], 1).repeat(factors[1], 2))
            steps.append(f"pixels repeated to {size[0]}x{size[1]}")
        else:
            around = [
                ((new - old) // 2, new - old - (new - old) // 2)
                for new, old in zip(size, (height, width), strict=True)
            ]
            black = 0 if data.test.images.dtype == np.uint8 else data.test.images.min()
            change.append(
                lambda x: np.pad(x, ((0, 0), *around, (0, 0)), constant_values=black)
            )
            steps.append(f"black added to {size[0]}x{size[1]}")
    if channels not in (None, depth):
        if depth != 1:
            raise ValueError(
                f"`channels` must be {depth}, as the images of {data.name} have; only "
                f"grey ones are repeated. Received: channels={channels}"
            )
        change.append(lambda x: x.repeat(channels, 3))
        steps.append(f"{channels} equal channels")
    if not change:
        return data

    def shaped(split):
        images = split.images
        for function in change:
            images = function(images)
        return dataclasses.replace(split, images=images)

    return dataclasses.replace(
        data,
        train=shaped(data.train),
        test=shaped(data.test),
        steps=(*data.steps, *steps),
    )
