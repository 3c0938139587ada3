"""What every data set is: two splits of images, and where they come from."""

import dataclasses
import hashlib

import numpy as np

from keras_spectral.validation import check_integer


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Args:
        images: Uint8 array (count, height, width, channels), 0 black, `white` white.
            From a file of one's own, also floats. May be a memory map.
        labels: Int64 array (count,), from 0. All 0 where the images have no classes.
        white: Integer, the largest value of a pixel: 255, or 16 of the digits.

    Example:
    >>> split = Split(np.zeros((5, 8, 8, 1), "uint8"), np.arange(5))
    >>> len(split), len(split[:2]), split[[4]].labels.tolist()
    (5, 2, [4])
    """

    images: np.ndarray
    labels: np.ndarray
    white: int = 255

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        """Return the `Split` of some rows: a slice, or an array of integers."""
        return dataclasses.replace(
            self, images=self.images[rows], labels=self.labels[rows]
        )

    def inputs(self) -> np.ndarray:
        """Return the images as float32 in [-1, 1]; floats stay as they are.

        Example:
        >>> Split(np.full((1, 1, 1, 1), 255, "uint8"), np.zeros(1, int)).inputs().item()
        1.0
        """
        if self.images.dtype != np.uint8:
            return np.asarray(self.images, "float32")
        return self.images / np.float32(self.white / 2) - np.float32(1)

    def sha256(self) -> str:
        """Return the SHA-256 of the images' and then the labels' bytes, in hexadecimal.

        Example:
        >>> split = Split(np.zeros((5, 8, 8, 1), "uint8"), np.arange(5))
        >>> split.sha256() == split[:].sha256() != split[:4].sha256()
        True
        """
        found = hashlib.sha256()
        for start in range(0, len(self), 4096):
            found.update(self.images[start : start + 4096].tobytes())
        found.update(self.labels.tobytes())
        return found.hexdigest()


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where images come from, and what was done to them.

    Args:
        name: String, the data set's.
        source: String: `"scikit-learn"`, `"IDX files"`, `"TensorFlow Datasets"` and the
            builder's version, `"folder"` or `"npz file"`.
        counts: Tuple of two integers, the images of the training and the test split.
        sha256: Tuple of two strings, see `Split.sha256`.
        steps: Tuple of strings, what was done since the source, in order.
    """

    name: str
    source: str
    counts: tuple
    sha256: tuple
    steps: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A data set: images and labels to train on, and others to test with.

    Order and augmentation belong to who trains: see `crop_and_flip`.

    Args:
        name: String.
        train: A `Split`; empty for files that hold test data only.
        test: A `Split`.
        class_names: Tuple of strings, one a label.
        source: String, see `Provenance`.
        steps: Tuple of strings, see `Provenance`.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple
    source: str
    steps: tuple = ()

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.class_names)

    def provenance(self) -> Provenance:
        """Return name, source, counts, SHA-256 and steps of both splits.

        Example:
        >>> from keras_spectral import data
        >>> data.load("digits").subset(100).provenance().counts
        (100, 450)
        """
        splits = self.train, self.test
        return Provenance(
            self.name,
            self.source,
            tuple(len(split) for split in splits),
            tuple(split.sha256() for split in splits),
            self.steps,
        )

    def subset(self, count: int, seed: int = 0) -> "Data":
        """Keep some images to train on, the classes in balance.

        Smaller subsets of a seed are part of its larger ones, and in the same order.

        Args:
            count: Integer >= 1, at most the size of the training split.
            seed: Integer >= 0.

        Returns:
            A `Data`, whose test split is the same.

        Raises:
            ValueError: If there are fewer images.

        Example:
        >>> from keras_spectral import data
        >>> np.bincount(data.load("digits").subset(50).train.labels).tolist()
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
        """
        rows = self._balanced("count", count, seed)[:count]
        return self._replaced(
            f"{count} images to train on, seed {seed}", train=self.train[rows]
        )

    def hold_out(self, count: int, seed: int = 0) -> "Data":
        """Test with images of the training split, the classes in balance.

        For choices that must not see the test split: both splits of what is returned
        come from the training split.

        Args:
            count: Integer >= 1, below the size of the training split.
            seed: Integer >= 0.

        Returns:
            A `Data`.

        Raises:
            ValueError: If there are no more images.

        Example:
        >>> from keras_spectral import data
        >>> held = data.load("digits").hold_out(347)
        >>> len(held.train), len(held.test)
        (1000, 347)
        """
        rows = self._balanced("count", count, seed, least_left=1)
        return self._replaced(
            f"{count} training images held out to test with, seed {seed}",
            train=self.train[np.sort(rows[count:])],
            test=self.train[np.sort(rows[:count])],
        )

    def random_labels(self, seed: int = 0) -> "Data":
        """Give the training split labels that say nothing of the images.

        Each is drawn uniformly from all classes, the true one among them, as
        [sanyal2020] and [zhang2017] have it.

        Args:
            seed: Integer >= 0.

        Returns:
            A `Data`, whose test split is the same.

        Example:
        >>> from keras_spectral import data
        >>> digits = data.load("digits")
        >>> agree = digits.random_labels().train.labels == digits.train.labels
        >>> bool(0.05 < agree.mean() < 0.15)
        True
        """
        check_integer("seed", seed, least=0)
        labels = np.random.default_rng(seed).integers(
            self.classes, size=len(self.train)
        )
        return self._replaced(
            f"random labels, seed {seed}",
            train=dataclasses.replace(self.train, labels=labels),
        )

    def _replaced(self, step, **changes):
        return dataclasses.replace(self, steps=(*self.steps, step), **changes)

    def _balanced(self, name, count, seed, least_left=0):
        """Return all rows of the training split, so that each start is balanced."""
        check_integer(name, count, least=1)
        check_integer("seed", seed, least=0)
        most = len(self.train) - least_left
        if count > most:
            raise ValueError(
                f"`{name}` must be at most {most}: {self.name} has {len(self.train)} "
                f"images to train on. Received: {name}={count}"
            )
        shuffled = np.random.default_rng(seed).permutation(len(self.train))
        labels = self.train.labels[shuffled]
        # The first image of each class, then the second of each, and so on.
        by_class = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=1)
        turn = np.empty(len(labels), int)
        turn[by_class] = np.concatenate([np.arange(size) for size in sizes])
        return shuffled[np.lexsort((labels, turn))]
