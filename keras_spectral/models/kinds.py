"""The kinds of layers that have kernels: one row a class.

A row says where a kernel is, how it is read as a matrix, which linear map it is, which
norm bounds that, and how PyTorch lays it out. It knows names and shapes alone, so that
it treats a layer in memory and a layer in a file alike, and starts no backend.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from keras_spectral.models import layouts
from keras_spectral.models.keras_internals import (
    ATTENTION_SETTING,
    EMBEDDINGS,
    GATE,
    KERNEL,
)
from keras_spectral.models.layouts import Counterpart


class Part(Protocol):
    """A layer, in memory or in a file.

    Args:
        name: String, the layer's.
        classes: Tuple of strings: its class, and those that this is derived from.
        told: Boolean, whether its class is known; a file may not say it.
    """

    name: str
    classes: tuple
    told: bool

    def read(self, attribute: str) -> Any:
        """Return an argument that the layer was made with; `None` if not known."""

    def has(self, attribute: str) -> bool:
        """Return whether there is a layer inside of that name."""

    def part(self, attribute: str) -> "Part":
        """Return a layer inside of the layer."""

    def parts(self, attribute: str) -> "list[Part]":
        """Return a list of layers inside of the layer."""


def _last(part, rank):
    return (rank - 1,)


def _last_but_one(part, rank):
    return (rank - 2,)


def _last_two(part, rank):
    return (rank - 2, rank - 1)


def _all_but_first(part, rank):
    return tuple(range(1, rank))


def _all_but_two(part, rank):
    return tuple(range(2, rank))


# A letter an axis, of which there are 32.
_LONGEST_EQUATION = 200


def _of_equation(part, rank):
    if not isinstance(part.read("equation"), str):
        return None
    labels, outputs = einsum_labels(part)
    return tuple(axis for axis, label in enumerate(labels) if label in outputs)


def einsum_labels(part):
    """Return the labels of an EinsumDense's kernel and the set of its outputs'.

    Args:
        part: A `Part`.

    Raises:
        ValueError: If no one matrix holds the norm of the layer.
    """
    equation = part.read("equation")
    if len(equation) > _LONGEST_EQUATION:
        raise ValueError(
            f"`layer` must have an equation of at most {_LONGEST_EQUATION} letters. "
            f"Received: {len(equation):,} in '{part.name}'."
        )
    operands, result = equation.replace(" ", "").split("->")
    inputs, kernel = (side.replace("...", "") for side in operands.split(","))
    result = result.replace("...", "")
    outputs = {label for label in kernel if label not in inputs}
    shared = [label for label in kernel if label in inputs and label in result]
    summed = [label for label in inputs + kernel if label not in result]
    if shared or not outputs <= set(result) or set(summed) - set(kernel):
        raise ValueError(
            "`layer` must contract its input with a kernel whose other axes are "
            "all outputs: only then one matrix holds its norm. Received: "
            f"'{part.name}' with equation='{equation}'. Split it into "
            "`Dense` layers."
        )
    return kernel, outputs


@dataclass(frozen=True)
class Kernel:
    """One kernel of a kind of layers.

    Args:
        name: String, what it is called where a layer has several.
        attribute: String, the attribute that the `call` of its owner reads.
        place: Integer, its number among what Keras stores of its owner.
        outputs: Callable from the owner's `Part` and the kernel's rank to the axes that
            number outputs; to `None` where the part does not tell.
        operator: String, the function of `linalg` that makes it a linear operator on
            images, or `None` where the matrix is the operator.
        geometry: Tuple of strings, the arguments of that function that the owner has.
        induced: String, which norm of `linalg.induced_norm` bounds the layer.
        setting: String: the layer calls the kernel's constraint `<setting>_constraint`
            and its regularizer `<setting>_regularizer`.
        torch: `layouts.Counterpart`, or `None` where PyTorch has no such module.
    """

    name: str = "kernel"
    attribute: str = KERNEL
    place: int = 0
    outputs: Callable = _last
    operator: str | None = None
    geometry: tuple = ()
    induced: str = "dense"
    setting: str = "kernel"
    torch: Counterpart | None = None


class Found(NamedTuple):
    """A kernel of a layer.

    Args:
        name: String.
        kernel: `Kernel`, its row.
        owner: `Part` that holds the variable.
        configured: `Part` whose arguments set it, where it is not the owner.
        note: String, what a file does not tell of it, or `None`.
    """

    name: str
    kernel: Kernel
    owner: Part
    configured: Part | None = None
    note: str | None = None

    def prefixed(self, prefix):
        """Return it under another name."""
        return self._replace(name=f"{prefix}_{self.name}")

    def suffixed(self, end):
        """Return it with more at the end of PyTorch's key."""
        torch = self.kernel.torch
        torch = torch and torch._replace(suffix=f"{torch.suffix}{end}")
        return self._replace(kernel=replace(self.kernel, torch=torch))


