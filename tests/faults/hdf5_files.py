"""Crafted HDF5 files: links, pieces, types and attributes that lie."""

import zlib

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tests.faults.bombs import zeros
from tests.faults.cases import MEBIBYTE, Case


def written(write, **arguments):
    """Return the writer of a file that a function of an open file fills."""

    def make(folder):
        with h5py.File(folder / "a.h5", "w", **arguments) as file:
            write(file)
        return folder / "a.h5"

    return make


def dataset(file, name, dtype, shape, settings=None):
    """Make a data set of any type and any settings."""
    kind = dtype if isinstance(dtype, h5t.TypeID) else h5t.py_create(np.dtype(dtype))
    return h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), settings)


def linked_twice(file, levels=18):
    file["w"] = np.ones((2, 2), "f4")
    group = file.create_group("g")
    group["w"] = np.ones((2, 2), "f4")
    for _ in range(levels):
        outer = file.create_group(None)
        outer["a"], outer["b"] = group, group
        group = outer
    file["top"] = group


def cycle(file):
    file["a/b/w"] = np.ones(3)
    file["a/b/a"] = file["a"]


def once_among(count):
    """One group under very many names."""

    def write(file):
        file["g/w"] = np.ones((2, 2), "f4")
        for number in range(count):
            file.id.links.create_hard(f"x{number}".encode(), file.id, b"g")

    return write


def soft(**targets):
    def write(file):
        file["g/v"] = np.ones(3)
        for name, target in targets.items():
            file[name] = target if hasattr(target, "path") else h5py.SoftLink(target)

    return write


def soft_chain(count, around=lambda number: f"/x{number}"):
    """Each link leads to the one before it, and has more parts than that."""
    return soft(x0="/g", **{f"x{n + 1}": around(n) for n in range(count)})


def link(value):
    def write(file):
        file["v"] = np.ones(3)
        file["w"] = value

    return write


def elsewhere(file):
    other = h5py.VirtualSource("/etc/other.h5", "w", (2, 2))
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = other
    file.create_virtual_dataset("w", layout)


def endless_elsewhere(file):
    """Of as many rows as there are in another file, which the shape asks for."""
    space = h5s.create_simple((1, 2), (h5s.UNLIMITED, 2))
    space.select_hyperslab((0, 0), (1, 1), None, (h5s.UNLIMITED, 2))
    settings = h5p.create(h5p.DATASET_CREATE)
    settings.set_virtual(space, b"/dev/zero", b"w", space)
    h5d.create(file.id, b"w", h5t.IEEE_F32LE, space, settings)


