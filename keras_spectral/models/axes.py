"""Which axes of a kernel number outputs: of an owner's `Part` and the kernel's rank."""

from keras_spectral.models.reasons import Unfit

# A letter an axis, of which there are 32.
_LONGEST_EQUATION = 200


def last(part, rank):
    """Return the last axis."""
    return (rank - 1,)


def last_but_one(part, rank):
    """Return the last axis but one."""
    return (rank - 2,)


def last_two(part, rank):
    """Return the last two axes."""
    return (rank - 2, rank - 1)


def all_but_first(part, rank):
    """Return all axes but the first."""
    return tuple(range(1, rank))


def all_but_two(part, rank):
    """Return all axes but the first two."""
    return tuple(range(2, rank))


def of_equation(part, rank):
    """Return those that an EinsumDense's equation has in its result alone."""
    if not isinstance(part.read("equation"), str):
        return None
    labels, outputs = einsum_labels(part)
    return tuple(axis for axis, label in enumerate(labels) if label in outputs)


def einsum_labels(part):
    """Return the labels of an EinsumDense's kernel and the set of its outputs'.

    Args:
        part: A `Part`.

    Raises:
        Unfit: If no one matrix holds the norm of the layer.
    """
    equation = part.read("equation")
    if len(equation) > _LONGEST_EQUATION:
        raise Unfit(
            f"`layer` must have an equation of at most {_LONGEST_EQUATION} letters. "
            f"Received: {len(equation):,} in '{part.name}'.",
            "its equation is too long",
        )
    operands, result = equation.replace(" ", "").split("->")
    inputs, kernel = (side.replace("...", "") for side in operands.split(","))
    result = result.replace("...", "")
    outputs = {label for label in kernel if label not in inputs}
    shared = [label for label in kernel if label in inputs and label in result]
    summed = [label for label in inputs + kernel if label not in result]
    if shared or not outputs <= set(result) or set(summed) - set(kernel):
        raise Unfit(
            "`layer` must contract its input with a kernel whose other axes are "
            "all outputs: only then one matrix holds its norm. Received: "
            f"'{part.name}' with equation='{equation}'. Split it into "
            "`Dense` layers.",
            "no one matrix holds the norm of its equation",
        )
    return kernel, outputs
