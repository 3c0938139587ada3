"""Crafted pickles: what opcodes can make of few bytes."""

import pickle
import struct
import zipfile

from tests.faults.cases import Case
from tests.faults.programs import (
    ORDERED,
    REBUILD,
    SIZE,
    get,
    legacy,
    number,
    put,
    state,
    storage,
    tensor,
    text,
    torch_zip,
    written,
)

MILLION = 1_000_000


def nested_by_reference(levels, width):
    inner = {}
    for _ in range(levels):
        inner = {str(i): inner for i in range(width)}
    return pickle.dumps(inner, protocol=2)


def nested_beside_weights():
    """The same, and at the bottom a state dict: a name for each way to it."""
    program = b"\x80\x02}" + text("a.weight") + tensor() + b"s" + put(0) + b"0"
    for level in range(3):
        items = b"".join(text(str(n)) + get(level) + b"s" for n in range(300))
        program += b"}" + items + put(level + 1) + b"0"
    return torch_zip(program + get(3) + b".")


def in_itself():
    return torch_zip(b"\x80\x02}" + put(0) + text("a") + get(0) + b"s" + b".")


def shared(function, times=3000, size=MILLION, items=b"N"):
    """A function's calls, each with one list of a megabyte."""
    program = b"\x80\x02](" + items * size + b"e\x85" + put(0) + b"0"
    program += function + put(1) + b"0]("
    return torch_zip(program + (get(1) + get(0) + b"R") * times + b"e.")


def shared_text(function, times=3000):
    program = b"\x80\x02" + text("x" * MILLION) + b"\x85" + put(0) + b"0"
    program += function + put(1) + b"0]("
    return torch_zip(program + (get(1) + get(0) + b"R") * times + b"e.")


def shared_arguments(function, times=3000):
    program = b"\x80\x02(" + b"N" * MILLION + b"t" + put(0) + b"0"
    program += function + put(1) + b"0]("
    return torch_zip(program + (get(1) + get(0) + b"R") * times + b"e.")


def shared_storages(times=100_000):
    """A storage of a million parts, asked for again and again."""
    program = b"\x80\x02(" + text("storage") + b"N" * MILLION + b"t" + put(0) + b"0]("
    return torch_zip(program + (get(0) + b"Q") * times + b"e.")


