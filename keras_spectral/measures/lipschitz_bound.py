"""A certified upper bound of a whole network's Lipschitz constant."""

import dataclasses
import math
from typing import Literal

import keras
import numpy as np

from keras_spectral.measures.kernel_certificates import remembered_norms
from keras_spectral.measures.lipschitz_activations import Refused
from keras_spectral.measures.lipschitz_graph import Walk
from keras_spectral.measures.lipschitz_local import LocalWalk
from keras_spectral.measures.plain_copies import plain_copy
from keras_spectral.models.graph import count_calls
from keras_spectral.results import Rows
from keras_spectral.terminal import progress_bar
from keras_spectral.validation import check_choice, check_positive

Method = Literal["product", "merged", "local"]


@dataclasses.dataclass(frozen=True)
class LipschitzRow:
    """One step from the inputs towards the outputs.

    Args:
        node: Names of the layers, of one or of several that were merged.
        kind: Their class.
        constant: Lipschitz constant of the step; NaN where branches meet.
        how: `"exact"` (the norm, up to rounding), `"certified"` (never below it) or
            `"table"` (a known constant, rounded up).
        log10_bound: Common logarithm of the bound from the inputs to here.
    """

    node: str
    kind: str
    constant: float
    how: str
    log10_bound: float = dataclasses.field(
        metadata={"label": "bound so far, log10", "format": "z.4f"}
    )


class LipschitzBound(Rows):
    """Rows of `LipschitzRow`, and the bound that they lead to.

    Args:
        rows: List of `LipschitzRow`.
        log10_bound: Float, the common logarithm of the bound; `-inf` for a network that
            is constant.
        alerts: List of strings.
        log10_bounds: List of floats, on the balls around each input; of these the rows
            tell that with the largest. `None` for a bound that holds everywhere.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> dense = keras.layers.Dense(3, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((3,)), dense])
    >>> round(lipschitz_bound(model).bound, 6)
    1.0
    """

    def __init__(self, rows, log10_bound, alerts=(), log10_bounds=None, **kwargs):
        super().__init__(rows, **kwargs)
        self.log10_bounds = log10_bounds
        self.log10_bound = float(log10_bound)
        self.alerts = list(alerts)

    @property
    def bound(self) -> float:
        """The bound; infinity where it is above 1e308."""
        return _power(self.log10_bound)

    @property
    def bounds(self):
        """The bounds on the balls, an array (inputs,), or `None`."""
        if self.log10_bounds is None:
            return None
        return np.array([_power(value) for value in self.log10_bounds])


def _power(logarithm):
    if math.isnan(logarithm) or logarithm > 308:
        return math.inf
    return 10.0**logarithm if math.isfinite(logarithm) else 0.0


