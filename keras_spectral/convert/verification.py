"""A numeric certificate: does a model compute what a checkpoint's network does?"""

import dataclasses
import functools

import keras
import numpy as np

from keras_spectral import zoo
from keras_spectral.convert import reference, reference_gans, reference_modules
from keras_spectral.convert.rules import slots, weighted_layers
from keras_spectral.layers import Reparametrization
from keras_spectral.models.copying import deep_graphs
from keras_spectral.surgery import without_wrappers

# In float64 a correct import agrees to 1e-14, at worst to 2e-12 in ill-conditioned
# networks; the smallest known mistake, an epsilon of 1.001e-5, leaves 6e-8.
TOLERANCE = 1e-10
# JAX and torch do not keep float64 through every layer of Keras; in float32 a correct
# import agrees to 1e-5, and the networks that random weights make worse are no one's.
SINGLE_TOLERANCE = 1e-3

# Above, the copy of a network in float64 would take more memory than is polite.
_LARGEST_NETWORK = 40_000_000
_LARGEST_LAYER = 10_000_000

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
        relative_error: Float, the largest max |ours - theirs| / max |theirs|.
        first_bad_layer: String or `None`.
        layers: Integer, how many were compared.
        tolerance: Float.
        precision: String, what our side was computed in.
        reason: String, why the scope is not the network.
    """

    scope: str
    reference: str = ""
    relative_error: float = 0.0
    first_bad_layer: str | None = None
    layers: int = 0
    tolerance: float = TOLERANCE
    precision: str = "float64"
    reason: str = ""

    @property
    def passed(self):
        """Whether everything that was compared agrees."""
        return self.first_bad_layer is None

    def to_dict(self):
        """Return what JSON can hold, with a `status`."""
        return {
            "status": "passed" if self.passed else "failed",
            **dataclasses.asdict(self),
        }

    def __str__(self):
        if self.passed:
            return f"{self.layers} layers agree to {self.relative_error:.1e}"
        return (
            f"the model does not compute what the checkpoint does: layer "
            f"`{self.first_bad_layer}` is off by {self.relative_error:.1e} of its "
            f"largest output ({self.scope} against {self.reference}, "
            f"{self.precision}). The architecture or the dialect is another one."
        )


def verify(model, weights, dialect):
    """Compare a model with a reference in float64.

    Args:
        model: A built `keras.Model` that holds the checkpoint's weights.
        weights: The checkpoint's tensors by our keys, in PyTorch's layout:
            `rounded(key, effective)` to the model's dtype, normalized where the
            network normalizes them, or as they are trained.
        dialect: `dialects.Dialect` of the checkpoint.

    Returns:
        A `Certificate`.
    """
    ops = reference.layers()
    name = type(ops).__name__.removesuffix("Layers")
    network, config = _network(model)
    if isinstance(network, str):
        return _verify_layers(model, weights, ops, name, network)
    config = {**config, **dialect.config}
    twin = _in_float64(_without_wrappers(model))
    if twin is None:
        reason = "the model cannot be copied to float64"
        return _verify_layers(model, weights, ops, name, reason)
    wrapped = {key for key, slot in slots(model).items() if slot.wrapper is not None}

    def tensor(key):
        return weights.rounded(key, effective=key not in wrapped)

    return _verify_network(twin, tensor, ops, name, network, config)


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


def _doubled(config, dtype="float64"):
    """Return a layer's or model's config with float64 for every dtype but labels'."""
    if isinstance(config, dict):
        return {
            key: dtype
            if key == "dtype" and value and "int" not in str(value)
            else _doubled(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_doubled(value, dtype) for value in config)
    return config


def _in_float64(layer, input_shape=None):
    """Return a copy with the same weights in float64, or `None`."""
    try:
        with deep_graphs():
            return _copied(layer, input_shape)
    # A stranger's layer may not know its own config.
    except Exception:
        return None


def _copied(layer, input_shape):
    twin = type(layer).from_config(_doubled(layer.get_config()))
    if input_shape is not None:
        twin.build(input_shape)
    twin.set_weights([np.asarray(w, "float64") for w in layer.get_weights()])
    return twin


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


def _certificate(scope, ops_name, pairs, reason=""):
    """Compare (path, ours, theirs), and stop at the first that does not agree."""
    double = keras.backend.backend() == "tensorflow"
    tolerance = TOLERANCE if double else SINGLE_TOLERANCE
    error, bad, count = _compare(pairs, tolerance)
    return Certificate(
        scope if count else "none",
        f"{ops_name}'s layers",
        error,
        bad,
        count,
        tolerance,
        "float64" if double else "float32",
        reason,
    )


def _compare(pairs, tolerance):
    """Return (largest error, first bad path, count)."""
    worst, bad, count = 0.0, None, 0
    for path, ours, theirs in pairs:
        count += 1
        scale = np.abs(theirs).max()
        if ours.shape != theirs.shape:
            error = np.inf
        else:
            error = float(np.abs(ours - theirs).max() / (scale or 1.0))
        # Not written as error > tolerance, so that NaN is bad.
        if not error <= tolerance:
            return error, path, count
        worst = max(worst, error)
    return worst, bad, count


def _verify_network(twin, tensor, ops, name, network, config):
    layers = [layer for layer in twin.layers if layer.weights]
    paths = [layer.name.replace("-", ".") for layer in layers]
    inputs = _inputs(twin, config.get("classes"))
    wanted = [layer.output for layer in layers]
    if twin.outputs[0] is not wanted[-1]:
        # What comes after the last weight counts too.
        paths, wanted = [*paths, "(output)"], [*wanted, twin.outputs[0]]
    with deep_graphs():
        outputs = keras.Model(twin.inputs, wanted)(inputs)
    outputs = [outputs] if len(wanted) == 1 else outputs
    tape = reference.Tape(slots(twin), tensor, ops)
    tape.keep("(output)", network(tape, *map(_channels_first, inputs), **config))

    def pairs():
        for path, output in zip(paths, outputs, strict=True):
            ours = _channels_first(keras.ops.convert_to_numpy(output))
            # A module that the reference never reached has nothing to agree with.
            theirs = tape.outputs.get(path, np.full(ours.shape, np.nan))
            yield path, ours, theirs

    return _certificate("network", name, pairs())


def _verify_layers(model, weights, ops, name, reason):
    def pairs():
        for path, layer, wrapper in weighted_layers(model):
            path = path.replace("-", ".")
            if _is_large(layer) and wrapper is None:
                yield path, *_entries(path, layer, weights)
                continue
            # A wrapper holds the trained weight; dividing it is not the layer's.
            tensor = functools.partial(weights.rounded, effective=wrapper is None)
            compared = _layer_pair(path, layer, tensor, ops)
            if compared is not None:
                yield path, *compared

    return _certificate("layers", name, pairs(), reason)


def _is_large(layer):
    dense = isinstance(layer, keras.layers.Dense)
    return dense and layer.count_params() > _LARGEST_LAYER


def _entries(path, layer, weights, count=10_000):
    """Return random entries of a dense kernel and of PyTorch's weight."""
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, n, count) for n in layer.kernel.shape)
    ours = keras.ops.convert_to_numpy(layer.kernel)[rows, columns]
    theirs = weights.stored(f"{path}.weight")[columns, rows].astype(ours.dtype)
    return ours.astype("float64"), theirs.astype("float64")


