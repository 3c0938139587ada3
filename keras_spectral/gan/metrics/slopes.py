"""How steep a discriminator is between and at images, and how its loss moves."""

from typing import Any

import keras
import numpy as np
import scipy.stats

from keras_spectral.gan.metrics.images import to_uint8
from keras_spectral.measures import (
    Distributions,
    empirical_lipschitz,
    jacobian_norms,
)
from keras_spectral.validation import check_integer


def discriminator_slopes(
    discriminator: keras.Model,
    generated,
    real,
    *,
    generated_labels=None,
    real_labels=None,
    count: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
) -> Distributions:
    """Return the discriminator's empirical Lipschitz constants, the paper's eLhist.

    |D(x) - D(y)| / |x - y| of random pairs: a real and a generated image, two of the
    generated, two real ones, and of a conditional discriminator a real and a generated
    image of a class, each class as likely, and two real ones of a class. Images are in
    [-1, 1]. Pairs of equal ones are left out and counted.

    Args:
        discriminator: A built `keras.Model` from images, or images and labels, to
            logits.
        generated: Array (samples, height, width, channels), uint8, or floats in
            [-1, 1].
        real: Array of the same form.
        generated_labels: Integer array (samples,) for a conditional discriminator.
        real_labels: Likewise.
        count: Integer >= 1, pairs of each kind. The paper's is 2000.
        seed: Integer >= 0, of the pairs.
        batch_size: Integer >= 1, images at a time.

    Returns:
        `Distributions`: the rows `"real-fake"`, `"fake"`, `"real"` and, with labels,
        `"real-fake of a class"` (where both have a class in common) and
        `"same class"`. The paper marks the 95th percentile.

    Raises:
        ValueError: If images or labels do not fit the discriminator.

    Example: no pair exceeds the norm of a linear map.
    >>> layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    >>> linear = keras.Sequential([keras.Input((2, 2, 1)), *layers])
    >>> images = np.random.default_rng(0).uniform(-1, 1, (20, 2, 2, 1))
    >>> found = discriminator_slopes(linear, -images, images, count=50)
    >>> norm = np.linalg.norm(keras.ops.convert_to_numpy(linear.weights[0]))
    >>> [(row.name, bool(row.maximum <= norm)) for row in found]
    [('real-fake', True), ('fake', True), ('real', True)]

    Source: [sanyal2020], section 5.3, Figures 5 and 12 to 14.
    """
    fake = _inputs(discriminator, "generated", generated, generated_labels)
    genuine = _inputs(discriminator, "real", real, real_labels)
    pairs = ["real-fake", "fake", "real"]
    if real_labels is not None:
        if len(np.intersect1d(real_labels, generated_labels)):
            pairs.append("real-fake of a class")
        pairs.append("same class")
    return empirical_lipschitz(
        discriminator,
        genuine,
        fake,
        labels=real_labels,
        fake_labels=generated_labels,
        pairs=pairs,
        count=count,
        seed=seed,
        batch_size=batch_size,
    )


class DiscriminatorJacobians(Distributions):
    """Norms of a discriminator's gradients at real and at generated images.

    Args:
        values: Dict with `"real"` and `"generated"`, as `Distributions` takes it.
        **kwargs: `title` and `caption`.

    Attributes:
        distance: Float in [0, 1], the Kolmogorov-Smirnov distance of the two: the
            largest difference of their distribution functions.

    Example:
    >>> DiscriminatorJacobians({"real": [1.0, 2.0], "generated": [2.0, 3.0]}).distance
    0.5
    """

    distance: float

    def __init__(self, values, **kwargs):
        super().__init__(values, **kwargs)
        # The statistic alone: with as many samples any difference is significant.
        found = scipy.stats.ks_2samp(self.values["real"], self.values["generated"])
        self.distance = float(found.statistic)


