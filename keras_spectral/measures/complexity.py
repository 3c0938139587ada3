"""The complexity measures of the stable-rank paper, each sample's, in logarithms."""

import math
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.hidden_layers import hidden_slots, margin_of
from keras_spectral.measures.jacobians import Linearization
from keras_spectral.measures.kernel_norms import kernel_norms
from keras_spectral.measures.margins import margins
from keras_spectral.measures.samples import Samples, check_outputs, forward
from keras_spectral.models.graph import check_graph
from keras_spectral.validation import Norm, check_choice

Measure = Literal["margin", "Spec-Fro", "Spec-L1", "Jac-Norm"]
_ALL = ("margin", "Spec-Fro", "Spec-L1", "Jac-Norm")


class Complexity(Distributions):
    """A row for the margins and one for the logarithm of each measure.

    Args:
        values: Dict from a measure's name to a float64 array (samples,), see
            `Distributions`; NaN where a sample is misclassified, but for margins.
        layers: `Rows` of `KernelNorms`, what the products and sums are of.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> found = Complexity({"margin": [1.0, -2.0]}, layers=[])
    >>> found.misclassified, found.error
    (1, 0.5)
    """

    def __init__(self, values, layers, **kwargs):
        super().__init__(values, **kwargs)
        self.layers = layers

    @property
    def misclassified(self) -> int:
        """How many samples have a margin of at most zero; ties are errors."""
        return int((~(self.values["margin"] > 0)).sum())

    @property
    def error(self) -> float:
        """Their share."""
        return self.misclassified / len(self.values["margin"])


