"""When singular vectors move, and when they count among the weights."""

import contextlib
import contextvars

# Of the current thread and trace, so that no other call sees them.
_HELD = contextvars.ContextVar("keras_spectral_vectors_held", default=False)
_UNCOUNTED = contextvars.ContextVar("keras_spectral_vectors_uncounted", default=False)


def vectors_held():
    """Let spectral layers keep their singular vectors, also in training calls.

    For a further call in an update whose first one has moved them.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layer = SpectralNormalization(keras.layers.Dense(3))
    >>> for _ in range(2):
    ...     with vectors_held():
    ...         _ = layer(keras.ops.ones((1, 4)), training=True)
    >>> int(layer.norm_states[0].updates)
    0
    """
    return _set(_HELD)


def are_held():
    """Return whether vectors are held."""
    return _HELD.get()


def vectors_uncounted():
    """Let singular vectors be no weights, as random seeds are none: for a summary.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layer = SpectralNormalization(keras.layers.Dense(3))
    >>> layer.build((None, 4))
    >>> with vectors_uncounted():
    ...     layer.count_params()
    15
    """
    return _set(_UNCOUNTED)


def are_uncounted():
    """Return whether vectors are no weights."""
    return _UNCOUNTED.get()


@contextlib.contextmanager
def _set(variable):
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)