def outside(file):
    file.create_dataset("w", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def packed(size, shape=(32, 32), dtype="f4", **arguments):
    """A piece whose deflate stream has more bytes than the piece."""

    def write(file):
        arguments.setdefault("compression", "gzip")
        made = file.create_dataset("w", shape, dtype, chunks=shape, **arguments)
        made.id.write_direct_chunk((0,) * len(shape), zeros(size))

    return write


def large_piece(file):
    made = file.create_dataset(
        "w", (1,), "f4", maxshape=(None,), chunks=(2**28,), compression="gzip"
    )
    made.id.write_direct_chunk((0,), zeros(2**10))


def padded(file):
    """Rows of four bytes in pieces of 16 MiB each."""
    raw = zeros(16)
    for number in range(40):
        made = file.create_dataset(
            f"w{number}", (1, 1), "f4", maxshape=(1, None), chunks=(1, 2**22),
            compression="gzip",
        )  # fmt: skip
        made.id.write_direct_chunk((0, 0), raw)


def tiny_pieces(file):
    file.create_dataset("w", (2**19,), "u1", chunks=(1,))


def stored_tiny_pieces(file):
    made = file.create_dataset("w", (100_000,), "f4", chunks=(1,))
    for place in range(0, 100_000):
        made.id.write_direct_chunk((place,), b"\0\0\0\0")


def filtered(code, flags=0, values=()):
    def write(file):
        settings = h5p.create(h5p.DATASET_CREATE)
        settings.set_chunk((4, 4))
        settings.set_filter(code, flags, values)
        dataset(file, "w", "f4", (4, 4), settings)

    return write


def many_filters(file):
    settings = h5p.create(h5p.DATASET_CREATE)
    settings.set_chunk((64, 64))
    for _ in range(30):
        settings.set_deflate(9)
    made = dataset(file, "w", "f4", (64, 64), settings)
    raw = bytes(64 * MEBIBYTE)
    for _ in range(30):
        raw = zlib.compress(raw, 9)
    made.write_direct_chunk((0, 0), raw)


def of_type(kind):
    def write(file):
        file["v"] = np.ones(3, "f4")
        dataset(file, "w", kind(), (3,))

    return write


def nested_lists(levels=2000):
    kind = h5t.NATIVE_INT8
    for _ in range(levels):
        kind = h5t.vlen_create(kind)
    return kind


def nested_records(levels=400):
    kind = h5t.NATIVE_INT8
    for _ in range(levels):
        outer = h5t.create(h5t.COMPOUND, kind.get_size() + 1)
        outer.insert(b"a", 0, kind)
        outer.insert(b"b", kind.get_size(), h5t.NATIVE_INT8)
        kind = outer
    return kind


def enumeration():
    kind = h5t.enum_create(h5t.NATIVE_INT32)
    for number in range(3000):
        kind.enum_insert(f"n{number}".encode(), number)
    return kind


def opaque():
    kind = h5t.create(h5t.OPAQUE, 2**30)
    kind.set_tag(b"x")
    return kind


def odd_float():
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    return kind


def references(file):
    file["v"] = np.ones(3)
    file.create_dataset("w", (3,), h5py.ref_dtype)[0] = file["v"].ref
    file.create_dataset("x", (3,), h5py.regionref_dtype)


def texts(file):
    file["v"] = np.ones(3)
    file.create_dataset("w", (3,), h5py.string_dtype())[0] = "x" * 10**6
    file["x"] = np.array([b"abc"] * 1000)


def layers(count, name):
    def write(file):
        for number in range(count):
            path = f"layers/dense_{number}/vars"
            file[f"{path}/0"] = np.ones((2, 2), "f4")
            file[path].attrs["name"] = name(number)

    return write


def one_name_for_all(file):
    """A thousand layers whose one name of ten million letters is stored once."""
    layers(1, lambda _: "x" * 10**7)(file)
    for number in range(1, 1000):
        made = file.create_group(f"layers/dense_{number}")
        made["vars"] = np.ones((2, 2), "f4")


def huge_attributes(file):
    layers(3, str)(file)
    file.attrs["model_config"] = "[" * 10**7
    file.attrs["layer_names"] = np.array([b"x" * 1000] * 10_000)
    group = file["layers/dense_0/vars"]
    del group.attrs["name"]
    group.attrs["name"] = np.array([b"x" * 1000] * 10_000)
    file["layers/dense_1/vars"].attrs["name"] = h5py.Empty("f4")


def packed_names(folder):
    """A group whose names are in a heap with filters, which HDF5 inflates."""
    path = written(
        lambda file: [file.create_group(f"g{i}") for i in range(50)], libver="latest"
    )(folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"FRHP") + 7] = 20
    path.write_bytes(content)
    return path


def with_user_block(folder):
    path = written(lambda file: file.update(w=np.ones(3)), userblock_size=512)(folder)
    content = bytearray(path.read_bytes())
    content[:8] = b"\x89HDF\r\n\x1a\n"
    path.write_bytes(content)
    return path


def deep(file):
    group = file
    for _ in range(3000):
        group = group.create_group("a")
    group["w"] = np.ones(3)


def links(count):
    def write(file):
        file["w"] = np.ones((8, 8), "f4")
        for number in range(count):
            file.id.links.create_hard(f"x{number}".encode(), file.id, b"w")

    return write


def claims(shape, **arguments):
    return lambda file: file.create_dataset("w", shape, "f4", **arguments)


