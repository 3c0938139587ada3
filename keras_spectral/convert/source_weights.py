"""The tensors of a source, normalized and rounded as the model computes with them."""

import numpy as np

from keras_spectral.convert import spectral_state
from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.records import numpy_dtype
from keras_spectral.convert.wrapped_state import numpy_values


def guarded(state, function, *arguments):
    """Put the file's name before an error's sentence."""
    try:
        return function(*arguments)
    except CheckpointError as error:
        raise type(error)(error.reason, state.origin) from error


class SourceWeights:
    """The tensors of a source under our keys, in PyTorch's layout."""

    def __init__(self, state, keys, spectral, targets):
        self._state, self._keys = state, keys
        self._spectral, self._targets = spectral, targets
        self._shapes = {key: slot.torch_shape for key, slot in targets.items()}
        self._transposed = {
            key.removesuffix(".weight"): "Transpose" in type(slot.layer).__name__
            for key, slot in targets.items()
        }
        self._found = {}
        self.notes = []
        for path in spectral:
            self._found[path] = self._singular_vectors(path)
        untrained = [
            f"{path} ({vectors.estimate:.4g}, the norm is {vectors.true_sigma:.4g})"
            for path, vectors in self._found.items()
            if vectors is not None and not vectors.is_trained
        ]
        if untrained:
            self.notes.append(
                "the estimate u' W v is negative, or more than 10 % off: never trained"
                f", in {', '.join(untrained)}"
            )

    def _singular_vectors(self, path):
        found, weight = self._spectral[path], self.stored(f"{path}.weight")
        if found.u is None and weight.ndim == 1:
            # PyTorch normalizes a vector by its Euclidean norm, without state.
            return None
        stored = self._state, found, weight, self._transposed.get(path, False)
        vectors = guarded(self._state, spectral_state.read, *stored)
        if not vectors.is_trained:
            guarded(self._state, spectral_state.check_axis, *stored)
        if found.flavour.evaluation:
            # A v that nothing reads is replaced.
            found_anew = found.flavour.v is None or vectors.estimate < 0
            self.notes.append(
                f"{path}: in {found.flavour.name} {found.flavour.evaluation}; here it "
                + (
                    "does so at the import"
                    if found_anew
                    else "takes the stored vectors"
                )
            )
        return vectors

    def stored(self, key):
        """Return a tensor as it is trained, in its module's shape.

        Where the source has none it is the model's.
        """
        if key not in self._keys:
            slot = self._targets[key]
            values = [numpy_values(holder.variable) for holder in slot.holders]
            return slot.to_torch(values)
        return self._state[self._keys[key]].reshape(self._shapes[key])

    def effective(self, key):
        """Return a tensor as the network computes with it, in float64."""
        value = np.asarray(self.stored(key), "float64")
        path, _, leaf = key.rpartition(".")
        if leaf != "weight" or path not in self._spectral:
            return value
        vectors = self._found[path]
        return value / (np.linalg.norm(value) if vectors is None else vectors.sigma)

    def rounded(self, key, effective=True):
        """Return a tensor with the numbers that the model's dtype leaves of it."""
        value = self.effective(key) if effective else self.stored(key)
        dtype = numpy_dtype(str(self._targets[key].variable.dtype))
        return np.asarray(value).astype(dtype).astype("float64")

    def evaluated(self, key):
        """Return a tensor as PyTorch computes with it, of numbers that a wrapper holds.

        Where the source keeps singular vectors it is W / (u' W v), of W, u and v that
        are rounded as a `SpectralNormalization` holds them.
        """
        value = self.rounded(key, effective=False)
        path, _, leaf = key.rpartition(".")
        found = self._found.get(path)
        if leaf != "weight" or found is None:
            return value
        double = str(self._targets[key].variable.dtype) == "float64"
        u, v = (
            np.asarray(vector, "float64" if double else "float32").astype("float64")
            for vector in (found.u, found.v)
        )
        matrix = spectral_state.matrix(value, self._transposed.get(path, False))
        return value / (u @ matrix @ v)

    def note_dtypes(self):
        """Say which numbers were widened, and by how much any were rounded."""
        dtypes = self._state.dtypes
        for dtype in sorted(set(dtypes.values()) - {"float32", "int64"}):
            keys = [k for k, theirs in self._keys.items() if dtypes[theirs] == dtype]
            error = max((self._rounding(key) for key in keys), default=0.0)
            self.notes.append(
                f"{len(keys)} tensors were stored in {dtype}; rounding them to the "
                f"model's dtype changed them by at most {error:.1e} of their largest"
            )

    def _rounding(self, key):
        value = np.asarray(self.stored(key), "float64")
        change = np.abs(self.rounded(key, effective=False) - value)
        return float(change.max(initial=0) / (np.abs(value).max(initial=0) or 1))

    def vectors(self, path):
        """Return (`SpectralState`, `Flavour`) of a module, or `None`."""
        if self._found.get(path) is None:
            return None
        return self._found[path], self._spectral[path].flavour

    def is_read(self, key):
        """Whether the source has a tensor for a key of the model."""
        return key in self._keys

    def is_spectral(self, path):
        """Whether the source normalizes a module."""
        return path in self._spectral
