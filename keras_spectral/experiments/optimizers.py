"""Stochastic gradient descent as PyTorch has it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_spectral")
class _CoupledSGD(keras.optimizers.SGD):
    """SGD whose weight decay is part of the gradient, and so of the momentum.

    Keras' own `weight_decay` shrinks the weights beside the step, which with momentum
    0.9 is a tenth of this. All trainable weights decay, as with PyTorch's `SGD`.
    """

    def __init__(self, learning_rate, coupled_decay=0.0, name="sgd", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.coupled_decay = coupled_decay

    def update_step(self, gradient, variable, learning_rate):
        # Of several devices, this is the gradient of all.
        if self.coupled_decay:
            decay = ops.cast(self.coupled_decay * variable, gradient.dtype)
            gradient = gradient + decay
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "coupled_decay": self.coupled_decay}


def sgd(learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    """Return SGD with PyTorch's weight decay.

    Args:
        learning_rate: Float, or a Keras schedule.
        momentum: Float in [0, 1).
        nesterov: Boolean.
        weight_decay: Float >= 0, times each weight, added to its gradient.

    Example:
    >>> sgd(0.1, momentum=0.9, weight_decay=5e-4).momentum
    0.9
    """
    return _CoupledSGD(
        learning_rate, momentum=momentum, nesterov=nesterov, coupled_decay=weight_decay
    )
