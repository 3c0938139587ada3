"""Damaged, foreign and hostile files of compressed checkpoints are refused."""

import concurrent.futures
import hashlib
import json
import math
import zlib

import keras
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from keras_spectral import compression
from keras_spectral.compression import coding, reading


@pytest.fixture
def model(small_network):
    return small_network


SAVED = []


@pytest.fixture
def saved(model, path):
    if not SAVED:  # One model for all of the tests, for time.
        compressed = compression.compress(model, ["hidden", "head"])
        compression.save_compressed(compressed, path, index="bitmap")
        SAVED.append(path.read_bytes())
    path.write_bytes(SAVED[0])
    return path


def refused(path, match="", **arguments):
    with pytest.raises(ValueError, match="`path` must be a compressed") as error:
        compression.load_compressed(path, **arguments)
    assert match in str(error.value)


def test_every_damaged_byte_is_found(saved):
    good = saved.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(0)
    # Spaces may pad the header: other blanks there change nothing.
    padding = start - len(good[:start].rstrip())
    header = rng.integers(0, start - padding, 60)
    for place in [*range(8), *header, *rng.integers(start, len(good), 60)]:
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(data)
        refused(saved)
    for length in [0, 3, 8, 100, start, *rng.integers(0, len(good), 9)]:
        saved.write_bytes(good[:length])
        refused(saved, "cut off")
    saved.write_bytes(good + b"\0")
    refused(saved, "cut off, damaged")


def test_foreign_files(tmp_path, model):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3)}, path, {"format": "pt"})
    refused(path, "a safetensors file of something else")
    model.save(tmp_path / "model.keras")
    path.write_bytes((tmp_path / "model.keras").read_bytes())
    refused(path, "no safetensors file")
    path.write_bytes(b"\x80\x04\x95" + bytes(90))
    refused(path, "no safetensors file")
    with pytest.raises(FileNotFoundError):
        compression.load_compressed(tmp_path / "none.safetensors")


def forge(path, change, tensors=None):
    """Rewrite a file's description and tensors, with a right checksum over it."""
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = json.loads(zlib.decompress(arrays[reading.DESCRIPTION].tobytes()))
    change(content)
    arrays.update(tensors or {})
    packed = zlib.compress(json.dumps(content).encode())
    head = json.loads(metadata[reading.METADATA])
    head["sha256"] = hashlib.sha256(packed).hexdigest()
    arrays[reading.DESCRIPTION] = np.frombuffer(packed, "uint8")
    arrays = {key: array for key, array in arrays.items() if array is not None}
    safetensors.numpy.save_file(arrays, path, {reading.METADATA: json.dumps(head)})


def weight(number, **values):
    return lambda content: content["weights"][number].update(values)


def coded(number, **values):
    return lambda content: content["weights"][number]["coded"].update(values)


def units(content, number):
    for layer in content["config"]["config"]["layers"]:
        if layer["config"]["name"] == "head":
            layer["config"]["units"] = number


@pytest.mark.parametrize(
    "change, match",
    [
        (weight(0, shape=[10**9, 10**9]), "unpack to"),
        (weight(0, shape=[10**30, 0]), "strange `count`"),
        (weight(1, shape=[10**30, 0]), "described as F32"),
        (weight(0, shape=[-1, 3]), "strange `shape`"),
        (weight(0, shape=[1.5]), "strange `shape`"),
        (weight(0, shape=[60, 51]), "in place of"),
        (weight(0, dtype="float8"), "strange `dtype`"),
        (weight(0, dtype="int8"), "strange `dtype`"),
        (weight(1, dtype="float64"), "described as F64"),
        (weight(1, shape=[51]), "described as F32 [51]"),
        (weight(0, sha256="0"), "checksum differs"),
        (weight(1, sha256="0"), "checksum differs"),
        (weight(0, extra=1), "other fields"),
        (weight(0, coded=[]), "strange `coded`"),
        (weight(0, path="elsewhere"), "not those it describes"),
        (coded(0, count=1), "described as F16 [1]"),
        (coded(0, count=10**9), "strange `count`"),
        (coded(0, count=True), "strange `count`"),
        (coded(0, values="float32"), "described as F32"),
        (coded(0, values="pickle"), "strange `values`"),
        (coded(0, index="delta"), "its index"),
        (coded(0, index="csr"), "strange `index`"),
        (coded(0, seed=[1]), "noise comes out differently"),
        (coded(0, seed=[-1]), "strange `seed`"),
        (coded(0, seed=[1] * 99), "strange `seed`"),
        (coded(0, mean=0.5), "checksum differs"),
        (coded(0, mean=10**400), "strange `mean`"),
        (coded(0, mean=math.inf), "strange `mean`"),
        (coded(0, deviation=-1.0), "strange `count` or `deviation`"),
        (coded(0, replacement="zero"), "checksum differs"),
        (coded(0, rule="small"), "strange `rule`"),
        (lambda content: content["weights"].pop(), "not those it describes"),
        (lambda content: content.pop("config"), "other fields"),
        (lambda content: content.update(config={}), "no built model"),
        (lambda content: content.update(config={"a": 1}), "no built model"),
        (lambda content: units(content, 10**11), "in place of"),
        (lambda content: units(content, 11), "in place of"),
        (lambda content: units(content, "x"), "cannot build"),
        (
            lambda content: content["config"].update(class_name="PickleModel"),
            "cannot build",
        ),
    ],
)
def test_forged_descriptions(saved, change, match):
    """Before memory is taken, and by a reason that names what is wrong."""
    forge(saved, change)
    refused(saved, match)


