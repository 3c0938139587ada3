"""Why weights are no matrices that can be measured. Names and shapes alone."""

# Layers with weights of which none is a kernel by itself, and why.
_REASONS = {
    "BatchNormalization": "scales channels, not folded into the layer before",
    "InvertibleResidual": "computes with the kernels of its function scaled to a bound",
}
# Others that a file of weights knows by the names of their groups.
OF_NO_KIND = (
    *_REASONS,
    "GroupNormalization",
    "LayerNormalization",
    "Normalization",
    "PReLU",
    "RMSNormalization",
)


class Unfit(ValueError):
    """A layer has no kernels that are known as matrices.

    Args:
        message: String, for whoever gave the layer.
        reason: String, for a list of what was left out.
    """

    def __init__(self, message, reason):
        super().__init__(message)
        self.reason = reason


def nothing_left(argument, what, origin, reasons):
    """Return the error of what has no matrix that is measured.

    Args:
        argument: String, the name of what was given.
        what: String, what was looked for.
        origin: String, which one it was.
        reasons: Dict from names of what was left out to reasons.

    Example:
    >>> print(nothing_left("model", "a layer with a kernel", "'m'", {"bn": "scales"}))
    `model` must hold a layer with a kernel. Received: 'm' with bn: scales.
    """
    told = [f"{name}: {reason}" for name, reason in reasons.items()]
    more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
    return ValueError(
        f"`{argument}` must hold {what}. Received: {origin} with "
        f"{'; '.join(told[:5]) or 'no weights'}{more}."
    )


def reason_of(classes, ranks):
    """Return why a layer of no kind is left out.

    Args:
        classes: Tuple of strings, see `Part`.
        ranks: Iterable of integers, the numbers of axes of its weights.

    Example:
    >>> reason_of(("PReLU",), [1])
    'no matrix'
    """
    for name in classes:
        if name in _REASONS:
            return _REASONS[name]
    return "no rule for its kernel" if max(ranks, default=0) > 1 else "no matrix"


def quantized(dtype, mode=None):
    """Return why a quantized kernel is left out.

    Args:
        dtype: String, of what is kept: int4 is packed in int8.
        mode: String, the mode of its layer, where that is known.

    Example:
    >>> quantized("int8", "int4"), quantized("float32", "float8")
    ('int8 kernel', 'float8 kernel')
    """
    return f"{mode if mode and 'float' in dtype else dtype} kernel"
