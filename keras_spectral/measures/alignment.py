"""How far a network's Jacobian falls short of the product of its layers' norms."""

import math

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.hidden_layers import kernel_calls
from keras_spectral.measures.lipschitz_bound import lipschitz_bound
from keras_spectral.measures.local_lipschitz import JacobianNorms
from keras_spectral.measures.samples import Samples


def alignment(
    model: keras.Model, x, *, batch_size: int = 128, progress: bool = True
) -> Distributions:
    """Return by how much the product of the layers' norms exceeds the Jacobian's.

    With a_l the tensors that all paths from the input to the output go through, the
    last before each kernel, and the output; J_l = d a_(l+1) / d a_l at a sample, and
    W_l the kernels as operators:

        |J_f| <= prod |J_l|, and in a chain prod |J_l| <= prod |W_l|,

    the second where activations and pooling have slopes of at most one. In a chain a_l
    is what a kernel reads. In a residual network it is what a block reads, and J_l is
    the whole block's, its skip connection in it: J_f is the product of these, and no
    product of what stands on one path. The first is an equation only if the leading
    singular vectors of neighbours agree. Each row is the natural logarithm of a
    quotient, which is 0 for perfect alignment and else below:

    - a row for two neighbours, by the names of their first kernels,
      |J_(l+1) J_l| / (|J_(l+1)| |J_l|);
    - `"whole network"`, |J_f| / prod |J_l|;
    - `"product bound"`, |J_f| / `lipschitz_bound(model, method="product")`, which adds
      up the branches of a block, too. A network that has none, such as one with
      attention, has no such row, and the caption says why.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` with one output
            and one input of floats; others, such as labels, stay as they are.
        x: Array of inputs, or a stream of batches of x or (x, y).
        batch_size: Integer >= 1, samples at a time.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Distributions`. Norms of large Jacobians come by power iteration, from below.

    Raises:
        ValueError: If the model has several kernels and no tensor between them that
            all paths go through, is not built or not finite, or inputs do not fit.

    Example: two projections on different axes.
    >>> layers = [keras.layers.Dense(2, use_bias=False) for _ in range(2)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> model.set_weights([np.diag([1.0, 0.5]), np.diag([0.5, 1.0])])
    >>> round(float(np.exp(alignment(model, np.ones((1, 2)))[0].median)), 6)
    0.5

    Source: [sanyal2020], appendix C, equations 22 to 24.
    """
    samples = Samples(model, x, batch_size=batch_size)
    norms = JacobianNorms(model, batch_size=batch_size)
    points, names = _points(model, norms)
    bound, missing = None, ""
    try:
        bound = lipschitz_bound(model, method="product", progress=progress)
        bound = bound.log10_bound * math.log(10)
    except ValueError as error:  # What else it refuses is refused by now.
        names.remove("product bound")
        missing = f" No product bound: {error}"
    values = {name: [] for name in names}
    for inputs, _ in samples.each("Alignment", progress):
        between = [_logs(norms, inputs, *ends) for ends in _pairs(points, 1)]
        for name, together, one, two in zip(
            names,
            [_logs(norms, inputs, *ends) for ends in _pairs(points, 2)],
            between,
            between[1:],
            strict=False,
        ):
            values[name].append(together - one - two)
        whole = _logs(norms, inputs, points[0], points[-1])
        values["whole network"].append(whole - sum(between))
        if bound is not None:
            values["product bound"].append(whole - bound)
    return Distributions(
        {name: np.concatenate(parts) for name, parts in values.items()},
        title=f"Alignment of {model.name}, natural logarithms",
        caption=f"0 is perfect alignment. {norms.how}. Left out: samples where a "
        f"Jacobian is zero.{missing}",
    )


def _points(model, norms):
    """Return the tensors whose Jacobians are multiplied, and the rows' names."""
    program = norms.at.program
    source, target = map(program.slot, norms.ends)
    reached, cuts = program.reached(source), set(program.cuts(source, target))
    kernels = {id(call) for call in kernel_calls(model, program)}
    last, parts = source, {}
    for call in program.needed([target]):
        if id(call) in kernels and not reached.isdisjoint(call.reads):
            parts.setdefault(last, []).append(call.operation.name)
        last = next((slot for slot in call.made if slot in cuts), last)
    if len(parts) == 1 and len(*parts.values()) > 1:
        raise ValueError(
            "`model` must have a tensor between its kernels that all paths go through: "
            "alignment is of neighbours in a product. Received: "
            f"'{model.name}', where {', '.join(*parts.values())} have none. Take a "
            "part of the model, such as a branch."
        )
    names, pairs = [], _pairs([found[0] for found in parts.values()], 1)
    for at, (one, two) in enumerate(pairs):
        # A layer that is used several times has several neighbours.
        use = 1 + pairs[:at].count((one, two))
        names.append(f"{one} to {two}" + (f" ({use})" if use > 1 else ""))
    # What stands before the first kernel is of its part.
    points = [source, *list(parts)[1:], target]
    return points, [*names, "whole network", "product bound"]


def _pairs(points, apart):
    return list(zip(points, points[apart:], strict=False))


def _logs(norms, inputs, source, target):
    found = norms.between(inputs, source, target)
    return np.log(found, where=found > 0, out=np.full_like(found, np.nan))
