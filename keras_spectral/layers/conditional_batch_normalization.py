"""Batch normalization with a scale and an offset for each class."""

import keras
from keras import ops

from keras_spectral.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_spectral")
class ConditionalBatchNormalization(keras.layers.Layer):
    """Batch normalization whose scale and offset depend on a label.

    The statistics are those of all classes together.

    Args:
        classes: Integer >= 1, number of labels.
        momentum: Float, of the moving averages.
        epsilon: Float > 0, added to the variance.
        **kwargs: What a `keras.layers.Layer` takes.

    Call arguments:
        inputs: Pair of a tensor (batch, ..., channels) and of labels (batch,),
            integers from 0 to `classes` - 1.
        training: Boolean, whether to use the batch's own statistics.

    Raises:
        ValueError: If `classes` is below 1.

    Example:
    >>> import numpy as np
    >>> layer = ConditionalBatchNormalization(classes=10)
    >>> tuple(layer([np.ones((2, 4, 4, 3), "float32"), np.array([3, 7])]).shape)
    (2, 4, 4, 3)

    Source: [sanyal2020], appendix E.1 ([dumoulin2017]).
    """

    def __init__(self, classes, momentum=0.9, epsilon=2e-5, **kwargs):
        check_integer("classes", classes, least=1)
        super().__init__(**kwargs)
        self.classes = classes
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        shape, _ = input_shape
        channels = shape[-1]
        self.normalization = keras.layers.BatchNormalization(
            scale=False,
            center=False,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype_policy,
            # A frozen layer is loaded frozen, and then built.
            trainable=self.trainable,
            name="bn",
        )
        self.normalization.build(shape)

        def scale_one_offset_zero(shape, dtype=None):
            half = (shape[0], channels)
            parts = [ops.ones(half, dtype=dtype), ops.zeros(half, dtype=dtype)]
            return ops.concatenate(parts, axis=-1)

        # One table of both, as PyTorch's projects keep it.
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.classes, 2 * channels),
            initializer=scale_one_offset_zero,
        )

    @property
    def moving_mean(self):
        """Moving average of the mean, a variable (channels,)."""
        return self.normalization.moving_mean

    @property
    def moving_variance(self):
        """Moving average of the variance, a variable (channels,)."""
        return self.normalization.moving_variance

    def call(self, inputs, training=None):
        x, labels = inputs
        x = self.normalization(x, training=training)
        chosen = ops.take(self.embeddings, ops.cast(labels, "int32"), axis=0)
        ones = (1,) * (len(x.shape) - 2)
        chosen = ops.reshape(chosen, (-1, *ones, chosen.shape[-1]))
        scale, offset = ops.split(ops.cast(chosen, x.dtype), 2, axis=-1)
        return x * scale + offset

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {
            **super().get_config(),
            "classes": self.classes,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