def shared_key(key, times=MILLION):
    """One long key, hashed and compared again and again."""
    program = b"\x80\x02" + key + put(0) + b"0" + key + put(1) + b"0}("
    half = (get(0) + b"N" + get(1) + b"N") * (times // 4)
    return torch_zip(program + half + b"u.")


def deep(opening, closing=b"", levels=100_000):
    return b"\x80\x02" + opening * levels + closing * levels + b"."


def deep_calls(levels=100_000):
    """A tensor of a type, of a tensor of a type, and so on."""
    function = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    program = b"\x80\x02" + function + put(0) + b"0)" + put(1) + b"0"
    step = b"(" + get(0) + b"N" + get(1) + b"Nt" + put(1) + b"0"
    return torch_zip(program + step * levels + get(0) + get(1) + b"R.")


def laughs(around=lambda it: it, closing=b"."):
    """Every level has the one below twice: repr of it is endless."""
    program = b"\x80\x02]" + put(0) + b"0"
    for level in range(200):
        program += b"(" + get(level) * 2 + b"t" + put(level + 1) + b"0"
    return program + around(get(200)) + closing


def long_names(size=MILLION):
    return b"\x80\x02c" + b"a." * (size // 2) + b"\nb\n."


def dotted_names(times=200_000):
    """A name of many dots, asked for again and again."""
    module = text("a." * 2000)
    program = b"\x80\x04" + module + put(0) + b"0" + text("b") + put(1) + b"0"
    return program + (get(0) + get(1) + b"\x930") * times + b"]."


def many_tensors(count, method=zipfile.ZIP_DEFLATED):
    """As PyTorch writes them, of one storage."""
    parts = REBUILD, storage(), ORDERED
    head = b"".join(part + put(n) + b"0" for n, part in enumerate(parts))
    numbers = b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89"
    body = b"".join(
        text(f"{n}.w") + get(0) + b"(" + get(1) + numbers + get(2) + b")RtRs"
        for n in range(count)
    )  # fmt: skip
    return torch_zip(b"\x80\x02" + head + b"}" + body + b".", method)


def views(shape, strides, count=2000, numbers=2**22):
    """Many views of one storage of 16 MiB, each of which is read by itself."""
    program = b"\x80\x02" + storage("0", numbers) + put(0) + b"0}"
    program += b"".join(
        text(f"{n}.w") + tensor(get(0), n, shape, strides) + b"s" for n in range(count)
    )
    return program + b".", bytes(4 * numbers)


def dtype_named(name):
    rebuild = b"ctorch._utils\n_rebuild_tensor_v3\n"
    program = (
        rebuild + b"(" + storage() + b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89"
        + ORDERED + b")R" + b"ctorch\n" + name.encode() + b"\ntR"
    )  # fmt: skip
    return torch_zip(state(("a.w", program)))


EMPTY = 12 * MILLION
READ_TENSORS = "'a.w': (2, 3)"
PLAIN = {
    # Each object is visited once.
    "nested by reference": lambda: nested_by_reference(4, 300),
    "nested by reference, 50,000 keys": lambda: nested_by_reference(4, 50_000),
    "nested by reference above weights": nested_beside_weights,
    "in itself": in_itself,
    # What few bytes ask for.
    "Size of a shared list": lambda: shared(SIZE),
    "Size of a shared text": lambda: shared_text(SIZE),
    "OrderedDict of a shared list": lambda: shared(
        ORDERED, size=100_000, items=b"NN\x86"
    ),
    "OrderedDict of a shared text": lambda: shared_text(ORDERED),
    "tuple of a shared list": lambda: shared(b"cbuiltins\ntuple\n"),
    "frozenset of a shared list": lambda: shared(b"cbuiltins\nfrozenset\n"),
    "dict of a shared list": lambda: shared(b"cbuiltins\ndict\n"),
    "set of a shared list": lambda: shared(b"cbuiltins\nset\n"),
    "shared arguments": lambda: shared_arguments(REBUILD),
    "shared arguments of a Parameter": lambda: shared_arguments(
        b"ctorch._utils\n_rebuild_parameter\n"
    ),
    "shared arguments of a Size": lambda: shared_arguments(SIZE),
    "storage of a million parts": shared_storages,
    "empty dicts": lambda: torch_zip(b"\x80\x02(" + b"}" * EMPTY + b"t."),
    "empty lists": lambda: torch_zip(b"\x80\x02(" + b"]" * EMPTY + b"t."),
    "empty sets": lambda: torch_zip(b"\x80\x04(" + b"\x8f" * EMPTY + b"t."),
    "marks": lambda: torch_zip(b"\x80\x02" + b"(" * EMPTY + b"."),
    "constants": lambda: torch_zip(b"\x80\x02(" + b"N" * (5 * EMPTY) + b"t."),
    "copies of the top": lambda: torch_zip(b"\x80\x02N" + b"2" * (5 * EMPTY) + b"."),
    "empty dicts, deflated": lambda: torch_zip(
        b"\x80\x02(" + b"}" * 60_000_000 + b"t.", zipfile.ZIP_DEFLATED
    ),
    "small dicts": lambda: torch_zip(b"\x80\x02(" + b"}NNs" * (EMPTY // 4) + b"t."),
    "small sets": lambda: torch_zip(b"\x80\x04(" + b"\x8fN\x90" * MILLION + b"t."),
    "named arguments": lambda: torch_zip(
        b"\x80\x04(" + b"cx\ny\n)}\x92" * MILLION + b"t."
    ),
    "functions": lambda: torch_zip(b"\x80\x02(" + b"ca\nb\n" * (2 * MILLION) + b"t."),
    "memo of millions": lambda: torch_zip(b"\x80\x04N" + b"\x94" * (5 * EMPTY) + b"."),
    "memo far apart": lambda: torch_zip(
        b"\x80\x04N" + b"".join(put(2 * n) for n in range(2 * MILLION)) + b"."
    ),
    "floats": lambda: torch_zip(b"\x80\x02(" + (b"G" + bytes(8)) * 6_000_000 + b"t."),
    "a text of four bytes a letter": lambda: torch_zip(
        b"\x80\x02}" + text("a" * 60_000_000 + "\U0001f600") + b"Ns."
    ),
    "texts of four bytes a letter": lambda: torch_zip(
        b"\x80\x02(" + text("a" * 2000 + "\U0001f600") * 25_000 + b"t."
    ),
    "one long key": lambda: shared_key(text("k" * MILLION)),
    "one long number as a key": lambda: shared_key(
        b"\x8b" + struct.pack("<i", MILLION) + b"\x01" * MILLION
    ),
    "one long tuple as a key": lambda: shared_key(
        b"(" + b"N" * MILLION + b"t", 100_000
    ),
    # Depth.
    "deep tuples": lambda: deep(b")", b"\x85"),
    "deep tuples in a zip": lambda: torch_zip(deep(b")", b"\x85", MILLION)),
    "deep lists": lambda: torch_zip(deep(b"]", b"a", MILLION)[:-2] + b"."),
    "deep dicts": lambda: torch_zip(
        b"\x80\x02}" + b"N}" * 900_000 + b"s" * 900_000 + b"."
    ),
    "deep calls": deep_calls,
    "deep states": lambda: torch_zip(
        b"\x80\x02" + b"ca\nb\n)R" * 300_000 + b"b" * 299_999 + b"."
    ),
    # Numbers.
    "5,000 digits": lambda: b"\x80\x02L" + b"9" * 5000 + b"L\n.",
    "a million digits": lambda: torch_zip(b"\x80\x02I" + b"9" * MILLION + b"\n."),
    "5,000 digits as a key": lambda: torch_zip(
        b"\x80\x02}" + number(10**5000) + tensor() + b"s."
    ),
    "600 digits as a key": lambda: torch_zip(
        b"\x80\x02}" + number(10**600) + tensor() + b"s."
    ),
    "5,000 digits of a storage": lambda: torch_zip(
        state(("a.w", tensor(storage(numel=10**5000))))
    ),
    "600 digits of a storage": lambda: torch_zip(
        state(("a.w", tensor(storage(numel=10**600))))
    ),
    "600 digits of a shape": lambda: torch_zip(
        state(("a.w", tensor(shape=(10**600,), strides=(1,))))
    ),
    "5,000 digits of a shape": lambda: torch_zip(
        state(("a.w", tensor(shape=(10**5000,), strides=(1,))))
    ),
    "32 dimensions": lambda: torch_zip(
        state(("a.w", tensor(shape=(2**62,) * 32, strides=(0,) * 32)))
    ),
    "no numbers by 2^62 rows": lambda: torch_zip(
        state(("a.w", tensor(shape=(2**62, 0, 2**62), strides=(0,) * 3)))
    ),
    "an offset of a list": lambda: torch_zip(
        state(("a.w", REBUILD + b"(" + storage() + b"])K\x01\x85\x89NtR"))
    ),
    # Bombs in messages.
    "laughs": lambda: torch_zip(laughs()),
    "laughs as a key": lambda: torch_zip(
        laughs(lambda it: b"}ca\nb\n" + it + b"\x85R" + tensor() + b"s")
    ),
    "laughs beside a key": lambda: torch_zip(
        laughs(lambda it: b"}ca\nb\n" + it + b"\x85RNs")
    ),
    "laughs as a shape": lambda: torch_zip(
        laughs(lambda it: b"}" + text("a.w") + tensor(shape=it, strides=it) + b"s")
    ),
    "laughs in a shape": lambda: torch_zip(
        laughs(
            lambda it: (
                b"}" + text("a.w") + tensor(shape=it + b"\x85", strides=(1,)) + b"s"
            )
        )
    ),
    "laughs as a storage": lambda: torch_zip(laughs(lambda it: it + b"Q")),
    "laughs as a function": lambda: torch_zip(laughs(lambda it: it + b")R")),
    "laughs as a name": lambda: torch_zip(laughs(lambda it: it + it + b"\x93")),
    "a key of a million letters": lambda: torch_zip(state(("a" * MILLION, tensor()))),
    "a key of 4,000 letters": lambda: torch_zip(state(("a." * 2000, tensor()))),
    "an entry of 4,000 letters": lambda: torch_zip(
        state(
            *(
                (f"{n}" + "a" * 4000, b"}" + text("a.w") + tensor() + b"s")
                for n in range(50)
            )
        )
    ),
    "a function of a million letters": long_names,
    "a function of 4,000 letters": lambda: long_names(4000),
    "a function of 4,000 letters in a zip": lambda: torch_zip(long_names(4000)),
    "many dots": dotted_names,
    "dots in keys": lambda: torch_zip(state(("module." * 500 + "w", tensor()))),
    # The reading itself.
    "a line of 5 MB": lambda: torch_zip(b"\x80\x02V" + b"a" * 5_000_000 + b"\n."),
    "a line of 60 MB": lambda: torch_zip(b"\x80\x02V" + b"a" * 60_000_000 + b"\n."),
    "a line without an end": lambda: torch_zip(b"\x80\x02V" + b"a" * 5_000_000),
    "a million instructions": lambda: torch_zip(b"\x80\x02]" + b"N0" * 500_000 + b"."),
    "a million instructions, deflated": lambda: torch_zip(
        b"\x80\x02]" + b"N0" * 500_000 + b".", zipfile.ZIP_DEFLATED
    ),
    "60 million instructions": lambda: torch_zip(
        b"\x80\x02]" + b"N0" * 30_000_000 + b".", zipfile.ZIP_DEFLATED
    ),
    # Claims.
    "bytes of 2^62": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "bytearray of 2^62": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
    "number of 2 GiB": lambda: b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "number of a negative size": lambda: b"\x80\x02\x8b\xff\xff\xff\xffx.",
    "text of a negative size": lambda: b"\x80\x02T\xff\xff\xff\xffx.",
    "frame of 2^62": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"].",
    "memo of 2^32": lambda: b"\x80\x02Nr\xff\xff\xff\xff.",
    "memo of 2^60": lambda: b"\x80\x02Np%d\n." % 2**60,
    "memo below nothing": lambda: b"\x80\x02Np-1\n.",
    "no such memo": lambda: b"\x80\x02h\x07.",
    "an extension": lambda: b"\x80\x02\x82\x01.",
    "an extension of four bytes": lambda: b"\x80\x02\x84\xff\xff\xff\x7f.",
    "an outside object by text": lambda: b"\x80\x02Pabc\n.",
    "a buffer outside": lambda: b"\x80\x05\x97.",
    "a read-only buffer": lambda: b"\x80\x05\x97\x98.",
    "nothing": lambda: b"\x80\x02.",
    "no end": lambda: b"\x80\x02]",
    "letters that are none": lambda: b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
    "items without a pair": lambda: b"\x80\x02}(Nu.",
    "pairs of three": lambda: b"\x80\x02" + ORDERED + b"](NNN\x87e\x85R.",
    "pairs of letters": lambda: b"\x80\x02" + ORDERED + b"](" + text("ab") + b"e\x85R.",
}
CASES = {name: Case(written(make)) for name, make in PLAIN.items()} | {
    f"dtype {name}": Case(written(lambda name=name: dtype_named(name)))
    for name in (
        "S0",
        "V0",
        "O",
        "(0,)f4",
        "f4,f4",
        "__version__",
        "M8",
        "bytes",
        "x\x1b",
    )
}
for name, outcome in {
    "16,384 tensors": lambda: many_tensors(16_384),
    "40,000 tensors": lambda: many_tensors(40_000),
}.items():
    CASES[name] = Case(written(outcome), "read", "'7.w': (2, 3)")
CASES["strides of one row"] = Case(
    written(lambda: torch_zip(state(("a.w", tensor(shape=(1,), strides=(2**62,)))))),
    "read",
    "'a.w': (1,)",
)
CASES["many views"] = Case(
    written(lambda: torch_zip(views((2, 2), (2**10, 1))[0], **{"0": bytes(2**24)})),
    "read",
    "'7.w': (2, 2)",
    largest=2**24,
)
CASES["many views in an older file"] = Case(
    written(lambda: legacy(views((2, 2), (2**10, 1))[0], keys=[("0", bytes(2**24))])),
    "read",
    "'7.w': (2, 2)",
    largest=2**24,
)
CASES["many copies of a storage"] = Case(
    written(lambda: torch_zip(views((2**21,), (1,))[0], **{"0": bytes(2**24)})),
    says="unpacks",
    largest=2**24,
)
