"""The two errors of reading checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the model.

    Args:
        reason: String, what is wrong: a sentence without its subject, the file.
        origin: Optional string, that subject.
    """

    def __init__(self, reason, origin=None):
        super().__init__(reason if origin is None else f"{origin} {reason}")
        self.reason = reason


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that asks for code to be run, or for memory it does not fill."""


class MismatchError(CheckpointError):
    """A checkpoint that was read, and is not of this network."""
