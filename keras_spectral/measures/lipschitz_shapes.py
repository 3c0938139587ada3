"""The shapes that a walk over a network meets."""

from numbers import Integral

import keras
from keras import ops

from keras_spectral.models.keras_internals import functional_graph

# A batch that no other size is likely to equal.
_BATCH = 7919


def input_shapes(model, input_shape):
    """Return the shapes of one sample of a model's inputs, a list of tuples.

    Args:
        model: A functional model.
        input_shape: Tuple, or a list of them for several inputs; or `None`.

    Raises:
        ValueError: If it is missing or does not fit.
    """
    inputs = functional_graph(model)[0]
    shapes = [tuple(x.shape[1:]) for x in inputs]
    if input_shape is not None:
        several = isinstance(input_shape, list) and not all(
            size is None or isinstance(size, Integral) for size in input_shape
        )
        given = input_shape if several else [input_shape]
        if len(given) != len(shapes) or not all(map(_fits, given, shapes)):
            raise ValueError(
                "`input_shape` must fit the model's inputs, without the batch: "
                f"{shapes}. Received: input_shape={input_shape}"
            )
        shapes = [tuple(shape) for shape in given]
    if any(size is None for shape in shapes for size in shape):
        raise ValueError(
            "`input_shape` must be given: the model takes inputs of several sizes, "
            f"{shapes}. Received: input_shape={input_shape}"
        )
    return shapes


def _fits(new, old):
    return (
        isinstance(new, (tuple, list))
        and len(new) == len(old)
        and all(
            n == o if o else n is None or (isinstance(n, Integral) and n > 0)
            for n, o in zip(new, old, strict=True)
        )
    )


def symbolic(shape):
    """Return what stands for a batch of samples of a shape."""
    return keras.KerasTensor((_BATCH, *shape), dtype="float64")


def output_shapes(operation, arguments, keywords):
    """Return the shapes of one sample of what comes out, a list of tuples.

    Args:
        operation: A `keras.Operation`.
        arguments: Tuple, with `symbolic` tensors.
        keywords: Dict.
    """
    try:
        made = operation.compute_output_spec(*arguments, **keywords)
    except ValueError as error:
        raise ValueError(
            "`model` must run on any number of samples. Received: "
            f"'{operation.name}', which says: {error}"
        ) from error
    if any(
        not x.shape or x.shape[0] not in (None, _BATCH)
        for x in keras.tree.flatten(made)
    ):
        raise ValueError(
            "`model` must keep its samples apart. Received: "
            f"'{operation.name}', which mixes or counts them. Work on the other axes."
        )
    shapes = [tuple(x.shape[1:]) for x in keras.tree.flatten(made)]
    if any(size is None for shape in shapes for size in shape):
        # Some layers infer less than they compute.
        made = operation(*_zeros(arguments), **_zeros(keywords))
        shapes = [tuple(x.shape[1:]) for x in keras.tree.flatten(made)]
    return shapes


def _zeros(structure):
    def made(x):
        is_tensor = isinstance(x, keras.KerasTensor)
        return ops.zeros((1, *x.shape[1:]), dtype="float64") if is_tensor else x

    return keras.tree.map_structure(made, structure)
