"""The low-rank paper's network for MNIST, plain and factored."""

import keras
from keras import layers

from keras_spectral.layers import SVDConv2D
from keras_spectral.regularizers import DOptimal


def mnist_convnet(
    rank_ratio=None,
    orthogonal_factor=0.0,
    normalize=None,
    name: str | None = None,
    d_optimal_factor: float = 0.0,
    use_bias: bool = True,
) -> keras.Model:
    """Build the low-rank paper's network of three convolutions on 28x28 digits.

    Parameters: 33,580 plain; 36,663, 26,837, 18,373 and 8,547 with `rank_ratio` 1,
    0.75, 0.5 and 0.25, as the paper prints them.

    Args:
        rank_ratio: Float in (0, 1], the paper's S: each kernel is factored with
            k = max(1, floor(S min(inputs, outputs))); `None` for plain convolutions.
        orthogonal_factor: Float >= 0, the paper's lambda, of the orthogonality penalty.
        normalize: Callable, layer to layer, applied to every plain convolution;
            `None` for plain layers.
        name: String, the model's name.
        d_optimal_factor: Float >= 0, the paper's gamma, of `regularizers.DOptimal`.
        use_bias: Boolean; the paper's Theorem 1 is of networks without.

    Returns:
        A functional `keras.Model` from images (28, 28, 1) to 10 logits.

    Raises:
        ValueError: If `rank_ratio` is no such number, or with `normalize` too.

    Example:
    >>> model = mnist_convnet(rank_ratio=0.25)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    8547

    Source: [garg2019], section 5.
    """
    if rank_ratio is not None and normalize is not None:
        raise ValueError(
            "`normalize` must be None with factored layers, which hold their singular "
            f"values themselves. Received: rank_ratio={rank_ratio}, "
            f"normalize={normalize}"
        )

    regularizer = DOptimal(d_optimal_factor) if d_optimal_factor else None

    def convolution(*arguments, name):
        if rank_ratio is None:
            layer = layers.Conv2D(*arguments, use_bias=use_bias, name=name)
            return normalize(layer) if normalize else layer
        return SVDConv2D(
            *arguments,
            rank_ratio=rank_ratio,
            orthogonal_factor=orthogonal_factor,
            spectrum_regularizer=regularizer,
            use_bias=use_bias,
            name=name,
        )

    inputs = keras.Input((28, 28, 1))
    x = convolution(20, 5, name="conv1")(inputs)
    x = layers.ReLU(name="relu1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = convolution(50, 5, name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = convolution(10, 4, name="conv3")(x)
    outputs = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, outputs, name=name or "mnist_convnet")