@pytest.mark.parametrize(
    "change, match",
    [
        (weight(0, name=None), "of weight 0 has a strange `name`: None"),
        (weight(1, shape="50"), "of weight 1 has a strange `shape`: '50'"),
        (weight(0, shape=[True, 3000]), "strange `shape`: [True, 3000]"),
        (weight(1, shape=[1] * 33), "of weight 1 has a strange `shape`"),
        (weight(0, sha256=7), "strange `sha256`: 7"),
        (coded(0, count=1.0), "strange `count`: 1.0"),
        (coded(0, count=-1), "strange `count`: -1"),
        (coded(0, count=10**30), "strange `count` or `deviation`"),
        (coded(0, mean=math.nan), "strange `mean`: nan"),
        (coded(0, mean="0"), "strange `mean`: '0'"),
        (coded(0, scale=True), "strange `scale`: True"),
        (coded(0, threshold=-math.inf), "strange `threshold`: -inf"),
        (coded(0, deviation=None), "strange `deviation`: None"),
        (coded(0, seed=3), "strange `seed`: 3"),
        (coded(0, key=[False]), "strange `key`: [False]"),
        (coded(0, rule=["signed"]), "strange `rule`: ['signed']"),
        (coded(0, extra=1), "of weight 0 has other fields than this version's"),
        (coded(0, extra=1), "['extra']"),
        (lambda content: content["weights"][0]["coded"].pop("seed"), "['seed']"),
        (lambda content: content["weights"][1].pop("coded"), "weight 1 has other"),
        (lambda content: content["weights"].insert(0, []), "weight 0 has other"),
        (lambda content: content.update(weights={}), "strange `weights`: {}"),
        (lambda content: content.update(config=None), "strange `config`: None"),
        (lambda content: content.update(more=1), "['more']"),
    ],
)
def test_a_description_of_other_types_is_refused_by_name(saved, change, match):
    forge(saved, change)
    refused(saved, match)


@pytest.mark.parametrize(
    "change",
    [
        coded(0, index="\x1b[31m\ud800" + "x" * 10**6),
        weight(0, dtype="\n" * 10**6),
        weight(0, **{"\x1b[2J" * 1000: 1}),
        coded(0, seed=[[["\x07"] * 1000] * 100] * 10),
    ],
)
def test_what_a_stranger_wrote_is_shown_short_and_without_controls(saved, change):
    forge(saved, change)
    with pytest.raises(ValueError) as error:
        compression.load_compressed(saved)
    message = str(error.value).removesuffix(f"path={saved}")
    assert message.isprintable() and len(message) < 300


def test_forged_indices(saved):
    size = 3000
    with safe_open(saved, "np") as file:
        keys = list(file.keys())
        kernel = next(k for k in keys if k.startswith("0.") and k.endswith(".index"))
        count = file.get_slice(kernel.replace(".index", ".values")).get_shape()[0]
    good = saved.read_bytes()
    fewer = coding.encode_index(np.arange(size) < count - 1, "bitmap")[1]
    moved = coding.encode_index(np.arange(size) < count, "bitmap")[1]
    longer = coding.encode_index(np.arange(size + 8) < count, "bitmap")[1]
    bomb = np.frombuffer(zlib.compress(bytes(10**7)), "uint8")
    for packed, match in [
        (fewer, f"names {count - 1:,} entries instead of {count:,}"),
        (moved, "checksum differs"),
        (longer, "wrong length"),
        (bomb, "wrong length"),
        (np.zeros(5, "uint8"), "cannot be inflated"),
        (np.zeros((5, 5), "uint8"), "described as U8"),
        (None, "not those it describes"),
    ]:
        saved.write_bytes(good)
        forge(saved, lambda content: None, {kernel: packed})
        refused(saved, match)
    saved.write_bytes(good)
    forge(saved, lambda content: None, {"more": np.ones(3)})
    refused(saved, "not those it describes (`more`)")


def test_code_in_a_config_is_refused_even_where_keras_would_run_it(saved):
    code = {"class_name": "__lambda__", "config": {"value": "4wEAAA=="}}
    layer = {
        "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
        "config": {"name": "run", "function": code},
    }  # fmt: skip
    forge(saved, lambda content: content["config"]["config"]["layers"].append(layer))
    refused(saved, "it holds the code of a Python lambda")

    def unsafe():
        keras.config.enable_unsafe_deserialization()
        refused(saved, "it holds the code of a Python lambda")

    # Keras has no way to undo this, but it holds for one thread only.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(unsafe).result()


def test_limits_and_versions(saved):
    assert compression.load_compressed(saved, memory_limit=10**6).built
    refused(saved, "raise `memory_limit`", memory_limit=1000)
    with pytest.raises(ValueError, match="`memory_limit` must be an integer"):
        compression.load_compressed(saved, memory_limit=-1)
    data = saved.read_bytes()
    newer = data.replace(b'\\"version\\": 1', b'\\"version\\": 2')
    assert newer != data
    saved.write_bytes(newer)
    refused(saved, "version 2")
