"""How far a network's Jacobian falls short of the product of its layers' norms."""

import math

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.hidden_layers import kernel_calls
from keras_spectral.measures.lipschitz_bound import lipschitz_bound
from keras_spectral.measures.local_lipschitz import JacobianNorms
from keras_spectral.measures.samples import Samples
from keras_spectral.models.graph import chain


def alignment(
    model: keras.Model, x, *, batch_size: int = 128, progress: bool = True
) -> Distributions:
    """Return by how much the product of the layers' norms exceeds the Jacobian's.

    With a_l what the next kernel reads, and the last the outputs, J_l = d a_l /
    d a_(l-1) at a sample, W_l the kernels as operators:

        |J_f| <= prod |J_l| <= prod |W_l|,

    the second where activations and pooling have slopes of at most one. The first is an
    equation only if the leading singular vectors of neighbours agree. Each row is the
    natural logarithm of a quotient, which is 0 for perfect alignment and else below:

    - a row for two neighbours, |J_(l+1) J_l| / (|J_(l+1)| |J_l|);
    - `"whole network"`, |J_f| / prod |J_l|;
    - `"product bound"`, |J_f| / `lipschitz_bound(model, method="product")`.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` without branches.
        x: Array of inputs, or a stream of batches of x or (x, y).
        batch_size: Integer >= 1, samples at a time.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Distributions`. Norms of large Jacobians come by power iteration, from below.

    Raises:
        ValueError: If the model has branches or no bound, is not built or not finite,
            or inputs do not fit.

    Example: two projections on different axes.
    >>> layers = [keras.layers.Dense(2, use_bias=False) for _ in range(2)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> model.set_weights([np.diag([1.0, 0.5]), np.diag([0.5, 1.0])])
    >>> round(float(np.exp(alignment(model, np.ones((1, 2)))[0].median)), 6)
    0.5

    Source: [sanyal2020], appendix C, equations 22 to 24.
    """
    samples = Samples(model, x, batch_size=batch_size)
    list(chain(model))
    norms = JacobianNorms(model, batch_size=batch_size)
    bound = lipschitz_bound(model, method="product")
    points, names = _points(model)
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
        values["product bound"].append(whole - bound.log10_bound * math.log(10))
    return Distributions(
        {name: np.concatenate(parts) for name, parts in values.items()},
        title=f"Alignment of {model.name}, natural logarithms",
        caption=f"0 is perfect alignment. {norms.how}. Left out: samples where a "
        "Jacobian is zero.",
    )


def _points(model):
    """Return what each kernel reads and the output, and the rows' names."""
    calls = kernel_calls(model)
    points = [tensor for tensor, _ in calls]
    if not points or points[0] is not model.inputs[0]:
        points.insert(0, model.inputs[0])
    points.append(model.outputs[0])
    names = [f"{one} to {two}" for one, two in _pairs([name for _, name in calls], 1)]
    return points, [*names, "whole network", "product bound"]


def _pairs(points, apart):
    return list(zip(points, points[apart:], strict=False))


def _logs(norms, inputs, source, target):
    found = norms.between(inputs, source, target)
    return np.log(found, where=found > 0, out=np.full_like(found, np.nan))
