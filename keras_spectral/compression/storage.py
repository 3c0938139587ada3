"""Compressed checkpoints: safetensors with kept values, their index, and a seed.

For each weight of the model a file holds `N.path`, the weight as it is, or, if it was
compressed, `N.path.values`, the kept values in order, and `N.path.index`, a deflated
bitmap or gaps (see `coding`). What is not kept is zero, or mean + deviation * G with G
of the seed (see `gaussian`). The tensor `description` is deflated JSON: the Keras
config and, of each weight, what was done to it and a checksum (see `reading`).
"""

import contextlib
import dataclasses
import json
import zlib
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from keras_spectral.compression import coding, reading
from keras_spectral.compression.configs import (
    build_model,
    check_config,
    plain_config,
    signature,
)
from keras_spectral.compression.masks import (
    as_numpy,
    is_float,
    remember,
)
from keras_spectral.compression.reading import Coded, StoredWeight
from keras_spectral.compression.storage_rows import storage_row
from keras_spectral.compression.unwrapping import stored_model
from keras_spectral.files import output_file, replacing
from keras_spectral.gaussian import digest
from keras_spectral.models.copying import set_weights
from keras_spectral.printable import printable
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer

# A byte of a file may stand for 255 float32 zeros; more must be allowed by the user.
_UNPACKED_PER_BYTE = 1020
_ALLOWANCE = 2**28


def _dense(array, kind):
    """Return the tensors of one weight in a checkpoint that is not compressed.

    int8 is one scale a matrix or convolution, and float32 for vectors, as usual.
    """
    if not is_float(array):
        return {"": array}
    if kind != "int8":
        with np.errstate(over="ignore"):
            return {"": array.astype(kind)}
    if array.ndim < 2:
        return {"": array.astype("float32")}
    with np.errstate(over="ignore"):
        wide = np.nan_to_num(array.astype("float32"))
    values, scale = coding.encode_values(wide, "int8")
    return {"": values, ".scale": np.full(1, scale, "float32")}


def _dense_sizes(weights, config):
    """Return the bytes of each weight, and of the file, in three usual forms."""
    packed = zlib.compress(json.dumps(config).encode(), 9)
    each, whole = [[] for _ in weights], []
    for kind in ("float32", "float16", "int8"):
        tensors = {reading.DESCRIPTION: np.frombuffer(packed, "uint8")}
        for index, (path, array) in enumerate(weights):
            parts = _dense(array, kind)
            each[index].append(sum(part.nbytes for part in parts.values()))
            tensors |= {f"{index}.{path}{end}": part for end, part in parts.items()}
        whole.append(len(safetensors.numpy.save(tensors, {reading.METADATA: ""})))
    return each, whole


def _encode(weight, record, values, index):
    """Return (`StoredWeight`, [values, index] or [weight], relative error)."""
    array = as_numpy(weight)
    dtype = array.dtype.name
    if dtype not in reading.DTYPES:
        raise ValueError(
            f"`model` must have weights of usual types. Received: '{weight.path}' of "
            f"{dtype}"
        )
    stored = StoredWeight(weight.name, weight.path, array.shape, dtype, digest(array))
    if record is None:
        return stored, [array.copy(order="C")], None
    if not is_float(array):
        raise ValueError(
            f"`model` must have float kernels where it is compressed. Received: "
            f"'{weight.path}', quantized to {dtype}. Save it before quantizing."
        )
    kept = record.kept
    standard = None if record.replacement == "zero" else record.normals()
    loaded = record.frozen(dtype, standard)
    changed = int((array != loaded)[~kept].sum())
    if changed:
        raise ValueError(
            f"`model` must have its frozen weights as they were: {changed:,} of "
            f"'{weight.path}' have changed since it was compressed. Fine-tune with "
            "`keep_mask(model)`, which also puts them back, or compress it anew; "
            "`compression={}` stores it as it is."
        )
    try:
        narrow, scale = coding.encode_values(array[kept], values)
    except ValueError as error:
        raise ValueError(
            f"`values` must be a type for all kept weights: those of '{weight.path}' "
            f"{error}. Received: values={values!r}. bfloat16 has float32's range."
        ) from error
    loaded[kept] = coding.decode_values(narrow, scale, dtype)
    index, packed = coding.encode_index(kept, index)
    coded = Coded(
        count=int(kept.sum()),
        index=index,
        values=narrow.dtype.name,
        scale=scale,
        replacement=record.replacement,
        rule=record.rule,
        threshold=record.threshold,
        mean=record.mean,
        deviation=record.deviation,
        seed=[int(n) for n in np.atleast_1d(np.asarray(record.seed, object))],
        key=[int(n) for n in record.key],
        normals_sha256=None if standard is None else digest(standard),
    )
    wide = array.astype("float64")
    norm = np.linalg.norm(wide)
    error = float(np.linalg.norm(loaded - wide) / norm) if norm else 0.0
    stored = dataclasses.replace(stored, sha256=digest(loaded), coded=coded)
    return stored, [narrow, packed], error


