"""Zip archives of strangers, checked as a whole before a member is opened."""

import io
import os
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import described
from keras_spectral.convert.files.records import CHUNK, check_total

# Some hundred thousand members, of which each takes ten times as much when it is known.
_LARGEST_DIRECTORY = 8 * 2**20


def opened(path):
    """Return a `zipfile.ZipFile`, whose directory has a size that can be held."""
    try:
        whole = Part(path.open("rb", buffering=0), path.stat().st_size)
        return zipfile.ZipFile(_Bounded(whole))
    except CheckpointError:
        raise
    except Exception as error:  # A damaged archive raises nearly anything.
        raise CheckpointError(f"is damaged ({_said(error)})") from error


class _Bounded(io.BufferedReader):
    """A file of which only so much is read at once: a directory, as `zipfile` does."""

    def read(self, size=-1):
        most = _LARGEST_DIRECTORY + 1
        size = most if size is None or size < 0 else min(size, most)
        content = super().read(size)
        if len(content) == most:
            raise UnsafeCheckpointError(
                f"has a zip directory of more than {_LARGEST_DIRECTORY // 2**20} MiB"
            )
        return content


class Archive:
    """A zip archive whose members are what the directory says.

    Args:
        path: `pathlib.Path`.

    Raises:
        UnsafeCheckpointError: If members overlap, or unpack to far more than the
            file.
        CheckpointError: If it is damaged, encrypted or packed in another way.
    """

    def __init__(self, path):
        self._path = path
        # Left open: members are read one by one, when they are asked for.
        self._archive = opened(path)
        members = self._archive.infolist()
        self._starts = {}
        self.names = {member.filename: member for member in members}
        if len(self.names) < len(members):
            raise UnsafeCheckpointError("has two members of one name in its zip")
        end = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.flag_bits & 1:
                raise CheckpointError("is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError("is packed in another way than zip's deflate")
            if member.header_offset < end:
                raise UnsafeCheckpointError("has members in its zip that overlap")
            end = member.header_offset + 30 + member.compress_size
        size = path.stat().st_size
        if end > size:
            raise CheckpointError("is damaged (a member reaches beyond its end)")
        check_total(sum(member.file_size for member in members), size)

    def size(self, name):
        """Return the unpacked bytes of a member."""
        return self.names[name].file_size

    def is_packed(self, name):
        """Tell whether a member is deflated, and can only be read from its start."""
        return self.names[name].compress_type != zipfile.ZIP_STORED

    def part(self, name, skip, size):
        """Return some bytes of a member that is not packed as a file, unsummed."""
        file = self.open(name, seekable=True)
        file.seek(skip)
        return Part(file, size)

    def open(self, name, seekable=False):
        """Return a member as a file.

        Args:
            name: String.
            seekable: Boolean. A file to jump about in checks no sum; another one does
                at its end.
        """
        member = self.names[name]
        if self.is_packed(name):
            try:
                # It checks the local header against the directory.
                return _Packed(self._archive.open(name))
            except Exception as error:
                raise CheckpointError(f"is damaged ({_said(error)})") from error
        if member.file_size != member.compress_size:
            raise CheckpointError(f"is damaged (the size of {described(name)})")
        file = self._path.open("rb", buffering=0)
        if name not in self._starts:
            self._starts[name] = _start(file, member)
        file.seek(self._starts[name])
        if seekable:
            return Part(file, member.file_size)
        return _Stored(file, member)


def _start(file, member):
    """Return where a stored member's bytes begin, by its own header."""
    file.seek(member.header_offset)
    head = file.read(30)
    named, extra = struct.unpack("<HH", head[26:].ljust(4))
    name = file.read(named)
    text = name.decode("utf-8" if member.flag_bits & 0x800 else "cp437", "replace")
    if head[:4] != b"PK\x03\x04" or text != member.orig_filename:
        raise CheckpointError(
            f"is damaged (the header of {described(member.filename)})"
        )
    return file.tell() + extra


class _Packed(io.RawIOBase):
    """A deflated member's file, whose errors are ours."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._file.tell()

    def seek(self, offset, whence=io.SEEK_SET):
        return self._guarded(self._file.seek, offset, whence)

    def readinto(self, buffer):
        return self._guarded(self._file.readinto, buffer)

    def close(self):
        self._file.close()
        super().close()

    def _guarded(self, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:  # BadZipFile, zlib.error, EOFError, ...
            raise CheckpointError(f"is damaged ({_said(error)})") from error


class Part(io.RawIOBase):
    """The next so many bytes of a file, as a file.

    Where it is, is its own: after a fork two processes have one position in one file.

    Attributes:
        file: The file itself, not a part.
        start: Integer, where in it the part begins.
    """

    def __init__(self, file, size):
        super().__init__()
        start, self._whole = file.tell(), file
        if isinstance(file, Part):
            # A part of a part is one of the file itself, which closes with the first.
            file, start = file.file, file.start + start
        self.file, self.start, self._size = file, start, size
        self._position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer):
        wanted = max(0, min(len(buffer), self._size - self._position))
        view, place = memoryview(buffer)[:wanted], self.start + self._position
        if hasattr(os, "preadv"):
            count = os.preadv(self.file.fileno(), [view], place)
        else:  # Windows, which does not fork.
            self.file.seek(place)
            count = self.file.readinto(view)
        self._position += count
        return count

    def close(self):
        self._whole.close()
        super().close()


class _Stored(Part):
    """A stored member's file, to read from front to back.

    Its sum takes as long as reading, so another thread computes it meanwhile; buffers
    must not change until the end. The thread ends with the file: one for all files
    would be missing after a fork, and be waited for without end.
    """

    def __init__(self, file, member):
        super().__init__(file, member.file_size)
        self._member, self._sum, self._thread = member, 0, None

    def close(self):
        if self._thread is not None:
            self._thread.shutdown()
        super().close()

    def readinto(self, buffer):
        # What was read before is summed while this is read.
        count = super().readinto(buffer)
        part, before = memoryview(buffer)[:count], self._summed()
        if count < CHUNK:
            self._sum = zlib.crc32(part, before)
        else:
            self._thread = self._thread or ThreadPoolExecutor(1, "zip-sum")
            self._sum = self._thread.submit(zlib.crc32, part, before)
        if self._position == self._size and self._summed() != self._member.CRC:
            raise CheckpointError(
                "is damaged (Bad CRC-32 for the member "
                f"{described(self._member.filename)})"
            )
        return count

    def _summed(self):
        return self._sum if isinstance(self._sum, int) else self._sum.result()


def _said(error):
    return str(error).strip().split("\n")[0][:100] or type(error).__name__
