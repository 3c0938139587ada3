"""The kinds of layers that have kernels: one row a class.

A row says where a kernel is, how it is read as a matrix, which linear map it is, which
norm bounds that, and how PyTorch lays it out. It knows names and shapes alone, so that
it treats a layer in memory and a layer in a file alike, and starts no backend.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from keras_spectral.models import axes, layouts
from keras_spectral.models.keras_internals import (
    ATTENTION_SETTING,
    EMBEDDINGS,
    GATE,
    GROUPED,
    KERNEL,
)
from keras_spectral.models.layouts import Counterpart
from keras_spectral.models.reasons import Unfit
from keras_spectral.models.views import MatrixView


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
        on_states: Boolean: that operator is on the states of the owner, which keep
            their size, and not on its inputs.
        induced: String, which norm of `linalg.induced_norm` bounds the layer.
        setting: String: the layer calls the kernel's constraint `<setting>_constraint`
            and its regularizer `<setting>_regularizer`.
        torch: `layouts.Counterpart`, or `None` where PyTorch has no such module.
    """

    name: str = "kernel"
    attribute: str = KERNEL
    place: int = 0
    outputs: Callable = axes.last
    operator: str | None = None
    geometry: tuple = ()
    on_states: bool = False
    induced: str = "dense"
    setting: str = "kernel"
    torch: Counterpart | None = None

    def view(self, owner, shape):
        """Return the `MatrixView` of a kernel of that shape; `None` if not known."""
        outputs = self.outputs(owner, len(shape))
        # Keras has the pixels of a convolution first.
        taps = tuple(range(len(shape) - 2)) if self.operator else ()
        return None if outputs is None else MatrixView(tuple(shape), outputs, taps)


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
_EINSUM = Kernel(outputs=axes.of_equation)
_CONVOLUTION = Kernel(
    operator="convolution_operator",
    geometry=_GEOMETRY,
    induced="convolution",
    torch=Counterpart("weight", layouts.CONVOLUTION),
)
_TRANSPOSED = Kernel(
    attribute="kernel",
    outputs=axes.last_but_one,
    operator="transposed_convolution_operator",
    geometry=(*_GEOMETRY, "output_padding"),
    induced="transposed",
    torch=Counterpart("weight", layouts.CONVOLUTION),
)
_DEPTHWISE = Kernel(
    attribute="kernel",
    outputs=axes.last_two,
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
# It is read backwards by this where its weights are not tied.
_REVERSE = Kernel("reverse_embeddings", "reverse_embeddings", 1, setting="embeddings")
# Whatever the rank of its inputs: query, key and value end in (heads, size), and what
# reads them begins so.
_PROJECTION = Kernel(
    outputs=axes.all_but_first,
    setting=ATTENTION_SETTING,
    torch=Counterpart("in_proj_weight", layouts.TO_HEADS, layouts.FLAT),
)
_ATTENTION = (
    *(replace(_PROJECTION, name=name) for name in ("query", "key", "value")),
    Kernel(
        "output",
        outputs=axes.all_but_two,
        setting=ATTENTION_SETTING,
        torch=Counterpart("out_proj.weight", layouts.FROM_HEADS),
    ),
)
_GATE = Kernel("gate", outputs=axes.all_but_first, setting=ATTENTION_SETTING)
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

_CONVOLUTION_CELL = (
    replace(_CONVOLUTION, attribute="kernel", torch=None),
    replace(
        _CONVOLUTION,
        name="recurrent_kernel",
        attribute="recurrent_kernel",
        place=1,
        geometry=(),
        on_states=True,
        setting="recurrent",
        torch=None,
    ),
)

CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell")
OTHER_CELLS = f"runs cells of another kind than {', '.join(CELLS)}"
# What runs cells of one kind, and need not say which.
_ONE_CELL = ("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


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


def _grouped_attention(part):
    kernels = [*_ATTENTION, *([_GATE] if part.has(GATE) else [])]
    return [
        Found(
            kernel.name,
            # It keeps what it was made with in public, and PyTorch has no such module.
            replace(kernel, setting="kernel", torch=None),
            part.part(GROUPED.format(kernel.name)),
            part,
        )
        for kernel in kernels
    ]


def _reversible(part):
    tied = part.read("tie_weights")
    return _own(_EMBEDDING, *(() if tied else (_REVERSE,)))(part)


def _recurrent(part):
    cell = part.part("cell")
    named = bool(set(_ONE_CELL) & set(part.classes))
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
            raise Unfit(
                "`layer` must run SimpleRNN, LSTM or GRU cells. Received: layer "
                f"'{cell.name}' with another cell.",
                OTHER_CELLS,
            )
        note = "its cell's class is not in the file"
    kernels = _CELL
    if "GRUCell" in cell.classes:
        kernels = _GRU_CELL
    elif "ConvLSTMCell" in cell.classes:
        kernels = _CONVOLUTION_CELL
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
    Kind(("ReversibleEmbedding",), _reversible),
    Kind(("MultiHeadAttention",), _attention),
    Kind(("GroupedQueryAttention",), _grouped_attention),
    Kind(("Bidirectional",), _bidirectional),
    Kind(("TimeDistributed",), lambda part: kernels_of(part.part("layer"))),
    Kind(("RNN", *_ONE_CELL), _recurrent),
)
# Where Keras exports a class under another name than its own, which files have.
EXPORTED_AS = {"GroupQueryAttention": "GroupedQueryAttention"}
_BY_CLASS = {name: kind for kind in KINDS for name in kind.classes}

SUPPORTED = (
    "Dense, EinsumDense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, "
    "SeparableConv1D/2D, Embedding, ReversibleEmbedding, MultiHeadAttention, "
    "GroupQueryAttention, SimpleRNN, LSTM, GRU, ConvLSTM1D/2D/3D, Bidirectional and "
    "TimeDistributed"
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
        Unfit: If it, or a layer inside, is of no kind.
    """
    kind = kind_of(part)
    if kind is None:
        raise Unfit(
            f"`{part.name}` must be a layer of a known kind.", "no rule for its kernel"
        )
    return kind.kernels(part)
