"""The two layers in the place of one, and what they cost."""

import math
import string

from keras import layers as kl

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.slots import kernel_slots, why_unfit

# What is factorized, and what the second factor is.
_SECOND = {
    kl.Dense: kl.Dense,
    kl.EinsumDense: kl.EinsumDense,
    kl.SeparableConv1D: kl.Conv1D,
    kl.SeparableConv2D: kl.Conv2D,
    kl.Conv1D: kl.Conv1D,
    kl.Conv2D: kl.Conv2D,
    kl.Conv3D: kl.Conv3D,
    kl.Conv1DTranspose: kl.Conv1D,
    kl.Conv2DTranspose: kl.Conv2D,
    kl.Conv3DTranspose: kl.Conv3D,
}
# What has matrices that no two layers of Keras in its place have, and why.
_WHOLE = (
    ((kl.RNN, kl.Bidirectional), "its kernels meet in every step"),
    (
        (kl.MultiHeadAttention, kl.GroupQueryAttention),
        "its projections are inside of it",
    ),
    (kl.Embedding, "it reads rows of its matrix"),
    ((kl.DepthwiseConv1D, kl.DepthwiseConv2D), "it has one small filter a channel"),
)


def unfit(layer):
    """Return why a layer cannot be factorized, or `None`."""
    kind = type(layer)
    if isinstance(layer, Reparametrization):
        return f"wrapped by {kind.__name__}: `unwrap` the model first"
    for kinds, why in _WHOLE:
        if isinstance(layer, kinds):
            return f"a {kind.__name__}: {why}"
    if kind not in _SECOND:
        return f"a {kind.__name__}"
    if getattr(layer, "groups", 1) != 1:
        return f"a convolution of {layer.groups} groups"
    if getattr(layer, "lora_enabled", False):
        return "with a LoRA adapter beside its kernel"
    if not layer.built:
        return "not built"
    if getattr(layer, "quantization_mode", None) is not None:
        return "quantized"
    reason = why_unfit(layer)
    if reason is None and not slot_of(layer).view.input_axes:
        return "which sums over nothing"
    return reason


def factors(layer, rank, names):
    """Return the two layers in the place of one, without their weights."""
    name = f"{layer.name}-left"
    while name in names:
        name += "-left"
    names.add(name)
    setting = slot_of(layer).setting
    dropped = ["_".join((setting, what)) for what in ("regularizer", "constraint")]
    config = {**layer.get_config(), **dict.fromkeys(dropped)}
    first = {
        **config,
        **dict.fromkeys(
            (
                "activation",
                "bias_regularizer",
                "bias_constraint",
                "activity_regularizer",
            )
        ),
        "name": name,
    }
    # As objects, so that they need not be registered.
    second = {
        **config,
        "activation": layer.activation,
        "activity_regularizer": layer.activity_regularizer,
    }
    if isinstance(layer, kl.EinsumDense):
        one, two, shape = _equations(layer, rank)
        first |= dict(equation=one, output_shape=shape, bias_axes=None)
        second |= dict(equation=two)
    elif isinstance(layer, kl.Dense):
        first |= dict(units=rank, use_bias=False)
    else:
        first |= dict(filters=rank, use_bias=False)
        second |= dict(kernel_size=1, strides=1, padding="valid", dilation_rate=1)
        second.pop("output_padding", None)
    if is_separable(layer):
        second = {
            key: value
            for key, value in second.items()
            if not key.startswith(("depth", "pointwise"))
        }
    return type(layer).from_config(first), _SECOND[type(layer)].from_config(second)


def _equations(layer, rank):
    """Return an EinsumDense's two equations, and what the first one's outputs are.

    "abc,cde->abde" is "abc,cf->abf" and "abf,fde->abde".
    """
    operands, result = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    view = slot_of(layer).view
    made = "".join(kernel[axis] for axis in view.output_axes)
    summed = "".join(label for label in kernel if label not in made)
    new = next(label for label in string.ascii_letters if label not in layer.equation)
    # In the place of the first label that is summed over.
    place = min(map(inputs.index, summed))
    middle = "".join(label for label in inputs[:place] if label not in summed) + new
    middle += "".join(label for label in inputs[place:] if label not in summed)
    labels = middle.replace("...", "")
    shape = [rank if label == new else None for label in labels]
    rank_of_inputs = len(layer.get_build_config()["input_shape"])
    if not inputs.startswith("...") or rank_of_inputs == len(inputs) - 3:
        # The first label is the batch's, which is no part of it.
        shape = shape[1:]
    return f"{inputs},{summed}{new}->{middle}", f"{middle},{new}{made}->{result}", shape


def slot_of(layer):
    """Return the slot of the kernel that is factorized."""
    # Of a separable convolution the pointwise one, which comes last.
    return kernel_slots(layer)[-1]


def is_separable(layer):
    """Return whether a layer has a depthwise kernel and a pointwise one."""
    return isinstance(layer, kl.SeparableConv1D | kl.SeparableConv2D)


def positions(layer):
    """Return how often one call on one sample applies a matrix, before and after.

    Returns:
        Tuple of the positions of the layer's own matrix and of those of its outputs,
        `None` where the images' size is not known.
    """
    inputs = tuple(layer.get_build_config()["input_shape"])
    if isinstance(layer, kl.Dense | kl.EinsumDense):
        if None in inputs[1:]:
            return None
        # It contracts all of a position's numbers.
        return (math.prod(inputs[1:]) // slot_of(layer).view.shape[0],) * 2
    outputs = tuple(layer.compute_output_shape(inputs))
    first = getattr(layer, "data_format", None) == "channels_first"
    sizes = [shape[2:] if first else shape[1:-1] for shape in (inputs, outputs)]
    if any(None in size for size in sizes):
        return None
    read, written = map(math.prod, sizes)
    # A transposed convolution applies its matrix at each pixel that it reads.
    is_transposed = type(layer).__name__.endswith("Transpose")
    return (read if is_transposed else written), written
