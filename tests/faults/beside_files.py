"""Crafted files that take what is allowed beside weights, and in them, too far."""

from tests.faults.cases import Case
from tests.faults.pickle_files import laughs
from tests.faults.programs import (
    get,
    number,
    put,
    state,
    storage,
    tensor,
    text,
    torch_zip,
    written,
)


def expanded(count, numbers, stored=6):
    """Tensors of which every number is one stored one."""
    program = b"\x80\x02" + storage("0", stored) + put(0) + b"0}"
    program += b"".join(
        text(f"{n}.w") + tensor(get(0), 0, (numbers,), (0,)) + b"s"
        for n in range(count)
    )
    return program + b".", bytes(4 * stored)


def among_weights(*pairs):
    """A state dict with objects in it; the memo begins behind it."""
    return torch_zip(state(("a.w", tensor()), *pairs))


def laughs_of_an_extra_state():
    return torch_zip(
        laughs(
            lambda it: (
                b"}"
                + text("a.w")
                + tensor()
                + b"s"
                + text("a._extra_state")
                + it
                + b"s"
            )
        )
    )


def one_list_by_many_names(count, size):
    many = b"](" + b"]" * size + b"e" + put(0)
    names = ((f"{n}.x", get(0)) for n in range(count))
    return among_weights(("x", many), *names)


CASES = {}
CASES["few numbers expanded to 48 MiB"] = Case(
    written(lambda: torch_zip(expanded(4, 12 * 2**20)[0])),
    "read",
    "'3.w': (12582912,)",
)
for name, (count, numbers) in {
    "expanded to a gibibyte": (1, 2**28),
    "expanded to 2^62": (1, 2**62),
    "a hundred expanded to 48 MiB": (100, 12 * 2**20),
}.items():
    CASES[name] = Case(
        written(lambda n=count, m=numbers: torch_zip(expanded(n, m)[0])),
        says="expanded",
    )
CASES["many expanded views of a storage"] = Case(
    written(lambda: torch_zip(expanded(2000, 2**22, 2**22)[0], **{"0": bytes(2**24)})),
    says="unpacks",
    largest=2**24,
)
for name, make in {
    "laughs as an extra state": laughs_of_an_extra_state,
    "deep lists among weights": lambda: among_weights(
        ("x", b"]" * 200_000 + b"a" * 199_999)
    ),
    "a list of lists by many names": lambda: one_list_by_many_names(20_000, 90_000),
    "a list in itself among weights": lambda: among_weights(
        ("x", b"]" + put(0) + get(0) + b"a")
    ),
    "a long number among weights": lambda: among_weights(("x", number(10**100_000))),
}.items():
    CASES[name] = Case(written(make), "read", "{'a.w': (2, 3)}")
CASES["a million lists among weights"] = Case(
    written(lambda: among_weights(("x", b"](" + b"]" * 600_000 + b"e"))),
    says="not a plain state dict: `x`",
)
