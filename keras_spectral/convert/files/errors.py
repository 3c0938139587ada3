"""The two errors of reading checkpoints."""

from keras_spectral.printable import printable

# Of a reason, which may hold names from the file, and of the file's own name.
_REASON, _ORIGIN = 600, 300


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the model.

    What it says is printable and short, whatever names from the file are in it.

    Args:
        reason: String, what is wrong: a sentence without its subject, the file.
        origin: Optional string, that subject.
    """

    def __init__(self, reason, origin=None):
        reason = printable(str(reason), _REASON)
        subject = "" if origin is None else f"{printable(str(origin), _ORIGIN)} "
        super().__init__(f"{subject}{reason}")
        self.reason = reason


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that asks for code to be run, or for memory it does not fill.

    Args:
        reason: String, see `CheckpointError`.
        origin: Optional string, likewise.
    """


class MismatchError(CheckpointError):
    """A checkpoint that was read, and is not of this network.

    Args:
        reason: String, see `CheckpointError`.
        origin: Optional string, likewise.
        missing: List of strings, keys of the model that the checkpoint lacks: all of
            them, where the message has as many as a line holds.
        unused: List of strings, keys of the checkpoint that the model lacks.
        misshaped: List of strings, keys of the model whose tensor has another shape.
    """

    def __init__(self, reason, origin=None, *, missing=(), unused=(), misshaped=()):
        super().__init__(reason, origin)
        self.missing, self.unused = list(missing), list(unused)
        self.misshaped = list(misshaped)
