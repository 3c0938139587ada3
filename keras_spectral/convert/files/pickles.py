"""Reading pickles as data: nothing is imported, called or executed.

A pickle is a program for a stack machine. This one runs its instructions itself; where
the program asks for a class or a function, it puts down what was asked for, and goes
on. So safety does not rest on a list of bad names.

Nor can a program cost much. One byte of it may ask for an object of a hundred, for a
copy of a million others, for the hash of a number of a megabyte. So objects are charged
to a `Budget` before they are made, and nothing is copied, compared or hashed that is
longer than a name.
"""

import codecs
import functools
import pickletools
import struct

from keras_spectral.convert.files import functions
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.pickle_memo import Memo
from keras_spectral.convert.files.pickle_source import BLOCK, Budget, Source
from keras_spectral.convert.files.placeholders import Call, Dictionary, Storage

# Of objects on the stack at one time; a mark counts as some.
_DEEPEST, _MARK = 1_000_000, 10


def read_pickle(file, budget=None, storages=None, fetched=b""):
    """Read one pickle from a binary file.

    Args:
        file: Binary file object. Of an `io.BufferedReader` the position is left after
            the pickle.
        budget: `Budget`, of several pickles of one file. Default: a new one.
        storages: Dict, to be filled: from its key to each `Storage` that is named,
            also by what stands for a tensor without plain values.
        fetched: What `pickle_memo.fetched` says of the file. Default: anything is.

    Returns:
        What was pickled: Python's plain values, and `Global`, `Call`, `Tensor`,
        `Storage`, `Unread` and `Unreadable` in place of everything else.

    Raises:
        UnsafeCheckpointError: If it names a function that runs code, or asks for more
            than any checkpoint does.
        CheckpointError: If it is damaged. Messages go on from the file's name.

    Example:
    >>> import collections, io, pickle
    >>> found = read_pickle(io.BytesIO(pickle.dumps({"a": collections.Counter("b")})))
    >>> found["a"].function, found["a"].arguments
    ('collections.Counter', ({'b': 1},))
    """
    try:
        return _Machine(file, budget or Budget(), storages, fetched).run()
    except CheckpointError:
        raise
    except Exception as error:  # Anything may follow from a flipped byte.
        # What the error says may hold what the pickle does, and take for ever to print.
        raise CheckpointError(
            f"is damaged (its pickle: {type(error).__name__})"
        ) from error


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, file, budget, storages, fetched):
        self._source, self._budget = Source(file, budget), budget
        self._storages, self._fetched = storages, fetched
        self._spend, self._read = budget.spend, self._source.read
        self.stack, self._marked, self._below = [], [], 0
        memo = Memo(budget, fetched)
        self._fetch, self._keep, self._keep_next = memo.fetch, memo.store, memo.append

    def run(self):
        """Return what the program leaves."""
        steps = {
            opcode.code.encode("latin-1"): getattr(self, f"_{opcode.name.lower()}")
            for opcode in pickletools.opcodes
            if hasattr(self, f"_{opcode.name.lower()}")
        }
        instruction = self._source.instruction
        while True:
            self._budget.next_block()
            if len(self.stack) + self._below > _DEEPEST:
                raise UnsafeCheckpointError(
                    f"has a pickle with more than {_DEEPEST:,} objects at a time"
                )
            for _ in range(BLOCK):
                code = instruction()
                step = steps.get(code)
                if step is not None:
                    step()
                elif code == b".":
                    return self.stack.pop()
                else:
                    raise CheckpointError(f"is damaged ({_named(code)})")

    # The stack.

    def _to_mark(self):
        items, self.stack = self.stack, self._marked.pop()
        self._below -= len(self.stack) + _MARK
        return items

    def _mark(self):
        self._below += len(self.stack) + _MARK
        self._marked.append(self.stack)
        self.stack = []

    def _pop(self):
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self):
        self._to_mark()

    def _dup(self):
        self.stack.append(self.stack[-1])

    # The memo.

    def _memoize(self):
        self._keep_next(self.stack[-1])

    def _get(self):
        self.stack.append(self._fetch(int(self._source.numeral())))

    def _binget(self):
        self.stack.append(self._fetch(self._read(1)[0]))

    def _long_binget(self):
        self.stack.append(self._fetch(self._source.count(4)))

    def _put(self):
        self._keep(int(self._source.numeral()), self.stack[-1])

    def _binput(self):
        self._keep(self._source.count(1), self.stack[-1])

    def _long_binput(self):
        self._keep(self._source.count(4), self.stack[-1])

    # Plain values.

    def _none(self):
        self.stack.append(None)

    def _newtrue(self):
        self.stack.append(True)

    def _newfalse(self):
        self.stack.append(False)

    def _int(self):
        line = self._source.numeral()
        self.stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def _long(self):
        line = self._source.numeral()
        self.stack.append(int(line.removesuffix(b"L")))

    def _binint1(self):
        self.stack.append(self._read(1)[0])

    def _binint2(self):
        self.stack.append(self._source.number(2, signed=False))

    def _binint(self):
        self.stack.append(self._source.number(4))

    def _long1(self):
        self.stack.append(self._source.number(self._source.count(1)))

    def _long4(self):
        self.stack.append(self._source.number(self._source.signed(4)))

    def _float(self):
        self.stack.append(float(self._source.numeral()))

    def _binfloat(self):
        self._spend(24)
        self.stack.append(struct.unpack(">d", self._source.bytes(8))[0])

    def _string(self):
        line = self._source.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise CheckpointError("is damaged (a text of its pickle)")
        self.stack.append(codecs.escape_decode(line[1:-1])[0].decode("ascii"))

    def _unicode(self):
        self.stack.append(self._source.line().decode("raw-unicode-escape"))

    def _text(self, size, decode):
        self.stack.append(self._source.text(size, decode))

    def _binstring(self):
        self._text(self._source.signed(4), _from_latin)

    def _short_binstring(self):
        self._text(self._source.count(1), _from_latin)

    def _binunicode(self):
        self._text(self._source.count(4), _from_utf)

    def _short_binunicode(self):
        self._text(self._source.count(1), _from_utf)

    def _binunicode8(self):
        self._text(self._source.count(8), _from_utf)

    def _binbytes(self):
        self._text(self._source.count(4), bytes)

    def _short_binbytes(self):
        self._text(self._source.count(1), bytes)

    def _binbytes8(self):
        self._text(self._source.count(8), bytes)

    _bytearray8 = _binbytes8

    def _proto(self):
        self._source.count(1)

    def _frame(self):
        self._source.count(8)

    # Containers.

    def _push_tuple(self, items):
        self._spend(56 + 8 * len(items))
        self.stack.append(tuple(items))

    def _empty_tuple(self):
        self.stack.append(())

    def _tuple(self):
        self._push_tuple(self._to_mark())

    def _push_last(self, count):
        self._push_tuple([self.stack.pop() for _ in range(count)][::-1])

    _tuple1 = functools.partialmethod(_push_last, 1)
    _tuple2 = functools.partialmethod(_push_last, 2)
    _tuple3 = functools.partialmethod(_push_last, 3)

    def _push_list(self, items):
        self._spend(72 + 8 * len(items))
        self.stack.append(items)

    def _empty_list(self):
        self._push_list([])

    def _list(self):
        self._push_list(self._to_mark())

    def _append(self):
        self._extend([self.stack.pop()])

    def _appends(self):
        self._extend(self._to_mark())

    _additems = _appends

    def _extend(self, items):
        target = self.stack[-1]
        target = target.items if isinstance(target, Call) else target
        if not isinstance(target, list):
            raise CheckpointError("is damaged (items without a list)")
        self._spend(16 * len(items) + (0 if target else 32))
        target.extend(items)

    def _empty_set(self):
        self._push_call(Call("builtins.set"))

    def _frozenset(self):
        items = self._to_mark()
        self._spend(8 * len(items))
        self._push_call(Call("builtins.frozenset", items=items))

    def _empty_dict(self):
        self._spend(functions.DICTIONARY)
        self.stack.append(Dictionary())

    def _dict(self):
        items = self._to_mark()
        self._empty_dict()
        self._set(items)

    def _setitem(self):
        value = self.stack.pop()
        self._set([self.stack.pop(), value])

    def _setitems(self):
        self._set(self._to_mark())

    def _set(self, items):
        if len(items) % 2:
            raise CheckpointError("is damaged (a key without a value)")
        target = self.stack[-1]
        if isinstance(target, Call):
            self._extend(items)
        elif isinstance(target, Dictionary):
            first = 0 if target else functions.FIRST_ITEMS
            self._spend(functions.ITEM * (len(items) // 2) + first)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[functions.hashable(key)] = value
        else:
            raise CheckpointError("is damaged (items without a dict)")

    # Functions.

    def _push_call(self, call):
        self._spend(functions.CALL)
        self.stack.append(call)

    def _push_named(self, module, name):
        if isinstance(module, str) and isinstance(name, str):
            self._spend(160 + 4 * (len(module) + len(name)))
        self.stack.append(functions.named(module, name))

    def _global(self):
        self._push_named(self._source.line().decode(), self._source.line().decode())

    def _stack_global(self):
        name = self.stack.pop()
        self._push_named(self.stack.pop(), name)

    def _inst(self):
        arguments = self._to_mark()
        self._global()
        self._push_tuple(arguments)
        self._reduce()

    def _obj(self):
        function, *arguments = self._to_mark()
        self.stack.append(function)
        self._push_tuple(arguments)
        self._reduce()

    def _reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(functions.called(function, arguments, self._spend))
        self._spend(-functions.unused(arguments))

    _newobj = _reduce

    def _newobj_ex(self):
        named = self.stack.pop()
        self._reduce()
        if isinstance(self.stack[-1], Call):
            self._extend([named])

    def _build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Call):
            target.state = state
        elif isinstance(target, Dictionary):
            target.attributes = state

    def _binpersid(self):
        named = self.stack.pop()
        found = functions.external(named, self._spend)
        self.stack.append(found)
        self._spend(-functions.unused(named))
        if self._storages is not None and isinstance(found, Storage):
            self._spend(functions.ITEM)
            known = self._storages.setdefault(found.key, found)
            if known.dtype != found.dtype:
                raise CheckpointError("is damaged (a storage has two types)")


_from_utf = functools.partial(str, encoding="utf-8", errors="surrogatepass")
_from_latin = functools.partial(str, encoding="latin-1")


def _named(code):
    """Say which instruction cannot be run."""
    for opcode in pickletools.opcodes:
        if opcode.code.encode("latin-1") == code:
            return f"it has the instruction {opcode.name}"
    return "its pickle ends early" if not code else "its pickle has no such instruction"
