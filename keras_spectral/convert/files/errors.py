"""The two errors of reading checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the model."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that asks for code to be run, or for memory it does not fill."""


class MismatchError(CheckpointError):
    """A checkpoint that was read, and is not of this network."""
