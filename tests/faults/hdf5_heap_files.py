"""Crafted HDF5 files whose collections of texts HDF5 would go through for ever."""

import numpy as np

from tests.faults.cases import Case
from tests.faults.hdf5_files import written


def texts_without_end(number, size):
    """A collection of texts, one of which leads HDF5 back to where it was."""

    def write(folder):
        def named(file):
            group = file.create_group("layers/dense/vars")
            group["0"] = np.ones((2, 2))
            group.attrs["name"] = "a layer"

        path = written(named)(folder)
        content = bytearray(path.read_bytes())
        first = content.index(b"GCOL") + 16
        content[first : first + 2] = number.to_bytes(2, "little")
        content[first + 8 : first + 16] = size.to_bytes(8, "little")
        path.write_bytes(content)
        return path

    return write


def collections_in_collections(folder):
    """Each of many collections of texts has the next one's in it."""
    path = written(lambda file: file.update(w=np.ones(3)))(folder)
    count = 20_000
    heads = b"".join(
        b"GCOL\1\0\0\0" + (16 + 32 * (count - n - 1)).to_bytes(8, "little")
        + b"\1\0\1\0\0\0\0\0" + (0).to_bytes(8, "little")
        for n in range(count)
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + heads)
    return path


CASES = {
    "a text of no size": Case(texts_without_end(0, 0), says="one after the other"),
    "a text of 2^64 bytes": Case(
        texts_without_end(1, 2**64 - 32), says="one after the other"
    ),
    "texts in texts": Case(collections_in_collections, says="one after the other"),
}
