"""Crafted .keras models: what their configs and weights claim of each other."""

import io
import json
import zipfile

import h5py
import numpy as np

from tests.faults.bombs import zeros
from tests.faults.cases import Case


def layer(kind, name, **arguments):
    return {"class_name": kind, "config": {"name": name, **arguments}}


def model(config, tensors, names=None, method=zipfile.ZIP_STORED, write=None):
    """Return the writer of a model: bytes or JSON of a config, {path: array}."""

    def make(folder):
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            for key, array in tensors.items():
                file[key] = array
            for path, name in (names or {}).items():
                file.require_group(f"{path}/vars").attrs["name"] = name
            if write is not None:
                write(file)
        text = config() if callable(config) else config
        path = folder / "a.keras"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(
                "config.json", text if isinstance(text, bytes) else json.dumps(text)
            )
            archive.writestr("model.weights.h5", stream.getvalue())
        return path

    return make


def one(kind, tensors, **arguments):
    """A model of one layer, `layers/x`, of some class and some tensors."""
    tensors = {f"layers/{key}": array for key, array in tensors.items()}
    names = {f"layers/{key.split('/')[1]}": "x" for key in tensors}
    config = {"class_name": "M", "config": {"layers": [layer(kind, "x", **arguments)]}}
    return model(config, tensors, names)


def nested(levels, kind, inner):
    """A layer in a layer in a layer."""

    def make():
        text = '{"class_name":"Dense","config":{}}'
        for _ in range(levels):
            text = f'{{"class_name":"{kind}","config":{{"name":"x","{inner}":{text}}}}}'
        return (
            '{"class_name":"M","config":{"name":"m","layers":[' + text + "]}}"
        ).encode()

    return make


def many_layers(count):
    def make():
        text = '{"class_name":"Dense","config":{"name":"x"}}'
        return ('{"config":{"layers":[' + ",".join([text] * count) + "]}}").encode()

    return make


def packed(file):
    made = file.create_dataset(
        "layers/x/vars/0", (32, 32), "f4", chunks=(32, 32), compression="gzip"
    )
    made.id.write_direct_chunk((0, 0), zeros(4))


ONES = np.ones((4, 3), "f4")
DENSE = {"x/vars/0": ONES}
SIMPLE = {"layers/x/vars/0": ONES}
READ = dict(outcome="read", reader="analysis")
MANY = {f"layers/dense_{i}/vars/0": ONES for i in range(1500)}
MANY_NAMES = {f"layers/dense_{i}": "x" for i in range(1500)}
CASES = {
    "config nested 600 deep": Case(
        model(nested(150, "TimeDistributed", "layer"), SIMPLE), says="nested deeper",
        reader="analysis",
    ),
    "config nested 60 deep": Case(
        model(nested(60, "TimeDistributed", "layer"), SIMPLE, {"layers/x": "x"}), **READ
    ),
    "wrappers in wrappers": Case(
        model(nested(60, "StableRankNormalization", "layer"), SIMPLE,
              {"layers/x": "x"}), **READ
    ),
    "bidirectional in bidirectional": Case(
        model(nested(60, "Bidirectional", "layer"), SIMPLE, {"layers/x": "x"}), **READ
    ),
    "config of 100 MB": Case(
        model(lambda: b'{"a":"' + b"x" * 100_000_000 + b'"}', SIMPLE),
        says="which no model needs",
    ),
    "config of 5 million lists": Case(
        model(lambda: b'{"a":[' + b"[]," * 5_000_000 + b"[]]}", SIMPLE),
        says="larger than any config.json",
    ),
    "config of 10,000 digits": Case(
        model(b'{"a":' + b"9" * 10_000 + b"}", SIMPLE), says="no JSON"
    ),
    "config of brackets": Case(model(b"[" * 10**6, SIMPLE), says="no JSON"),
    "config with a name twice": Case(model(b'{"a":1,"a":2}', SIMPLE), says="entries"),
    "config of a list": Case(model(b"[]", SIMPLE), says="damaged (its config.json"),
    "config of one wide letter": Case(
        model(lambda: b'{"a":"' + b"x" * 16_000_000 + b'\xf0\x9f\x98\x80"}', SIMPLE),
        "read",
    ),
    "100,000 layers": Case(model(many_layers(100_000), SIMPLE), **READ),
    "100,000 layers of one name": Case(
        model(many_layers(100_000), MANY, MANY_NAMES), **READ
    ),
    "a class of 1 MB": Case(one("x" * 10**6, DENSE), **READ),
    "a class that clears the screen": Case(one("\x1b[2J", DENSE), **READ),
    "no inputs": Case(one("Dense", {"x/vars/0": np.ones((0, 4), "f4")}), **READ),
    "no outputs": Case(one("Dense", {"x/vars/0": np.ones((4, 0), "f4")}), **READ),
    "no axes": Case(one("Dense", {"x/vars/0": np.float32(1)}), **READ),
    "one axis": Case(one("Conv2DTranspose", {"x/vars/0": np.ones(3, "f4")}), **READ),
    "depthwise of one axis": Case(
        one("DepthwiseConv2D", {"x/vars/0": np.ones(3, "f4")}), **READ
    ),
    "mask of another shape": Case(
        one("MaskedConv2D", {"x/vars/0": np.ones((1, 1, 1, 30_000), "f4"),
                             "x/vars/mask": np.ones((30_000, 1, 1, 1), "f4")}), **READ
    ),
    "equation of a million letters": Case(
        one("EinsumDense", DENSE, equation="a" * 500_000 + "," + "b" * 500_000 + "->a"),
        **READ,
    ),
    "equation of seven axes": Case(
        one("EinsumDense", DENSE, equation="ab,bcdefgh->acdefgh"), **READ
    ),
    "factors of a number": Case(
        one("SVDDense", {"x/first/vars/0": np.ones((4, 2), "f4"),
                         "x/vars/0": np.float32(1), "x/vars/1": np.ones(3, "f4"),
                         "x/second/vars/0": np.float32(1)}), **READ
    ),
    "factors that make a terabyte": Case(
        one("SVDDense", {"x/first/vars/0": np.ones((10**6, 1), "f4"),
                         "x/vars/0": np.ones(1, "f4"), "x/vars/1": np.float32(1),
                         "x/second/vars/0": np.ones((1, 10**6), "f4")}), **READ
    ),
    **{
        f"bound {str(bound)[:9]}": Case(
            one("SpectralNormalization", {"x/layer/vars/0": ONES}, bound=bound,
                layer=layer("Dense", "y")), **READ
        )
        for bound in (10**400, float("nan"), float("inf"), -1, 0, [1], "1", 1e308)
    },
    "weights that inflate": Case(
        model({}, {"layers/y/vars/0": ONES}, write=packed), says="size of a piece"
    ),
    "weights deflated": Case(
        model({}, {f"layers/x_{i}/vars/0": ONES for i in range(500)},
              method=zipfile.ZIP_DEFLATED), "read", says="(4, 3)",
    ),
}  # fmt: skip
