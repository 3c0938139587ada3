"""Weights from PyTorch into a Keras model."""

from pathlib import Path

import keras

import keras_spectral
from keras_spectral import zoo
from keras_spectral.convert import (
    dialects,
    spectral_state,
    verification,
    weight_normalization,
    wrapped_state,
)
from keras_spectral.convert.accounting import (
    check_keys,
    grouped,
    tied_to,
)
from keras_spectral.convert.cards import remember
from keras_spectral.convert.examples import check_example, read_example
from keras_spectral.convert.files.errors import CheckpointError, MismatchError
from keras_spectral.convert.files.reader import read_checkpoint
from keras_spectral.convert.files.state import StateDict
from keras_spectral.convert.flattening import flattened_orders, reordered
from keras_spectral.convert.rules import slots
from keras_spectral.convert.selection import Selection
from keras_spectral.convert.source_weights import SourceWeights, guarded
from keras_spectral.convert.unseen import PREPROCESSING, not_in_a_state_dict
from keras_spectral.layers import Reparametrization
from keras_spectral.models.keras_internals import flatten_layers, forget_traces
from keras_spectral.models.layouts import ADDED

_COUNTER = "num_batches_tracked"


def from_torch(
    source,
    model,
    dialect: str = "auto",
    entry: str | None = None,
    verify: bool = True,
    prefix: str | None = None,
    ignore=(),
    example=None,
) -> keras.Model:
    """Load PyTorch weights into a Keras model, all of them or none.

    The key of a layer is its name with `.` for each `-`; other projects' names for the
    same networks are recognized. Every tensor of the source and every weight of the
    model must be used once; `num_batches_tracked`, for which Keras has no variable, is
    kept in the card (see `provenance`). Names of what held the network (`model.`,
    `net.`, `backbone.` before every key) are taken off if the keys then fit. Further
    layers of a recurrent module, `rnn`, are the Keras layers `rnn-l1`, `rnn-l2` and so
    on. The two biases of an LSTM or RNN are added, as Keras has one.

    Spectral normalization in any of five forms (PyTorch's two, mimicry's,
    BigGAN-PyTorch's, `weight_bar`) is loaded into `SpectralNormalization` with its
    singular vectors: the layer computes with W / (u' W v), and training goes on as it
    would in PyTorch, until `restart_power_iteration`. A plain layer receives
    W / (u' W v). A wrapper whose source has none receives the weights as its trainable
    kernel, and its singular vectors are found anew.

    Weight normalization in both forms of PyTorch is folded into plain weights,
    g v / ||v||; the card names the layers, and `to_torch` writes plain weights.
    A dense layer that reads a flattened image has its rows put in the order in which
    `Flatten` gives the numbers here, channels last; PyTorch's has them first. Where the
    channels are moved before, as in the zoo, the rows stay.

    A state dict says nothing of how layers are wired, of their epsilons or activations.
    For a model of your own pass an `example`; `provenance` lists what was not seen.

    Args:
        source: Path of a checkpoint (see `read_checkpoint`), or a state dict of
            torch tensors or NumPy arrays.
        model: A built `keras.Model`, or the name of a registered one, which is then
            built as the dialect needs it.
        dialect: String, a name in `convert.dialects`, or `"auto"`.
        entry: String, which state dict of several in the file.
        verify: Boolean, whether to compare the result, in float64, with a reference
            that shares no code with it.
        prefix: String, such as `"encoder."`: the keys under it are taken, without it;
            the others are named in the card's notes.
        ignore: List of shell patterns, such as `["head.*"]`, of keys to leave out on
            purpose. Weights of the model that they name stay as they are.
        example: Optional pair (x, y), arrays or tensors: a batch of inputs as the model
            takes them, and the outputs of the PyTorch network in `eval()` for the same
            (images with channels first or last). The model's outputs must agree to 1e-4
            of the largest in float32. A network that flattens its images with channels
            last is recognized by it.

    Returns:
        The model. Numbers are rounded to the dtype of its weights.

    Raises:
        CheckpointError: On a file that cannot be read. A `MismatchError` among them:
            on keys that are missing, unused or of another shape, all in one message,
            or if the model does not compute what the checkpoint's network does or
            what the example says. A model that was given has its weights as before.
        ValueError: On an unknown name, a pattern that matches nothing, a layer for
            which there is no rule, or an `example` that is no pair.

    Example:
    >>> from keras_spectral.convert import provenance
    >>> model = from_torch(zoo.checkpoint("resnet20_digits").weights, "resnet20_digits")
    >>> provenance(model)["verification"]["status"]
    'passed'
    """
    name = model if isinstance(model, str) else None
    if name is not None:
        # An unknown name is told before a large file is read.
        zoo.entry(name)
    example = None if example is None else read_example(example)
    chosen = None if dialect == "auto" else dialects.named(dialect)
    selection = Selection(prefix, ignore)
    given = selection.of(_opened(source, entry))
    state, folded = weight_normalization.folded(given)
    arguments = dialects.builder_arguments(name or model.name)
    if name is not None:
        config = dialects.builder_config(chosen, arguments) if chosen else {}
        model = zoo.build(name, **config)
    targets = slots(model)
    state = selection.fitted(state, set(targets), chosen)
    plain, spectral = guarded(state, spectral_state.importable, state)
    if chosen is None:
        flavours = {found.flavour.name for found in spectral.values()}
        chosen, _ = guarded(
            state, dialects.detect, plain, set(targets), arguments, flavours
        )
        config = dialects.applicable(chosen.config, arguments)
        if name is not None and config:
            model = zoo.build(name, **config)
            targets = slots(model)
    keys = {dialects.to_ours(key, chosen): theirs for key, theirs in plain.items()}
    # Others' counters stay among the keys, and are unused.
    counters = {
        key: theirs
        for key, theirs in keys.items()
        if key.split(".")[-1] == _COUNTER
        and f"{key.removesuffix(_COUNTER)}running_mean" in targets
    }
    keys = {k: v for k, v in keys.items() if k not in counters}
    # One layer may do what two modules with one tensor do.
    tied = tied_to(state, keys, targets)
    plain = {k: v for k, v in plain.items() if v not in {keys[key] for key in tied}}
    keys = {k: v for k, v in keys.items() if k not in tied}
    kept = selection.kept(targets.keys() - keys.keys(), chosen)
    asked = {key: slot for key, slot in targets.items() if key not in kept}
    if not asked:
        raise MismatchError(
            f"{state.origin} has nothing left for '{model.name}': `ignore` leaves all "
            f"of it out. Received: ignore={list(ignore)}"
        )
    shapes = state.shapes
    check_keys(state.origin, model, asked, keys, plain, shapes)
    spectral = {
        dialects.to_ours(f"{path}.weight", chosen).removesuffix(".weight"): found
        for path, found in spectral.items()
    }
    spectral = {path: v for path, v in spectral.items() if f"{path}.weight" in keys}
    orders, lost = flattened_orders(model)
    orders = {
        path: order for path, order in orders.items() if f"{path}.weight" in asked
    }
    unseen = not_in_a_state_dict(model, lost)
    weights = SourceWeights(state, keys, spectral, targets)
    # Every value is read and checked before the first one is assigned.
    counts = {key: state.count(theirs) for key, theirs in counters.items()}
    for key in asked:
        weights.stored(key)
    if kept:
        weights.notes.append(f"the model keeps its own {grouped(kept)}")

    def load(orders):
        ordered = reordered(asked, orders)
        _assign(ordered, weights)
        wrapped_state.assign_vectors(ordered, weights, orders)
        report = None
        if verify:
            report = verification.verify(model, weights, chosen, orders)
            if not report.agrees:
                raise MismatchError(f"{state.origin} was read, but {report}")
        if example is None:
            return orders, report, None
        return orders, report, check_example(model, example, state.origin, unseen)

    # An example tells whether PyTorch flattens as Keras does.
    choices = [orders] if example is None or not orders else [orders, {}]
    checked = verify or example is not None
    restore = wrapped_state.remembered(model, targets) if checked else None
    try:
        taken, report, agreement = _first_that_agrees(choices, load)
    except Exception:
        if restore is not None:
            restore()
        raise
    # Models that have run are traced again, with the vectors they follow now.
    for layer in flatten_layers(model):
        if isinstance(layer, keras.Model):
            forget_traces(layer)
    weights.note_dtypes()
    if folded:
        weights.notes.append(
            f"the weight normalization of {', '.join(folded)} was folded: the weights "
            "are g v / ||v||, and `to_torch` writes them as plain ones"
        )
    weights.notes += [
        f"{key} is the same tensor as {own}, in which the model has it"
        for key, own in tied.items()
    ]
    notes = [*state.notes, *dict.fromkeys(weights.notes), *_order_notes(orders, taken)]
    card = {
        "keras_spectral": keras_spectral.__version__,
        "source": state.origin,
        "container": state.container,
        "fingerprint": given.fingerprint(),
        "dialect": chosen.name,
        "notes": notes,
        "dtypes": sorted(set(given.dtypes.values())),
        "shapes": {
            key: list(shapes[theirs])
            for key, theirs in keys.items()
            if shapes[theirs] != targets[key].torch_shape
        },
        "spectral_normalization": {
            path: found.flavour.name for path, found in spectral.items()
        },
        _COUNTER: counts,
        "tied": tied,
        "flattened": list(taken),
    }
    if report is not None:
        card["verification"] = report.to_dict()
    if agreement is not None:
        card["example"] = agreement
    seen = agreement or (report and report.scope == "network")
    card["not_seen"] = [*([] if seen else unseen), PREPROCESSING]
    remember(model, card)
    return model


