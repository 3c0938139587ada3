"""The two optimizers of a GAN, as callbacks of Keras see them."""

import keras
from keras import ops

from keras_spectral.layers import restart_power_iteration
from keras_spectral.models.keras_internals import flatten_layers


class BothOptimizers:
    """What `model.optimizer` of a GAN is.

    Keras' `LearningRateScheduler`, `ReduceLROnPlateau` and `SwapEMAWeights` ask it for
    `optimizers`, and set both; who counts steps counts the generator's.

    Args:
        generator: A Keras optimizer, its name, or `None` for the stable-rank paper's.
        discriminator: Likewise, another instance.
        networks: Pair of the two networks; the loss of one that computes in float16 is
            scaled.
    """

    built = True

    def __init__(self, generator, discriminator, networks):
        self.whole = tuple(
            _optimizer(given, network)
            for given, network in zip((generator, discriminator), networks, strict=True)
        )
        first, second = self.optimizers
        if first is second:
            raise ValueError(
                "`discriminator_optimizer` must be another instance than "
                "`generator_optimizer`: each keeps the state of one network."
            )
        if first.name == second.name:
            # The logs of callbacks have a column for each name.
            first.name, second.name = (
                f"{network}_{first.name}" for network in ("generator", "discriminator")
            )

    @property
    def optimizers(self):
        """List of both, without what scales losses around them."""
        return [getattr(one, "inner_optimizer", one) for one in self.whole]

    @property
    def iterations(self):
        """Updates of the generator."""
        return self.whole[0].iterations

    @property
    def learning_rate(self):
        """The generator's."""
        return self.whole[0].learning_rate

    @property
    def variables(self):
        """List of the variables of both."""
        return [variable for one in self.whole for variable in one.variables]

    def finalize(self, generator, discriminator):
        """Give the networks their averages, as `fit` of Keras does with `use_ema`."""
        networks = generator, discriminator
        for optimizer, network in zip(self.optimizers, networks, strict=True):
            # Before the first update the averages are zeros.
            if optimizer.use_ema and int(optimizer.iterations):
                optimizer.finalize_variable_values(network.trainable_variables)
                if keras.backend.backend() == "jax":
                    # The averages' own buffers, which the next `fit` cannot donate too.
                    for variable in network.trainable_variables:
                        variable.assign(ops.copy(variable))
                restart_power_iteration(network)


def _optimizer(given, network):
    if given is None:
        optimizer = keras.optimizers.Adam(2e-4, beta_1=0.0, beta_2=0.999)
    else:
        optimizer = keras.optimizers.get(given)
    halves = any(x.compute_dtype == "float16" for x in flatten_layers(network))
    # As `compile` of Keras does.
    if halves and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
