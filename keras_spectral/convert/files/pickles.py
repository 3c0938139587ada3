"""Reading pickles as data: nothing is imported, called or executed.

A pickle is a program for a stack machine. This one runs its instructions itself,
over `pickletools.genops`; where the program asks for a class or a function, it puts
down what was asked for, and goes on. So safety does not rest on a list of bad names.
"""

import pickletools

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import (
    Call,
    Dictionary,
    Global,
    Storage,
    Tensor,
    Unreadable,
)

# Checkpoints of a thousand tensors have some ten thousand instructions in a megabyte.
LARGEST_PICKLE = 64 * 2**20
MOST_INSTRUCTIONS = 1_000_000


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
    "torch.serialization builtins __builtin__".split()
)
_SAFE_BUILTINS = frozenset(
    "set frozenset slice complex bytearray bytes list dict tuple int float bool str "
    "object range long unicode".split()
)

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16",
    "BFloat16": "bfloat16", "Long": "int64", "Int": "int32", "Short": "int16",
    "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "Untyped": None,
}  # fmt: skip


class _Limited:
    """A file that ends after so many bytes."""

    def __init__(self, file, limit):
        self.file, self.left = file, limit
        self.tell = file.tell

    def _take(self, content):
        self.left -= len(content)
        if self.left < 0:
            raise UnsafeCheckpointError(
                f"has a pickle of more than {LARGEST_PICKLE // 2**20} MiB"
            )
        return content

    def read(self, size):
        return self._take(self.file.read(min(size, self.left + 1)))

    def readline(self):
        return self._take(self.file.readline(self.left + 1))


def read_pickle(file):
    """Read one pickle from a binary file, leaving the position after it.

    Args:
        file: Binary file object.

    Returns:
        What was pickled: Python's plain values, and `Global`, `Call`, `Tensor`,
        `Storage` and `Unreadable` in place of everything else.

    Raises:
        UnsafeCheckpointError: If it names a function that runs code, or is larger
            than any checkpoint's.
        CheckpointError: If it is damaged. Messages go on from the file's name.

    Example:
    >>> import collections, io, pickle
    >>> found = read_pickle(io.BytesIO(pickle.dumps({"a": collections.Counter("b")})))
    >>> found["a"].function, found["a"].arguments
    ('collections.Counter', ({'b': 1},))
    """
    machine = _Machine()
    try:
        operations = pickletools.genops(_Limited(file, LARGEST_PICKLE))
        for count, (opcode, argument, _) in enumerate(operations):
            if count > MOST_INSTRUCTIONS:
                raise UnsafeCheckpointError(
                    f"has a pickle of more than {MOST_INSTRUCTIONS:,} instructions"
                )
            machine.run(opcode.name, argument)
        return machine.stack.pop()
    except CheckpointError:
        raise
    except Exception as error:  # Anything may follow from a flipped byte.
        raise CheckpointError(
            f"is damaged (its pickle: {type(error).__name__}: {str(error)[:80]})"
        ) from error


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self):
        self.stack, self.marked, self.memo = [], [], {}

    def run(self, name, argument):
        if name in _PUSH_ARGUMENT:
            self.stack.append(argument)
        elif name in _PUSH_CONSTANT:
            self.stack.append(_PUSH_CONSTANT[name]())
        elif name in _IGNORED:
            pass
        else:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise CheckpointError(f"is damaged (it has the instruction {name})")
            method(argument)

    def _to_mark(self):
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _mark(self, _):
        self.marked.append(self.stack)
        self.stack = []

    def _pop(self, _):
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self, _):
        self._to_mark()

    def _dup(self, _):
        self.stack.append(self.stack[-1])

    def _get(self, index):
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _put(self, index):
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self, _):
        items = self._to_mark()
        self.stack.append(tuple(items))

    def _tuple1(self, _):
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _):
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self, _):
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _list(self, _):
        items = self._to_mark()
        self.stack.append(items)

    def _frozenset(self, _):
        items = self._to_mark()
        self.stack.append(Call("builtins.frozenset", items=items))

    def _dict(self, _):
        items = self._to_mark()
        self.stack.append(Dictionary())
        self._set(items)

    def _append(self, _):
        self._extend([self.stack.pop()])

    def _appends(self, _):
        self._extend(self._to_mark())

    _additems = _appends

    def _extend(self, items):
        target = self.stack[-1]
        target = target.items if isinstance(target, Call) else target
        if not isinstance(target, list):
            raise TypeError("items without a list")
        target.extend(items)

    def _setitem(self, _):
        value = self.stack.pop()
        self._set([self.stack.pop(), value])

    def _setitems(self, _):
        self._set(self._to_mark())

    def _set(self, items):
        pairs = list(zip(items[::2], items[1::2], strict=True))
        target = self.stack[-1]
        if isinstance(target, Call):
            target.items.extend(pairs)
        elif isinstance(target, Dictionary):
            for key, value in pairs:
                target[_hashable(key)] = value
        else:
            raise TypeError("items without a dict")

    def _global(self, name):
        self.stack.append(_global(*name.split(" ", 1)))

    def _stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_global(module, name))

    def _inst(self, name):
        arguments = tuple(self._to_mark())
        self.stack.append(_call(_global(*name.split(" ", 1)), arguments))

    def _obj(self, _):
        function, *arguments = self._to_mark()
        self.stack.append(_call(function, tuple(arguments)))

    def _reduce(self, _):
        arguments = self.stack.pop()
        self.stack.append(_call(self.stack.pop(), arguments))

    _newobj = _reduce

    def _newobj_ex(self, _):
        named = self.stack.pop()
        arguments = self.stack.pop()
        self.stack.append(_call(self.stack.pop(), arguments))
        if isinstance(self.stack[-1], Call):
            self.stack[-1].items.append(named)

    def _build(self, _):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Call):
            target.state = state
        elif isinstance(target, Dictionary):
            target.attributes = state

    def _binpersid(self, _):
        described = self.stack.pop()
        if described[0] == "module":
            # The format before 1.6 keeps a class with its source code.
            self.stack.append(described[1])
            return
        kind, storage, key, _, numel, *view = described
        if kind != "storage" or not isinstance(storage, Global):
            raise TypeError("an external object that is no storage")
        if any(view):
            raise CheckpointError("holds views of storages, from before PyTorch 0.4")
        name = storage.name.rpartition(".")[2].removesuffix("Storage")
        name = name.removeprefix("Typed")
        if not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise TypeError("a storage without a name or size")
        self.stack.append(Storage(_STORAGES.get(name), key, numel))


