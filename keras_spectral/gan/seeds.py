"""Random numbers of a replica's own."""

import keras
from keras import ops


class SeedOfReplica(keras.random.SeedGenerator):
    """A seed generator whose replicas, which share its state, draw unlike numbers.

    Args:
        seed: Integer, or `None` for one from `keras.utils.set_random_seed`.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        if keras.backend.backend() != "tensorflow":
            return seed
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        # The n-th draw of replica r takes the number n * replicas + r.
        replicas = ops.convert_to_tensor([1, context.num_replicas_in_sync], seed.dtype)
        own = ops.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed * replicas + ops.stack([ops.zeros_like(own), own])
