"""A certified upper bound of a whole network's Lipschitz constant."""

import dataclasses
import math
from typing import Literal

import keras

from keras_spectral.measures.lipschitz_graph import Walk
from keras_spectral.measures.plain_copies import plain_copy
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice

Method = Literal["product", "merged"]


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
        metadata={"label": "bound so far, log10", "format": ".4f"}
    )


class LipschitzBound(Rows):
    """Rows of `LipschitzRow`, and the bound that they lead to.

    Args:
        rows: List of `LipschitzRow`.
        log10_bound: Float, the common logarithm of the bound; `-inf` for a network that
            is constant.
        alerts: List of strings.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> dense = keras.layers.Dense(3, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((3,)), dense])
    >>> round(lipschitz_bound(model).bound, 6)
    1.0
    """

    def __init__(self, rows, log10_bound, alerts=(), **kwargs):
        super().__init__(rows, **kwargs)
        self.log10_bound = float(log10_bound)
        self.alerts = list(alerts)

    @property
    def bound(self) -> float:
        """The bound; infinity where it is above 1e308."""
        if math.isnan(self.log10_bound) or self.log10_bound > 308:
            return math.inf
        return 10.0**self.log10_bound if math.isfinite(self.log10_bound) else 0.0


def lipschitz_bound(
    model: keras.Model, input_shape=None, method: Method = "product"
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

    Of several inputs or outputs the norm is that of all their numbers together.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        input_shape: Tuple of integers, of one sample without the batch, where the
            model's input has sizes that are not fixed; a list of tuples for several
            inputs.
        method: `"product"` or `"merged"`.

    Returns:
        A `LipschitzBound`.

    Raises:
        ValueError: If the model is not of those kinds or not built, `input_shape` is
            missing, a weight is not finite, or layers have no bound: all of them are
            named with the reason.

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
    walk = Walk(method)
    total = walk.run(plain_copy(model), input_shape)
    rows = [LipschitzRow(*row) for row in walk.rows]
    caption = "From above at every step, in Euclidean norms, for inference."
    return LipschitzBound(
        rows,
        total / math.log(10),
        walk.alerts,
        title=f"Lipschitz bound of {model.name}: 10^{total / math.log(10):.4f}",
        caption=" ".join([caption, *walk.alerts]),
    )
