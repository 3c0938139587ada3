"""Writing files so that nothing half-written is left behind, whatever happens."""

import contextlib
import contextvars
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is known of dead writers.
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
# How a failing machine shows where a library raises an error of its own about it.
_FAILURES = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EIO EROFS ENXIO ENODEV ESTALE".split()
    if hasattr(errno, name)
}

# Within `no_empty_folders`: {folder that was checked, or made: was it made?}.
_MADE = contextvars.ContextVar("keras_spectral_folders_made", default=None)


@contextlib.contextmanager
def replacing(path, tells=()):
    """Yield a temporary path beside `path`; rename it over `path` on success.

    When the body raises (an interrupt too), the temporary file is removed and what
    stood at `path` stays as it was. Of several processes that write one file the last
    to end wins. What a process that was killed left behind is removed by the next one
    that writes the same file.

    Args:
        path: Destination. Its folder must exist.
        tells: Exceptions besides `OSError` by which the body tells of a failing disk.

    Raises:
        OSError: If the folder is missing, `path` is a folder, or the file cannot be
            written; `path` is named.

    Example:
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = output_file(path)
    with _naming(path, tells), beside(path) as temporary:
        yield temporary
        # A folder on a network may tell only now that it is full.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        # Some writers make the file private; give it what a plain open would.
        temporary.chmod((temporary.parent / _LOCK).stat().st_mode & 0o777)
        os.replace(temporary, path)


@contextlib.contextmanager
def beside(path):
    """Yield a path to write to on the way to `path`, on the same disk; remove it.

    It lies in a folder of its own, as writers put temporary files beside theirs and
    rename them, with a lock that is held as long as the writer lives. The folder is
    `.` + 16 hexadecimal digits of the SHA-256 of the name of `path` + `-` + 16 random
    ones. Those of the same `path` whose lock can be taken are removed: their writers
    are dead.

    Args:
        path: `pathlib.Path`, whose suffix the temporary one has: writers look at it.

    Example:
    >>> import pathlib, tempfile
    >>> with beside(pathlib.Path(tempfile.mkdtemp()) / "a.txt") as temporary:
    ...     temporary.name
    'new.txt'
    """
    prefix = _prefix(path)
    _remove_abandoned(path.parent, prefix)
    folder, lock = _locked_folder(path.parent, prefix)
    try:
        # Nobody's suffix is as long, but a name may be.
        suffix = path.suffix if len(os.fsencode(path.suffix)) < 200 else ""
        yield folder / f"new{suffix}"
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path):
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}-"


def _locked_folder(parent, prefix):
    """Return a new folder and the descriptor of its lock, which is held."""
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # Taken for a dead writer's a moment ago.
            continue
        except OSError:
            folder.rmdir()
            raise
        with contextlib.suppress(FileNotFoundError):
            if _locked(lock) is not False and os.path.samestat(
                os.fstat(lock), (folder / _LOCK).stat()
            ):
                return folder, lock
        os.close(lock)


def _locked(lock):
    """Return whether a lock could be taken, or `None` if the system has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return None
    return True


