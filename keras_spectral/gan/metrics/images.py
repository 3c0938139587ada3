"""Images as networks of features take them: eight bits, resized in a named way."""

from typing import Literal

import numpy as np

from keras_spectral.gan.inputs import LARGEST
from keras_spectral.validation import check_choice, check_integer

Resize = Literal["tensorflow1", "half_pixel", "clean"]


def to_uint8(images) -> np.ndarray:
    """Return images as pixels of eight bits, which is what metrics are defined on.

    Of floats in [-1, 1] it is (x + 1) * 127.5 + 0.5, clipped to 0..255 and truncated,
    so that `x / 127.5 - 1` of pixels comes back as it was. No range is taken from the
    images themselves, as mimicry does over the whole generated set.

    Args:
        images: Array (samples, height, width, channels), uint8 or floats in [-1, 1].

    Returns:
        Array of uint8, of the same shape.

    Raises:
        ValueError: If they are of another shape, dtype or range.

    Example:
    >>> to_uint8([[[[-1.0], [0.0], [1.0]]]]).ravel().tolist()
    [0, 128, 255]
    """
    images = np.asarray(images)
    if images.dtype.name == "bfloat16":  # Of no kind of NumPy's.
        images = images.astype("float32")
    if images.ndim != 4:
        raise ValueError(
            "`images` must be (samples, height, width, channels). Received: images of "
            f"shape {images.shape}"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(
            "`images` must be uint8, or floats in [-1, 1]. Received: images of "
            f"{images.dtype}. `images.astype('uint8')` where they are 0 to 255"
        )
    low, high = images.min(initial=0), images.max(initial=0)
    if not (low >= -LARGEST and high <= LARGEST):
        hint = "`images.astype('uint8')` where they are 0 to 255"
        if np.isnan(low):
            hint = "A generator that has diverged makes such"
        raise ValueError(
            "`images` of floats must be in [-1, 1]. Received: images from "
            f"{low} to {high}. {hint}"
        )
    pixels = (images.astype("float64") + 1) * 127.5 + 0.5
    return np.clip(pixels, 0, 255).astype("uint8")


def resized(images, size, method: Resize) -> np.ndarray:
    """Resize images in one of the ways on which published numbers rest.

    `"tensorflow1"`: bilinear, from the upper left corners of pixels: that of the FID
    network's graph, TTUR and torch-fidelity. `"half_pixel"`: bilinear between centres
    of pixels, without smoothing: that of pytorch-fid. `"clean"`: Pillow's bicubic with
    smoothing, in floats: that of clean-fid. On small images the first two differ by
    tens of grey levels, so they must never be mixed.

    Args:
        images: Array (samples, height, width, channels), pixels of 0 to 255.
        size: Pair of integers, height and width in pixels.
        method: String.

    Returns:
        Array of float32 (samples, *size, channels), within 0 and 255.

    Raises:
        ValueError: If `method` is none of these, or `images` or `size` of another form.

    Example:
    >>> import numpy as np
    >>> row = np.array([0, 10, 20, 30])[None, None, :, None]
    >>> resized(row, (1, 6), "tensorflow1").ravel().round().tolist()
    [0.0, 7.0, 13.0, 20.0, 27.0, 30.0]

    Source: [parmar2022], how far the ways differ.
    """
    check_choice("method", method, Resize)
    images = np.asarray(images, "float32")
    if images.ndim != 4:
        raise ValueError(
            "`images` must be (samples, height, width, channels). Received: images of "
            f"shape {images.shape}"
        )
    if np.shape(size) != (2,):
        raise ValueError(f"`size` must be (height, width). Received: size={size!r}")
    for pixels in size:
        check_integer("size", pixels, least=1)
    weights = _bicubic if method == "clean" else _bilinear
    arguments = () if method == "clean" else (method == "half_pixel",)
    down, across = (
        weights(before, after, *arguments).astype("float32")
        for before, after in zip(images.shape[1:3], size, strict=True)
    )
    wide = np.einsum("nhwc,xw->nhxc", images, across, optimize=True)
    result = np.einsum("nhxc,yh->nyxc", wide, down, optimize=True)
    return np.clip(result, 0, 255)


def _bilinear(before, after, half_pixel):
    """Return the matrix (after, before) of linear interpolation along one axis."""
    step = np.float32(before / after)
    places = np.arange(after, dtype="float32")
    if half_pixel:
        places = np.maximum((places + np.float32(0.5)) * step - np.float32(0.5), 0)
    else:
        places = places * step
    low = np.minimum(np.floor(places).astype(int), before - 1)
    share = (places - low).astype("float64")
    weights = np.zeros((after, before))
    np.add.at(weights, (np.arange(after), low), 1 - share)
    np.add.at(weights, (np.arange(after), np.minimum(low + 1, before - 1)), share)
    return weights


def _bicubic(before, after):
    """Return the matrix of Pillow's bicubic along one axis: wider where it shrinks."""
    step = before / after
    scale = max(step, 1.0)
    weights = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * step
        first = max(int(centre - 2 * scale + 0.5), 0)
        last = min(int(centre + 2 * scale + 0.5), before)
        pixels = np.arange(first, last)
        distance = np.abs((pixels - centre + 0.5) / scale)
        inner = (1.5 * distance - 2.5) * distance**2 + 1
        outer = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        values = np.where(distance < 1, inner, np.where(distance < 2, outer, 0))
        weights[row, first:last] = values / values.sum()
    return weights
