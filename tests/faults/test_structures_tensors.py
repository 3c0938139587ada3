"""Files of tensors built from their parts, with shared objects and false claims.

Each is read, or refused by a `CheckpointError`; nothing else. `FAULTS_EXAMPLES` in the
environment asks for more of them than the hundred of each kind.
"""

import io
import json
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_spectral.convert import CheckpointError, read_checkpoint
from keras_spectral.experiments import analyze_checkpoint
from tests.faults.cases import EXAMPLES
from tests.faults.numpy_files import described, member

several = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.filterwarnings("ignore")

NUMBERS = st.one_of(
    st.integers(0, 5),
    st.sampled_from([-1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30]),
    st.sampled_from([True, None, 1.5, "3", [], {}, float("inf")]),
)
NAMES = st.one_of(
    st.sampled_from(
        ["w", "a.b.weight", "layers/dense/vars/0", "", "\x1b[2J", "x" * 300]
    ),
    st.text(max_size=6),
)


def outcome(path):
    """Read all of a file, and refuse nothing but by name."""
    try:
        state = read_checkpoint(path)
        for key in state:
            state.stored(key)
        state.fingerprint(), state.aliases, state.nbytes, state.dtypes
        return "read"
    except CheckpointError as error:
        assert len(str(error)) < 1000 and str(error).isprintable()
        return "refused"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("structures") / "a"


@st.composite
def safetensors(draw):
    """A header whose entries are whole, or whose parts are anything."""
    entries, end = [], 0
    for name in draw(st.lists(NAMES, max_size=5)):
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        size = 4 * int(np.prod(shape))
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
        if draw(st.integers(0, 2)) == 0:
            part = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
            entry[part] = draw(st.one_of(
                NUMBERS, st.lists(NUMBERS, max_size=40), NAMES,
                st.sampled_from(["F16", "BF16", "F4", "I64", "C64", "BOOL"]),
            ))  # fmt: skip
        if draw(st.integers(0, 9)) == 0:
            entry.pop(draw(st.sampled_from(sorted(entry))))
        entries.append((name, entry))
    if draw(st.booleans()):
        value = st.recursive(NUMBERS, lambda inner: st.lists(inner), max_leaves=5)
        names = [name for name, _ in entries] or ["w"]
        table = st.dictionaries(NAMES, st.one_of(value, st.sampled_from(names)))
        entries.insert(0, ("__metadata__", draw(st.one_of(value, table))))
    # Written by hand: a name may come twice.
    header = ",".join(f"{json.dumps(name)}:{json.dumps(e)}" for name, e in entries)
    header = ("{" + header + "}" + " " * draw(st.integers(0, 9))).encode()
    length = len(header) + draw(st.sampled_from([0] * 9 + [1, -1, 2**40]))
    more = draw(st.sampled_from([0] * 9 + [1, -1]))
    return struct.pack("<Q", max(0, length)) + header + bytes(max(0, end + more))


@several
@given(safetensors())
def test_safetensors(path, content):
    path.write_bytes(content)
    outcome(path)


@st.composite
def arrays(draw):
    """An .npz of headers whose parts are whole, or anything."""
    stream, packing = io.BytesIO(), [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from(packing))) as archive:
        for number in range(draw(st.integers(1, 4))):
            shape = draw(st.one_of(
                st.lists(st.integers(0, 4), max_size=4).map(tuple).map(str),
                st.lists(NUMBERS, max_size=40).map(tuple).map(str),
                st.sampled_from(["(" * 60, "9" * 5000, "((),)", "0", "-(1)", "x"]),
            ))  # fmt: skip
            descr = draw(st.one_of(
                st.sampled_from(["'<f4'", "'>f8'", "'?'", "'<c8'", "'<f2'", "'|i1'"]),
                st.sampled_from(["'|S0'", "'<U3'", "'|V0'", "'(0,)f4'", "'O'", "''",
                                 "[('a','<f4'),('b','(2,)i2')]", "'M8[s]'", "'<f16'",
                                 "'f4,i2'", "('<f4', (2,))", "[]", "{}", "1", "'<V9'"]),
            ))  # fmt: skip
            order = draw(st.sampled_from(["True", "False", "0", "()"]))
            head = described(shape, descr, order)
            if draw(st.integers(0, 9)) == 0:
                head = draw(st.text(alphabet="{}()[]',:0-+'ab", max_size=80))
            size = draw(st.one_of(st.integers(0, 300), st.just(4)))
            version = draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
            content = member(head, bytes(size), version)
            if draw(st.booleans()):
                # As long as it says, where it says what can be.
                try:
                    count = int(np.prod(eval(shape)))  # noqa: S307
                    size = count * np.dtype(eval(descr)).itemsize  # noqa: S307
                    content = member(head, bytes(min(size, 10**5)), version)
                except Exception:
                    pass
            archive.writestr(f"w{number}.npy", content)
    return stream.getvalue()


