"""Cushions: how much better a network passes on its data than it does noise."""

import dataclasses
import math
from typing import Literal

import keras
import numpy as np

from keras_spectral.measures.affine_layers import affine_copy, affine_layers
from keras_spectral.measures.extremes import CushionExtremes
from keras_spectral.measures.jacobians import Linearization
from keras_spectral.measures.samples import Samples, check_model
from keras_spectral.models.graph import check_graph
from keras_spectral.results import Rows, column
from keras_spectral.validation import (
    Norm,
    Variant,
    check_choice,
    check_integer,
    check_positive,
    check_ratio,
)


@dataclasses.dataclass(frozen=True)
class CushionRow:
    """The cushions of one weighted layer; see `cushions` for each.

    Args:
        name: String, the layer's.
        kind: String, its class.
        norm: `"operator"` or `"reshaped"`: as what A^i is measured.
        outputs: Integer, numbers of x^i.
        stable_rank: Float, of A^i.
        layer_cushion: Float, mu_i.
        minimal_interlayer_cushion: Float, the least mu_ij.
        standard_error: Float, of that; 0 where it is exact.
        jacobian_norms: `"exact"` or `"hutchinson"`: how |J|_F was found.
        activation_contraction: Float, c.
        interlayer_smoothness: Float, rho.
    """

    name: str = column()
    kind: str = column(table=False)
    norm: Norm = column(table=False)
    outputs: int = column(form="d")
    stable_rank: float = column("stable rank")
    layer_cushion: float = column("layer")
    minimal_interlayer_cushion: float = column("interlayer")
    standard_error: float = column("+-", ".1g")
    jacobian_norms: Literal["exact", "hutchinson"] = column("Jacobians")
    activation_contraction: float = column("contraction")
    interlayer_smoothness: float = column("smoothness")


class Cushions(Rows):
    """Rows of `CushionRow`, one a weighted layer, and what is of the whole network.

    Args:
        rows: List of `CushionRow`.
        interlayer_cushions: NumPy array (layers, layers), float64: mu_ij for
            i <= j, NaN below the diagonal, where j does not depend on i, and where no
            sample constrains it.
        standard_errors: NumPy array like it, 0 where mu_ij is exact.
        interlayer_smoothness: Float, rho_delta of all layers together.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> import numpy as np
    >>> dense = keras.layers.Dense(4, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> cushions(model, np.ones((2, 4))).interlayer_cushions.tolist()
    [[0.5]]
    """

    def __init__(
        self,
        rows,
        interlayer_cushions,
        standard_errors,
        interlayer_smoothness,
        **kwargs,
    ):
        super().__init__(rows, **kwargs)
        self.interlayer_cushions = interlayer_cushions
        self.standard_errors = standard_errors
        self.interlayer_smoothness = interlayer_smoothness

    @property
    def activation_contraction(self) -> float:
        """The network's c, the largest of its layers'."""
        return max(row.activation_contraction for row in self.rows)