_GEOMETRY = ("strides", "padding", "dilation_rate")

_DENSE = Kernel(torch=Counterpart("weight", layouts.DENSE))
_EINSUM = Kernel(outputs=_of_equation)
_CONVOLUTION = Kernel(
    operator="convolution_operator",
    geometry=_GEOMETRY,
    induced="convolution",
    torch=Counterpart("weight", layouts.CONVOLUTION),
)
_TRANSPOSED = Kernel(
    attribute="kernel",
    outputs=_last_but_one,
    operator="transposed_convolution_operator",
    geometry=(*_GEOMETRY, "output_padding"),
    induced="transposed",
    torch=Counterpart("weight", layouts.CONVOLUTION),
)
_DEPTHWISE = Kernel(
    attribute="kernel",
    outputs=_last_two,
    operator="depthwise_convolution_operator",
    geometry=_GEOMETRY,
    induced="depthwise",
    setting="depthwise",
    torch=Counterpart("weight", layouts.DEPTHWISE),
)
_SEPARABLE = (
    replace(
        _DEPTHWISE, name="depthwise_kernel", attribute="depthwise_kernel", torch=None
    ),
    # It acts on each pixel alone: its matrix is its operator.
    Kernel("pointwise_kernel", "pointwise_kernel", 1, setting="pointwise"),
)
_EMBEDDING = Kernel(
    "embeddings",
    EMBEDDINGS,
    setting="embeddings",
    torch=Counterpart("weight", layouts.SAME),
)
# Whatever the rank of its inputs: query, key and value end in (heads, size), and what
# reads them begins so.
_PROJECTION = Kernel(
    outputs=_all_but_first,
    setting=ATTENTION_SETTING,
    torch=Counterpart("in_proj_weight", layouts.TO_HEADS, layouts.FLAT),
)
_ATTENTION = (
    *(replace(_PROJECTION, name=name) for name in ("query", "key", "value")),
    Kernel(
        "output",
        outputs=_all_but_two,
        setting=ATTENTION_SETTING,
        torch=Counterpart("out_proj.weight", layouts.FROM_HEADS),
    ),
)
_GATE = Kernel("gate", outputs=_all_but_first, setting=ATTENTION_SETTING)
_INPUT = Kernel("kernel", "kernel", torch=Counterpart("weight_ih", layouts.DENSE))
_RECURRENT = Kernel(
    "recurrent_kernel",
    "recurrent_kernel",
    1,
    setting="recurrent",
    torch=Counterpart("weight_hh", layouts.DENSE, layouts.ADDED),
)
_CELL = (_INPUT, _RECURRENT)
_GRU_CELL = (
    replace(
        _INPUT,
        torch=Counterpart("weight_ih", layouts.GATES, layouts.GATES_INPUT),
    ),
    replace(
        _RECURRENT,
        torch=Counterpart("weight_hh", layouts.GATES, layouts.GATES_RECURRENT),
    ),
)

CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell")


def _own(*kernels):
    return lambda part: [Found(kernel.name, kernel, part) for kernel in kernels]


def _attention(part):
    parts = {kernel: f"{kernel.name}_dense" for kernel in _ATTENTION}
    if part.has(GATE):
        parts[_GATE] = GATE
    return [
        Found(kernel.name, kernel, part.part(attribute), part)
        for kernel, attribute in parts.items()
    ]


def _recurrent(part):
    cell = part.part("cell")
    # What runs cells of one kind need not say which.
    named = bool({"SimpleRNN", "LSTM", "GRU"} & set(part.classes))
    if "StackedRNNCells" not in cell.classes:
        return _cell(cell, 0, named)
    return [
        found.prefixed(f"cell_{index}")
        for index, cell in enumerate(cell.parts("cells"))
        for found in _cell(cell, index, named)
    ]


def _cell(cell, index, named):
    note = None
    if not named and not set(cell.classes) & set(CELLS):
        if cell.told:
            raise ValueError(f"runs cells of another kind than {', '.join(CELLS)}")
        note = "its cell's class is not in the file"
    kernels = _GRU_CELL if "GRUCell" in cell.classes else _CELL
    return [
        found.suffixed(f"_l{index}")._replace(note=note)
        for found in _own(*kernels)(cell)
    ]


def _bidirectional(part):
    return [
        found.prefixed(direction).suffixed(end)
        for direction, end in (("forward", ""), ("backward", "_reverse"))
        for found in kernels_of(part.part(f"{direction}_layer"))
    ]


class Kind(NamedTuple):
    """What is known of a class of layers.

    Args:
        classes: Tuple of names of classes; subclasses are of their kind, too.
        kernels: Callable, `Part` to a list of `Found`.
        induced: String, see `Kernel`, of layers that are a kernel, a bias and an
            activation; `None` for others.
    """

    classes: tuple
    kernels: Callable
    induced: str | None = None


KINDS = (
    Kind(("Dense",), _own(_DENSE), "dense"),
    Kind(("EinsumDense",), _own(_EINSUM)),
    Kind(
        ("Conv1D", "Conv2D", "Conv3D", "MaskedConv2D"),
        _own(_CONVOLUTION),
        "convolution",
    ),
    Kind(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        _own(_TRANSPOSED),
        "transposed",
    ),
    Kind(("DepthwiseConv1D", "DepthwiseConv2D"), _own(_DEPTHWISE), "depthwise"),
    Kind(("SeparableConv1D", "SeparableConv2D"), _own(*_SEPARABLE)),
    Kind(("Embedding",), _own(_EMBEDDING)),
    Kind(("MultiHeadAttention",), _attention),
    Kind(("Bidirectional",), _bidirectional),
    Kind(("TimeDistributed",), lambda part: kernels_of(part.part("layer"))),
    Kind(("RNN", "SimpleRNN", "LSTM", "GRU"), _recurrent),
)
_BY_CLASS = {name: kind for kind in KINDS for name in kind.classes}

SUPPORTED = (
    "Dense, EinsumDense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, "
    "SeparableConv1D/2D, Embedding, MultiHeadAttention, SimpleRNN, LSTM, GRU, "
    "Bidirectional and TimeDistributed"
)


def kind_of(part):
    """Return the `Kind` of a `Part`, or `None`."""
    return next((_BY_CLASS[name] for name in part.classes if name in _BY_CLASS), None)


def kernels_of(part):
    """Return the kernels of a layer.

    Args:
        part: A `Part` of one of the kinds, see `kind_of`.

    Returns:
        List of `Found`.

    Raises:
        ValueError: If it, or a layer inside, is of no kind.
    """
    kind = kind_of(part)
    if kind is None:
        raise ValueError(f"`{part.name}` must be a layer of a known kind.")
    return kind.kernels(part)
