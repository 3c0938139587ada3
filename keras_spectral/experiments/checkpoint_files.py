"""Which checkpoints a sweep measures: files in a folder, named after networks."""

import dataclasses
import fnmatch
import hashlib
import re
from pathlib import Path

from keras_spectral import data as sets
from keras_spectral import zoo
from keras_spectral.experiments.checkpoint_task import CheckpointTask, file_digest
from keras_spectral.zoo import registry

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".npz", ".keras")

_DATASETS = ("cifar10", "cifar100", "svhn", "imagenet", "digits")


@dataclasses.dataclass(frozen=True)
class Found:
    """The checkpoints of a sweep.

    Args:
        tasks: List of `CheckpointTask`, one a row.
        missing: List of names without a file.
        unused: List of paths of checkpoints that no name belongs to.
        copies: List of paths of files that are copies of others.
        looked_in: String, folder that was searched, or `None`.
    """

    tasks: list[CheckpointTask]
    missing: list[str]
    unused: list[str]
    copies: list[str]
    looked_in: str | None

    def where(self, count=3):
        """Return what was looked for, and where files may be put, in one paragraph."""
        shown = ", ".join(self.missing[:count])
        if len(self.missing) > count:
            shown += f" and {len(self.missing) - count} more"
        first, suffixes = self.missing[0], ", ".join(SUFFIXES)
        start = f"No weights of {shown}. "
        if self.looked_in is None:
            return (
                f"{start}Name a folder that has them: --checkpoints FOLDER, with files "
                f"such as FOLDER/{first}.pth, or FOLDER/{first}-0597-9b0024ac.pth as "
                f"pytorchcv names them, ending in {suffixes}."
            )
        return (
            f"{start}Looked in {self.looked_in} and below for {first}.* or "
            f"{first}-*.*, ending in {suffixes}. Put them there, such as "
            f"{Path(self.looked_in) / first}.pth, and run the sweep again."
        )


def network_name(path):
    """Return the network that a file is named after: all before a dash or a dot.

    Example:
    >>> network_name("resnet20_cifar10-0597-9b0024ac.pth")
    'resnet20_cifar10'
    """
    return re.split(r"[-.]", Path(path).name)[0]


def find_checkpoints(models, folder=None, data=None, trials=10, seed=0, directory=None):
    """Find the checkpoints of a sweep.

    Args:
        models: List of names of registered networks, of `.keras` files, shell patterns
            of either, `"paper"` (the 43 of `zoo.heavy_tail_models`) or `"all"`,
            whatever is in the folder.
        folder: Path to search, with the folders in it; `None` for bundled ones alone.
        data: A name of `data.names()`, the path of an `.npz` file, or a folder with
            files such as `cifar10.npz`; see `run_sweep`.
        trials: Integer >= 2.
        seed: Integer >= 0.
        directory: Folder where data given by a name lies, or `None`.

    Returns:
        `Found`.

    Raises:
        ValueError: On a name that is neither registered nor that of a `.keras` file, or
            if a folder or data is missing.

    Example:
    >>> found = find_checkpoints(["resnet20_digits", "resnet20_svhn"])
    >>> [task.model for task in found.tasks], found.missing
    (['resnet20_digits'], ['resnet20_svhn'])
    """
    files = _files(folder)
    names = _names(models, files)
    if directory is not None:
        directory = str(Path(directory).resolve())
    place = _Data(data, directory)
    tasks, missing, used, copies = {}, [], set(), []
    for name in names:
        paths = files.get(name, [])
        if not paths and name in zoo.list_models() and zoo.entry(name)["checkpoint"]:
            paths = [zoo.checkpoint(name).weights]
        if not paths:
            missing.append(name)
        for path in paths:
            used.add(path)
            task = CheckpointTask(
                model=name,
                file=str(path),
                sha256=_digest(path),
                registered=path.suffix != ".keras",
                trials=trials,
                seed=seed,
                directory=directory,
                **place.of(name),
            )
            if task.key in tasks:
                copies.append(str(path))
            tasks.setdefault(task.key, task)
    # An .npz file is data more often than weights.
    unused = [
        str(path)
        for paths in files.values()
        for path in paths
        if path not in used and path.suffix != ".npz"
    ]
    looked_in = None if folder is None else str(folder)
    return Found(list(tasks.values()), missing, unused, copies, looked_in)