_PUSH_ARGUMENT = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8".split()
)
_PUSH_CONSTANT = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": Dictionary,
    "EMPTY_SET": lambda: Call("builtins.set"),
}
_IGNORED = frozenset(["PROTO", "FRAME", "STOP"])


def _hashable(key):
    """Return a key, if hashing it cannot recurse."""
    plain = (str, bytes, int, float, bool, type(None), Global, Call)
    if isinstance(key, plain):
        return key
    if isinstance(key, tuple) and all(isinstance(part, plain) for part in key):
        return key
    raise TypeError(f"a {type(key).__name__} as a key")


def _global(module, name):
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a name that is no string")
    parts = module.split(".")
    modules = {".".join(parts[: n + 1]) for n in range(len(parts))}
    full = f"{module}.{name}"
    builtin = module in ("builtins", "__builtin__") and name in _SAFE_BUILTINS
    if builtin or full in _HANDLERS:
        return Global(full)
    if modules & _UNSAFE_MODULES or full in ("torch.load", "numpy.load"):
        raise UnsafeCheckpointError(
            f"asks for {full[:80]} when it is read, which can run code; nothing was run"
        )
    return Global(full)


def _call(function, arguments):
    if not isinstance(arguments, tuple):
        raise TypeError("a call without arguments")
    name = function.name if isinstance(function, Global) else ""
    handler = _HANDLERS.get(name)
    if handler is not None:
        return handler(*arguments)
    if name.startswith("torch._utils._rebuild_") or name.startswith("torch._tensor."):
        return Unreadable(name.rpartition("._rebuild_")[2])
    return Call(name or "an object", arguments)


def _ordered_dict(items=()):
    result = Dictionary()
    for key, value in items:
        result[_hashable(key)] = value
    return result


def _tensor(storage, offset, shape, strides, *_):
    return _view(storage, storage.dtype, offset, shape, strides)


def _tensor_of_dtype(storage, offset, shape, strides, _, __, dtype, *___):
    return _view(storage, dtype.name.removeprefix("torch."), offset, shape, strides)


def _view(storage, dtype, offset, shape, strides):
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    if dtype is None:
        return Unreadable("a tensor of an unknown type")
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _parameter(data, *_):
    return data


def _of_type(function, _, arguments, __):
    return _call(function, arguments)


_HANDLERS = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.serialization._get_layout": lambda name: name,
}
