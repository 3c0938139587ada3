"""Noise sensitivity: how much of a sample's output noise takes the place of."""

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.samples import Samples, floats, forward
from keras_spectral.validation import check_integer, check_positive


class NoiseSensitivity(Distributions):
    """One row, the noise sensitivity of all samples.

    Args:
        values: Dict, see `Distributions`.
        standard_errors: Float64 array (samples,), of each value, from the draws.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> found = NoiseSensitivity({"noise sensitivity": [2.0, 3.0]}, np.zeros(2))
    >>> found.maximum
    3.0
    """

    def __init__(self, values, standard_errors, **kwargs):
        super().__init__(values, **kwargs)
        self.standard_errors = standard_errors

    @property
    def maximum(self) -> float:
        """The paper's number, the largest over the samples."""
        return self.rows[0].maximum


def noise_sensitivity(
    model: keras.Model,
    x,
    *,
    noise: float = 1.0,
    draws: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
) -> NoiseSensitivity:
    """Return E|f(x + eta |x|) - f(x)|^2 / |f(x)|^2 for each sample x.

    eta has independent normal entries of standard deviation `noise`, the same draws for
    all samples. The paper takes the largest over the data, which is one sample's: the
    quantiles are beside it. Samples with |f(x)| = 0 have none and are counted as left
    out.

    Of a linear f(x) = W x it is `noise`^2 |W|_F^2 |x|^2 / |W x|^2, at least the stable
    rank of W times `noise`^2, which it is at the leading right singular vector.

    Args:
        model: A built `keras.Model`.
        x: Array of inputs, or a stream of batches of x or (x, y), such as a
            `tf.data.Dataset`. Of several inputs those move that are floats, together.
        noise: Float > 0; the paper's is 1. Its norm is then some sqrt(numbers) |x|.
        draws: Integer >= 2, on which the standard error depends.
        seed: Integer >= 0.
        batch_size: Integer >= 1; it changes memory, not results.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        A `NoiseSensitivity`: one row with the quantiles; `.maximum`, `.values`,
        `.standard_errors`.

    Raises:
        ValueError: If the model is not built or finite, inputs do not fit, there are
            none, or arguments are out of range.

    Example: the identity of order 4, where it is 4.
    >>> layer = keras.layers.Dense(4, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> found = noise_sensitivity(model, np.eye(4), draws=2000)
    >>> bool(abs(found.maximum - 4) < 5 * found.standard_errors.max())
    True

    Source: [sanyal2020], section 3; [arora2018], Proposition 3.1.
    """
    check_positive("noise", noise)
    check_integer("draws", draws, least=2)
    check_integer("seed", seed, least=0)
    samples = Samples(model, x, batch_size=batch_size)
    run, values, errors = forward(model), [], []
    for inputs, _ in samples.each("Noise sensitivity", progress):
        outputs = run(inputs)
        size = np.linalg.norm(floats(inputs), axis=1) * noise
        random = np.random.default_rng(seed)
        total, squares = np.zeros(len(outputs)), np.zeros(len(outputs))
        scale = (outputs**2).sum(1)
        known = np.where(scale > 0, scale, np.nan)
        together = max(1, batch_size // len(outputs))
        for start in range(0, draws, together):
            count = min(together, draws - start)
            moved = run(_moved(inputs, size, random, count))
            moved = moved.reshape(count, *outputs.shape)
            ratios = ((moved - outputs) ** 2).sum(2) / known
            total += ratios.sum(0)
            squares += (ratios**2).sum(0)
        values.append(total / draws)
        variance = np.maximum(squares / draws - values[-1] ** 2, 0)
        errors.append(np.sqrt(variance / (draws - 1)))
    name = "noise sensitivity"
    return NoiseSensitivity(
        {name: np.concatenate(values)},
        np.concatenate(errors),
        title=f"Noise sensitivity of {model.name}",
        caption=f"{draws} draws of noise of standard deviation {noise:g} |x|. Left "
        "out: samples whose output is zero.",
    )


def _moved(inputs, size, random, count):
    """Return the inputs `count` times over, each with a draw of noise."""
    moving = [at for at, array in enumerate(inputs) if array.dtype.kind == "f"]
    # Draw after draw, so that how many run together changes nothing.
    draws = [
        [random.standard_normal(inputs[at].shape[1:]) for at in moving]
        for _ in range(count)
    ]
    moved = [np.concatenate([array] * count) for array in inputs]
    for at, etas in zip(moving, zip(*draws, strict=True), strict=True):
        array = inputs[at]
        sizes = size.reshape(-1, *(1 for _ in array.shape[1:]))
        parts = [(array + sizes * eta).astype(array.dtype) for eta in etas]
        moved[at] = np.concatenate(parts)
    return moved