def _layer_pair(path, layer, tensor, ops):
    """Return (ours, theirs) of one layer on a small random input, or `None`.

    Padding and activations are the network's business; here there are none.
    """

    def get(suffix):
        return np.asarray(tensor(f"{path}.{suffix}"), "float64")

    for kind, pair in reference_modules.PAIRS:
        if isinstance(layer, kind):
            # Keras' tanh makes float32 of float64 on JAX, where no loop allows that.
            jax = keras.backend.backend() == "jax"
            single = jax and keras.config.floatx() != "float64"
            config = _doubled(layer.get_config(), "float32" if single else "float64")
            return pair(layer, config, get)
    check = next((check for kind, check in _CHECKS if isinstance(layer, kind)), None)
    if check is None:
        return None
    plain = {"activation": "linear", "padding": "valid", "output_padding": None}
    config = _doubled(layer.get_config())
    config |= {key: value for key, value in plain.items() if key in config}
    twin = type(layer).from_config(config)
    shape = tuple(layer.get_build_config()["input_shape"])
    twin.build(shape)
    twin.set_weights([np.asarray(w, "float64") for w in layer.get_weights()])
    x, theirs = check(layer, shape, get, ops)
    return keras.ops.convert_to_numpy(twin(x)), theirs


def _bias(layer, get):
    return None if layer.bias is None else get("bias")


def _check_dense(layer, shape, get, ops):
    x = np.random.default_rng(0).standard_normal((4, *shape[1:-1], shape[-1]))
    y = x @ get("weight").T
    return x, y if layer.bias is None else y + get("bias")


def _check_embedding(layer, shape, get, ops):
    x = np.arange(min(layer.input_dim, 64))
    return x, get("weight")[x]


def _check_normalization(layer, shape, get, ops):
    x = np.random.default_rng(0).standard_normal(
        (4, *[3] * (len(shape) - 2), shape[-1])
    )
    y = (x - get("running_mean")) / np.sqrt(get("running_var") + layer.epsilon)
    y = y if layer.gamma is None else y * get("weight")
    return x, y if layer.beta is None else y + get("bias")


def _image(layer, channels):
    reach = max(layer.dilation_rate) * (max(layer.kernel_size) - 1)
    size = reach + 1 + 2 * max(layer.strides)
    return np.random.default_rng(0).standard_normal((2, size, size, channels))


def _check_convolution(layer, shape, get, ops):
    x, mask = _image(layer, shape[-1]), getattr(layer, "mask", None)
    weight = get("weight") if mask is None else get("weight") * get("mask")
    groups = shape[-1] // weight.shape[1]
    y = ops.convolution(
        _channels_first(x), weight, _bias(layer, get), layer.strides[0], 0, groups,
        layer.dilation_rate[0],
    )  # fmt: skip
    return x, np.moveaxis(y, 1, -1)


def _check_transposed(layer, shape, get, ops):
    x = _image(layer, shape[-1])
    y = ops.transposed_convolution(
        _channels_first(x), get("weight"), _bias(layer, get), layer.strides[0], 0
    )
    return x, np.moveaxis(y, 1, -1)


_CHECKS = (
    (keras.layers.Dense, _check_dense),
    (keras.layers.Embedding, _check_embedding),
    (keras.layers.BatchNormalization, _check_normalization),
    ((keras.layers.Conv2D, keras.layers.DepthwiseConv2D), _check_convolution),
    (keras.layers.Conv2DTranspose, _check_transposed),
)