def lipschitz_bound(
    model: keras.Model,
    inputs=None,
    input_shape=None,
    method: Method = "product",
    input_radius: float | None = None,
    progress: bool = True,
) -> LipschitzBound:
    """Bound a network's Lipschitz constant from above.

    For all inputs x and y, |f(x) - f(y)| <= bound * |x - y|, in Euclidean norms over
    all numbers of a sample. The graph is followed call by call: a shared layer counts
    at each use, nested models are entered, branches add up. Nothing in it is an
    estimate from below, such as power iteration's. A wrapped layer counts with the
    norm of the kernel that it computes with, not with its target. What it says is of
    inference, in exact arithmetic: a network in float32 rounds besides.

    - `method="product"`: the constants of the layers multiplied.
    - `method="merged"`: linear layers that follow each other, or run side by side, are
      one map first (a convolution and its batch normalization, x + K x); where maps are
      small enough to be formed, the slopes of the activations between them are used,
      too, as ECLipsE-Fast does.
    - `method="local"`: merged, for x and y in a ball of `input_radius` around one of
      `inputs`. Intervals are carried along; a ReLU whose sign is fixed is zero or
      linear, other activations have the slopes of their intervals, and products of two
      branches (gates, squeeze-and-excitation) are bounded by what they can hold.

    Of several inputs or outputs the norm is that of all their numbers together.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        inputs: Array (samples, ...), or a list of them for several inputs: the centers
            of the balls. For `"local"` only.
        input_shape: Tuple of integers, of one sample without the batch, where the
            model's input has sizes that are not fixed; a list of tuples for several
            inputs.
        method: `"product"`, `"merged"` or `"local"`.
        input_radius: Float > 0, in the Euclidean norm over all numbers of a sample. For
            `"local"` only.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        A `LipschitzBound`; a local one has `bounds`, one a sample.

    Raises:
        ValueError: If the model is not of those kinds or not built, `input_shape`,
            `inputs` or `input_radius` are missing or do not fit, a weight is not
            finite, or layers have no bound: all of them are named with the reason.

    Example:
    >>> import numpy as np
    >>> layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> x, y = np.random.default_rng(0).standard_normal((2, 100, 4))
    >>> moved = model.predict(x, verbose=0) - model.predict(y, verbose=0)
    >>> ratio = np.linalg.norm(moved, axis=1) / np.linalg.norm(x - y, axis=1)
    >>> bool(ratio.max() <= lipschitz_bound(model, method="merged").bound)
    True

    Source: [sanyal2020], appendix C; with `"merged"`, [xu2024].
    """
    check_choice("method", method, Method)
    local = method == "local"
    samples = _samples(model, inputs, input_radius, local)
    copy = plain_copy(model)
    caption = "From above at every step, in Euclidean norms, for inference."
    walk = LocalWalk(input_radius) if local else Walk(method)
    found, least = [], (math.inf, [], [])
    total = count_calls(copy) * (len(samples) + local)
    with remembered_norms(), progress_bar("Layers", total, progress) as advance:
        walk.seen = lambda *_: advance()
        if local:
            least = _everywhere(model, samples[0], walk.seen)
        for sample in samples:
            if local:
                walk.centers = sample
                input_shape = [array.shape for array in sample]
            total = walk.run(copy, input_shape) / math.log(10)
            made = (total, walk.rows, walk.alerts)
            found.append(min(made, least, key=lambda triple: triple[0]))
    total, rows, alerts = max(found, key=lambda triple: triple[0])
    if local:
        caption += f" On balls of {input_radius:.4g} around {len(found)} inputs."
    return LipschitzBound(
        [LipschitzRow(*row) for row in rows],
        total,
        alerts,
        [triple[0] for triple in found] if local else None,
        title=f"Lipschitz bound of {model.name}: 10^{total:z.4f}",
        caption=" ".join([caption, *alerts]),
    )


def _everywhere(model, sample, seen):
    """Return what holds on every ball, too: the merged bound, infinite without one."""
    walk = Walk("merged")
    walk.seen = seen
    try:
        total = walk.run(plain_copy(model), [array.shape for array in sample])
    except Refused:  # Gates, of which a ball has more to say.
        return math.inf, [], []
    return total / math.log(10), walk.rows, walk.alerts


def _samples(model, inputs, input_radius, local):
    """Return the inputs, one list of arrays a sample."""
    if not local:
        if inputs is not None or input_radius is not None:
            raise ValueError(
                '`inputs` and `input_radius` are for `method="local"`; a size goes to '
                "`input_shape`. Received: them with another method."
            )
        return [None]
    if input_radius is None or inputs is None:
        raise ValueError(
            '`inputs` and `input_radius` must be given with `method="local"`: the '
            f"balls where it holds. Received: input_radius={input_radius}, inputs="
            f"{'None' if inputs is None else 'arrays'}."
        )
    check_positive("input_radius", input_radius)
    several = (
        isinstance(inputs, (list, tuple)) and len(getattr(model, "inputs", ())) > 1
    )
    arrays = [
        np.asarray(keras.ops.convert_to_numpy(array), "float64")
        for array in (inputs if several else [inputs])
    ]
    wanted = [tuple(x.shape) for x in getattr(model, "inputs", None) or ()]
    fits = len(wanted) in (0, len(arrays)) and all(
        array.ndim and len(array) and len(array) == len(arrays[0]) for array in arrays
    )
    if fits and wanted:
        fits = all(
            array.ndim == len(shape)
            and all(
                new in (old, None) or old is None
                for new, old in zip(array.shape[1:], shape[1:], strict=True)
            )
            for array, shape in zip(arrays, wanted, strict=True)
        )
    if not fits:
        raise ValueError(
            "`inputs` must be an array (samples, ...) of at least one sample, or a "
            f"list of them for several inputs, that fit {wanted}. Received: arrays of "
            f"shapes {[array.shape for array in arrays]}"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(
            "`inputs` must be finite. Received: NaN or infinity. Leave those samples "
            "out."
        )
    return [[array[at] for array in arrays] for at in range(len(arrays[0]))]
