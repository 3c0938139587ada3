"""What a pickle keeps by number, to be fetched again."""

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.records import CHUNK

# Numbers that are looked for.
_MOST_FETCHED = 2**22
# In the place of what is not kept.
_DELETED = object()


class Memo:
    """The memo of one pickle.

    PyTorch's puts everything into it, a dozen objects a tensor, and fetches few.

    Args:
        budget: `Budget`.
        fetched: What `fetched` says of the file, or nothing: all is kept then.
    """

    def __init__(self, budget, fetched):
        self._spend, self._fetched = budget.spend, fetched
        # By number. Programs count from zero, unless they are made by hand.
        self._near, self._far = [], {}

    def fetch(self, index):
        """Return what was stored under a number."""
        near = 0 <= index < len(self._near)
        value = self._near[index] if near else self._far[index]
        if value is _DELETED:
            raise CheckpointError("is damaged (the memo of its pickle)")
        return value

    def append(self, value):
        """Keep an object under the next number."""
        self.store(len(self._near) + len(self._far), value)

    def store(self, index, value):
        """Keep an object under a number, if it may be fetched."""
        near = self._near
        if index == len(near):
            self._spend(9)
            kept = index >= len(self._fetched) or self._fetched[index]
            near.append(value if kept else _DELETED)
        elif 0 <= index < len(near):
            near[index] = value
        elif 0 <= index < 2**32:
            self._spend(160)
            self._far[index] = value
        else:
            raise CheckpointError("is damaged (the memo of its pickle)")


def fetched(file):
    """Return which numbers of a pickle's memo may be fetched by `LONG_BINGET`.

    All others need not be kept. Of any bytes, one whose code is that instruction's is
    taken for it: what is returned may be too much, and never too little.

    Args:
        file: Binary file object, of the pickle alone.

    Returns:
        Bytes, one a number: 1 if it may be, else 0. Of larger numbers nothing is said.
    """
    found, before = np.zeros(_MOST_FETCHED, bool), b""
    found[:256] = True  # Those have an instruction of one byte.
    while part := file.read(CHUNK):
        content = np.frombuffer(before + part, "uint8")
        places = np.flatnonzero(content[:-4] == ord("j")) + 1
        numbers = sum(content[places + n].astype("int64") << 8 * n for n in range(4))
        found[numbers[numbers < _MOST_FETCHED]] = True
        before = content[-4:].tobytes()
    return found.tobytes()
