"""The augmentation of images that the papers call standard."""

import numpy as np

from keras_spectral.validation import check_integer


def crop_and_flip(images, seed, padding: int = 4, flip: bool = True) -> np.ndarray:
    """Shift each image at random and mirror half of them.

    An image is padded with black and cropped to its own size at a random place, then
    mirrored from left to right with probability 1/2: what [he2016] trains with. The
    outcome depends on nothing but the arguments.

    Args:
        images: Array (count, height, width, channels), uint8, or floats whose black
            is 0.
        seed: Integer >= 0, or a sequence of them, such as (seed, epoch, step).
        padding: Integer >= 0, pixels on each side.
        flip: Boolean; `False` for digits and the like.

    Returns:
        A new array of the shape and dtype of `images`.

    Raises:
        ValueError: On images of another rank, or negative padding.

    Example:
    >>> images = np.arange(32, dtype="uint8").reshape(2, 4, 4, 1)
    >>> crop_and_flip(images, seed=(0, 3, 7), padding=1).shape
    (2, 4, 4, 1)
    >>> bool((crop_and_flip(images, 0, padding=0, flip=False) == images).all())
    True
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            "`images` must have the shape (count, height, width, channels). "
            f"Received: images.shape={images.shape}"
        )
    check_integer("padding", padding, least=0)
    count, height, width, _ = images.shape
    random = np.random.default_rng(seed)
    down, right = random.integers(2 * padding + 1, size=(2, count, 1))
    mirrored = random.integers(2, size=(count, 1)).astype(bool) & flip
    columns = np.arange(width)
    columns = right + np.where(mirrored, columns[::-1], columns)
    rows = down + np.arange(height)
    around = (padding, padding)
    padded = np.pad(images, ((0, 0), around, around, (0, 0)))
    index = np.arange(count)[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]]
