"""What is stored of a model in spectral wrappers: plain layers, and their masks."""

from keras_spectral.compression.masks import as_numpy, compression_of, find_masks
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.surgery import effective_copy


def stored_model(model, compression):
    """Return the model that a file holds, and its masks.

    Args:
        model: A built `keras.Model`.
        compression: As `compression_of` returns it, or `None`.

    Returns:
        Tuple (model, masks): the model itself where no layer of it is wrapped, else a
        copy with effective kernels, and a dict from an index into its weights to a
        `ReplacedKernel`.

    Raises:
        ValueError: As `find_masks` and `unwrap`, and if what was frozen in a trained
            kernel is something else in the effective one.
    """
    layers = flatten_layers(model, include_self=False)
    if not any(isinstance(layer, Reparametrization) for layer in layers):
        return model, find_masks(model, compression)
    # Asked of the trained model first: its indices are meant.
    given = compression_of(model) if compression is None else compression
    known = find_masks(model, given)
    copy, places = effective_copy(model)
    moved = {}
    for index, record in known.items():
        weight = model.weights[index]
        if index not in places:
            raise ValueError(
                "`compression` must be of kernels. Received: a mask of "
                f"'{weight.path}', which is a wrapper's own and is not stored."
            )
        array = as_numpy(copy.weights[places[index]])
        if (array != record.frozen(array.dtype.name))[~record.kept].any():
            raise ValueError(
                "`model` must compute with what was frozen in its kernels. Received: "
                f"'{weight.path}' in a wrapper, whose effective kernel is another "
                f"there (replacement={record.replacement!r}). Compress what "
                "`unwrap(model)` returns; `compression={}` stores the effective kernel "
                "as it is."
            )
        moved[places[index]] = record
    if compression is None:
        # Zeros are those of the effective kernels, but where more is known.
        moved = find_masks(copy, None) | moved
    return copy, moved
