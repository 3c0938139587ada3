"""What an import cannot see: a state dict has weights and names, and nothing else."""

from keras_spectral.convert.rules import weighted_layers

PREPROCESSING = "preprocessing of the inputs"
_MOST_NAMES = 3


def not_in_a_state_dict(model, lost):
    """Return a line for each thing of a model that its weights do not tell.

    Args:
        model: A built `keras.Model`.
        lost: List of paths that read numbers in an order that cannot be told; see
            `flattening`.

    Example:
    >>> import keras
    >>> layers = [keras.Input((4,)), keras.layers.BatchNormalization(name="bn")]
    >>> not_in_a_state_dict(keras.Sequential(layers), [])[-1]
    "epsilon of the normalizations: 0.001 in bn (PyTorch's default is 1e-05)"
    """
    lines = ["wiring: which layer reads which", "activations and pooling"]
    geometry, epsilons, groups, heads, orders = [], {}, [], [], []
    for name, layer, _ in weighted_layers(model):
        path = name.replace("-", ".")
        if hasattr(layer, "strides"):
            geometry.append(path)
        if hasattr(layer, "epsilon"):
            epsilons.setdefault(layer.epsilon, []).append(path)
        if hasattr(layer, "epsilon") and hasattr(layer, "groups"):
            groups.append(path)
        if hasattr(layer, "num_heads"):
            heads.append(path)
        if getattr(layer, "go_backwards", False):
            orders.append(path)
        elif getattr(layer, "merge_mode", None) not in ("concat", None):
            orders.append(path)
    if geometry:
        lines.append(f"strides, padding and dilation of {_named(geometry)}")
    if groups:
        lines.append(f"number of groups of {_named(groups)}")
    if heads:
        lines.append(f"number of heads and attention axes of {_named(heads)}")
    if orders:
        lines.append(
            f"that {_named(orders)} reads backwards or merges both directions: modules "
            "of PyTorch read forwards and put both side by side"
        )
    if epsilons:
        values = "; ".join(
            f"{value:g} in {_named(paths)}" for value, paths in epsilons.items()
        )
        lines.append(
            f"epsilon of the normalizations: {values} (PyTorch's default is 1e-05)"
        )
    if lost:
        lines.append(f"the order of the numbers that {_named(lost)} reads")
    return lines


def _named(paths):
    first = ", ".join(paths[:_MOST_NAMES])
    more = len(paths) - _MOST_NAMES
    return f"{first} and {more} more" if more > 0 else first
