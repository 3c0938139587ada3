"""Layers whose kernel is a truncated singular value decomposition."""

import keras
from keras import layers as kl

from keras_spectral.layers.svd_layer import SVDLayer


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDDense(SVDLayer):
    """`Dense` with a kernel of rank k: W = scale * U diag(e / max|e|) V.

    x is mapped to k numbers, scaled and mapped to the units, so that the layer
    computes k (inputs + units) products in place of inputs * units, and has
    k (inputs + units + 1) + units + 1 parameters with a bias.

    Args:
        units: Integer >= 1.
        rank_ratio: Float in (0, 1], the paper's S: k is
            max(1, floor(rank_ratio * min(inputs, units))).
        orthogonal_factor: Float >= 0, the paper's lambda: weight of
            ||U'U - I||_F^2 + ||V V' - I||_F^2 in the loss. (The paper prints
            U U', which cannot be I for k < units.)
        spectrum_regularizer: Regularizer of e / max|e|, such as
            `regularizers.DOptimal(gamma)`; default none.
        factor_initializer: Initializer of U and V; the default makes them
            orthonormal.
        **arguments: As in `keras.layers.Dense`: `activation`, `use_bias`,
            `bias_initializer`, `bias_regularizer`, `bias_constraint`,
            `activity_regularizer`; and `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Tensor (..., inputs).

    Raises:
        ValueError: On a ratio or factor out of range.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDDense(10, rank_ratio=0.5)
    >>> outputs = layer(np.ones((2, 800), "float32"))
    >>> layer.rank, layer.count_params()
    (5, 4066)

    Source: [garg2019], section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Dense
    second_layer = kl.Dense
    outputs_argument = "units"
    geometry_arguments = ()

    def __init__(self, units, **arguments):
        super().__init__(units, {}, **arguments)
        self.units = units


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDConv2D(SVDLayer):
    """`Conv2D` with a flattened kernel of rank k, as two convolutions.

    The first has the kernel's size and k filters (V), the second is 1 x 1 (U).
    The flattened kernel has filters x (height * width * inputs) entries.

    Args:
        filters: Integer >= 1.
        kernel_size: Integer or pair of integers, in pixels.
        strides: Integer or pair of integers.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"`, `"channels_first"` or `None`.
        dilation_rate: Integer or pair of integers.
        **arguments: Those of `SVDDense` from `rank_ratio` on.

    Call arguments:
        inputs: Tensor (batch, height, width, inputs).

    Raises:
        ValueError: On a ratio or factor out of range, or bad geometry.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDConv2D(20, 5, rank_ratio=0.25)
    >>> layer(np.ones((1, 28, 28, 1), "float32")).shape[1:], layer.count_params()
    (TensorShape([24, 24, 20]), 251)

    Source: [garg2019], section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Conv2D
    second_layer = kl.Conv2D
    geometry_arguments = (
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
    )

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        **arguments,
    ):
        super().__init__(
            filters,
            dict(
                kernel_size=kernel_size,
                strides=strides,
                padding=padding,
                data_format=data_format or keras.config.image_data_format(),
                dilation_rate=dilation_rate,
            ),
            **arguments,
        )
        self.filters = filters


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDConv2DTranspose(SVDLayer):
    """`Conv2DTranspose` with a flattened kernel of rank k.

    A transposed convolution to k channels (V) and a 1 x 1 convolution (U); the
    flattened kernel has filters x (height * width * inputs) entries.

    Args:
        filters: Integer >= 1.
        kernel_size: Integer or pair of integers, in pixels.
        strides: Integer or pair of integers.
        padding: `"valid"` or `"same"`.
        output_padding: Integer, pair of integers or `None`.
        data_format: `"channels_last"`, `"channels_first"` or `None`.
        dilation_rate: Integer or pair of integers.
        **arguments: Those of `SVDDense` from `rank_ratio` on.

    Call arguments:
        inputs: Tensor (batch, height, width, inputs).

    Raises:
        ValueError: On a ratio or factor out of range, or bad geometry.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDConv2DTranspose(3, 4, strides=2, padding="same")
    >>> layer(np.ones((1, 8, 8, 6), "float32")).shape[1:]
    TensorShape([16, 16, 3])

    Source: [garg2019], section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Conv2DTranspose
    second_layer = kl.Conv2D
    geometry_arguments = (
        "kernel_size",
        "strides",
        "padding",
        "output_padding",
        "data_format",
        "dilation_rate",
    )

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
        **arguments,
    ):
        super().__init__(
            filters,
            dict(
                kernel_size=kernel_size,
                strides=strides,
                padding=padding,
                output_padding=output_padding,
                data_format=data_format or keras.config.image_data_format(),
                dilation_rate=dilation_rate,
            ),
            **arguments,
        )
        self.filters = filters