@several
@given(arrays())
def test_npz(path, content):
    path.write_bytes(content)
    outcome(path)


def record(kinds):
    made = h5t.create(h5t.COMPOUND, sum(kind.get_size() for kind in kinds))
    offset = 0
    for name, kind in zip("ri_", kinds, strict=False):
        made.insert(name.encode(), offset, kind)
        offset += kind.get_size()
    return made


TYPES = st.recursive(
    st.sampled_from([
        h5t.IEEE_F32LE, h5t.IEEE_F64BE, h5t.STD_I16BE, h5t.STD_B8LE, h5t.C_S1,
        h5t.UNIX_D32LE, h5t.STD_REF_OBJ, h5t.IEEE_F16LE, h5t.STD_U8LE,
        h5t.py_create(np.dtype("c8")), h5t.py_create(np.dtype("?"), logical=True),
        h5t.py_create(np.dtype("V2")), h5t.py_create(np.dtype("V7")),
        h5t.py_create(h5py.string_dtype(), logical=True),
    ]),
    lambda inner: st.one_of(
        inner.map(h5t.vlen_create),
        st.tuples(inner, st.lists(st.integers(1, 3), min_size=1, max_size=3)).map(
            lambda pair: h5t.array_create(pair[0], tuple(pair[1]))
        ),
        st.lists(inner, min_size=1, max_size=3).map(record),
    ),
    max_leaves=4,
)  # fmt: skip


@st.composite
def trees(draw):
    """Groups that hold each other, and data sets of any type, layout and filters."""
    with h5py.File("tree", "w", driver="core", backing_store=False) as file:
        groups = [file]
        for number in range(draw(st.integers(0, 4))):
            outer = draw(st.sampled_from(groups))
            name = draw(
                st.sampled_from(["layers", "vars", "cell", "dense", f"g{number}"])
            )
            if name not in outer:
                groups.append(outer.create_group(name))
        for number in range(draw(st.integers(1, 5))):
            group = draw(st.sampled_from(groups))
            made = _dataset(draw, group, f"{number}")
            if made is not None and draw(st.integers(0, 2)) == 0:
                h5py.Dataset(made).attrs["dtype"] = draw(
                    st.sampled_from(["bfloat16", "x", 3, [1, 2], "b" * 2000])
                )
        for number in range(draw(st.integers(0, 2))):
            group, other = draw(st.sampled_from(groups)), draw(st.sampled_from(groups))
            item = draw(st.sampled_from([
                other, other, h5py.SoftLink("/0"), h5py.ExternalLink("/dev/zero", "w"),
                np.dtype("f4"), *filter(None, other.values()),
            ]))  # fmt: skip
            group[f"link{number}"] = item
        for group in groups:
            if draw(st.booleans()):
                names = [
                    "x",
                    "\x1b[2J",
                    "y" * 2000,
                    3.5,
                    [b"ab"] * 300,
                    h5py.Empty("f4"),
                ]
                group.attrs["name"] = draw(st.sampled_from(names))
        file.flush()
        return file.id.get_file_image()


