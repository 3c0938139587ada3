"""What becomes of the functions and classes that a pickle names and calls."""

import re
import sys

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import (
    Call,
    Dictionary,
    Global,
    Storage,
    Tensor,
    Unread,
    Unreadable,
    described,
)

# Naming one of these is refused. That is a service to the reader of the message: a
# name that is missing here becomes a `Call`, as inert as any other.
_UNSAFE_MODULES = frozenset(
    "os posix nt ntpath subprocess sys importlib runpy pty shutil socket ctypes "
    "pickle _pickle cPickle marshal code codeop commands webbrowser urllib urllib2 "
    "http httplib requests asyncio multiprocessing threading _thread signal pdb bdb "
    "cProfile profile timeit trace tempfile io operator _operator types inspect gc "
    "pip setuptools distutils ensurepip venv pydoc doctest linecache tarfile zipfile "
    "zipimport smtplib ftplib telnetlib ssl imp pkgutil shelve dill cloudpickle joblib "
    "idlelib lib2to3 site numpy.f2py numpy.testing torch.hub torch.jit torch.utils "
    "torch.distributed torch.multiprocessing torch._dynamo torch._inductor "
    "torch.serialization".split()
)
_UNSAFE_BUILTINS = frozenset(
    "eval exec execfile compile open file input __import__ reload apply breakpoint "
    "setattr delattr globals locals vars exit quit print __build_class__".split()
)
# What honest objects beside the weights name in modules of that list.
_SAFE = re.compile(
    r"torch\.utils\.data\..*|torch\.distributed\.(tensor|_tensor|_shard|fsdp)\..*|"
    r"_?operator\.(?!attrgetter|methodcaller|call)\w+|_?io\.(BytesIO|StringIO)|"
    r"types\.(SimpleNamespace|MappingProxyType|GenericAlias|NoneType|EllipsisType)"
)

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16",
    "BFloat16": "bfloat16", "Long": "int64", "Int": "int32", "Short": "int16",
    "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    # Of quantized tensors, which are not read: the size is what counts.
    "QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32",
    "QUInt4x2": "uint8", "QUInt2x4": "uint8", "Untyped": None,
}  # fmt: skip

# Bytes of objects in CPython, rounded up: a dict with its first items, and each item
# when a table has just grown.
DICTIONARY, FIRST_ITEMS, ITEM, CALL = 96, 232, 120, 144
_TENSOR = 80
# No function that is known here takes more arguments, no tensor has more dimensions.
_MOST_ARGUMENTS, _MOST_DIMENSIONS = 16, 32


