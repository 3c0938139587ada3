"""A kernel in a file, and which tensors of PyTorch's are kernels. NumPy alone."""

from collections.abc import Callable
from dataclasses import dataclass

from keras_spectral.models.views import MatrixView


@dataclass(frozen=True)
class StoredWeight:
    """A kernel of a model in a file.

    Args:
        name: String, as `Weight` has it.
        kind: String, the class of the layer.
        keys: Tuple of keys of tensors.
        view: `MatrixView` of the kernel.
        note: String, what the file does not tell, or `None`.
        combine: Callable from the tensors to the kernel.
        transform: Callable from the matrix (inputs, outputs) in float64 to the one that
            the layer computes with, or `None`.
    """

    name: str
    kind: str
    keys: tuple
    view: MatrixView
    note: str | None = None
    combine: Callable = lambda kernel: kernel
    transform: Callable | None = None

    def matrix(self, tensors):
        """Return W of y = W x, an array (outputs, inputs), flattened.

        Args:
            tensors: Mapping from key to NumPy array.
        """
        kernel = self.combine(*(tensors[key] for key in self.keys))
        matrix = self.view.flatten(kernel)
        if self.transform is not None:
            matrix = self.transform(matrix.astype("float64"))
        return matrix.T


def torch_weights(key, shape, shapes, layout="auto"):
    """Return the kernels that a tensor of PyTorch's holds: one, or three of attention.

    Args:
        key: String.
        shape: Tuple of at least two integers.
        shapes: Dict from all keys to shapes.
        layout: `"keras"` for filters on the last axis; otherwise they are on the first.

    Returns:
        List of `StoredWeight`.

    Example:
    >>> torch_weights("fc.weight", (3, 4), {})[0].view.shape
    (4, 3)
    """
    rank, shape = len(shape), tuple(shape)
    kind = "matrix" if rank == 2 else "convolution"
    axis, note = 0, None
    stem, _, last = key.rpartition(".")
    if layout == "keras":
        axis = rank - 1
    elif rank == 2 and last == "in_proj_weight" and shape[0] % 3 == 0:
        return [
            _third(f"{stem}.{part}" if stem else part, key, index, shape)
            for index, part in enumerate(("query", "key", "value"))
        ]
    elif rank > 2 and 1 not in shape[:2]:
        # One bias a filter tells a transposed convolution, unless both sides agree.
        bias = shapes.get(f"{stem}.bias" if stem else "bias")
        if bias == shape[1:2] != shape[:1]:
            axis = 1
        elif bias != shape[:1] or shape[0] == shape[1]:
            note = "read as a convolution; of a transposed one filters are on axis 1"
    taps = range(rank - 2) if layout == "keras" else range(2, rank)
    view = MatrixView(shape, (axis,), tuple(taps))
    return [StoredWeight(key, kind, (key,), view, note)]


def _third(name, key, index, shape):
    size = shape[0] // 3
    view = MatrixView((size, shape[1]), (0,))
    return StoredWeight(
        name,
        "matrix",
        (key,),
        view,
        combine=lambda packed: packed[index * size : (index + 1) * size],
    )
