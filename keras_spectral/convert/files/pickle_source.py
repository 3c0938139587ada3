"""The bytes of a pickle: instructions' arguments, and what reading them may cost."""

import functools
import io

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import Unread

# A tensor takes some thirty instructions and 600 bytes of objects: 300,000 of them.
MOST_INSTRUCTIONS = 9_000_000
MOST_MADE = 192 * 2**20
LARGEST_PICKLE = 64 * 2**20
# Instructions between two looks at the budget.
BLOCK = 256
# Longer text and numbers are passed over: no name and no size has them.
_LONGEST_TEXT, _LONGEST_NUMBER = 1024, 255
_CHUNK = 2**16


class Budget:
    """What reading one file's pickles may cost."""

    def __init__(self):
        self._made, self._read = MOST_MADE, LARGEST_PICKLE
        self._blocks = MOST_INSTRUCTIONS // BLOCK

    def spend(self, size):
        """Note that objects of so many bytes are about to be made, or were deleted."""
        self._made -= size
        if self._made < 0:
            raise UnsafeCheckpointError(
                f"has a pickle that asks for more than {MOST_MADE // 2**20} MiB of "
                "objects"
            )

    def read(self, size):
        """Note that so many bytes were read."""
        self._read -= size
        if self._read < 0:
            raise UnsafeCheckpointError(
                f"has a pickle of more than {LARGEST_PICKLE // 2**20} MiB"
            )

    def next_block(self):
        """Note that instructions are about to be run."""
        self._blocks -= 1
        if self._blocks < 0:
            raise UnsafeCheckpointError(
                f"has a pickle of more than {MOST_INSTRUCTIONS:,} instructions"
            )


class Source:
    """A file of instructions, single bytes, and their arguments.

    Every object that an argument makes is charged to the budget before.
    """

    def __init__(self, file, budget):
        if isinstance(file, io.RawIOBase):
            file = io.BufferedReader(file, _CHUNK)
        self.instruction = functools.partial(file.read, 1)
        self._file, self._budget = file, budget
        self.read = file.read

    def bytes(self, size):
        """Return so many bytes."""
        content = self.read(size)
        self._budget.read(size)
        if len(content) < size:
            raise CheckpointError("is damaged (its pickle ends early)")
        return content

    def count(self, size):
        """Return a whole number of so many bytes, few, without a sign."""
        content = self.read(size)
        if len(content) < size:
            raise CheckpointError("is damaged (its pickle ends early)")
        return int.from_bytes(content, "little")

    def signed(self, size):
        """Return a whole number of so many bytes, few."""
        content = self.read(size)
        if len(content) < size:
            raise CheckpointError("is damaged (its pickle ends early)")
        return int.from_bytes(content, "little", signed=True)

    def number(self, size, signed=True):
        """Return a whole number of so many bytes, or `Unread` for a long one."""
        if not 0 <= size <= _LONGEST_NUMBER:
            return self._passed_over(size)
        self._budget.spend(32 + size)
        return self.signed(size) if signed else self.count(size)

    def line(self):
        """Return the bytes up to the end of a line."""
        line = self._file.readline(_LONGEST_TEXT + 1)
        self._budget.read(len(line))
        if not line.endswith(b"\n"):
            raise CheckpointError("is damaged (a line of its pickle has no end)")
        self._budget.spend(80 + 4 * len(line))
        return line[:-1]

    def numeral(self):
        """Return a line that is to be a number."""
        line = self.line()
        if len(line) > _LONGEST_NUMBER:
            raise CheckpointError(f"is damaged (a number of {len(line):,} digits)")
        return line

    def text(self, size, decode=bytes):
        """Return a text of so many bytes, or `Unread` for a long one."""
        if 0 <= size <= _LONGEST_TEXT:
            content = self.bytes(size)
            self._budget.spend(80 + size * (1 if content.isascii() else 4))
            return decode(content)
        return self._passed_over(size)

    def _passed_over(self, size):
        if size < 0:
            raise CheckpointError("is damaged (a negative size in its pickle)")
        left = size
        while left:
            left -= len(self.bytes(min(left, _CHUNK)))
        self._budget.spend(64)
        return Unread(size)