def _first_that_agrees(choices, load):
    """Return what `load` does of the first choice, or raise the first error."""
    errors = []
    for choice in choices:
        try:
            return load(choice)
        except MismatchError as error:
            errors.append(error)
    raise errors[0]


def _order_notes(orders, taken):
    if not orders:
        return []
    names = ", ".join(orders)
    if taken:
        return [f"the rows of {names} were put in the order of Keras' Flatten"]
    return [f"by the example, {names} read images flattened with channels last"]


def _opened(source, entry):
    if not isinstance(source, (str, Path)):
        return source if isinstance(source, StateDict) else StateDict(source)
    state = read_checkpoint(source, entry)
    if state.container in ("keras", "hdf5"):
        raise CheckpointError(
            f"{source} is a Keras file, not a PyTorch checkpoint. Load it with "
            "keras.models.load_model or model.load_weights."
        )
    return state


def _assign(targets, weights):
    given = set()
    for key, slot in targets.items():
        path, _, leaf = key.rpartition(".")
        value = weights.stored(key)
        trained = isinstance(slot.wrapper, Reparametrization)
        if leaf == "weight" and weights.is_spectral(path) and not trained:
            value = weights.effective(key)
            weights.notes.append(f"{path} received its normalized weight")
        for holder, part in zip(slot.holders, slot.to_keras(value), strict=True):
            variable = holder.variable
            if id(variable) not in given:
                variable.assign(part)
                given.add(id(variable))
                continue
            # The second of PyTorch's two biases of a recurrent layer.
            variable.assign_add(keras.ops.cast(part, variable.dtype))
            if holder.layout is ADDED and part.any():
                weights.notes.append(
                    f"{key} was added to the other bias, with which Keras has one "
                    "variable; back in PyTorch that has the sum, and this is zero"
                )
