"""Spectral normalization: the kernel divided by its norm."""

import keras

from keras_spectral.layers.rank_one import RankOneReparametrization


@keras.saving.register_keras_serializable(package="keras_spectral")
class SpectralNormalization(RankOneReparametrization):
    """Spectral normalization (SN): the layer computes with bound * W / ||W||.

    The gradient flows through the norm, as the paper has it. (The layer of the
    same name in Keras assigns W / ||W|| to the kernel instead.) How the norm is
    found:

    - `method="block"`: the leading singular vectors are followed, `block_size` of
      them, by one iteration a training step (LOBPCG's, see `linalg.block_iterate`),
      or two where both sides are above 512; a small kernel is factored. Measured, in
      training and in inference: within 2e-5 of the bound on ResNet-20 and the SNGAN
      discriminator; while a perceptron memorizes one batch, 1e-2 at widths up to 2048;
      4e-3 where one keeps fitting noise against a bound of 1.
    - `method="power_iteration"`: one vector, the papers' and PyTorch's way, step for
      step. Where singular values lie close together it lags by up to 12 %.
    - `method="exact"`: an eigendecomposition of the smaller Gram matrix in each call,
      for kernels whose smaller side is at most 512. XLA makes it 25 to 1,000 times
      slower for 256 rows: a warning says so on TensorFlow with `jit_compile`.

    A second derivative by the kernel includes how the singular vectors turn, for which
    it factors a Gram matrix. It is NaN where the two largest singular values coincide
    and where an estimated vector is more than 0.1 off: with `method="block"` in a
    quarter of the steps and layers of 512 units that fit noise; `method="exact"` has no
    estimate. With `norm="operator"` on a convolution it raises `NotImplementedError`.
    A gradient penalty, by the inputs and then by the kernel, needs none of it.

    After a kernel was set from outside, call `restart_power_iteration`, or train with
    `callbacks.RestartPowerIteration`.

    Args:
        layer: A layer, see `Reparametrization`.
        bound: Float > 0, the norm of the effective kernel.
        power_iterations: Integer >= 1, iterations a training step.
        epsilon: Float > 0; a kernel with a norm not above it is used as it is.
        norm: `"reshaped"` (the GAN papers' norm, of the flattened kernel; a
            convolution can have 2 to 3 times that norm) or `"operator"` (the
            norm of the convolution itself, zero padding and stride included).
        input_size: Pair (height, width) in pixels, for `norm="operator"` where
            the input size is not known when the layer is built.
        clip: Boolean; if `True` only a kernel whose norm exceeds the bound is
            scaled: W / max(1, ||W|| / bound).
        update_order: `"v_first"` or `"u_first"`: which singular vector moves
            first with `method="power_iteration"`
            (`torch.nn.utils.parametrizations.spectral_norm` is the second).
        method: `"block"`, `"power_iteration"` or `"exact"`.
        block_size: Integer >= 1, singular vectors that `method="block"` follows. A
            flattened kernel whose smaller side is at most four times as large is
            factored instead, which costs less and is exact.
        **kwargs: `name` (default: the wrapped layer's), `trainable` and `dtype`.

    Call arguments:
        inputs: Tensor, what the wrapped layer takes.
        training: Boolean; `True` moves the estimates of a trainable layer.

    Raises:
        ValueError: For another kind of layer, a layer with LoRA or quantized
            weights, and arguments out of range.

    Example:
    >>> import keras, numpy as np
    >>> layer = SpectralNormalization(keras.layers.Dense(4))
    >>> outputs = layer(np.ones((2, 8), "float32"))
    >>> effective = keras.ops.convert_to_numpy(layer.effective_kernel())
    >>> bool(abs(np.linalg.norm(effective, 2) - 1) < 1e-4)
    True

    Source: [zhang2020], eq. 17 ([miyato2018]) and, with `clip=True`, eq. 16
    ([gouk2018]).
    """

    keeps_zeros = True