def save_compressed(
    model: keras.Model,
    path: str | Path,
    *,
    compression: dict | None = None,
    values: str = "float16",
    index: str = "auto",
    custom_objects: dict | None = None,
) -> Rows:
    """Save a compressed model in few bytes, with its architecture.

    Of a kernel that `compress` compressed, the file holds the kept values, where they
    are, and the seed of the noise; other weights are stored as they are. A kernel of
    which nothing is known but that is a tenth zeros or more, pruned by whatever tool,
    is stored by its nonzero values. The optimizer is not stored.

    Of a layer in a spectral wrapper the file holds the plain layer with its effective
    kernel, converged in float64 as by `unwrap`: its norm is the bound to 1e-6, and its
    zeros are what is not kept. (`SVDDense` and its kin stay in factors.) Rounding kept
    values to a narrower type moves each singular value by at most the row's relative
    error times the kernel's Frobenius norm, also above the bound;
    `values="float32"` rounds nothing. To train on under the bound, save the model by
    Keras.

    The file is for storage and transfer: a loaded model is dense, and as fast as it
    was before.

    Args:
        model: A built `keras.Model`, such as `compress` returns, fine-tuned with
            `keep_mask` or not, which stays as it is. Its config must rebuild it; one
            with wrappers must be `keras.Sequential` or functional.
        path: Path that ends in `.safetensors`.
        compression: Dict as `compression_of` returns it, for a model of which nothing
            is known (by default, what is known). `{}` stores all weights as they are.
            Indices are those of `model.weights`, in wrappers too.
        values: `"float32"`, `"float16"`, `"bfloat16"` or `"int8"` (one scale a kernel,
            largest / 127): the type of the kept values. None is widened.
        index: `"bitmap"`, `"delta"`, or `"auto"`, the shorter for each kernel.
        custom_objects: Optional dict, as for `keras.models.load_model`.

    Returns:
        `Rows` of `StorageRow`, one a weight, then the description and header, and the
        total: bytes in the file, beside those of safetensors files of the same model
        in float32, float16 and int8 (matrices and convolutions; vectors in float32),
        and the relative error in Frobenius norm of rounding the kept values.

    Raises:
        ValueError: On arguments out of range; if frozen weights have changed, by a
            wrapper's scale too, kept ones are beyond `values`, a wrapped kernel is not
            finite or a wrapper not outermost, or the config does not rebuild the model
            or holds a Python lambda.
        OSError: If the file cannot be written; what was at `path` stays.

    Example:
    >>> import keras, pathlib, tempfile
    >>> from keras_spectral import compression
    >>> model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(100)])
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> rows = save_compressed(compression.compress(model, replacement="zero"), path)
    >>> rows[-1].bytes == path.stat().st_size
    True
    >>> load_compressed(path).count_params()
    20100

    Source: [shin2021], section 3.2 and Appendix E.
    """
    check_choice("values", values, coding.VALUES)
    check_choice("index", index, ("auto", *coding.INDICES))
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Received: path={path}")
    output_file(path)
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: '{model.name}' without weights. Call it "
            "on a batch first."
        )
    model, masks = stored_model(model, compression)
    try:
        config = plain_config(model)
        check_config(config, signature(model), custom_objects)
    except ValueError as error:
        raise ValueError(
            f"`model` must be one that its Keras config rebuilds: {error}. "
            f"Received: '{model.name}'. Register custom classes with "
            "`keras.saving.register_keras_serializable`, or pass `custom_objects=`."
        ) from error
    stored, tensors, rows = [], {}, []
    arrays = [(weight.path, as_numpy(weight)) for weight in model.weights]
    each, whole = _dense_sizes(arrays, config)
    for place, weight in enumerate(model.weights):
        record = masks.get(place)
        entry, parts, error = _encode(weight, record, values, index)
        stored.append(entry)
        keys = reading.tensor_keys(place, entry)
        tensors |= dict(zip(keys, parts, strict=True))
        form = entry.dtype
        if entry.coded is not None:
            form = f"{entry.coded.index}, {entry.coded.values}"
        kept = None if record is None else float(record.kept.mean())
        size = sum(part.nbytes for part in parts)
        shape = list(entry.shape)
        rows.append(
            storage_row(weight.path, form, size, each[place], shape, kept, error)
        )
    metadata, description = reading.describe(config, stored)
    tensors[reading.DESCRIPTION] = description
    with replacing(path, tells=SafetensorError) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata)
        total = temporary.stat().st_size
    rest = [w - sum(e[k] for e in each) for k, w in enumerate(whole)]
    size = total - sum(row.bytes for row in rows)
    rows.append(storage_row("header and config", "JSON", size, rest))
    rows.append(storage_row("total", "file", total, whole))
    return Rows(
        rows,
        title=f"{model.name}: {total:,} bytes",
        caption="fp32 /, fp16 /, int8 /: a plain file of that type over this one. "
        "rounding: relative error of the kept values' type, Frobenius. "
        "A loaded model is dense: smaller on disk, not faster.",
    )


