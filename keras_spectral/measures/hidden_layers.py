"""Hidden layers of a network as points for its Jacobians, and the margin's gradient."""

import keras
from keras import ops

from keras_spectral.models.graph import follow
from keras_spectral.models.weights import weights


def hidden_tensors(model):
    """Return what each kernel reads but those that read the model's inputs.

    Those are the outputs of hidden layers after activation, pooling and what else
    stands before the next kernel.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.

    Returns:
        List of `keras.KerasTensor`, in the order of the graph.

    Example:
    >>> layers = [keras.layers.Dense(3), keras.layers.ReLU(name="act")]
    >>> model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    >>> [tensor is model.get_layer("act").output for tensor in hidden_tensors(model)]
    [True]
    """
    known = {id(tensor) for tensor in model.inputs}
    return [x for x, _ in kernel_calls(model) if id(x) not in known]


def kernel_calls(model):
    """Return what layers with kernels read, each tensor once, and who reads it first.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.

    Returns:
        List of pairs of a `keras.KerasTensor` of floats and a layer's name.
    """
    weighted = {id(weight.layer) for weight in weights(model)}
    found = {}

    def call(operation, arguments, keywords, made):
        if id(operation) in weighted:
            for tensor in keras.tree.flatten((arguments, keywords)):
                if isinstance(tensor, keras.KerasTensor):
                    if keras.backend.is_float_dtype(tensor.dtype):
                        found.setdefault(id(tensor), (tensor, operation.name))
        return made

    follow(model, model.inputs, call)
    return list(found.values())


def margin_of(logits, labels):
    """Return each sample's margin as a tensor, to be differentiated.

    Args:
        logits: Tensor (samples, classes).
        labels: Integer tensor (samples,).

    Example:
    >>> import numpy as np
    >>> float(margin_of(np.array([[2.0, 0.5, 1.0]], "float32"), np.array([0]))[0])
    1.0
    """
    truth = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    right = ops.sum(logits * truth, axis=-1)
    others = ops.where(truth > 0, ops.full_like(logits, float("-inf")), logits)
    return right - ops.max(others, axis=-1)