def named(module, name):
    """Return the `Global` of a name, or refuse it."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise CheckpointError("is damaged (a function's name is no text)")
    first, _, rest = module.partition(".")
    modules = {first, f"{first}.{rest.partition('.')[0]}"}
    full = f"{module}.{name}"
    if module in ("builtins", "__builtin__"):
        unsafe = name.partition(".")[0] in _UNSAFE_BUILTINS
    else:
        unsafe = modules & _UNSAFE_MODULES and not _SAFE.fullmatch(full)
    if (unsafe and full not in _HANDLERS) or full in ("torch.load", "numpy.load"):
        raise UnsafeCheckpointError(
            f"asks for {described(full)} when it is read, which can run code; nothing "
            "was run"
        )
    return Global(full)


def hashable(key):
    """Return a key for a dict, whose hash the file cannot choose.

    Equal hashes make a table quadratic. Text has a secret one; that of numbers and
    tuples can be solved for, so these are put away in an object. No state dict has
    them.
    """
    kind = type(key)
    if key is None or kind in (str, bytes, bool, float, Global, Call, Unread):
        return key
    if kind is int:
        # Of small ones too few share a place in a table, wherever they are looked for.
        return key if -(2**24) < key < 2**24 else Call("builtins.int", (key,))
    if kind is Tensor:
        return Call("a tensor", (key,))
    if kind is tuple and not any(isinstance(part, list) for part in key[:16]):
        return Call("builtins.tuple", key)
    raise CheckpointError(f"is damaged (a {kind.__name__} as a key)")


def called(function, arguments, spend):
    """Return what stands for the result of a call.

    Args:
        function: `Global`, or what else lay there.
        arguments: Tuple.
        spend: Function of the bytes that are about to be made.
    """
    if not isinstance(arguments, tuple):
        raise CheckpointError("is damaged (a call without arguments)")
    name = function.name if isinstance(function, Global) else ""
    handler = _HANDLERS.get(name)
    if handler is not None:
        if len(arguments) > _MOST_ARGUMENTS:
            raise CheckpointError(f"is damaged (the arguments of {name})")
        return handler(spend, *arguments)
    spend(CALL)
    if name.startswith("torch._utils._rebuild_") or name.startswith("torch._tensor."):
        return Unreadable(name.rpartition("._rebuild_")[2])
    return Call(name or "an object", arguments)


def external(described_as, spend):
    """Return what stands for an object outside of the pickle: a storage."""
    if not isinstance(described_as, tuple) or not 2 <= len(described_as) <= 8:
        raise CheckpointError("is damaged (an external object that is no storage)")
    if described_as[0] == "module":
        # The format before 1.6 keeps a class with its source code.
        return described_as[1]
    kind, storage, key, _, numel, *view = described_as
    if kind != "storage" or not isinstance(storage, Global):
        raise CheckpointError("is damaged (an external object that is no storage)")
    if any(part is not None for part in view):
        raise CheckpointError("holds views of storages, from before PyTorch 0.4")
    name = storage.name.rpartition(".")[2].removesuffix("Storage")
    name = name.removeprefix("Typed")
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**63:
        raise CheckpointError("is damaged (a storage without a name or size)")
    spend(_TENSOR)
    return Storage(_STORAGES.get(name), key, numel)


def unused(arguments):
    """Return the bytes of a tuple that only the caller has; 0 if others do."""
    if type(arguments) is not tuple or _holders(arguments) != _TWO_NAMES:
        return 0
    freed, last = 56 + 8 * len(arguments), arguments[-1]
    # The hooks of a tensor: an empty dict, which only the tuple has.
    if type(last) is Dictionary and not last and _holders(last) == _TWO_NAMES:
        freed += DICTIONARY
    return freed


def _holders(value):
    return sys.getrefcount(value)


def _of_caller(value):
    return _holders(value)


def _of_two():
    value = tuple("a")
    return _of_caller(value)


# What Python counts of an object that a function and its caller have.
_TWO_NAMES = _of_two()


def _ordered_dict(spend, items=()):
    if not isinstance(items, (list, tuple)):
        raise CheckpointError("is damaged (a dict of what are no pairs)")
    spend(DICTIONARY + (FIRST_ITEMS + ITEM * len(items) if items else 0))
    result = Dictionary()
    for pair in items:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise CheckpointError("is damaged (a dict of what are no pairs)")
        result[hashable(pair[0])] = pair[1]
    return result


def _dimensions(spend, numbers=()):
    if not isinstance(numbers, (list, tuple)) or len(numbers) > _MOST_DIMENSIONS:
        raise CheckpointError(f"is damaged (a shape of {described(numbers)})")
    if isinstance(numbers, list):
        spend(56 + 8 * len(numbers))
    return tuple(numbers)


def _tensor(spend, storage, offset, shape, strides, *others):
    if _is_turned(others):
        return Unreadable("conjugated or negated when it is read")
    dtype = storage.dtype if isinstance(storage, Storage) else None
    return _view(spend, storage, dtype, offset, shape, strides)


def _is_turned(others):
    """Tell whether PyTorch keeps a view whose numbers are others than those stored."""
    return any(
        isinstance(each, dict) and (each.get("conj") or each.get("neg"))
        for each in others
    )


def _tensor_of_dtype(spend, storage, offset, shape, strides, _, __, dtype, *others):
    if _is_turned(others):
        return Unreadable("conjugated or negated when it is read")
    dtype = dtype.name.removeprefix("torch.")
    return _view(spend, storage, dtype, offset, shape, strides)


def _view(spend, storage, dtype, offset, shape, strides):
    if not isinstance(storage, Storage):
        raise CheckpointError("is damaged (a tensor without a storage)")
    spend(_TENSOR)
    if dtype is None:
        return Unreadable("a tensor of an unknown type")
    shape, strides = _dimensions(spend, shape), _dimensions(spend, strides)
    return Tensor(storage, dtype, offset, shape, strides)


def _parameter(spend, data, *_):
    return data


def _of_type(spend, function, _, arguments, __):
    if isinstance(function, Global) and _HANDLERS.get(function.name) is _of_type:
        raise CheckpointError("is damaged (a tensor of a type of a type)")
    return called(function, arguments, spend)


_HANDLERS = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _dimensions,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.serialization._get_layout": lambda spend, name: name,
}
