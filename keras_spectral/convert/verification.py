"""A numeric certificate: does a model compute what a checkpoint's network does?"""

import dataclasses
import functools
from typing import Literal

import keras
import numpy as np

from keras_spectral import zoo
from keras_spectral.convert import reference, reference_gans, reference_layers
from keras_spectral.convert.layer_checks import (
    compare_entries,
    compare_layer,
    is_large,
)
from keras_spectral.convert.rules import slots, weighted_layers
from keras_spectral.convert.wrapped_state import is_pytorchs
from keras_spectral.layers import Reparametrization
from keras_spectral.models.copying import deep_graphs, rebuilt
from keras_spectral.models.graph import is_output
from keras_spectral.surgery import without_wrappers

# In float64 a correct import agrees to 1e-14, at worst to 2e-12 in ill-conditioned
# networks; the smallest known mistake, an epsilon of 1.001e-5, leaves 6e-8.
TOLERANCE = 1e-10
# JAX and torch do not keep float64 through every layer of Keras; in float32 a correct
# import agrees to 1e-5, and the networks that random weights make worse are no one's.
SINGLE_TOLERANCE = 1e-3

# Above, the copy of a network in float64 would take more memory than is polite.
_LARGEST_NETWORK = 40_000_000

# Builder of the zoo -> its network in PyTorch's terms.
_NETWORKS = {
    "cifar_alexnet": reference.sequential,
    "cifar_densenet": reference.dense,
    "cifar_preresnet": reference.preactivated,
    "cifar_pyramidnet": reference.pyramidal,
    "cifar_resnet": reference.residual,
    "cifar_vgg": reference.sequential,
    "cifar_wrn": reference.preactivated,
    "dcgan_discriminator": reference_gans.dcgan_discriminator,
    "dcgan_generator": reference_gans.dcgan_generator,
    "resnet_discriminator": reference_gans.resnet_discriminator,
    "resnet_generator": reference_gans.resnet_generator,
}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was compared, and how far apart it was.

    Args:
        scope: `"network"`: the whole network against a reference of its own;
            `"layers"`: each layer alone, so that the wiring between them is not
            verified; `"none"`.
        reference: String, what computed the other side.
        relative_error: Float, the largest max |ours - theirs| / max |theirs|; `None`
            where a layer's outputs are of another shape.
        first_bad_layer: String or `None`.
        difference: String, what is wrong with it.
        layers: Integer, how many were found to compute what the network's do.
        layers_in_all: Integer, how many have weights.
        unchecked: List of strings, the other layers.
        why_unchecked: Dict from each of them to the reason.
        tolerance: Float.
        precision: String, what our side was computed in.
        reason: String, why the scope is not the network.
    """

    scope: Literal["network", "layers", "none"]
    reference: str = ""
    relative_error: float | None = 0.0
    first_bad_layer: str | None = None
    difference: str = ""
    layers: int = 0
    layers_in_all: int = 0
    unchecked: list = dataclasses.field(default_factory=list)
    why_unchecked: dict = dataclasses.field(default_factory=dict)
    tolerance: float = TOLERANCE
    precision: Literal["float64", "float32"] = "float64"
    reason: str = ""

    @property
    def agrees(self):
        """Whether everything that was compared agrees."""
        return self.first_bad_layer is None

    @property
    def status(self) -> Literal["passed", "partial", "none", "failed"]:
        """`"passed"`, `"partial"` with layers unchecked, `"none"`, or `"failed"`."""
        if not self.agrees:
            return "failed"
        if self.layers == 0:
            return "none"
        return "partial" if self.unchecked else "passed"

    def to_dict(self):
        """Return what JSON can hold, with the `status`."""
        return {"status": self.status, **dataclasses.asdict(self)}

    def __str__(self):
        if self.agrees:
            return (
                f"{self.layers} of {self.layers_in_all} layers agree to "
                f"{self.relative_error:.1e}"
            )
        return (
            f"the model does not compute what the checkpoint does: layer "
            f"`{self.first_bad_layer}` {self.difference} ({self.scope} against "
            f"{self.reference}, {self.precision}). The architecture or the dialect is "
            "another one."
        )


def verify(model, weights, dialect, orders):
    """Compare a model with a reference in float64.

    Args:
        model: A built `keras.Model` that holds the checkpoint's weights.
        weights: The checkpoint's tensors by our keys, in PyTorch's layout:
            `rounded(key, effective)` to the model's dtype, normalized where the
            network normalizes them, or as they are trained; see `SourceWeights`.
        dialect: `dialects.Dialect` of the checkpoint.
        orders: Dict from path to the order of a layer's features; see `flattening`.

    Returns:
        A `Certificate`.
    """
    ops = reference_layers.layers()
    network, config = _network(model)
    if isinstance(network, str):
        return _verify_layers(model, weights, ops, network, orders)
    config = {**config, **dialect.config}
    twin = _in_float64(_without_wrappers(model))
    if twin is None:
        reason = "the model cannot be copied to float64"
        return _verify_layers(model, weights, ops, reason, orders)
    wrapped = {key for key, slot in slots(model).items() if slot.wrapper is not None}

    def tensor(key):
        return weights.rounded(key, effective=key not in wrapped)

    unchecked = _unchecked(model, weights)

    def pairs():
        yield from _network_pairs(twin, tensor, ops, network, config)
        # The twin has the trained kernels, which the wrappers normalize.
        for path, layer, wrapper in weighted_layers(model):
            if wrapper is not None and _path(wrapper) not in unchecked:
                yield from _wrapped(
                    path, layer, wrapper, weights, ops, orders, unchecked
                )

    return _certificate("network", ops.library, pairs(), unchecked)


def _network(model):
    """Return (reference, builder's arguments), or the reason why there is none."""
    wrappers = {w for _, _, w in weighted_layers(model) if w is not None}
    if not all(isinstance(wrapper, Reparametrization) for wrapper in wrappers):
        return "layers are in wrappers that change more than a kernel", {}
    if model.name not in zoo.list_models():
        return f"'{model.name}' is no registered architecture", {}
    entry = zoo.entry(model.name)
    if entry["builder"] not in _NETWORKS:
        return f"there is no reference for {entry['builder']}", {}
    if model.count_params() > _LARGEST_NETWORK:
        return "the network is large", {}
    return _NETWORKS[entry["builder"]], entry["config"]


def _without_wrappers(model):
    """Return the network with its trained kernels, as if nothing normalized them.

    Its wiring is the same; a normalized kernel would differ by the rounding of its
    singular vectors.
    """
    if all(wrapper is None for _, _, wrapper in weighted_layers(model)):
        return model
    return without_wrappers(model)


def _in_float64(model):
    """Return a copy with the same weights in float64, or `None`."""
    try:
        return rebuilt(model, lambda layer: None, "float64").model
    # A stranger's layer may not know its own config.
    except Exception:
        return None


def _inputs(model, classes, seed=0):
    """Return two random images or latent vectors, and labels where they are asked."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, classes, 2).astype("int32")
        if "int" in str(given.dtype)
        else rng.standard_normal((2, *(n or 32 for n in given.shape[1:])))
        for given in model.inputs
    ]


def _channels_first(value):
    return np.moveaxis(value, -1, 1) if value.ndim == 4 else value


def _certificate(scope, library, pairs, unchecked, reason=""):
    """Compare (path, ours, theirs), and stop at the first that does not agree.

    `unchecked` is a dict from path to reason, to which `pairs` adds; what is in it
    counts as unchecked, compared or not.
    """
    double = keras.backend.backend() == "tensorflow"
    tolerance = TOLERANCE if double else SINGLE_TOLERANCE
    error, bad, difference, compared = _compare(pairs, tolerance)
    return Certificate(
        scope=scope if compared else "none",
        reference=f"{library}'s layers",
        relative_error=error,
        first_bad_layer=bad,
        difference=difference,
        layers=len(compared - unchecked.keys()),
        layers_in_all=len(compared | unchecked.keys()),
        unchecked=list(unchecked),
        why_unchecked=unchecked,
        tolerance=tolerance,
        precision="float64" if double else "float32",
        reason=reason,
    )


def _compare(pairs, tolerance):
    """Return (largest error, first bad path, what is wrong with it, set of paths)."""
    worst, compared = 0.0, set()
    for path, ours, theirs in pairs:
        compared.add(path)
        if theirs is None:
            return None, path, "is not in the checkpoint's network", compared
        if ours.shape != theirs.shape:
            shapes = f"{ours.shape}, not of shape {theirs.shape}"
            return None, path, f"has outputs of shape {shapes}", compared
        error = relative_error(ours, theirs)
        # Not written as error > tolerance, so that NaN is bad.
        if not error <= tolerance:
            wrong = f"is off by {error:.1e} of its largest output"
            return error, path, wrong, compared
        worst = max(worst, error)
    return worst, None, "", compared


def relative_error(ours, theirs):
    """Return max |ours - theirs| / max |theirs|."""
    scale = np.abs(theirs).max(initial=0)
    return float(np.abs(ours - theirs).max(initial=0) / (scale or 1.0))


def _network_pairs(twin, tensor, ops, network, config):
    layers = [layer for layer in twin.layers if layer.weights]
    paths = [_path(layer) for layer in layers]
    inputs = _inputs(twin, config.get("classes"))
    wanted = [layer.output for layer in layers]
    if not is_output(twin, layers[-1]):
        # What comes after the last weight counts too.
        paths, wanted = [*paths, "(output)"], [*wanted, twin.outputs[0]]
    with deep_graphs():
        outputs = keras.Model(twin.inputs, wanted)(inputs)
    outputs = [outputs] if len(wanted) == 1 else outputs
    tape = reference.Tape(slots(twin), tensor, ops)
    tape.keep("(output)", network(tape, *map(_channels_first, inputs), **config))
    for path, output in zip(paths, outputs, strict=True):
        ours = _channels_first(keras.ops.convert_to_numpy(output))
        # A module that the reference never reached has nothing to agree with.
        yield path, ours, tape.outputs.get(path)


def _verify_layers(model, weights, ops, reason, orders):
    unchecked = _unchecked(model, weights)

    def pairs():
        for module, layer, wrapper in weighted_layers(model):
            path, module = _path(wrapper or layer), module.replace("-", ".")
            trained = isinstance(wrapper, Reparametrization)
            if trained and path not in unchecked:
                yield from _wrapped(
                    module, layer, wrapper, weights, ops, orders, unchecked
                )
                continue
            order = orders.get(module)
            if is_large(layer) and not trained:
                stored = weights.stored(f"{module}.weight")
                yield path, *compare_entries(layer, stored, order)
                continue
            # A wrapper holds the trained weight; dividing it is not the layer's.
            tensor = functools.partial(weights.rounded, effective=not trained)
            compared = compare_layer(module, layer, tensor, ops, order)
            if compared is None:
                unchecked[path] = _no_check(layer)
            else:
                yield path, *compared

    return _certificate("layers", ops.library, pairs(), unchecked, reason)


def _path(layer):
    return layer.name.replace("-", ".")


def _no_check(layer):
    return f"there is no check of a {type(layer).__name__} as it is here"


def _wrapped(module, layer, wrapper, weights, ops, orders, unchecked):
    """Yield (path, ours, theirs) of what a wrapped layer computes."""
    module = module.replace("-", ".")
    compared = compare_layer(
        module, layer, weights.evaluated, ops, orders.get(module), wrapper
    )
    if compared is None:
        unchecked[_path(wrapper)] = _no_check(layer)
    else:
        yield _path(wrapper), *compared


def _unchecked(model, weights):
    """Return {path: reason} of layers that have or do something else than a source."""
    found, own = {}, {}
    for key, slot in slots(model).items():
        if not weights.is_read(key):
            own.setdefault(_path(slot.wrapper or slot.layer), []).append(key)
    for module, _, wrapper in weighted_layers(model):
        if wrapper is not None:
            reason = _other_computation(module.replace("-", "."), wrapper, weights)
            if reason is not None:
                found[_path(wrapper)] = f"{reason}; its trained weights were compared"
    for path, keys in own.items():
        found[path] = f"`ignore` leaves its own {', '.join(keys)}"
    return found


def _other_computation(module, wrapper, weights):
    """Return why a wrapped layer computes something else than its source, or `None`."""
    if isinstance(wrapper, keras.layers.TimeDistributed):
        return None
    kind = type(wrapper).__name__
    if not isinstance(wrapper, Reparametrization):
        return f"{kind} may do more than the layer in it"
    vectors = weights.vectors(module)
    if vectors is None:
        return f"{kind} changes a kernel that the source uses as it is"
    if not is_pytorchs(wrapper):
        return f"{kind} as it is set does something else than W / (u' W v)"
    if vectors[0].sigma == 0:
        return "u' W v is zero, by which PyTorch divides"
    return None
