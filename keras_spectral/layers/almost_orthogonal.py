"""Almost-orthogonal layers: a norm of at most one, by products alone."""

import keras
import numpy as np
from keras import ops

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg import almost_orthogonal
from keras_spectral.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_spectral")
class AlmostOrthogonal(Reparametrization):
    """Almost-orthogonal layers (AOL): the inputs rescaled so that the norm is <= bound.

    The layer computes with bound * W D, where D_jj = (sum_i |W' W|_ij)^(-1/2); of a
    convolution W' W is its correlation with itself, and j a channel, with a stride one
    at one of its places. No iteration, no state, no estimate: the bound holds in every
    step, in training and in inference, for convolutions of every image size, stride and
    dilation. The norm can be well below it; where the columns are orthogonal it is the
    bound, so begin there: `kernel_initializer="orthogonal"`.

    The bound is of the layer as a map of images or vectors, other than that of the
    flattened kernel by `SpectralNormalization`. A gradient flows through D. The largest
    temporary has (k^2 c)^2 numbers for a convolution k x k of c channels a group.

    Args:
        layer: A layer, see `Reparametrization`; of one with several kernels each is
            treated for itself.
        bound: Float > 0, the largest norm.
        **kwargs: `name` (default: the wrapped layer's), `trainable` and `dtype`.

    Call arguments:
        inputs: Tensor, what the wrapped layer takes.
        training: Boolean, passed on.

    Raises:
        ValueError: For a layer of an unknown kind, with LoRA or quantized weights, and
            a bound that is not positive.

    Example:
    >>> layer = AlmostOrthogonal(keras.layers.Dense(2), bound=2.0)
    >>> layer.build((None, 2))
    >>> _ = layer.kernel.assign(np.diag([5.0, 1.0]))
    >>> ops.convert_to_numpy(layer.effective_kernel()).round(4).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

    Source: [prach2022].
    """

    keeps_zeros = True

    def __init__(self, layer, bound=1.0, **kwargs):
        check_positive("bound", bound)
        super().__init__(layer, **kwargs)
        self.bound = float(bound)

    def _geometry(self, index):
        """Return the taps, groups and strides of a kernel, and if it is transposed."""
        slot = self.slots[index]
        taps = [slot.view.kernel_shape[axis] for axis in slot.view.taps]
        if not taps:
            return ()
        groups = getattr(slot.owner, "groups", 1)
        if slot.induced == "depthwise":
            groups = slot.view.kernel_shape[-2]
        # The stride of a cell is that of its inputs, not of its states.
        on_states = slot.attribute == "recurrent_kernel"
        strides = 1 if on_states else slot.owner.strides
        return taps, groups, strides, slot.induced == "transposed"

    def transform(self, matrix, index, advance):
        return self.bound * almost_orthogonal(matrix, *self._geometry(index))

    def converged(self, matrix, index):
        return self.bound * almost_orthogonal(matrix, *self._geometry(index))

    def norm_ceiling(self, name=None):
        """Return what the norm of the effective kernel, rounded, does not exceed.

        Args:
            name: String, one of `kernel_names`; needed where there are several.

        Returns:
            Float.
        """
        index = self._index(name)
        slot = self.slots[index]
        matrix = ops.convert_to_numpy(slot.view.flatten(slot.value)).astype("float64")
        exact = self.converged(matrix, index)
        used = ops.convert_to_numpy(slot.view.flatten(self.effective_kernel(name)))
        # A convolution has at most sqrt(taps) times the norm of its flattened kernel.
        taps = np.prod(self._geometry(index)[:1] or (1,))
        rounding = np.sqrt(taps) * np.linalg.norm(used.astype("float64") - exact)
        return self.bound * (1 + 1e-12) + float(rounding)

    def get_config(self):
        return {**super().get_config(), "bound": self.bound}