READ_WITHOUT = {
    "lists in lists": nested_lists,
    "records in records": nested_records,
    "opaque gibibyte": opaque,
    "float of another kind": odd_float,
    "bits": lambda: h5t.STD_B32LE.copy(),
    "array in each cell": lambda: h5t.array_create(h5t.NATIVE_INT8, (2**20,)),
}
PACKED = "damaged (the size of a piece"
LONG = "damaged (a piece of a tensor"
CASES = {
    "linked twice": Case(written(linked_twice), "read", "/w': (2, 2)"),
    "linked twice, analysed": Case(written(linked_twice), "read", reader="analysis"),
    "cycle": Case(written(cycle), "read", "{'a/b/w': (3,)}"),
    "a group by 60,000 names": Case(written(once_among(60_000)), "read", "'g/w'"),
    "a group by 110,000 names": Case(written(once_among(110_000)), says="names"),
    "3,000 levels": Case(written(deep), says="groups in groups"),
    "soft link": Case(written(link(h5py.SoftLink("/v"))), "read", "'w': (3,)"),
    "soft links to each other": Case(
        written(soft(a="/b", b="/a", c="c", d="/g/../d")), "read", "{'g/v': (3,)}"
    ),
    "soft link to a link out": Case(
        written(soft(a="/b", b=h5py.ExternalLink("/dev/zero", "w"))),
        says="link to somewhere else at `a`",
    ),
    "soft link through a link out": Case(
        written(soft(a="/b/c/w", b=h5py.ExternalLink("/dev/zero", "/"))),
        says="link to somewhere else at `a`",
    ),
    "soft links of soft links": Case(
        written(soft_chain(500, lambda n: f"/x{n}/." * 90 + "/v")), "read", "'g/v'"
    ),
    "20,000 soft links": Case(
        written(soft_chain(20_000, lambda n: "g/v")), "read", "'x10': (3,)"
    ),
    "40,000 soft links": Case(written(soft_chain(40_000)), says="names"),
    "a soft link of 60,000 letters": Case(
        written(soft(a="/g/" + "a/" * 30_000)), says="a link of 60,002"
    ),
    "external link": Case(
        written(link(h5py.ExternalLink("/dev/zero", "w"))), says="link to somewhere"
    ),
    "virtual": Case(written(elsewhere, libver="latest"), says="another file"),
    "external": Case(written(outside), says="another file"),
    "inflates to a gibibyte": Case(written(packed(1024)), says=LONG),
    "inflates to a gibibyte, shuffled": Case(
        written(packed(1024, shuffle=True)), says=LONG
    ),
    "inflates to 4 MiB": Case(written(packed(4)), says=PACKED),
    "inflates to 2 GiB, checked": Case(
        written(packed(2048, fletcher32=True)), says="damaged"
    ),
    "inflates to less": Case(written(packed(1, (1024, 1024))), says=PACKED),
    "a piece larger than itself": Case(written(large_piece), says="larger than itself"),
    "pieces at edges": Case(written(padded), says="which no weights do"),
    "countless pieces": Case(written(tiny_pieces), says="countless pieces"),
    "100,000 pieces": Case(written(stored_tiny_pieces), "read", largest=400_000),
    "deflated 30 times": Case(written(many_filters), says="damaged"),
    "shuffle of nothing": Case(
        written(filtered(h5py.h5z.FILTER_SHUFFLE)), outcome="either"
    ),
    "scale and offset": Case(
        written(filtered(h5py.h5z.FILTER_SCALEOFFSET, 0, (0, 0))), says="scaleoffset"
    ),
    "n-bit": Case(written(filtered(h5py.h5z.FILTER_NBIT)), says="nbit"),
    "a plug-in": Case(written(filtered(32015, 1, (3,))), says="packs `w` by"),
    "references": Case(written(references), "read", says="{'v'"),
    "texts": Case(written(texts), "read", says="{'v'"),
    "enumeration": Case(written(of_type(enumeration)), says="holds `w` in int32"),
    **{
        name: Case(written(of_type(kind)), "read", says="{'v': (3,)}")
        for name, kind in READ_WITHOUT.items()
    },
    "2^60 numbers": Case(
        written(claims((2**30, 2**30), chunks=(1, 1))), says="unpacks"
    ),
    "2^60 numbers in one": Case(written(claims((2**30, 2**30))), says="unpacks"),
    "no numbers, 2^60 rows": Case(written(claims((2**60, 0))), says="the shape"),
    "no numbers, analysed": Case(
        written(claims((3, 0))), "read", says="[]", reader="analysis"
    ),
    "long names": Case(
        written(layers(1000, lambda _: "x" * 10**4)), says="of 10,000 characters"
    ),
    "a name of ten megabytes": Case(written(one_name_for_all), says="10,000,000"),
    "huge attributes": Case(written(huge_attributes, libver="latest"), "read"),
    "packed names": Case(packed_names, says="packs its names"),
    "a user block": Case(with_user_block, "either"),
    "20,000 links": Case(written(links(20_000)), "read"),
    "60,000 links": Case(written(links(60_000)), says="more than 50,000 tensors"),
    "1,000 layers": Case(
        written(layers(1000, str)), "read", says="'0'", reader="analysis"
    ),
}  # fmt: skip