@contextlib.contextmanager
def _refusing(path):
    """Say of a file that cannot be loaded which it is, and why."""
    try:
        yield
    except (ValueError, SafetensorError, RecursionError, MemoryError) as error:
        reason = str(error)[:500] or type(error).__name__
        if isinstance(error, SafetensorError):
            reason = f"it is cut off, damaged or no safetensors file ({reason})"
        raise ValueError(
            f"`path` must be a compressed checkpoint: {printable(reason, 600)}. "
            f"Received: path={printable(str(path))}"
        ) from error


def _decode(file, index, weight):
    """Return (array, `ReplacedKernel` or `None`) of a weight, checked by its sum."""
    coded, record = weight.coded, None
    parts = [file.get_tensor(key) for key in reading.tensor_keys(index, weight)]
    if coded is None:
        array = parts[0]
    else:
        kept = coding.decode_index(coded.index, parts[1], weight.size, coded.count)
        record = reading.replaced_kernel(weight, kept)
        standard = None
        if coded.replacement != "zero":
            standard = record.normals()
            if digest(standard) != coded.normals_sha256:
                raise ValueError(
                    "its noise comes out differently here, so this NumPy's Philox is "
                    "not that of the machine that saved it, or its seed is damaged"
                )
        array = record.frozen(weight.dtype, standard)
        array[record.kept] = coding.decode_values(parts[0], coded.scale, weight.dtype)
    if digest(array) != weight.sha256:
        raise ValueError("its values are damaged (the checksum differs)")
    return array, record


def load_compressed(
    path: str | Path,
    *,
    custom_objects: dict | None = None,
    memory_limit: int | None = None,
) -> keras.Model:
    """Load a model that `save_compressed` saved.

    The file is treated as a stranger's: sizes are checked before memory is taken,
    every value by checksum, and no code in it is run.

    Args:
        path: Path of the file.
        custom_objects: Optional dict, as for `keras.models.load_model`.
        memory_limit: Optional integer, the most bytes that the weights may take.
            By default 256 MiB and 1020 for each byte of the file.

    Returns:
        A plain, dense `keras.Model`, not compiled. What was compressed is remembered
        with it, so `keep_mask` and `save_compressed` go on from there.

    Raises:
        ValueError: If the file is none of `save_compressed`, damaged, of another
            version, asks for more memory than is allowed, or holds a lambda.
        OSError: If it cannot be read.

    Example:
    >>> import keras, pathlib, tempfile
    >>> from keras_spectral import compression
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> rows = save_compressed(compression.compress(model), path, values="float32")
    >>> model = load_compressed(path)
    >>> compression.compression_of(model)[0].replacement
    'matched'

    Source: [shin2021], section 3.2.
    """
    if memory_limit is not None:
        check_integer("memory_limit", memory_limit, least=0)
    path = Path(path)
    with path.open("rb"):  # The library says less of a file that is not there.
        size = path.stat().st_size
    limit = _ALLOWANCE + _UNPACKED_PER_BYTE * size
    if memory_limit is not None:
        limit = memory_limit
    with _refusing(path):
        reading.check_header(path)
    with _refusing(path), safe_open(path, "np") as file:
        config, stored = reading.read_description(file)
        total = sum(
            weight.size * coding.dtype_named(weight.dtype).itemsize for weight in stored
        )
        if total > limit:
            raise ValueError(
                f"its {size:,} bytes unpack to {total:,}, and {limit:,} are allowed "
                "(if you trust it, raise `memory_limit`)"
            )
        reading.check_tensors(file, stored)
        expected = [(weight.name, weight.shape, weight.dtype) for weight in stored]
        check_config(config, expected, custom_objects)
        arrays, compression = [], {}
        for index, weight in enumerate(stored):
            try:
                array, record = _decode(file, index, weight)
            except ValueError as error:
                raise ValueError(f"of the weight '{weight.path}': {error}") from error
            arrays.append(array)
            if record is not None:
                compression[index] = record
        model = build_model(config, custom_objects)
    set_weights(model, arrays)
    remember(model, compression)
    return model
