"""Optimal spectral normalization: every singular value clipped at the bound."""

import keras

from keras_spectral.layers.compilation import warn_of_factorization
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg import clip_singular_values, clipped_matrix
from keras_spectral.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_spectral")
class OptimalSpectralNormalization(Reparametrization):
    """Optimal spectral normalization: the nearest kernel of norm <= `bound`.

    Dividing by the norm, as spectral normalization does, shrinks every singular
    value. This clips those above the bound and leaves the others, which is the
    nearest matrix in the Frobenius norm. It treats the flattened kernel: a
    clipped convolution operator would be no convolution any more.

    It keeps no state and takes an SVD of each kernel in each call,
    O(m n min(m, n)), in training and in inference. XLA makes that 25 to 1,000 times
    slower for 256 rows: a warning says so on TensorFlow with `jit_compile`. The
    gradient is exact, also where singular values coincide; its derivative by the
    kernel is so where they are distinct, and NaN where they are not.

    Args:
        layer: A layer, see `Reparametrization`.
        bound: Float > 0, the largest singular value allowed.
        **kwargs: `name` (default: the wrapped layer's), `trainable` and `dtype`.

    Call arguments:
        inputs: Tensor, what the wrapped layer takes.
        training: Boolean, passed on.

    Raises:
        ValueError: For a layer of an unknown kind, with LoRA or quantized
            weights, and a bound that is not positive.

    Example:
    >>> import keras, numpy as np
    >>> layer = OptimalSpectralNormalization(keras.layers.Dense(2), bound=2.0)
    >>> layer.build((None, 2))
    >>> _ = layer.kernel.assign(np.diag([5.0, 1.0]))
    >>> keras.ops.convert_to_numpy(layer.effective_kernel()).round(4).tolist()
    [[2.0, 0.0], [0.0, 1.0]]

    Source: [sanyal2020], Algorithm 3 and eq. 18.
    """

    def __init__(self, layer, bound=1.0, **kwargs):
        check_positive("bound", bound)
        super().__init__(layer, **kwargs)
        self.bound = float(bound)

    def transform(self, matrix, index, advance):
        warn_of_factorization(self, matrix)
        return clip_singular_values(matrix, self.bound)

    def converged(self, matrix, index):
        return clipped_matrix(matrix, self.bound)

    def get_config(self):
        return {**super().get_config(), "bound": self.bound}
