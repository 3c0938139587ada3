"""Samples that a network is measured on: checked first, then run in batches."""

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.linalg.differentiation import compiled
from keras_spectral.measures.plain_copies import check_finite, effective_model
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.terminal import progress_bar
from keras_spectral.validation import check_integer

_PROBABILITIES = ("softmax", "log_softmax", "logsoftmax", "sigmoid", "sparsemax")
# They pass on what they get.
_PASSING = (kl.Identity, kl.Dropout, kl.Flatten, kl.Reshape)


class Samples:
    """Inputs of a model, and labels, as arrays or as batches of a stream.

    All that can be checked without running the model is checked at once; what comes
    later out of a stream, when it comes.

    Args:
        model: A built `keras.Model`.
        x: Array (samples, ...), a list or dict of them for a model of several inputs;
            or an iterable of batches, such as a `tf.data.Dataset`, of x or (x, y).
        y: Integer array of labels (samples,), or `None`.
        batch_size: Integer >= 1, for arrays. A stream keeps its own batches.
        labels: Boolean, whether labels are needed: then the model must end in logits.
        name: String, what the caller's argument is called.
        truth: String, the same of the labels.
        binary: Boolean, whether one logit will do, whose sign is the class.

    Raises:
        ValueError: If the model is not built, has weights that are not finite, calls a
            layer as in training, or ends in probabilities; or inputs or labels do not
            fit, or there are none.
    """

    def __init__(
        self,
        model,
        x,
        y=None,
        batch_size=256,
        labels=False,
        name="x",
        truth="y",
        binary=False,
    ):
        check_integer("batch_size", batch_size, least=1)
        check_model(model, logits=labels, least=1 if binary else 2)
        self.model, self.labels = model, labels
        self.name, self.truth = name, truth
        graph = functional_graph(model)
        self.inputs = None if graph is None else graph[0]
        self.classes = model.outputs[0].shape[-1] if labels and graph else None
        if self.classes == 1:
            self.classes = 2
        self.batches, self.count = x, None
        if _is_stream(x):
            if y is not None:
                raise ValueError(
                    f"`{truth}` must be left out where `{name}` is a stream of batches "
                    f"(x, y). Received: {truth}={type(y).__name__}"
                )
            return
        arrays = self._arrays(x)
        truth = self._truth(y, arrays)
        self.count = -(-len(arrays[0]) // batch_size)
        self.batches = [
            (
                [array[at : at + batch_size] for array in arrays],
                None if truth is None else truth[at : at + batch_size],
            )
            for at in range(0, len(arrays[0]), batch_size)
        ]

    def each(self, description, progress=True):
        """Yield a list of arrays, one an input, and an array of labels or `None`.

        Args:
            description: String, what a progress bar says.
            progress: Boolean, whether there is one.
        """
        found = False
        with progress_bar(description, self.count, progress) as advance:
            for batch in self.batches:
                if self.count is None:
                    batch = self._of_stream(batch)
                found = True
                yield batch
                advance()
        if not found:
            raise self._empty()

    def arrays(self, description="Reading", progress=True):
        """Return all inputs, a list of arrays, and all labels or `None`."""
        batches = list(self.each(description, progress))
        parts = zip(*(inputs for inputs, _ in batches), strict=True)
        inputs = [np.concatenate(arrays) for arrays in parts]
        truths = [truth for _, truth in batches]
        return inputs, None if truths[0] is None else np.concatenate(truths)

    def _of_stream(self, batch):
        several = self.inputs is not None and len(self.inputs) > 1
        x, y = batch, None
        if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
            # A pair may be two inputs.
            if not several or isinstance(batch[0], (tuple, list, dict)):
                x, y = batch[:2]
        arrays = self._arrays(x)
        if not self.labels and y is not None:
            y = _array(y)
            return arrays, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        return arrays, self._truth(y, arrays)

    def _arrays(self, x):
        name = self.name
        if self.inputs is None:
            arrays = [_array(x)]
            expected = [None]
        else:
            several = len(self.inputs) > 1 or isinstance(x, dict)
            arrays = [_array(part) for part in keras.tree.flatten(x)] if several else []
            arrays = arrays or [_array(x)]
            expected = [tuple(tensor.shape[1:]) for tensor in self.inputs]
        if any(array.ndim and not len(array) for array in arrays):
            raise self._empty()
        shapes = ", ".join(str(array.shape) for array in arrays)
        fits = len(arrays) == len(expected) and all(
            array.ndim and (shape is None or _fits(array.shape[1:], shape))
            for array, shape in zip(arrays, expected, strict=True)
        )
        if not fits or len({len(array) for array in arrays}) != 1:
            wanted = ", ".join(map(str, expected))
            raise ValueError(
                f"`{name}` must hold samples of shape {wanted}, the first axis the "
                f"samples'. Received: {shapes}"
            )
        for array in arrays:
            if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
                raise ValueError(
                    f"`{name}` must hold finite numbers. Received: dtype {array.dtype}"
                    ", or NaN or infinity in it. Leave these samples out."
                )
        if self.inputs is not None:
            kinds = [keras.backend.standardize_dtype(x.dtype) for x in self.inputs]
            arrays = [a.astype(_kept(k)) for a, k in zip(arrays, kinds, strict=True)]
        return arrays

    def _truth(self, y, arrays):
        if y is None:
            if self.labels:
                raise ValueError(
                    f"`{self.truth}` must be the labels, or `{self.name}` yield pairs "
                    f"(x, y). Received: {self.truth}=None"
                )
            return None
        y = _array(y)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        count, name = len(arrays[0]), self.truth
        if y.shape != (count,) or y.dtype.kind not in "iub":
            raise ValueError(
                f"`{name}` must be integers, one label for each of {count} samples. "
                f"Received: shape {y.shape} of dtype {y.dtype}"
            )
        most = self.classes - 1 if self.classes else np.inf
        if y.min() < 0 or y.max() > most:
            raise ValueError(
                f"`{name}` must be classes from 0 to {most}, of which the model has "
                f"logits. Received: labels from {y.min()} to {y.max()}"
            )
        return y.astype("int64")

    def _empty(self):
        return ValueError(
            f"`{self.name}` must hold at least one sample. Received: none"
        )


def check_model(model, logits=False, least=2):
    """Raise a ValueError unless a model can be measured in inference.

    Args:
        model: Anything.
        logits: Boolean, whether it must have one output, logits (samples, classes).
        least: Integer, how many of them.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: '{model.name}', which has no weights "
            "yet. Call it on a batch first."
        )
    check_finite(model)
    training = _called_in_training(model)
    if training:
        raise ValueError(
            "`model` must not train while it is measured. Received: "
            f"'{model.name}', which calls '{training}' with `training=True`. Leave "
            "that out of its graph."
        )
    if logits and functional_graph(model):
        _check_logits(model, least)


def check_outputs(model, outputs):
    """Raise a ValueError if a batch of logits has another shape, or is probabilities.

    Args:
        model: The `keras.Model`; where its graph tells what it ends in, that counts.
        outputs: Float array (samples, classes).
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "`model` must return logits of shape (samples, classes), at least two. "
            f"Received: shape {outputs.shape}."
        )
    told = functional_graph(model) is not None
    if not told and outputs.min() >= 0 and np.allclose(outputs.sum(1), 1, atol=1e-3):
        raise _probabilities("outputs that are not negative and sum to one")


