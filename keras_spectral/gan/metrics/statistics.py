"""Mean and covariance of features, gathered batch by batch and over replicas."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np

import keras_spectral
from keras_spectral.files import output_file, replacing, write_json
from keras_spectral.json_text import parse_json

# A covariance of 16,384 features in float64; what claims more is no statistics file.
_LARGEST_FILE = 2**31


def checked_features(name, features, least=1):
    """Return features in float64.

    Args:
        name: String, the argument's name.
        features: Array (samples, dimensions).
        least: Integer, how many samples are needed.

    Raises:
        ValueError: If they are of another shape, too few, or not finite.

    Example:
    >>> checked_features("generated", [[1, 2]]).dtype
    dtype('float64')
    """
    features = _numbers(name, features)
    if features.ndim != 2 or features.shape[0] < least or not features.shape[1]:
        raise ValueError(
            f"`{name}` must be features (samples, dimensions) of at least {least} "
            f"samples. Received: {name} of shape {features.shape}"
        )
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise ValueError(
            f"`{name}` must be finite. Received: NaN or infinity in sample {row}"
        )
    return features


def _numbers(name, given):
    """Return an array in float64: of real numbers, which NumPy alone does not ask."""
    found = np.asarray(given)
    # A backend's bfloat16 is of no kind of NumPy's.
    if found.dtype.kind in "cOSUMm":
        what = type(given).__name__ if found.dtype == object else found.dtype
        raise ValueError(f"`{name}` must hold real numbers. Received: {what}")
    return found.astype("float64", copy=False)


def check_one_network(ours, theirs):
    """Raise a ValueError if statistics say that two networks made them.

    Args:
        ours: `Statistics`.
        theirs: Likewise.
    """
    names = [side.provenance.get("features") for side in (ours, theirs)]
    if None not in names and names[0] != names[1]:
        raise ValueError(
            "Statistics must be of the same features. Received: those of "
            f"{names[0]!r} and of {names[1]!r}"
        )
    digests = [side.provenance.get("weights_sha256") for side in (ours, theirs)]
    if None not in digests and digests[0] != digests[1]:
        raise ValueError(
            f"Statistics must be of one network. Received: those of two of the name "
            f"{names[0]!r}, whose weights differ"
        )


class Statistics:
    """Count, mean and covariance of features.

    Batches may be of any size, and statistics of replicas may be merged in any order:
    the result is that of all features at once, in float64. Sums of squares, as some
    tools keep them, lose all digits where a mean is large beside its deviation; these
    do not.

    Args:
        keep_features: Boolean, whether the features stay too: kernel distances and
            the exact Fréchet distance of few samples need them.
        provenance: Dict of what they are of, for the file: data set, split, network.

    Example:
    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(10, 3))
    >>> replica = Statistics().update(features[6:])
    >>> whole = Statistics().update(features[:2]).update(features[2:6]).merge(replica)
    >>> bool(np.allclose(whole.covariance, np.cov(features.T)))
    True

    Source: [chan1983], the update of mean and scatter.
    """

    def __init__(self, keep_features: bool = False, provenance: dict | None = None):
        self.count: int | None = 0
        # Unknown of nothing: the first batch says how many dimensions there are.
        self.mean = np.empty(0)
        self.provenance = dict(provenance or {})
        self.scatter = np.empty((0, 0))
        self.kept = [] if keep_features else None

    @classmethod
    def of(cls, features, keep_features: bool = False) -> "Statistics":
        """Return the statistics of one array of features.

        Args:
            features: Array (samples, dimensions).
            keep_features: Boolean, whether they stay.
        """
        return cls(keep_features).update(features)

    def update(self, features) -> "Statistics":
        """Add a batch.

        Args:
            features: Array (samples, dimensions) of finite numbers.

        Returns:
            Itself.

        Raises:
            ValueError: If they are of another number of dimensions, or not finite.
        """
        features = checked_features("features", features, least=0)
        if not len(features):
            return self
        mean = features.mean(axis=0)
        centred = features - mean
        self._add(len(features), mean, centred.T @ centred)
        if self.kept is not None:
            # The caller may fill the array anew.
            self.kept.append(features.copy())
        return self

    def merge(self, other: "Statistics") -> "Statistics":
        """Add what another one has gathered, such as another replica.

        Args:
            other: `Statistics`. It stays as it is. Features are kept only if both
                have theirs.

        Returns:
            Itself.

        Raises:
            ValueError: If it has another number of dimensions or features of another
                network, or its count is unknown.
        """
        if not isinstance(other, Statistics):
            raise ValueError(
                f"`other` must be Statistics. Received: a {type(other).__name__}. "
                "`update` takes features."
            )
        check_one_network(self, other)
        if other.count is None or self.count is None:
            raise ValueError(
                "`other` can be merged only where both counts are known. Received: "
                "statistics of a file that names none, as other projects write them"
            )
        if not other.count:
            return self
        if not self.count:
            self.provenance = {**other.provenance, **self.provenance}
        for key in ("features", "weights_sha256"):
            if key in other.provenance:
                self.provenance.setdefault(key, other.provenance[key])
        kept = None
        if self.kept is not None and other.kept is not None:
            kept = [*self.kept, *other.kept]
        self._add(other.count, other.mean, other.scatter)
        self.kept = kept
        return self

    def _add(self, count, mean, scatter):
        if self.count is None:
            raise ValueError(
                "Statistics of a file that names no count cannot be added to."
            )
        if not self.count:
            self.count, self.mean, self.scatter = count, mean.copy(), scatter.copy()
            return
        if mean.shape != self.mean.shape:
            raise ValueError(
                f"`features` must have {len(self.mean)} dimensions, as before. "
                f"Received: {len(mean)}"
            )
        total = self.count + count
        step = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(step * (self.count / total * count), step)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Array (dimensions, dimensions), with n - 1 below."""
        if self.count is None:
            return self.scatter
        if self.count < 2:
            raise ValueError(
                "A covariance needs at least 2 samples. Received: "
                f"{self.count} so far. Call `update` first."
            )
        return self.scatter / (self.count - 1)

    @property
    def features(self) -> np.ndarray | None:
        """The features, if they were kept, else `None`."""
        return np.concatenate(self.kept) if self.kept else None

    def save(self, path):
        """Write them as pytorch-fid, TTUR, mimicry and StudioGAN read them.

        Args:
            path: Path that ends in `.npz`. It gets `mu` and `sigma` in float64, and
                `features` if they were kept. Count and provenance go to a JSON file
                beside it, `<path>.json`.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If the path ends otherwise, there are below 2 samples, or
                provenance is not what JSON has.
        """
        path = output_file(path)
        if path.suffix != ".npz":
            raise ValueError(f"`path` must end in .npz. Received: path={path}")
        output_file(_beside(path))
        try:
            json.dumps(self.provenance, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`provenance` must be what JSON has. Received: {error}"
            ) from error
        arrays = {"mu": self.mean, "sigma": self.covariance}
        if self.features is not None:
            arrays["features"] = self.features
        with replacing(path) as temporary:
            np.savez(temporary, **arrays)
            digest = _digest(temporary)
        write_json(
            _beside(path),
            {
                "keras_spectral": keras_spectral.__version__,
                "sha256": digest,
                "count": self.count,
                "dimensions": len(arrays["mu"]),
                "provenance": self.provenance,
            },
        )

    @classmethod
    def load(cls, path) -> "Statistics":
        """Read statistics of this or another project.

        Args:
            path: Path of an `.npz` file with `mu` and `sigma`. Without a JSON file
                beside it and without features in it the count is unknown, `None`.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it holds no statistics, or the JSON file is of another one.
        """
        path = Path(path)
        arrays = _arrays(path)
        loaded = cls()
        loaded.count, loaded.mean = None, arrays["mu"]
        loaded.scatter = arrays["sigma"]
        if "features" in arrays:
            loaded.kept = [arrays["features"]]
            loaded.count = len(arrays["features"])
        if _beside(path).is_file():
            card = _card(path)
            loaded.provenance = card["provenance"]
            loaded.count = card["count"] or loaded.count
        if loaded.count is not None:
            loaded.scatter = arrays["sigma"] * (loaded.count - 1)
        return loaded