def _dataset(draw, group, name):
    kind = draw(TYPES)
    shape = draw(st.lists(st.integers(0, 5), max_size=3).map(tuple))
    plist = h5p.create(h5p.DATASET_CREATE)
    layout = draw(st.sampled_from(["whole", "compact", "pieces", "pieces", "outside"]))
    if layout == "compact":
        plist.set_layout(h5d.COMPACT)
    elif layout == "outside":
        plist.set_external(b"/etc/hostname", 0, 2**20)
    elif layout == "pieces" and shape:
        plist.set_chunk(tuple(draw(st.sampled_from([1, 2, 3, 2**10])) for _ in shape))
        for code in draw(st.lists(st.sampled_from([1, 2, 3, 3, 6, 32015]), max_size=3)):
            values = {1: (6,), 2: (), 3: (), 6: (0, 0), 32015: (3,)}[code]
            plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
    if draw(st.integers(0, 3)) == 0 and shape and layout == "pieces":
        space = h5s.create_simple(shape, (h5s.UNLIMITED,) * len(shape))
    elif draw(st.integers(0, 5)) == 0:
        space = h5s.create(draw(st.sampled_from([h5s.NULL, h5s.SCALAR])))
    elif draw(st.integers(0, 5)) == 0 and layout == "pieces" and shape:
        space = h5s.create_simple(
            (draw(st.sampled_from([2**20, 2**40, 2**61])),) * len(shape)
        )
    else:
        space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    try:
        made = h5d.create(group.id, name.encode(), kind, space, plist)
        if layout == "pieces" and draw(st.booleans()):
            raw = draw(st.sampled_from([b"", b"x", bytes(4096), bytes(10**6)]))
            raw = zlib.compress(raw) if draw(st.booleans()) else raw
            made.write_direct_chunk((0,) * len(shape), raw, draw(st.integers(0, 7)))
        return made
    except (ValueError, OSError, RuntimeError, TypeError, KeyError):
        return None  # HDF5 itself refuses what was drawn.


@several
@given(trees())
def test_hdf5(path, content):
    path.write_bytes(content)
    outcome(path)


LEAVES = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["x", "Dense", "RNN", "EinsumDense", "ab,bc->ac", "->", "operator"]
    ),
)
KINDS = st.sampled_from([
    "Dense", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "RNN",
    "EinsumDense", "Embedding", "MultiHeadAttention", "LSTM", "GRU", "Bidirectional",
    "TimeDistributed", "MaskedConv2D", "SVDDense", "SVDConv2D", "BatchNormalization",
    "SpectralNormalization", "OptimalSpectralNormalization", "StableRankNormalization",
    "StackedRNNCells", "GRUCell", "Functional", 3, None,
])  # fmt: skip
ARGUMENTS = ("name", "layer", "cell", "cells", "layers", "bound", "norm", "equation",
             "backward_layer", "stable_rank_ratio", "preserved", "clip")  # fmt: skip
CONFIGS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.fixed_dictionaries({
            "class_name": KINDS,
            "config": st.dictionaries(st.sampled_from(ARGUMENTS), inner, max_size=4),
        }),
    ),
    max_leaves=12,
)  # fmt: skip
PLACES = (
    "vars", "first/vars", "second/vars", "layer/vars", "cell/vars", "layer/cell/vars",
    "cell/cells/x/vars", "cells/lstm_cell/vars", "query_dense/vars",
    "output_dense/vars", "forward_layer/cell/vars", "layer/norm_states/vars",
)  # fmt: skip


@st.composite
def models(draw):
    """A .keras model whose config and weights know nothing of each other."""
    stream, packed = io.BytesIO(), io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number in range(draw(st.integers(1, 5))):
            kind = draw(st.sampled_from(["dense", "svd_dense", "rnn", "x", "conv2d"]))
            group = f"layers/{kind}/{draw(st.sampled_from(PLACES))}"
            shape = draw(st.lists(st.integers(0, 3), max_size=5).map(tuple))
            key = f"{group}/{draw(st.sampled_from(['0', '1', 'mask', '2']))}"
            if key not in file:
                file[key] = np.full(shape, number + 0.5, "f4")
            if draw(st.booleans()):
                file[group].attrs["name"] = draw(st.sampled_from(["x", "Dense", ""]))
    layers = draw(st.lists(CONFIGS, max_size=4))
    config = {"class_name": "Functional", "config": {"layers": layers}}
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", stream.getvalue())
    return packed.getvalue()


@several
@given(models())
def test_keras_models(path, content):
    path.write_bytes(content)
    if outcome(path) == "read":
        try:
            analyze_checkpoint(path)
        except CheckpointError as error:
            assert str(error).isprintable()