def complexity_measures(
    model: keras.Model,
    x,
    y=None,
    *,
    measures: Sequence[str] = _ALL,
    norm: Norm = "reshaped",
    batch_normalization: Literal["fold", "ignore"] = "fold",
    where=None,
    hidden=None,
    batch_size: int = 128,
    progress: bool = True,
) -> Complexity:
    """Return Spec-Fro, Spec-L1 and Jac-Norm of each sample, as natural logarithms.

    With the margin gamma of a sample, the matrices W of all kernels, and the hidden
    layers h:

    - Spec-Fro: prod |W|^2 * sum srank(W) / gamma^2.
    - Spec-L1: prod |W|^2 * (sum (|W|_{2,1} / |W|)^(2/3))^3 / gamma^2.
    - Jac-Norm: sum |h| |d gamma / d h| / gamma.

    The product of a deep network overflows, so all is in logarithms. A margin of zero
    or less has no logarithm, and its square would hide that the sample is
    misclassified: such samples are counted, in `misclassified` and as left out, and are
    in the rows of no measure but the margin. A sample for which all Jacobians or
    hidden layers are zero is left out of Jac-Norm.

    Spec-Fro and Spec-L1 are of the weights but for the margin, and measures, no bounds:
    constants are left out. Where every norm is one, as under spectral normalization,
    Spec-Fro is a count of stable ranks, and says nothing else of the network.

    |W|_{2,1} is the sum over output units of the norms of their incoming weights, as
    the bound of [bartlett2017] has it with no reference matrix; of a Keras Dense kernel
    the norms along axis 0.

    Args:
        model: A built `keras.Model` that ends in logits (samples, classes). Wrapped
            layers count with the kernels that they compute with, a shared layer once.
        x: Array of inputs, or a stream of batches (x, y), such as a `tf.data.Dataset`.
        y: Integer array of labels (samples,); left out with a stream.
        measures: Sequence of the measures' names; the margin is always there. Jac-Norm
            needs a `keras.Sequential` or functional model, and most of the time.
        norm: Which matrix a convolution is: `"reshaped"`, its flattened kernel
            (outputs, inputs x taps), the papers'; `"operator"`, what it does to images
            with its stride and padding, where an output unit is a pixel of a channel.
        batch_normalization: `"fold"`: its scale, in inference, is part of the kernel
            before it; other places are refused. `"ignore"`: the product is of the bare
            kernels, as the paper's.
        where: Which kernels, see `models.weights`.
        hidden: List of hidden layers, names or tensors as `Linearization` takes them.
            By default what each kernel but the first reads: after activation and
            pooling, at each use of a layer or model that is used several times.
        batch_size: Integer >= 1, samples at a time.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        A `Complexity`: rows with the quantiles of each, the 90th percentile is Table
        5's; `.values`, `.layers`, `.misclassified`.

    Raises:
        ValueError: If the model is not built or finite, ends in softmax, has a zero
            kernel or normalizes where nothing can be folded; inputs or labels do not
            fit, or there are none.

    Example:
    >>> layers = [keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(20, 4)), rng.integers(3, size=20)
    >>> found = complexity_measures(model, x, y)
    >>> [row.name for row in found]
    ['margin', 'Spec-Fro', 'Spec-L1', 'Jac-Norm']

    Source: [sanyal2020], section 5.2 and appendix D.1, Table 5.
    """
    measures = [measures] if isinstance(measures, str) else list(measures)
    for measure in measures:
        check_choice("measures", measure, Measure)
    check_choice("norm", norm, Norm)
    check_choice("batch_normalization", batch_normalization, ("fold", "ignore"))
    samples = Samples(model, x, y, batch_size, labels=True)
    if "Jac-Norm" in measures:
        check_graph(model)
    kernels = kernel_norms(model, where, norm, batch_normalization)
    jacobian = (
        _JacobianNorm(model, hidden, batch_size) if "Jac-Norm" in measures else None
    )
    run = forward(jacobian.at.model if jacobian else model)
    found, sums = [], []
    for inputs, labels in samples.each("Complexity", progress):
        logits = run(inputs)
        check_outputs(model, logits)
        found.append(margins(logits, labels))
        if jacobian:
            sums.append(jacobian(inputs, labels))
    gamma = np.concatenate(found)
    log_margin = np.log(gamma, where=gamma > 0, out=np.full_like(gamma, np.nan))
    values = {"margin": gamma}
    if "Spec-Fro" in measures:
        values["Spec-Fro"] = _spec_fro(kernels) - 2 * log_margin
    if "Spec-L1" in measures:
        values["Spec-L1"] = _spec_l1(kernels) - 2 * log_margin
    if jacobian:
        total = np.concatenate(sums)
        known = np.log(total, where=total > 0, out=np.full_like(total, np.nan))
        values["Jac-Norm"] = known - log_margin
    wrong = int((~(gamma > 0)).sum())
    return Complexity(
        values,
        kernels,
        title=f"Complexity of {model.name}, natural logarithms but for the margin",
        caption=f"{wrong:,} of {len(gamma):,} samples are misclassified and left out. "
        f"Kernels: {norm}; batch normalization: {batch_normalization}. Where all "
        "norms are one (spectral normalization), Spec-Fro only counts stable ranks.",
    )


def _spec_fro(kernels):
    return _log_product(kernels) + math.log(sum(row.stable_rank for row in kernels))


def _spec_l1(kernels):
    total = sum((row.norm_21 / row.spectral_norm) ** (2 / 3) for row in kernels)
    return _log_product(kernels) + 3 * math.log(total)


def _log_product(kernels):
    return 2 * sum(math.log(row.spectral_norm) for row in kernels)


class _JacobianNorm:
    """Computes sum |h| |d gamma / d h| of a batch."""

    def __init__(self, model, hidden, batch_size):
        self.at = at = Linearization(model, dtype="own", batch_size=batch_size)
        points = hidden_slots(model, at.program) if hidden is None else list(hidden)
        if not points:
            raise ValueError(
                "`model` must have hidden layers for Jac-Norm. Received: "
                f"'{model.name}', where no kernel reads what another makes. Leave "
                "Jac-Norm out of `measures`, or name `hidden` tensors."
            )
        self.points = points

    def __call__(self, inputs, labels):
        x = inputs[0] if len(inputs) == 1 else inputs
        found = self.at.gradients(
            x, margin_of, self.points, arguments=[labels.astype("int32")]
        )
        pairs = zip(found.values, found.gradients, strict=True)
        return sum(_norms(value) * _norms(slope) for value, slope in pairs)


def _norms(tensor):
    array = keras.ops.convert_to_numpy(tensor).astype("float64")
    return np.linalg.norm(array.reshape(len(array), -1), axis=1)
