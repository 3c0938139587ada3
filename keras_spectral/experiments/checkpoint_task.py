"""What a sweep's workers are given. Keras is not imported before they compute."""

import dataclasses
import hashlib
import json

# Of the rows' files; another one makes a rerun measure anew.
FORMAT = 1


def file_digest(path):
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Example:
    >>> from keras_spectral import zoo
    >>> file_digest(zoo.checkpoint("resnet20_digits").weights)[:8]
    '8c01779c'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class CheckpointTask:
    """A checkpoint, and all that its row depends on.

    Args:
        model: String, the network's name.
        file: String, path of the checkpoint, the same for every worker.
        sha256: String, of the file.
        registered: Boolean, whether the file holds weights of the registered network
            `model`; else it is a `.keras` file, which knows its network.
        dataset: String, name of the data set, or `None` if unknown.
        data: A name of `data.names()`, the path of an `.npz` file, or `None`.
        data_sha256: String, of that file, or of the named images; of digits `None`.
        note: String, why there is no data, or `None`.
        trials: Integer >= 2, compressions a rule and replacement.
        seed: Integer >= 0, of the noise.
        directory: String, where data given by a name lies, or `None`.
    """

    model: str
    file: str
    sha256: str
    registered: bool
    dataset: str | None
    data: str | None
    data_sha256: str | None
    note: str | None
    trials: int
    seed: int
    directory: str | None = None

    @property
    def settings(self):
        """Dict of what decides the numbers, besides the checkpoint."""
        data = self.data_sha256 or self.data
        return {
            "format": FORMAT, "data": data, "trials": self.trials, "seed": self.seed
        }  # fmt: skip

    @property
    def key(self):
        """String that names the row: model, checkpoint and settings."""
        settings = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        return f"{self.model}-{self.sha256[:16]}-{digest[:8]}"


def measure_in_worker(task):
    """Measure one checkpoint.

    Args:
        task: A `CheckpointTask`.

    Returns:
        Dict, a `SweepRow` as JSON has it.
    """
    from keras_spectral.experiments.checkpoint_row import measure_checkpoint

    return measure_checkpoint(task).to_dict()
