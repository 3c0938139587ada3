"""Hidden layers of a network as points for its Jacobians, and the margin's gradient."""

import keras
from keras import ops

from keras_spectral.models.weights import weights


def kernel_calls(model, program):
    """Return the calls of layers with kernels, in the order of the graph.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        program: Its `Program`, in which a layer has a call for each use.

    Returns:
        List of `Call`.
    """
    weighted = {id(weight.layer) for weight in weights(model)}
    return [call for call in program.calls if id(call.operation) in weighted]


def hidden_slots(model, program):
    """Return what each kernel reads but those that read the model's inputs.

    Those are the outputs of hidden layers after activation, pooling and what else
    stands before the next kernel; each of them, where a layer or a nested model is used
    several times.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        program: Its `Program`.

    Returns:
        List of `Slot`, in the order of the graph.

    Example:
    >>> from keras_spectral.measures.programs import Program
    >>> layers = [keras.layers.Dense(3), keras.layers.ReLU(name="act")]
    >>> model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    >>> program = Program(model)
    >>> hidden_slots(model, program) == [program.slot("act")]
    True
    """
    read = [slot for call in kernel_calls(model, program) for slot in call.reads]
    return [
        slot
        for slot in dict.fromkeys(read)
        if slot not in program.inputs
        and keras.backend.is_float_dtype(slot.tensor.dtype)
    ]


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