def cushions(
    model: keras.Model,
    x,
    *,
    batch_size: int = 64,
    delta: float = 0.05,
    noise: float = 0.1,
    draws: int = 20,
    probes: int = 128,
    seed: int = 0,
    variant: str = "corrected",
    progress: bool = True,
) -> Cushions:
    """Measure the cushions of a network on some inputs.

    For the layers x^i = A^i phi(x^(i-1)) + b^i, the largest or smallest numbers
    that make these hold for every sample:

    - layer cushion mu_i: mu_i |A^i|_F |phi(x^(i-1))| <= |A^i phi(x^(i-1))|. It is
      at most 1 / sqrt(stable rank).
    - interlayer cushion mu_ij, i <= j: mu_ij |J|_F |x^i| <= |J x^i|, where J is the
      Jacobian of x^j by x^i at the sample; mu_ii = 1 / sqrt(outputs). The minimal
      one is the least over j.
    - activation contraction c: |x^i| <= c |phi(x^i)|. It is 1 for the last layer,
      whose activation is not part of the network, and infinite if a sample has
      nothing left after phi. ReLU halves a symmetric law's squares: c = sqrt(2).
    - interlayer smoothness rho, the largest number such that with probability
      1 - `delta` over noise eta, for all j > i and all samples together,
      |x^j(x^i + eta) - x^j - J eta| <= |eta| |x^j| / (rho |x^i|). Infinite where
      that difference is no more than rounding, as in a linear network.

    phi is all that stands between two layers (activation, pooling, reshaping, also
    layers with other weights, such as PReLU or a normalization elsewhere), and the
    identity before the first. A^i is the operator, for a convolution with its stride
    and padding (`norm="operator"` in the rows), with the batch normalization directly
    after it folded in.

    The papers' networks are chains without biases. With biases this measures A^i and
    J, which are linear parts; J (x^i + eta) in the smoothness becomes x^j + J eta,
    which is the same without. In a graph with branches phi(x^i) is each tensor that a
    layer reads and x^i reaches through no other layer, such as the sum at the end of a
    residual block; J and x^j(x^i + eta) change x^i alone, and what bypasses it, such as
    a skip connection, stays. A layer that is used twice has two rows.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` with one input.
            Its layers are Dense, EinsumDense, Conv1D/2D/3D, their transposes and
            DepthwiseConv1D/2D; others with a kernel (recurrent ones, attention) may
            come before the first and after the last of them. This package's wrappers
            are measured by their effective kernels.
        x: Float array (samples, ...), the inputs, or a stream of batches of x or
            (x, y), such as a `tf.data.Dataset`; all are measured.
        batch_size: Integer >= 1, samples at a time. It changes memory, not results. A
            stream keeps its own batches.
        delta: Float in (0, 1], the probability that the smoothness leaves out. It
            is the quantile of `draws`; below 1 / `draws` it is the worst of them.
        noise: Float > 0, |eta| / |x^i|. Directions are uniform on the sphere, one
            for all samples of a draw.
        draws: Integer >= 1, of the noise.
        probes: Integer >= 2. |J|_F is exact, from one product for each basis
            vector, where x^i or x^j has at most as many numbers. Elsewhere it is
            estimated from as many random signs (Hutchinson), the row says
            `"hutchinson"`, and `standard_error` is that of the minimal interlayer
            cushion. The least of many estimates lies low by about as much.
        seed: Integer >= 0, of noise and probes.
        variant: `"corrected"`, or `"as_printed"`: both papers define the smoothness
            as the smallest number with its inequality, which always is 0.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Cushions`: rows with name, kind, norm, outputs, stable rank, layer cushion,
        minimal interlayer cushion, its standard error, how the Jacobians' norms
        were found, activation contraction and interlayer smoothness. NaN where no
        sample constrains a number, such as behind a zero kernel. The whole mu_ij
        are `.interlayer_cushions`.

    Raises:
        ValueError: On a model with other layers between, named; inputs of another
            shape; weights or outputs that are not finite; arguments out of range.

    Example:
    >>> import numpy as np
    >>> layers = [keras.layers.Dense(9, activation="relu"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> x = np.random.default_rng(0).normal(size=(16, 4))
    >>> rows = cushions(model, x)
    >>> round(float(rows.interlayer_cushions[0, 0]), 6), rows[0].jacobian_norms
    (0.333333, 'exact')

    Source: [shin2021], eqs. 50 to 54; [orton2018], section 3 ([arora2018]).
    """
    check_integer("batch_size", batch_size, least=1)
    check_ratio("delta", delta)
    check_positive("noise", noise)
    check_integer("draws", draws, least=1)
    check_integer("probes", probes, least=2)
    check_integer("seed", seed, least=0)
    check_choice("variant", variant, Variant)
    check_graph(model)
    check_model(model)
    if len(model.inputs) != 1:
        raise ValueError(
            "`model` must have one input. Received: "
            f"'{model.name}' with {len(model.inputs)}."
        )
    samples = Samples(model, x, batch_size=batch_size)
    at = Linearization(affine_copy(model))
    layers = affine_layers(at.program)
    measured = CushionExtremes(at, layers, noise, draws, probes, seed)
    for (batch,), _ in samples.each("Cushions", progress):
        if not measured.add(batch):
            raise ValueError(
                "`x` must give finite outputs. Received: samples for which "
                f"'{model.name}' overflows. Scale them as in training."
            )
    return _table(model, measured, delta, variant)


def _quantile(margins, delta):
    """Return the largest rho that a share 1 - delta of the draws allows."""
    skipped = min(math.floor(delta * len(margins) + 1e-9), len(margins) - 1)
    return float(np.sort(margins)[skipped])


def _table(model, measured, delta, variant):
    layers, draws = measured.layers, len(measured.margins)
    depth, follows = len(layers), measured.follows
    matrix, errors = measured.cushions, measured.errors
    # Nothing constrained it.
    matrix = np.where(np.isinf(matrix), np.nan, matrix)
    matrix[np.tril_indices(depth, -1)] = errors[np.tril_indices(depth, -1)] = np.nan
    smoothness = [_quantile(column, delta) for column in measured.margins.T]
    together = _quantile(measured.margins.min(1), delta)
    if variant == "as_printed":
        smoothness, together = [0.0] * depth, 0.0
    rows = []
    for i, layer in enumerate(layers):
        known = np.where(np.isnan(matrix[i]), np.inf, matrix[i])
        least = int(known.argmin())
        exact = all(measured.is_exact(i, j) for j in np.flatnonzero(follows[i]))
        cushion = float(measured.layer_cushions[i])
        rows.append(
            CushionRow(
                name=layer.name,
                kind=layer.kind,
                norm="operator",
                outputs=layer.size,
                stable_rank=layer.stable_rank(),
                layer_cushion=cushion if math.isfinite(cushion) else math.nan,
                minimal_interlayer_cushion=float(matrix[i, least]),
                standard_error=float(errors[i, least]),
                jacobian_norms="exact" if exact else "hutchinson",
                activation_contraction=float(measured.contractions[i])
                if measured.readers[i]
                else 1.0,
                interlayer_smoothness=smoothness[i],
            )
        )
    caption = (
        f"Smoothness of the network: {together:.3g}, for noise of {measured.noise:g} "
        f"of a layer's norm, all but {delta:g} of {draws} draws; Lemma 2.2 of the "
        f"heavy-tail paper needs {3 * depth}, three times the depth."
    )
    biased = [layer.name for layer in layers if layer.has_bias]
    if biased:
        caption += f" The papers have no biases; {', '.join(biased)} have."
    return Cushions(
        rows,
        interlayer_cushions=matrix,
        standard_errors=errors,
        interlayer_smoothness=together,
        title=f"Cushions of {model.name}",
        caption=caption,
    )
