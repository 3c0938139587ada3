"""What is read of an HDF5 file is what h5py reads, whatever the layout."""

import itertools
import zlib

import h5py
import ml_dtypes
import numpy as np
import pytest

from keras_spectral.convert import CheckpointError, read_checkpoint

TYPES = ("<f4", ">f8", "<f2", "<i8", ">u2", "?", "<c8", "i1")
FILTERS = {
    "none": {},
    "deflate": dict(compression="gzip"),
    "shuffle": dict(compression="gzip", shuffle=True),
    "sums": dict(fletcher32=True),
    "all": dict(compression="gzip", shuffle=True, fletcher32=True),
}


def values(shape, dtype):
    numbers = np.random.default_rng(0).normal(size=shape) * 50
    with np.errstate(invalid="ignore"):
        return numbers.astype(dtype)


def assert_alike(path, keys):
    state = read_checkpoint(path)
    assert set(state) == set(keys)
    with h5py.File(path) as file:
        for key in keys:
            found, expected = state.stored(key), np.asarray(file[key][()])
            expected = expected.astype(expected.dtype.newbyteorder("="))
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("filters", FILTERS)
def test_pieces(filters, libver, tmp_path):
    path, keys = tmp_path / "w.h5", []
    with h5py.File(path, "w", libver=libver) as file:
        for dtype, (shape, chunk) in itertools.product(
            TYPES,
            [((7,), (3,)), ((10, 9), (4, 9)), ((5, 6, 7), (5, 2, 3)), ((4,), (4,))],
        ):
            keys.append(f"{dtype}/{'x'.join(map(str, shape))}")
            file.create_dataset(
                keys[-1], data=values(shape, dtype), chunks=chunk, **FILTERS[filters]
            )
    assert_alike(path, keys)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_other_layouts(libver, tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=0) as file:
        for dtype in TYPES:
            file[f"whole/{dtype}"] = values((20, 30), dtype)
            file[f"scalar/{dtype}"] = values((), dtype)
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_layout(h5py.h5d.COMPACT)
            compact = h5py.h5d.create(
                file.create_group(f"compact/{dtype}").id,
                b"w",
                h5py.h5t.py_create(np.dtype(dtype), logical=True),
                h5py.h5s.create_simple((3, 4)),
                settings,
            )
            h5py.Dataset(compact)[...] = values((3, 4), dtype)
            file.create_dataset(f"none/{dtype}", (3, 0), dtype)
            # Nothing is stored; the second has another value in its place.
            file.create_dataset(f"nothing/{dtype}", (3, 2), dtype)
            one = None if dtype == "?" else np.ones((), dtype)
            file.create_dataset(f"filled/{dtype}", (3, 2), dtype, fillvalue=one)
            grown = file.create_dataset(
                f"grown/{dtype}", (3, 5), dtype, maxshape=(None, 8), chunks=(2, 2),
                compression="gzip", fillvalue=one,
            )  # fmt: skip
            grown[2, 3] = False
            grown.resize((9, 7))
            shrunk = file.create_dataset(
                f"shrunk/{dtype}", data=values((9, 9), dtype), maxshape=(None, None),
                chunks=(2, 4),
            )  # fmt: skip
            shrunk.resize((5, 3))
    keys = [f"{kind}/{dtype}" for dtype in TYPES for kind in (
        "whole", "scalar", "none", "nothing", "filled", "grown", "shrunk"
    )]  # fmt: skip
    assert_alike(path, keys + [f"compact/{dtype}/w" for dtype in TYPES])


def test_an_enumeration_is_its_numbers(tmp_path):
    kind = h5py.enum_dtype({"a": 1, "b": 2, "c": 70}, "i2")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("w", data=np.array([1, 70], "i2"), dtype=kind)
    assert_alike(tmp_path / "w.h5", ["w"])


def test_what_is_linked_twice_is_one_tensor(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/w"] = np.ones((2, 3))
        file["b"] = file["a/w"]
    assert read_checkpoint(tmp_path / "w.h5").aliases == {"b": "a/w"}
    assert_alike(tmp_path / "w.h5", ["a/w", "b"])


@pytest.mark.parametrize("filters", ["none", "deflate"])
def test_bfloat16(filters, tmp_path):
    numbers = values((5, 6), ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        w = file.create_dataset(
            "w", data=numbers.view("V2"), chunks=(2, 4), **FILTERS[filters]
        )
        w.attrs["dtype"] = "bfloat16"
    state = read_checkpoint(tmp_path / "w.h5")
    assert state.dtypes == {"w": "bfloat16"}
    np.testing.assert_array_equal(state["w"], numbers.astype("float32"))


@pytest.mark.parametrize("mask", range(8))
def test_pieces_that_leave_filters_out(mask, tmp_path):
    """Shuffle, deflate and the sum, each used or not, as the mask says."""
    numbers = values((6, 5), "<f4")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        w = file.create_dataset("w", (6, 5), "<f4", chunks=(6, 5), **FILTERS["all"])
        w[...] = numbers
        _, whole = w.id.read_direct_chunk((0, 0))
        raw = numbers.tobytes()
        if not mask & 1:
            raw = np.frombuffer(raw, "u1").reshape(-1, 4).T.tobytes()
        if not mask & 2:
            raw = zlib.compress(raw)
        if not mask & 4:
            raw += fletcher32(raw)
        assert mask or len(raw) > 4
        w.id.write_direct_chunk((0, 0), raw, filter_mask=mask)
    assert_alike(tmp_path / "w.h5", ["w"])
    assert len(whole) > 4


def fletcher32(raw):
    """HDF5's sum, made by HDF5 itself."""
    with h5py.File("sum", "w", driver="core", backing_store=False) as file:
        w = file.create_dataset(
            "w", data=np.frombuffer(raw, "u1"), chunks=(len(raw),), fletcher32=True
        )
        file.flush()
        _, stored = w.id.read_direct_chunk((0,))
    return stored[-4:]


@pytest.mark.parametrize("place", range(0, 124, 9))
def test_a_sum_finds_each_damaged_byte(place, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        w = file.create_dataset(
            "w", data=values((31,), "<f4"), chunks=(31,), fletcher32=True
        )
        _, raw = w.id.read_direct_chunk((0,))
        raw = bytearray(raw)
        raw[place] ^= 1
        w.id.write_direct_chunk((0,), bytes(raw))
    with pytest.raises(CheckpointError, match="the sum of a piece"):
        dict(read_checkpoint(tmp_path / "w.h5"))


def test_a_large_sum(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset(
            "w", data=rng.integers(0, 256, 5_000_001, "u1"), chunks=(5_000_001,),
            fletcher32=True,
        )  # fmt: skip
        file.create_dataset("zeros", data=np.zeros(9), chunks=(9,), fletcher32=True)
    assert_alike(tmp_path / "w.h5", ["w", "zeros"])


def test_other_filters_are_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("w", data=np.ones((9, 9)), compression="lzf")
    with pytest.raises(CheckpointError, match="packs `w` by `lzf`"):
        read_checkpoint(tmp_path / "w.h5")