def _digest(path):
    """Return a file's SHA-256; for one that cannot be read a name of its own.

    Its row is an error then, which no later sweep takes for finished.
    """
    try:
        return file_digest(path)
    except OSError:
        return "none-" + hashlib.sha256(str(path).encode()).hexdigest()


def _files(folder):
    """Return name -> paths of the checkpoints in a folder."""
    if folder is None:
        return {}
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"`checkpoints` must be a folder. Received: checkpoints={folder}, which is "
            "none. Make it, and put the weights there."
        )
    files, root = {}, folder.absolute()
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix in SUFFIXES and path.is_file() and not hidden:
            files.setdefault(network_name(path), []).append(path)
    return files


def _names(models, files):
    """Return the names that `models` stands for, each once."""
    if isinstance(models, str) or not models:
        raise ValueError(
            f"`models` must be a list of names. Received: models={models!r}"
        )
    registered = zoo.list_models()
    keras_names = [
        name
        for name, paths in files.items()
        if any(path.suffix == ".keras" for path in paths)
    ]
    known = dict.fromkeys([*registered, *keras_names])
    names = {}
    for word in models:
        if word == "paper":
            chosen = zoo.heavy_tail_models()
        elif word == "all":
            chosen = [name for name in files if name in known]
        elif any(character in word for character in "*?["):
            chosen = [name for name in known if fnmatch.fnmatchcase(name, word)]
        elif word in known:
            chosen = [word]
        else:
            registry.check_name(word, "models")
            chosen = [word]
        if not chosen and word != "all":
            raise ValueError(
                "`models` must name registered networks or .keras files. "
                f"Received: {word!r}, which matches none."
            )
        names.update(dict.fromkeys(chosen))
    return list(names)


class _Data:
    """Where the test data of a network is."""

    def __init__(self, data, directory):
        self.folder = self.one = None
        self.digests = {}
        if data is None:
            return
        if str(data) in sets.names():
            self.one = str(data)
            if self.one != "digits":  # The others are missing, or change.
                self.digests[self.one] = sets.load(
                    self.one, directory=directory
                ).test.sha256()
        elif Path(data).is_dir():
            self.folder = Path(data).absolute()
        elif Path(data).suffix == ".npz" and Path(data).is_file():
            self.one = str(Path(data).absolute())
        else:
            raise ValueError(
                f"`data` must be one of {sets.names()}, an .npz file, or a folder with "
                f"files such as cifar10.npz. Received: data={data}, which is none of "
                "them."
            )

    def of(self, name):
        """Return the fields of a task that tell of its data."""
        dataset = name.rsplit("_", 1)[-1]
        dataset = dataset if dataset in _DATASETS else None
        data, note = self.one, None
        if data is not None:
            dataset = data if data in sets.names() else Path(data).stem
        elif dataset == "digits":
            data = "digits"
        elif dataset is None:
            note = f"{name} names no data set; give one for all by --data"
        elif self.folder is None:
            note = f"no data: {dataset}.npz in a folder given by --data is needed"
        elif (self.folder / f"{dataset}.npz").is_file():
            data = str(self.folder / f"{dataset}.npz")
        else:
            note = f"no data: there is no {self.folder / dataset}.npz"
        digest = None
        if data not in (None, "digits"):
            if data not in self.digests:
                self.digests[data] = file_digest(data)
            digest = self.digests[data]
        return {"dataset": dataset, "data": data, "data_sha256": digest, "note": note}
