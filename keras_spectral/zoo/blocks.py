"""The pieces that all families share, as PyTorch has them."""

import zlib

import keras
from keras import layers

from keras_spectral.layers import MaskedConv2D
from keras_spectral.models.copying import deep_graphs
from keras_spectral.validation import check_integer


def normalizer(normalize):
    """Return what is applied to layers: what is given, or nothing for `None`.

    Args:
        normalize: Callable, layer to layer, or `None`.

    Raises:
        ValueError: If it is neither.

    Example:
    >>> normalizer(None)("a layer")
    'a layer'
    """
    if normalize is None:
        return lambda layer: layer
    if not callable(normalize):
        raise ValueError(
            "`normalize` must be a callable from a layer to a layer, such as "
            "keras_spectral.layers.SpectralNormalization. Received: "
            f"normalize={normalize!r}"
        )
    return normalize


class Blocks:
    """Layers named by their PyTorch module paths.

    A name has a dash where the path has a dot, so `convert` needs no table.

    Args:
        normalize: Callable, layer to layer, applied to every layer with a kernel;
            `None` for plain layers.
        use_bias: Boolean, whether convolutions have a bias.
    """

    def __init__(self, normalize=None, use_bias=False):
        self.normalize = normalizer(normalize)
        self.use_bias = use_bias

    def convolution(
        self,
        x,
        filters,
        size,
        strides,
        name,
        padding=None,
        expand_ratio=1,
        use_bias=None,
    ):
        """Convolution with the same zero padding on all sides.

        Keras' `padding="same"` would pad an even image with stride 2 on one side only.

        Args:
            x: Tensor (batch, height, width, channels).
            filters: Integer, number of outputs.
            size: Integer, of the kernel in pixels, odd.
            strides: Integer.
            name: String.
            padding: Integer, pixels on each side; default: half the kernel.
            expand_ratio: Integer >= 1; above 1 the kernel is masked.
            use_bias: Boolean; default: what the other convolutions have.
        """
        padding = size // 2 if padding is None else padding
        same = strides == 1 and padding == size // 2
        if padding and not same:
            x = layers.ZeroPadding2D(padding, name=f"{name}-pad")(x)
        use_bias = self.use_bias if use_bias is None else use_bias
        arguments = dict(
            strides=strides,
            padding="same" if same else "valid",
            use_bias=use_bias,
            name=name,
        )
        if expand_ratio == 1:
            layer = layers.Conv2D(filters, size, **arguments)
        else:
            # Each layer has a seed of its own, so that no two masks are the same.
            seed = zlib.crc32(name.encode())
            layer = MaskedConv2D(filters, size, expand_ratio, seed, **arguments)
        return self.normalize(layer)(x)

    def normalization(self, x, name, activation=True):
        """Batch normalization with PyTorch's constants, and ReLU."""
        x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)(x)
        return layers.ReLU(name=f"{name}-activ")(x) if activation else x

    def block(self, x, filters, size, strides, name, activation=True):
        """Convolution, batch normalization and ReLU: `ConvBlock`."""
        x = self.convolution(x, filters, size, strides, f"{name}-conv")
        return self.normalization(x, f"{name}-bn", activation)

    def preactivated(
        self, x, filters, size, strides, name, activation=True, expand_ratio=1
    ):
        """Batch normalization, ReLU and convolution: `PreConvBlock`.

        Returns:
            Pair of the output and of what the convolution read.
        """
        x = self.normalization(x, f"{name}-bn", activation)
        y = self.convolution(
            x, filters, size, strides, f"{name}-conv", expand_ratio=expand_ratio
        )
        return y, x

    def squeeze_excitation(self, x, name, reduction=16):
        """Scale channels by what a small network makes of their means."""
        filters = x.shape[-1]
        s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}-pool")(x)
        s = self.convolution(
            s, filters // reduction, 1, 1, f"{name}-conv1", use_bias=True
        )
        s = layers.ReLU(name=f"{name}-activ")(s)
        s = self.convolution(s, filters, 1, 1, f"{name}-conv2", use_bias=True)
        s = layers.Activation("sigmoid", name=f"{name}-sigmoid")(s)
        return layers.Multiply(name=f"{name}-scale")([x, s])

    def head(self, x, classes, name="output"):
        """Global average pooling and a dense layer."""
        check_integer("classes", classes, least=1)
        x = layers.GlobalAveragePooling2D(name="features-final_pool")(x)
        return self.dense(x, classes, name)

    def dense(self, x, units, name):
        """A dense layer."""
        return self.normalize(layers.Dense(units, name=name))(x)

    def flatten(self, x, name="flatten"):
        """Flatten as PyTorch does, channels first, so one rule holds for `Dense`."""
        x = layers.Permute((3, 1, 2), name=f"{name}-permute")(x)
        return layers.Flatten(name=name)(x)


def functional(inputs, outputs, name):
    """Return a functional model, however deep."""
    with deep_graphs():
        return keras.Model(inputs, outputs, name=name)


def units_per_stage(depth, layers_a_unit, others=2, stages=3):
    """Return how many units make a depth.

    Args:
        depth: Integer, counted as papers do.
        layers_a_unit: Integer.
        others: Integer, layers outside of units.
        stages: Integer.

    Raises:
        ValueError: If no number of units does.

    Example:
    >>> units_per_stage(20, layers_a_unit=2)
    3
    """
    step = stages * layers_a_unit
    if type(depth) is not int or depth < step + others or (depth - others) % step:
        raise ValueError(
            f"`depth` must be {step}n + {others} with n >= 1, such as "
            f"{step + others} or {6 * step + others}. Received: depth={depth}"
        )
    return (depth - others) // step


def at_least_float32():
    """Return the dtype of images and logits, which no mixed policy rounds.

    Example:
    >>> at_least_float32()
    'float32'
    """
    dtype = keras.config.dtype_policy().variable_dtype
    return "float64" if dtype == "float64" else "float32"