def forward(model):
    """Return a function from a list of arrays to the output, (samples, numbers).

    Args:
        model: A built `keras.Model`.

    Returns:
        Callable to a float64 array; several outputs are joined.
    """
    model = effective_model(model)
    structure = model.input if isinstance(model, keras.Function) else None

    def joined(tensors):
        given = tensors[0]
        if structure is not None and not hasattr(structure, "shape"):
            given = keras.tree.pack_sequence_as(structure, tensors)
        outputs = keras.tree.flatten(model(given, training=False))
        rows = [ops.reshape(x, (ops.shape(x)[0], -1)) for x in outputs]
        return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=1)

    run = compiled(joined, model.variables)

    def finite(inputs):
        outputs = run([ops.convert_to_tensor(array) for array in inputs])
        outputs = ops.convert_to_numpy(outputs).astype("float64")
        if not np.isfinite(outputs).all():
            raise ValueError(
                "`model` must give finite outputs. Received: NaN or infinity for "
                "samples of `x`. Scale them as in training."
            )
        return outputs

    return finite


def floats(inputs):
    """Return the inputs that are floats, as one float64 array (samples, numbers).

    Args:
        inputs: List of arrays (samples, ...).
    """
    parts = [array for array in inputs if array.dtype.kind == "f"]
    if not parts:
        raise ValueError(
            "`x` must have floats, which can be moved. Received: "
            f"{', '.join(str(array.dtype) for array in inputs)}. Measure the network "
            "after its embedding."
        )
    rows = [part.astype("float64").reshape(len(part), -1) for part in parts]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def _is_stream(x):
    return not hasattr(x, "shape") and not isinstance(x, (list, tuple, dict))


def _array(values):
    return (
        ops.convert_to_numpy(values) if hasattr(values, "shape") else np.array(values)
    )


def _kept(kind):
    # Half precision is the model's own to make.
    return "float32" if kind in ("float16", "bfloat16") else kind


def _fits(given, wanted):
    return len(given) == len(wanted) and all(
        size in (None, found) for size, found in zip(wanted, given, strict=True)
    )


def _called_in_training(model):
    graph = functional_graph(model)
    for call in graph[1] if graph else ():
        if call.arguments.kwargs.get("training") is True:
            # Resizing is told so by default, and does the same.
            if type(call.operation) is not kl.Resizing:
                return call.operation.name
        if isinstance(call.operation, keras.Model):
            found = _called_in_training(call.operation)
            if found:
                return found
    return None


def _check_logits(model, least):
    shapes = [tuple(x.shape) for x in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or least) < least:
        raise ValueError(
            "`model` must have one output, logits of shape (samples, classes). "
            f"Received: '{model.name}' with {shapes}."
        )
    last = last_operation(model)
    inner = getattr(last, "layer", last)
    activation = getattr(inner, "activation", None)
    name = getattr(activation, "__name__", type(last).__name__).lower()
    if name in _PROBABILITIES:
        raise _probabilities(f"'{last.name}', which ends in {name}")


def last_operation(model):
    """Return the operation that makes the output, those aside that pass it on.

    Args:
        model: A functional `keras.Model` with one output; nested ones are entered.

    Returns:
        A `keras.Operation`, or `None` where the output is an input.
    """
    _, calls, (output,) = functional_graph(model)
    made = {id(tensor): call for call in calls for tensor in call.outputs}
    while id(output) in made:
        call = made[id(output)]
        if isinstance(call.operation, keras.Model) and functional_graph(call.operation):
            return last_operation(call.operation)
        linear = getattr(call.operation, "activation", None) is keras.activations.linear
        passes = isinstance(call.operation, _PASSING)
        if not passes and not (type(call.operation) is kl.Activation and linear):
            return call.operation
        output = call.input_tensors[0]
    return None


def _probabilities(what):
    return ValueError(
        "`model` must end in logits, of which margins are meant. Received: "
        f"{what}. Take the model without that, and train with `from_logits=True`."
    )
