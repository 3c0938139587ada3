"""Pickles and zips that are built, not flipped: read, or a `CheckpointError`.

`FAULTS_EXAMPLES=10000 pytest tests/faults/test_structures_pickles.py` tries as many
of each kind.
"""

import re
import struct

from hypothesis import event, given, settings
from hypothesis import strategies as st

from keras_spectral.convert import CheckpointError, read_checkpoint
from tests.faults.cases import EXAMPLES
from tests.faults.programs import (
    REBUILD,
    get,
    legacy,
    number,
    put,
    storage,
    tensor,
    text,
    torch_zip,
)
from tests.faults.zip_files import archive, member

P = 2**61 - 1
FUNCTIONS = [
    b"c" + name.replace(" ", "\n").encode() + b"\n"
    for name in (
        "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_qtensor", "torch._tensor _rebuild_from_type_v2",
        "torch.serialization _get_layout", "torch Size", "torch FloatStorage",
        "torch HalfStorage", "torch.storage UntypedStorage", "torch float32",
        "torch S0", "collections OrderedDict", "builtins set", "builtins list",
        "builtins tuple", "some.where Thing", "os system",
    )
]  # fmt: skip

numbers = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([P, -P, 2**31, 2**62, 2**63, 2**64, 10**300, 10**700, -(2**63)]),
).map(number)
texts = st.one_of(
    st.sampled_from(
        ["a.weight", "b.bias", "state_dict", "0", "1", "storage", "module"]
    ),
    st.text(max_size=6),
    st.integers(1000, 1030).map(lambda n: "k" * n),
).map(lambda string: text(string.encode("utf-8", "replace").decode()))
claims = st.sampled_from([0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
leaves = st.one_of(
    numbers,
    texts,
    st.sampled_from(FUNCTIONS),
    st.sampled_from([b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f"]),
    st.integers(0, 5).map(get),
    st.floats().map(lambda value: b"G" + struct.pack(">d", value)),
    st.just(storage()),
    st.just(tensor()),
    st.builds(
        storage, st.sampled_from(["0", "1", "x"]), st.sampled_from([0, 6, 2**40])
    ),
    st.binary(max_size=9).map(lambda it: b"C" + bytes([len(it)]) + it),
)


def grown(inner):
    """Return programs that leave one value more, of programs that do."""
    few = st.lists(inner, max_size=5)
    pairs = st.lists(st.tuples(st.one_of(texts, inner), inner), max_size=5)

    def joined(before, after):
        return few.map(lambda parts: before + b"".join(parts) + after)

    def mapped(before, after):
        return pairs.map(
            lambda items: before + b"".join(k + v for k, v in items) + after
        )

    shapes = st.one_of(inner, st.lists(st.integers(0, 4), max_size=3))
    return st.one_of(
        joined(b"(", b"t"),
        joined(b"(", b"l"),
        joined(b"](", b"e"),
        joined(b"\x8f(", b"\x90"),
        joined(b"(", b"\x91"),
        mapped(b"}(", b"u"),
        mapped(b"(", b"d"),
        inner.map(lambda it: it + b"\x85"),
        st.tuples(inner, inner).map(lambda it: it[0] + it[1] + b"\x86"),
        # What is called, built, or named by what lies there.
        st.tuples(inner, inner).map(lambda it: it[0] + it[1] + b"\x93"),
        st.tuples(
            st.sampled_from(FUNCTIONS), few, st.sampled_from([b"R", b"\x81"])
        ).map(lambda it: it[0] + b"(" + b"".join(it[1]) + b"t" + it[2]),
        st.tuples(inner, inner).map(lambda it: it[0] + it[1] + b"R"),
        st.tuples(inner, inner).map(lambda it: it[0] + it[1] + b"b"),
        st.tuples(inner, inner, inner).map(lambda it: b"".join(it) + b"\x92"),
        joined(b"(", b"o"),
        joined(b"(", b"isome\nThing\n"),
        st.tuples(few, st.sampled_from(FUNCTIONS), inner, inner).map(
            lambda it: (
                b"("
                + text("storage")
                + it[1]
                + it[2]
                + text("cpu")
                + it[3]
                + b"".join(it[0])
                + b"tQ"
            )
        ),
        st.tuples(inner, shapes, shapes).map(lambda it: tensor(*_tensor(*it))),
        few.map(lambda it: REBUILD + b"(" + b"".join(it) + b"tR"),
        # Shared, and in itself.
        st.tuples(inner, st.integers(0, 5)).map(lambda it: it[0] + put(it[1])),
        inner.map(lambda it: it + b"\x94"),
        st.integers(0, 5).map(lambda n: b"]" + put(n) + get(n) + b"a"),
        st.tuples(texts, st.integers(0, 5)).map(
            lambda it: b"}" + put(it[1]) + it[0] + get(it[1]) + b"s"
        ),
        inner.map(lambda it: it + b"20"),
        # No program at all.
        st.tuples(inner, st.integers(0, 255)).map(lambda it: it[0] + bytes([it[1]])),
        st.tuples(inner, st.sampled_from(b"XBTr\x8b\x95"), claims).map(
            lambda it: it[0] + bytes([it[1]]) + struct.pack("<I", it[2])
        ),
    )


def _tensor(stored, shape, strides):
    return stored, 0, shape, strides


programs = st.recursive(leaves, grown, max_leaves=25)
weights = st.one_of(
    st.just(get(2)),
    st.builds(tensor, st.sampled_from([get(3), storage()]), st.integers(0, 2)),
    st.builds(
        lambda offset, shape, strides: tensor(get(3), offset, shape, strides),
        st.integers(0, 6),
        st.lists(st.integers(0, 3), min_size=2, max_size=2),
        st.lists(st.integers(0, 3), min_size=2, max_size=2),
    ),
    st.just(b"ctorch._utils\n_rebuild_parameter\n(" + get(2) + b"\x89)tR"),
    numbers,
    st.just(b"N"),
)
dicts = st.recursive(
    st.dictionaries(texts, weights, min_size=1, max_size=4),
    lambda inner: st.dictionaries(texts, inner, min_size=1, max_size=3),
    max_leaves=4,
)


def _dict(items):
    if isinstance(items, bytes):
        return items
    return b"}(" + b"".join(k + _dict(v) for k, v in items.items()) + b"u"


states = dicts.map(_dict) | st.lists(
    st.tuples(texts, programs), min_size=1, max_size=6
).map(lambda items: b"}(" + b"".join(key + value for key, value in items) + b"u")
whole = st.tuples(st.booleans(), st.one_of(states, programs)).map(
    # Six values are in the memo, so that what is fetched is there.
    lambda it: b"\x80\x02" + b"".join(
        part + put(n) + b"0" for n, part in enumerate(
            [b"]", b"}", tensor(), storage(), b"N\x85", text("a.w")] if it[0] else []
        )
    ) + it[1] + b"."
)  # fmt: skip


def check(content, folder):
    path = folder / "built.pth"
    path.write_bytes(content)
    try:
        state = read_checkpoint(path)
        found = [state[key].shape for key in state]
        assert state.aliases.keys() <= set(state) and len(found) == len(state)
        event("read")
    except CheckpointError as error:
        assert 0 < len(str(error)) < 1500
        event(" ".join(re.findall("[a-z]+", error.reason)[:5]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(program=whole, kind=st.sampled_from(["zip", "legacy", "plain"]))
def test_built_pickles(program, kind, tmp_path_factory):
    make = {"zip": torch_zip, "legacy": legacy, "plain": bytes}[kind]
    check(make(program), tmp_path_factory.getbasetemp())


sizes = st.sampled_from([0, 1, 6, 24, 2**16, 2**31, 2**32 - 2, 2**32 - 1])
said = st.fixed_dictionaries(
    {},
    optional={
        "flags": st.sampled_from([0, 1, 8, 0x800, 0xFFFF]),
        "method": st.sampled_from([0, 8, 12, 99]),
        "crc": sizes,
        "packed": sizes,
        "size": sizes,
        "offset": st.one_of(sizes, st.integers(0, 600)),
        "local": st.binary(max_size=9),
        "extra": st.one_of(
            st.binary(max_size=30),
            st.lists(st.integers(0, 2**64 - 1), max_size=3).map(
                lambda it: struct.pack(f"<HH{len(it)}Q", 1, 8 * len(it), *it)
            ),
        ),
    },
)
members = st.builds(
    lambda name, content, deflated, claims: member(name, content, deflated, **claims),
    st.one_of(
        st.sampled_from(["a/data.pkl", "a/data/0", "a/byteorder", "a/data/1"]).map(
            str.encode
        ),
        st.binary(min_size=1, max_size=12),
    ),
    st.one_of(st.just(bytes(24)), whole, st.just(b"little"), st.binary(max_size=20)),
    st.one_of(st.none(), st.binary(max_size=20)),
    said,
)
ends = st.fixed_dictionaries(
    {},
    optional={
        "entries": st.integers(0, 2**16 - 1),
        "size": sizes,
        "offset": st.one_of(sizes, st.integers(0, 600)),
        "comment": st.binary(max_size=40),
        "behind": st.binary(max_size=90),
    },
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(program=whole, others=st.lists(members, max_size=4), end=ends, odd=said)
def test_built_zips(program, others, end, odd, tmp_path_factory):
    first, second = member("a/data.pkl", program), member("a/data/0", bytes(24), **odd)
    content = archive(first, second, *others, **end)
    check(content, tmp_path_factory.getbasetemp())
