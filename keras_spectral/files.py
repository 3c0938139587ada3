"""Writing files so that nothing half-written is left behind."""

import contextlib
import json
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; rename it over `path` on success.

    When the body raises (an interrupt too), the temporary file is removed and
    what stood at `path` stays as it was.

    Args:
        path: Destination. Its folder must exist; the temporary name keeps the
            file's suffix, because writers look at it.

    Raises:
        OSError: If the folder is missing or cannot be written.

    Example:
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it what a plain open would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write `value` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def output_folder(path) -> Path:
    """Make `path` a folder and check that files can be written into it.

    Args:
        path: Folder to create (with its parents) or to use.

    Returns:
        The folder as a `pathlib.Path`.

    Raises:
        OSError: If it cannot be created or written, with what to do.

    Example:
    >>> import tempfile
    >>> output_folder(tempfile.mkdtemp()).is_dir()
    True
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"`output` must be a folder that can be written: {error.strerror}. "
            f"Received: output={path}. Choose another folder."
        ) from error
    return path