def _beside(path):
    return path.with_name(f"{path.name}.json")


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arrays(path):
    """Return the arrays of an `.npz` file in float64, checked."""
    wrong = f"`path` must be an .npz file of `mu` and `sigma`. Received: {path}, "
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
        if claimed > _LARGEST_FILE:
            raise ValueError(f"which claims {claimed:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            found = {
                name: _numbers(name, file[name])
                for name in ("mu", "sigma", "features")
                if name in file
            }
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wrong}{error}") from error
    missing = {"mu", "sigma"} - set(found)
    if missing:
        raise ValueError(f"{wrong}which has no {' and no '.join(sorted(missing))}")
    mean, covariance = found["mu"], found["sigma"]
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        shapes = f"{mean.shape} and {covariance.shape}"
        raise ValueError(f"{wrong}whose shapes are {shapes}")
    features = found.get("features", np.empty((0, len(mean))))
    if features.ndim != 2 or features.shape[1] != len(mean):
        raise ValueError(f"{wrong}whose features are of shape {features.shape}")
    if not all(np.isfinite(array).all() for array in found.values()):
        raise ValueError(f"{wrong}which is not finite")
    # Some tools write in float32.
    skew = np.abs(covariance - covariance.T).max()
    if covariance.diagonal().min() < 0 or skew > 1e-4 * np.abs(covariance).max():
        raise ValueError(f"{wrong}whose `sigma` is no covariance: it must be symmetric")
    return found


def _card(path):
    """Return what the JSON file beside statistics says, if it is theirs."""
    beside = _beside(path)
    try:
        card = parse_json(beside.read_bytes(), "provenance")
        count, provenance = card["count"], card["provenance"]
        digest = card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{beside} is no provenance of statistics: {error!r}"
        ) from None
    if digest != _digest(path):
        raise ValueError(
            f"{beside} is of another file than {path}, which was changed since. Remove "
            "the JSON file to read the statistics without their count."
        )
    fits = count is None or (type(count) is int and count >= 2)
    if not fits or not isinstance(provenance, dict):
        raise ValueError(f"{beside} is no provenance of statistics: count={count!r}")
    return card
