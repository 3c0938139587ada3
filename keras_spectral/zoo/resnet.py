"""Residual networks for 32x32 images (He et al. 2016), as in pytorchcv."""

import keras
from keras import layers

from keras_spectral.validation import check_integer


def _convolution(x, filters, size, strides, name, normalize, activation=True):
    """Convolution, batch normalization and ReLU: pytorchcv's `ConvBlock`."""
    if size == 3:
        # PyTorch pads both sides by one; `padding="same"` would pad an even
        # image with stride 2 on one side only.
        x = layers.ZeroPadding2D(1, name=f"{name}-pad")(x)
    x = normalize(
        layers.Conv2D(filters, size, strides, use_bias=False, name=f"{name}-conv")
    )(x)
    x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}-bn")(x)
    return layers.ReLU(name=f"{name}-activ")(x) if activation else x


def _unit(x, filters, strides, name, normalize):
    """A basic residual unit; its shortcut is a convolution where shapes change."""
    identity = x
    if strides != 1 or x.shape[-1] != filters:
        identity = _convolution(
            x, filters, 1, strides, f"{name}-identity_conv", normalize, False
        )
    x = _convolution(x, filters, 3, strides, f"{name}-body-conv1", normalize)
    x = _convolution(x, filters, 3, 1, f"{name}-body-conv2", normalize, False)
    x = layers.Add(name=f"{name}-add")([x, identity])
    return layers.ReLU(name=f"{name}-activ")(x)


def cifar_resnet(depth, classes, normalize=None, input_shape=(32, 32, 3), name=None):
    """Build the residual network of depth 6n + 2 for small images.

    Three stages of n basic units with 16, 32 and 64 filters, after a 3x3
    convolution; global average pooling and one dense layer. Every weighted
    layer is named by its PyTorch module path with `-` for each dot, so that
    `convert` needs no table.

    Trainable parameters with 10 classes: 272,474 at depth 20, 855,770 at 56 and
    1,730,714 at 110; with 100 classes 5,850 more. Batch normalization keeps
    another 1,568, 4,256 and 8,288 statistics.

    Args:
        depth: Integer 6n + 2 >= 8: 20, 56, 110, ...
        classes: Integer >= 1, the number of logits.
        normalize: Callable, layer to layer, applied to every Conv2D and Dense,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name; default `resnet{depth}`.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is not 6n + 2 or `classes` is below 1.

    Example:
    >>> model = cifar_resnet(20, classes=10)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    272474

    Source: He et al. 2016, section 4.2; pytorchcv 0.0.67 `CIFARResNet`.
    """
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise ValueError(
            "`depth` must be 6n + 2 with n >= 1, such as 20, 56 or 110. "
            f"Received: depth={depth}"
        )
    check_integer("classes", classes, least=1)
    normalize = normalize or (lambda layer: layer)
    inputs = keras.Input(input_shape)
    x = _convolution(inputs, 16, 3, 1, "features-init_block", normalize)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for unit in range(1, (depth - 2) // 6 + 1):
            strides = 2 if unit == 1 and stage > 1 else 1
            x = _unit(
                x, filters, strides, f"features-stage{stage}-unit{unit}", normalize
            )
    x = layers.GlobalAveragePooling2D(name="features-final_pool")(x)
    outputs = normalize(layers.Dense(classes, name="output"))(x)
    return keras.Model(inputs, outputs, name=name or f"resnet{depth}")