def discriminator_jacobians(
    discriminator: keras.Model,
    generated,
    real,
    *,
    generated_labels=None,
    real_labels=None,
    count: int = 2000,
    batch_size: int = 128,
) -> DiscriminatorJacobians:
    """Return the norms of the discriminator's gradients at real and generated images.

    Args:
        discriminator: As `discriminator_slopes` takes it; functional or sequential.
        generated: Array (samples, height, width, channels), uint8, or floats in
            [-1, 1]; the first `count` are used.
        real: Array of the same form.
        generated_labels: Integer array (samples,) for a conditional discriminator.
        real_labels: Likewise.
        count: Integer >= 1, images of each kind. The paper's is 2000.
        batch_size: Integer >= 1, images at a time.

    Returns:
        `DiscriminatorJacobians`: the rows `"real"` and `"generated"`, and the
        `distance` of the two.

    Raises:
        ValueError: If images or labels do not fit the discriminator.

    Example: a linear map has one gradient.
    >>> layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    >>> linear = keras.Sequential([keras.Input((2, 2, 1)), *layers])
    >>> images = np.random.default_rng(0).uniform(-1, 1, (20, 2, 2, 1))
    >>> discriminator_jacobians(linear, -images, images).distance
    0.0

    Source: [sanyal2020], appendix E, Figures 15 and 16.
    """
    check_integer("count", count, least=1)
    norms, captions = {}, []
    for name, images, labels in (
        ("real", real, real_labels),
        ("generated", generated, generated_labels),
    ):
        inputs = _inputs(discriminator, name, images, labels, count)
        found = jacobian_norms(discriminator, inputs, batch_size=batch_size)
        (norms[name],) = found.values.values()
        captions.append(found.caption)
    return DiscriminatorJacobians(
        norms, title=f"Gradients of {discriminator.name} at images", caption=captions[0]
    )


def loss_instability(losses: Any, window: int = 10) -> float:
    """Return by how much a loss jumps: the deviation of its smoothed differences.

    s_t is the mean of `window` successive losses, and the result the standard deviation
    (ddof 0) of s_(t+1) - s_t over training. It is the same for a loss that is shifted,
    as the paper's figure has one; a loss that falls by the same each time has none; of
    independent noise of deviation sigma it is sqrt(2) sigma / window. It scales with
    the loss, so that only losses of one objective compare.

    Args:
        losses: Array (steps,), such as `history.history["discriminator_loss"]`.
        window: Integer >= 1, losses that are averaged.

    Returns:
        Float >= 0, in the unit of the loss.

    Raises:
        ValueError: If there are fewer than `window + 2` losses, or one is not finite.

    Example:
    >>> loss_instability([5.0, 4.0, 3.0, 2.0], window=1)
    0.0
    >>> loss_instability([0.0, 1.0, 0.0, 1.0, 0.0], window=1)
    1.0

    Source: [sanyal2020], Figure 17, of which it makes a number.
    """
    check_integer("window", window, least=1)
    losses = np.asarray(losses, "float64")
    if losses.ndim != 1 or len(losses) < window + 2:
        raise ValueError(
            f"`losses` must be an array of at least window + 2 = {window + 2} losses. "
            f"Received: losses of shape {losses.shape}"
        )
    if not np.isfinite(losses).all():
        raise ValueError(
            "`losses` must be finite. Received: NaN or infinity at step "
            f"{int(np.argmin(np.isfinite(losses)))}"
        )
    # The ends' difference is that of the means, and loses nothing to a large loss.
    return float(np.std((losses[window:] - losses[:-window]) / window))


def _inputs(discriminator, name, images, labels, count=None):
    """Return what the discriminator takes of images, and of labels where there are."""
    if not getattr(discriminator, "inputs", None):
        raise ValueError(
            "`discriminator` must be a built `keras.Model` with inputs, such as "
            f"`gan.discriminator`. Received: discriminator={discriminator!r}"
        )
    conditional = len(discriminator.inputs) == 2
    if conditional != (labels is not None):
        raise ValueError(
            f"`{name}_labels` must be given if and only if the discriminator is "
            f"conditional. Received: {name}_labels="
            f"{'None' if labels is None else 'labels'}, a discriminator with "
            f"{len(discriminator.inputs)} inputs"
        )
    if conditional and np.asarray(labels).dtype.kind not in "iu":
        raise ValueError(
            f"`{name}_labels` must be integers. Received: labels of "
            f"{np.asarray(labels).dtype}"
        )
    if conditional and np.shape(labels) != (len(images),):
        raise ValueError(
            f"`{name}_labels` must hold one label an image. Received: labels of shape "
            f"{np.shape(labels)} for {len(images)} images"
        )
    images, pixels = np.asarray(images)[:count], to_uint8(images[:count])
    if images.dtype == np.uint8:
        images = pixels / 127.5 - 1.0
    images = images.astype("float32")
    return [images, np.asarray(labels)[:count]] if conditional else images
