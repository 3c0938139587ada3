"""What maps images to features: a network, its input, and a name for both."""

import hashlib
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_spectral.gan.metrics.images import Resize, resized, to_uint8
from keras_spectral.gan.metrics.statistics import Statistics
from keras_spectral.linalg.differentiation import compiled
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.validation import check_choice, check_integer

Scaling = Literal["symmetric", "centered", "unit", "pixels"]
_SCALINGS = {
    "symmetric": lambda pixels: pixels / np.float32(127.5) - 1,
    "centered": lambda pixels: (pixels - 128) / 128,
    "unit": lambda pixels: pixels / np.float32(255),
    "pixels": lambda pixels: pixels,
}
_RESIZES = {
    None: "no resize",
    "tensorflow1": "TF1 resize",
    "half_pixel": "half-pixel resize",
    "clean": "clean resize",
}
# What `inception` may give, and the layer of `zoo.fid_inception` that has it.
_INCEPTION_LAYERS = {
    "64": "pool-1",
    "192": "pool-2",
    "768": "Mixed_6e",
    "2048": "pool",
    "logits": "fc",
    "logits_unbiased": "pool",
}
# The file of the weights of 2015-12-05 is named by how its SHA-256 begins.
_WEIGHTS = "6726825d"


class Features:
    """A network that makes features of images, and the name of how it does.

    Images are brought to eight bits (see `to_uint8`), resized if asked to, scaled, and
    run in batches. One channel is repeated where the network takes three.

    Args:
        model: A built `keras.Model` of one image input.
        name: String, what the network is, such as `"digits classifier"`. It begins
            the names of metrics, as numbers of two networks say nothing of each other.
        layer: String, the inner layer whose output is taken; `None` for the model's.
            Outputs with height and width are averaged over both.
        resize: `None`, `"tensorflow1"`, `"half_pixel"` or `"clean"`, to the size that
            the model takes (see `resized`).
        scaling: `"symmetric"`, p / 127.5 - 1 of pixels p in 0 to 255, as GANs of this
            package have images; `"centered"`, (p - 128) / 128; `"unit"`, p / 255;
            `"pixels"`, p.
        batch_size: Integer >= 1, images a batch.

    Raises:
        ValueError: If the model has no such layer, or not one image input.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from keras import layers
    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="convolution"),
    ...      layers.Flatten(), layers.Dense(2)])
    >>> features = Features(model, "untrained", layer="convolution")
    >>> features.name
    "untrained, layer 'convolution', no resize, symmetric"
    >>> features(np.zeros((5, 8, 8, 3), "uint8")).shape
    (5, 4)
    """

    def __init__(
        self,
        model,
        name: str,
        layer: str | None = None,
        resize: Resize | None = None,
        scaling: Scaling = "symmetric",
        batch_size: int = 32,
    ):
        if resize is not None:
            check_choice("resize", resize, Resize)
        check_choice("scaling", scaling, Scaling)
        check_integer("batch_size", batch_size, least=1)
        graph = functional_graph(model)
        if graph is None or len(graph[0]) != 1 or len(graph[0][0].shape) != 4:
            raise ValueError(
                "`model` must be a built functional or Sequential model of one image "
                f"input. Received: {getattr(model, 'name', model)!r}"
            )
        self.model, self.resize, self.scaling = model, resize, scaling
        self.batch_size = batch_size
        self.shape = tuple(graph[0][0].shape[1:])
        if resize is not None and None in self.shape[:2]:
            raise ValueError(
                "`resize` needs a model with a size. Received: "
                f"resize={resize!r}, and '{model.name}' takes {self.shape}"
            )
        outputs = _outputs_of(model, graph, layer)
        if len(outputs) != 1 or len(outputs[0].shape) not in (2, 4):
            raise ValueError(
                "`layer` must be one with outputs (samples, features) or (samples, "
                f"height, width, features). Received: layer={layer!r}"
            )
        inner = f", layer '{layer}'" if layer is not None else ""
        self.name = f"{name}{inner}, {_RESIZES[resize]}, {scaling}"
        self.dimensions = outputs[0].shape[-1]
        self.is_fid = False
        self.project: Callable | None = None
        network = keras.Model(graph[0], outputs[0])

        def run(images):
            result = network(images, training=False)
            result = ops.mean(result, axis=(1, 2)) if len(result.shape) == 4 else result
            return ops.cast(result, "float32")

        self._run = compiled(run, network.variables)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights, in hexadecimal digits."""
        digest = hashlib.sha256()
        for weight in self.model.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()

    def __call__(self, images) -> np.ndarray:
        """Return the features of images.

        Args:
            images: Array (samples, height, width, channels) of uint8 or of floats in
                [-1, 1], or an iterable of such arrays, as of a stream in batches.

        Returns:
            Array (samples, features) of float32.

        Raises:
            ValueError: If images are of another range or size than the model's.
        """
        arrays = (array for array in batches_of(images) if len(array))
        batches = [self._of_array(array) for array in arrays]
        if not batches:
            raise ValueError("`images` must hold images. Received: none")
        return np.concatenate(batches)

    def statistics(self, images, keep_features: bool = False) -> Statistics:
        """Return the statistics of the features, without holding more than a batch.

        Args:
            images: What calling takes.
            keep_features: Boolean, whether the features stay too.

        Returns:
            `Statistics`, whose provenance names the protocol and the weights.
        """
        provenance = {"features": self.name, "weights_sha256": self.weights_sha256}
        gathered = Statistics(keep_features, provenance)
        for array in batches_of(images):
            array = to_uint8(array)
            for start in range(0, len(array), self.batch_size):
                part = array[start : start + self.batch_size]
                gathered.update(self._of_array(part))
        return gathered

    def _of_array(self, images):
        images = self._fitting(to_uint8(images))
        found = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            # Shapes that differ would be compiled anew.
            repeated = np.resize(np.arange(len(part)), self.batch_size)
            outputs = self._run(ops.convert_to_tensor(self._scaled(part[repeated])))
            found.append(ops.convert_to_numpy(outputs)[: len(part)])
        features = np.concatenate(found)
        return features if self.project is None else self.project(features)

    def _fitting(self, images):
        channels = self.shape[2]
        if images.shape[3] == 1 and channels == 3:
            images = np.repeat(images, 3, axis=3)
        fits = all(
            want in (None, have)
            for want, have in zip(self.shape[:2], images.shape[1:3], strict=True)
        )
        if channels not in (None, images.shape[3]) or not (fits or self.resize):
            raise ValueError(
                f"`images` must be {self.shape}, as '{self.model.name}' takes them. "
                f"Received: images of shape {images.shape[1:]}. `resize` brings them "
                "to its size."
            )
        return images

    def _scaled(self, images):
        if self.resize is None:
            pixels = images.astype("float32")
        else:
            pixels = resized(images, self.shape[:2], self.resize)
        return _SCALINGS[self.scaling](pixels)


def inception(
    model,
    weights=None,
    layer: str = "2048",
    resize: Resize = "tensorflow1",
    batch_size: int = 32,
) -> Features:
    """Return the features of the Inception network, on which FID, KID and IS rest.

    With the weights of 2015-12-05 and the resize of TensorFlow 1, numbers are those of
    TTUR's and torch-fidelity's definition; `resize="clean"` gives clean-fid's.

    Args:
        model: `zoo.fid_inception()` with weights that `convert.from_torch` has loaded.
        weights: Path of the file that they came from. The name says "Inception
            2015-12-05" if its SHA-256 begins as the published file's name says, and
            otherwise that the weights are unknown.
        layer: `"64"`, `"192"`, `"768"`, `"2048"`, or `"logits_unbiased"` (the logits
            without the last bias, for the inception score), or `"logits"`.
        resize: As of `Features`, or `None` for images of 299 x 299.
        batch_size: Integer, images a batch. One takes about 0.2 seconds of a core.

    Returns:
        `Features`.

    Raises:
        ValueError: If it is another network, or there is no such layer.

    Example:
    >>> from keras_spectral import convert, zoo  # doctest: +SKIP
    >>> path = "pt_inception-2015-12-05-6726825d.pth"  # doctest: +SKIP
    >>> model = convert.from_torch(path, zoo.fid_inception())  # doctest: +SKIP
    >>> inception(model, path).name  # doctest: +SKIP
    'Inception 2015-12-05, TF1 resize'

    Source: [szegedy2016], the network; [heusel2017], its use.
    """
    check_choice("layer", layer, tuple(_INCEPTION_LAYERS))
    try:
        head = model.get_layer("fc")
        features = Features(
            model,
            "Inception",
            _INCEPTION_LAYERS[layer],
            resize,
            "centered",
            batch_size,
        )
    except ValueError as error:
        raise ValueError(
            "`model` must be `zoo.fid_inception()` with weights. Received: "
            f"'{model.name}': {error}"
        ) from error
    known = weights is not None and _sha256(weights).startswith(_WEIGHTS)
    features.is_fid = known and layer == "2048"
    network = "Inception 2015-12-05" if known else "Inception of unknown weights"
    inner = "" if layer == "2048" else f", {layer}"
    features.name = f"{network}{inner}, {_RESIZES[resize]}"
    if layer == "logits_unbiased":
        features.dimensions = head.kernel.shape[-1]
        features.project = lambda pooled: (
            pooled @ ops.convert_to_numpy(ops.cast(head.kernel, "float32"))
        )
    return features


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _outputs_of(model, graph, layer):
    """Return the tensors that a layer, or the model, gives."""
    _, calls, outputs = graph
    if layer is None:
        return outputs
    by_name = {call.operation.name: call.outputs for call in calls}
    if layer not in by_name:
        raise ValueError(
            f"`layer` must be one of '{model.name}'. Received: layer={layer!r}. It "
            f"has {', '.join(map(repr, by_name))}"
        )
    return by_name[layer]


def batches_of(images):
    """Yield the arrays of an array, or of an iterable of them or of (images, labels).

    Args:
        images: What `Features` takes.
    """
    if hasattr(images, "__array__"):
        yield np.asarray(images)
        return
    if isinstance(images, (str, bytes)) or not hasattr(images, "__iter__"):
        raise ValueError(
            "`images` must be an array of images, or an iterable of such arrays. "
            f"Received: {images!r}"
        )
    for batch in images:
        batch = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield ops.convert_to_numpy(batch)
