"""Batch normalization whose scales obey a Lipschitz bound."""

import keras
from keras import ops

from keras_spectral.layers.substitution import call_substituted
from keras_spectral.linalg import clipping_scale
from keras_spectral.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_spectral")
class LipschitzBatchNormalization(keras.layers.Wrapper):
    """Clips the Lipschitz constant of batch normalization.

    In inference it multiplies each channel by gamma / sqrt(variance + epsilon),
    so its Lipschitz constant is the largest of these magnitudes, for every
    p-norm. The layer computes with gamma / max(1, constant / bound); gamma itself
    stays the optimizer's. The variance is the moving one, in training too, where
    the layer divides by the batch's: there the bound holds as far as they agree.
    The gradient flows through the clip.

    Args:
        layer: A `keras.layers.BatchNormalization` with `scale=True`.
        bound: Float > 0, the Lipschitz constant that is allowed.
        **kwargs: `name` (default: the wrapped layer's) and `trainable`.

    Call arguments:
        inputs: Tensor, what the wrapped layer takes.
        training: Boolean, passed on.
        mask: Tensor, passed on.

    Raises:
        ValueError: For another layer, and a bound that is not positive.

    Example:
    >>> import keras, numpy as np
    >>> inner = keras.layers.BatchNormalization(epsilon=1e-6)
    >>> layer = LipschitzBatchNormalization(inner, bound=0.5)
    >>> round(float(layer(np.ones((1, 2), "float32"))[0, 0]), 4)
    0.5

    Source: [gouk2018], section 3.3; [zhang2020], eq. 16.
    """

    def __init__(self, layer, bound=1.0, **kwargs):
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.scale:
            raise ValueError(
                "`layer` must be a `keras.layers.BatchNormalization` with "
                f"`scale=True`: its scales are what is clipped. Received: {layer}"
            )
        check_positive("bound", bound)
        kwargs.setdefault("name", layer.name)
        # The scales are clipped in full precision whatever the layer computes in.
        kwargs["dtype"] = layer.dtype_policy
        kwargs["autocast"] = False
        super().__init__(layer, **kwargs)
        if not self.trainable:
            layer.trainable = False
        self.bound = float(bound)
        self.supports_masking = True

    def build(self, input_shape=None):
        super().build(input_shape)
        self.input_spec = self.layer.input_spec

    def effective_gamma(self):
        """Return the scales that the layer computes with.

        Returns:
            Float tensor (channels,).
        """
        gamma = ops.convert_to_tensor(self.layer.gamma)
        variance = ops.convert_to_tensor(self.layer.moving_variance)
        magnitudes = ops.abs(gamma) * ops.rsqrt(variance + self.layer.epsilon)
        return gamma * clipping_scale(ops.max(magnitudes), self.bound)

    def call(self, inputs, training=None, mask=None):
        return call_substituted(
            self.layer,
            [(self.layer.gamma, self.effective_gamma())],
            lambda: self.layer(inputs, mask=mask),
            self.add_loss,
        )

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "bound": self.bound}