def _remove_abandoned(parent, prefix):
    """Remove the folders of writers that are dead."""
    form = re.compile(re.escape(prefix) + "[0-9a-f]{16}")
    with os.scandir(parent) as entries:
        found = [
            entry.path
            for entry in entries
            if form.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    for folder in found:
        # What cannot be opened is another user's: it stays.
        with contextlib.suppress(OSError):
            lock = os.open(Path(folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o666)
            if _locked(lock):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


@contextlib.contextmanager
def _naming(path, tells):
    """Raise what a failing machine does to the body as an `OSError` about `path`."""
    try:
        yield
    except Exception as error:
        cause = _failure(error)
        if isinstance(error, tells):
            cause = OSError(errno.EIO, str(error))
        elif cause is None or _prefix(path) not in str(cause.filename or _prefix(path)):
            raise  # A mistake in the body, or another file's error.
        reason = f"{cause.strerror}; what was there stays"
        raise OSError(cause.errno, reason, str(path)) from error


def _failure(error):
    """Return the `OSError` of the machine that an exception is of, or `None`."""
    if isinstance(error, OSError):
        return error if error.strerror else None
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FAILURES:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def claimed(folder):
    """Hold a folder for this process, so that no other one writes results into it.

    The claim ends with the process, however it ends. Without file locks, as on
    Windows, nothing is refused.

    Args:
        folder: `pathlib.Path` of a folder.

    Raises:
        OSError: If another process holds it; its number is named.

    Example:
    >>> import tempfile
    >>> with claimed(Path(tempfile.mkdtemp())) as folder:
    ...     (folder / "lock").is_file()
    True
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _locked(descriptor) is False:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise OSError(
                f"`output` is in use by process {holder or 'unknown'}, which writes "
                f"into it. Received: output={folder}. Wait, or choose another folder."
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield folder
    finally:
        os.close(descriptor)


def write_text(path, text):
    """Write a text in UTF-8, whole or not at all, with the same bytes anywhere."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path, value):
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def output_file(path, name="path") -> Path:
    """Check that a file may be written at `path`, before any work is done for it.

    Within `no_empty_folders` a folder that was checked and has gone is made again:
    another process may have made it, and have removed it as it failed.

    Args:
        path: Path of the file.
        name: String, the argument that it was given by.

    Returns:
        The path as a `pathlib.Path`.

    Raises:
        OSError: If it is a folder, or its own folder is missing, with what to do.

    Example:
    >>> output_file("model.keras").suffix
    '.keras'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"`{name}` must be a file to write. Received: {name}={path}, which is a "
            "folder. Name a file in it."
        )
    if not path.parent.is_dir() and _real(path.parent) in (_MADE.get() or ()):
        with contextlib.suppress(OSError):
            _make(path.parent)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"`{name}` must be in a folder that is there. Received: {name}={path}. "
            f"Make {path.parent} first."
        )
    return path


def writable_file(path, name="path") -> Path:
    """Make the folder of a file, and check as `output_file` that it can be written.

    Args:
        path: Path of the file.
        name: String, the argument that it was given by.

    Returns:
        The path as a `pathlib.Path`.

    Raises:
        OSError: If it is a folder, or its own cannot be made or written.

    Example:
    >>> writable_file(Path(tempfile.mkdtemp()) / "new" / "page.html").parent.is_dir()
    True
    """
    path = Path(path)
    with _written(path.parent, f"`{name}` must be in", f"{name}={path}"):
        _make(path.parent)
    return output_file(path, name)


def output_folder(path, *names) -> Path:
    """Make `path` a folder and check that files can be written into it.

    Args:
        path: Folder to create (with its parents) or to use.
        *names: Strings, files that are to be written there: no folders may be there.

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
    with _written(path, "`output` must be", f"output={path}"):
        _make(path)
    for name in names:
        output_file(path / name, "output")
    return path


@contextlib.contextmanager
def no_empty_folders():
    """Remove what `output_folder` and `writable_file` made in vain, if the body raises.

    Example:
    >>> folder = Path(tempfile.mkdtemp()) / "new"
    >>> with contextlib.suppress(ValueError), no_empty_folders():
    ...     raise ValueError(f"nothing to write into {output_folder(folder / 'er')}")
    >>> folder.exists()
    False
    """
    known: dict[Path, bool] = {}
    token = _MADE.set(known)
    try:
        yield
    except BaseException:
        made = [folder for folder, new in known.items() if new]
        for folder in sorted(made, key=lambda folder: -len(folder.parts)):
            with contextlib.suppress(OSError):  # Something is in it.
                folder.rmdir()
        raise
    finally:
        _MADE.reset(token)


def _make(folder):
    """Make a folder and its parents where they are missing."""
    known = _MADE.get()
    if known is not None:
        real = _real(folder)
        known.setdefault(real, False)
        # Before they are made: the last of them may fail.
        known.update({x: True for x in (real, *real.parents) if not x.exists()})
    folder.mkdir(parents=True, exist_ok=True)


def _real(folder):
    return Path(os.path.realpath(folder))


@contextlib.contextmanager
def _written(folder, must, received):
    """Write into a folder after the body, or raise what a reader can do about it."""
    try:
        yield
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{must} a folder that can be written: {error.strerror}. "
            f"Received: {received}. Choose another folder."
        ) from error
