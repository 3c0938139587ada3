"""A convolution whose kernel has fixed zeros."""

import keras
import numpy as np
from keras import ops

from keras_spectral.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_spectral")
class MaskedConv2D(keras.layers.Conv2D):
    """`Conv2D` in which each output sees a random subset of the inputs (X-Conv).

    Each filter keeps max(1, inputs // expand_ratio) whole input channels; the rest of
    its kernel is multiplied by zero. The 0/1 mask is drawn once, from `seed`, and is a
    weight that is saved but not trained.

    `SpectralNormalization` scales the masked kernel, so its bound is exact. A wrapper
    that would fill the zeros, such as `StableRankNormalization`, refuses the layer.

    Args:
        filters: Integer, number of outputs.
        kernel_size: Integer or pair, in pixels.
        expand_ratio: Integer >= 1, how many times sparser than `Conv2D` it is.
        seed: Integer >= 0 of the mask.
        **kwargs: What `keras.layers.Conv2D` takes, but `groups`.

    Raises:
        ValueError: If `expand_ratio` or `seed` is no such integer, or with groups.

    Example:
    >>> layer = MaskedConv2D(6, 3, expand_ratio=2)
    >>> layer.build((None, 8, 8, 4))
    >>> mask = ops.convert_to_numpy(layer.mask)
    >>> mask.shape, int(mask.sum())
    ((3, 3, 4, 6), 108)

    Source: [shin2021], appendix D (X-DenseNet); [prabhu2018], section 3.
    """

    def __init__(self, filters, kernel_size, expand_ratio=2, seed=0, **kwargs):
        check_integer("expand_ratio", expand_ratio, least=1)
        check_integer("seed", seed, least=0)
        if kwargs.get("groups", 1) != 1:
            raise ValueError(
                "`groups` must be 1: the mask is what makes the kernel sparse. "
                f"Received: groups={kwargs['groups']}"
            )
        super().__init__(filters, kernel_size, **kwargs)
        self.expand_ratio = expand_ratio
        self.seed = seed

    def build(self, input_shape):
        super().build(input_shape)

        def initializer(shape, dtype=None):
            *size, inputs, outputs = shape
            rng = np.random.default_rng(self.seed)
            kept = max(1, inputs // self.expand_ratio)
            ranks = rng.random((inputs, outputs)).argsort(0).argsort(0)
            mask = np.broadcast_to(ranks < kept, (*size, inputs, outputs))
            return ops.convert_to_tensor(mask, dtype=dtype)

        self.mask = self.add_weight(
            name="mask",
            shape=self.kernel.shape,
            initializer=initializer,
            trainable=False,
        )

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(
            inputs, kernel * ops.cast(self.mask, kernel.dtype)
        )

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # A model that is not built may be saved, too.
        if self.built:
            store["mask"] = self.mask

    def load_own_variables(self, store):
        if not self.built:
            return super().load_own_variables(store)
        # Keras' own would count one variable too many.
        self.kernel.assign(store["0"])
        if self.use_bias:
            self.bias.assign(store["1"])
        self.mask.assign(store["mask"])
        return None

    def get_config(self):
        config = super().get_config()
        config.pop("groups", None)
        return {**config, "expand_ratio": self.expand_ratio, "seed": self.seed}
