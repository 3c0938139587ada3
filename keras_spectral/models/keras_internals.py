"""What Keras keeps to itself and this package needs: all of it is here.

`tests/models/test_keras_internals.py` checks each against the installed Keras, and that
no other file of the package reaches for a private attribute.
"""

import contextlib

# Where `Dense`, `EinsumDense` and `Conv1D/2D/3D` hold their variable. The public
# `kernel` is a tensor once LoRA is enabled or the layer is quantized.
KERNEL = "_kernel"
# The same of `Embedding`.
EMBEDDINGS = "_embeddings"
# What the attributes of `MultiHeadAttention` begin with that its config is made of:
# `_kernel_regularizer`, `_kernel_constraint`.
ATTENTION_SETTING = "_kernel"
# The layer of a `MultiHeadAttention` with `use_gate=True`, whose others are public.
GATE = "_gate_dense"
# The layers of a `GroupQueryAttention`, none of which is public.
GROUPED = "_{}_dense"


def flatten_layers(layer, include_self=True):
    """Return a layer and all layers in it, at any depth, each once.

    `keras.Model.layers` goes one level down, and other layers have no such list.

    Args:
        layer: A `keras.layers.Layer` or `keras.Model`.
        include_self: Boolean, whether `layer` itself is among them.

    Returns:
        List of `keras.layers.Layer`.

    Example:
    >>> import keras
    >>> inner = keras.layers.Dense(2, name="inner")
    >>> timed = keras.layers.TimeDistributed(inner, name="timed")
    >>> [layer.name for layer in flatten_layers(timed)]
    ['timed', 'inner']
    """
    return layer._flatten_layers(include_self=include_self)


def functional_graph(model):
    """Return the calls of which a functional or Sequential model consists.

    `models.graph.nodes` reads the config, which has no tensors and so no shapes.

    Args:
        model: A built `keras.Model`.

    Returns:
        Tuple of the model's inputs, its calls in an order in which they can run (each
        with `operation`, `input_tensors` and `outputs`), and its outputs; `None` for a
        model of another kind.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    >>> [call.operation.name for call in functional_graph(model)[1]]
    ['fc']
    """
    graph = getattr(model, "_functional", model)
    depths = getattr(graph, "_nodes_by_depth", None)
    if depths is None:
        return None
    calls = [
        node
        for depth in sorted(depths, reverse=True)
        for node in depths[depth]
        if not node.is_input
    ]
    return graph.inputs, calls, graph.outputs


def call_arguments(call, values):
    """Return what a call of `functional_graph` was called with.

    Args:
        call: One of the calls.
        values: Dict from the `id` of a `keras.KerasTensor` to what stands for it.

    Returns:
        Tuple (positional arguments, keyword arguments).

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> inputs, (call,), _ = functional_graph(model)
    >>> call_arguments(call, {id(inputs[0]): "x"})[0]
    ('x',)
    """
    return call.arguments.fill_in(values)


def mask_of(tensor):
    """Return the mask that goes with a tensor, such as an embedding's; `None` if none.

    Args:
        tensor: Tensor.

    Example:
    >>> import keras, numpy as np
    >>> embedded = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))
    >>> keras.ops.convert_to_numpy(mask_of(embedded)).tolist()
    [[True, False]]
    """
    from keras.src.backend.common import masking

    return masking.get_keras_mask(tensor)


def with_mask(tensor, mask):
    """Return a tensor with the mask that goes with it from now on.

    Args:
        tensor: Tensor.
        mask: Tensor, or `None`, which changes nothing.

    Example:
    >>> import keras
    >>> masked = with_mask(keras.ops.ones((1, 2, 3)), keras.ops.array([[True, False]]))
    >>> keras.ops.convert_to_numpy(mask_of(masked)).tolist()
    [[True, False]]
    """
    from keras.src.backend.common import masking

    if mask is not None:
        masking.set_keras_mask(tensor, mask)
    return tensor


@contextlib.contextmanager
def float64_kept():
    """Let layers in float64 compute in it, as long as this lasts.

    Elsewhere than on TensorFlow, Keras' promotion makes float32 of two float64: Dense
    and the normalizations cast to that.

    Example:
    >>> import keras
    >>> with float64_kept():
    ...     keras.backend.result_type("float64", "float32")
    'float64'
    """
    from keras.src.backend.common import dtypes

    before = dtypes.BIT64_TO_BIT32_DTYPE["float64"]
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    try:
        yield
    finally:
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = before


def forget_traces(model):
    """Let a model that has run be traced again, with what its layers do now.

    `make_train_function(force=True)` and its like would trace at once, and need a
    compiled model.

    Args:
        model: A `keras.Model`.

    Example:
    >>> import keras
    >>> forget_traces(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    """
    model.train_function = model.test_function = model.predict_function = None


@contextlib.contextmanager
def taken_for_not_compiled(model):
    """Let Keras take a compiled model for one that is not, as long as this lasts.

    `keras.models.clone_model` would compile its copy, and fails where a loss or metric
    is the user's own.

    Args:
        model: A `keras.Model`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.compile(loss=lambda truth, prediction: truth - prediction)
    >>> with taken_for_not_compiled(model):
    ...     copy = keras.models.clone_model(model)
    >>> copy.compiled, model.compiled
    (False, True)
    """
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled
