"""What lies in an HDF5 file, found without following links out of it."""

import itertools

from keras_spectral.convert.files.errors import UnsafeCheckpointError
from keras_spectral.convert.files.records import shown

# Each takes HDF5 a tenth of a millisecond, however small it is.
MOST_TENSORS = 50_000
_DEEPEST = 50
# Soft links that lead to soft links; HDF5 follows as many.
_MOST_FOLLOWED = 16
# How h5py makes strings of names.
NAMES = "utf-8", "surrogateescape"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
LONGEST_NAME = 2**10


def is_hdf5(path, size):
    """Tell whether HDF5 begins with a file, or behind a user's block in it."""
    start = 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            if file.read(8) == _SIGNATURE:
                return True
            start = 2 * start or 512
    return False


def datasets(root, passed_over):
    """Yield (name, path, low-level data set) of all that lies in the file itself.

    Args:
        root: `h5py.File`.
        passed_over: List, to be filled: the names that are not gone into.
    """
    from h5py import Group, h5d, h5g, h5l, h5o

    seen, links = {h5o.get_info(root.id).addr}, itertools.count()

    def count():
        if next(links) > 2 * MOST_TENSORS:
            raise UnsafeCheckpointError(
                f"has more than {2 * MOST_TENSORS:,} names, which no model has"
            )

    def inside(group, prefix):
        for name in group:
            count()
            key = f"{prefix}{name}"
            path, item = _raw(key), group.id
            if group.id.links.get_info(_raw(name)).type == h5l.TYPE_HARD:
                item = h5o.open(group.id, _raw(name))
            else:
                path, item = _followed(root, path, key, count)
            if isinstance(item, h5d.DatasetID):
                yield key, path, item
            elif isinstance(item, h5g.GroupID) and path == _raw(key):
                # Groups may hold themselves, and one be held by many.
                address = h5o.get_info(item).addr
                if address in seen:
                    passed_over.append(shown(key))
                    continue
                if key.count("/") > _DEEPEST:
                    raise UnsafeCheckpointError("has groups in groups without end")
                seen.add(address)
                yield from inside(Group(item), f"{key}/")
            elif path != _raw(key):
                # It leads nowhere, or to a group that has a name of its own.
                passed_over.append(shown(key))

    try:
        yield from inside(root, "")
    finally:
        # It holds itself and the file, which would stay open until Python looks.
        inside = None


def _followed(root, path, key, count):
    """Return (path, object) of what a path with soft links in it leads to, or `None`s.

    HDF5 would follow them into other files.

    Args:
        root: `h5py.File`.
        path: Bytes.
        key: String, what the path is called in messages.
        count: Function that is called for each part of the way.
    """
    from h5py import h5g, h5l, h5o

    followed, here, item, left = 0, [], root.id, _parts(path)
    while left:
        count()
        name = left.pop()
        if not isinstance(item, h5g.GroupID) or not item.links.exists(name):
            return None, None
        kind = item.links.get_info(name).type
        if kind == h5l.TYPE_HARD:
            item = h5o.open(item, name)
            here.append(name)
        elif kind == h5l.TYPE_SOFT and followed < _MOST_FOLLOWED:
            followed += 1
            target = item.links.get_val(name)
            if len(target) > LONGEST_NAME:
                # Each may be of the same hundred megabytes.
                raise UnsafeCheckpointError(
                    f"has a link of {len(target):,} characters at {shown(key)}"
                )
            left += _parts(target)
            if target.startswith(b"/"):
                here, item = [], root.id
        elif kind == h5l.TYPE_SOFT:
            return None, None
        else:
            raise UnsafeCheckpointError(f"has a link to somewhere else at {shown(key)}")
    return b"/".join(here), item


def _parts(path):
    """Return the names in a path, the last one first."""
    return [part for part in path.split(b"/")[::-1] if part not in (b"", b".")]


def _raw(name):
    return name.encode(*NAMES)
