"""GroupSort: an activation that keeps distances as a rotation does."""

import keras
from keras import ops

from keras_spectral.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_spectral")
class GroupSort(keras.layers.Layer):
    """Sorts the numbers of an axis in groups of neighbours.

    With groups of two it is MaxMin. Its Jacobian is a permutation, so it is 1-Lipschitz
    and, other than a ReLU, no direction loses length: networks of such layers and
    orthogonal kernels can be any 1-Lipschitz function.

    Args:
        group_size: Integer >= 2, a divisor of the size of the axis.
        axis: Integer, which axis is sorted; the axis of the samples is none.
        **kwargs: `name`, `trainable` and `dtype`.

    Call arguments:
        inputs: Tensor.

    Raises:
        ValueError: If `group_size` is no such integer, or the axis that of the samples
            or of another size.

    Example:
    >>> import numpy as np
    >>> sorted_pairs = GroupSort()(np.array([[3.0, 1.0, 2.0, 5.0]]))
    >>> ops.convert_to_numpy(sorted_pairs).tolist()
    [[1.0, 3.0, 2.0, 5.0]]

    Source: [anil2019].
    """

    def __init__(self, group_size=2, axis=-1, **kwargs):
        check_integer("group_size", group_size, least=2)
        if axis == 0:
            raise ValueError(
                "`axis` must not be that of the samples. Received: axis=0. Pass -1 for "
                "the last one."
            )
        super().__init__(**kwargs)
        self.group_size = group_size
        self.axis = axis
        self.supports_masking = True

    def build(self, input_shape):
        rank = len(input_shape)
        if not -rank < self.axis < rank or (
            input_shape[self.axis] is None or input_shape[self.axis] % self.group_size
        ):
            raise ValueError(
                f"`axis` must have a size that `group_size`={self.group_size} divides. "
                f"Received: axis={self.axis} of inputs of shape {tuple(input_shape)} "
                f"in layer '{self.name}'."
            )
        self.built = True

    def call(self, inputs):
        axis = self.axis % len(inputs.shape)
        shape = ops.shape(inputs)
        grouped = ops.reshape(
            inputs,
            (
                *shape[:axis],
                inputs.shape[axis] // self.group_size,
                self.group_size,
                *shape[axis + 1 :],
            ),
        )
        if self.group_size == 2:  # Cheaper than to sort.
            one, other = ops.unstack(grouped, 2, axis=axis + 1)
            # Not `minimum`: on torch it makes float32 of float64.
            ordered = one <= other
            low, high = ops.where(ordered, one, other), ops.where(ordered, other, one)
            grouped = ops.stack([low, high], axis=axis + 1)
        else:
            grouped = ops.sort(grouped, axis=axis + 1)
        return ops.reshape(grouped, shape)

    def lipschitz_constant(self):
        """Return 1: what `measures.lipschitz_bound` takes."""
        return 1.0

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        return {**config, "group_size": self.group_size, "axis": self.axis}
