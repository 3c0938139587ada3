"""Keras callbacks for training with spectral layers."""

import keras

from keras_spectral.layers import restart_power_iteration


class RestartPowerIteration(keras.callbacks.Callback):
    """Finds the singular vectors anew where kernels may have been set from outside.

    The layers follow kernels that the optimizer moves. Kernels that something else
    sets (weights that were loaded in part, `optimizer.finalize_variable_values`, the
    averages of `keras.callbacks.SwapEMAWeights`) have other singular vectors; the
    norms are then off until training has found them. This finds them at the start of
    training and before and after each epoch, evaluation and prediction, on the host: a
    few milliseconds a kernel, a tenth of a second for one of 2048 x 2048.

    Pass it after the callback that sets the kernels.

    Example:
    >>> import numpy as np
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layers = [keras.Input((4,)), SpectralNormalization(keras.layers.Dense(2))]
    >>> model = keras.Sequential(layers)
    >>> model.compile(keras.optimizers.SGD(use_ema=True), "mse")
    >>> callbacks = [keras.callbacks.SwapEMAWeights(), RestartPowerIteration()]
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(x, y, callbacks=callbacks, verbose=0)
    """

    def _restart(self):
        restart_power_iteration(self.model)

    def on_train_begin(self, logs=None):
        self._restart()

    def on_epoch_begin(self, epoch, logs=None):
        self._restart()

    def on_epoch_end(self, epoch, logs=None):
        self._restart()

    def on_test_begin(self, logs=None):
        self._restart()

    def on_test_end(self, logs=None):
        self._restart()

    def on_predict_begin(self, logs=None):
        self._restart()

    def on_predict_end(self, logs=None):
        self._restart()
