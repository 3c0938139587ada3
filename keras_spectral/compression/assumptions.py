"""What the heavy-tail paper's theorem rests on, checked for one network."""

import dataclasses
import math

import keras
import numpy as np

from keras_spectral.measures import goodness_of_fit
from keras_spectral.models import weights
from keras_spectral.models.weights import leaf_layers
from keras_spectral.results import Rows
from keras_spectral.theory.bounds import Verdict
from keras_spectral.validation import check_integer

# 1-Lipschitz, and zero at zero.
_TAME = ("linear", "relu", "relu6", "leaky_relu", "elu", "tanh", "softsign")
_WILD_LAYERS = (keras.layers.PReLU, keras.layers.Softmax, keras.layers.Lambda)
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)
_SHUFFLES = 99


@dataclasses.dataclass(frozen=True)
class AssumptionRow:
    """One assumption about one layer, or about the network.

    Args:
        name: String, the layer's name, or `"network"`.
        assumption: String.
        status: `"PASS"`, `"FAIL"`, or `"UNTESTED"`.
        detail: String, what was found.
    """

    name: str
    assumption: str
    status: Verdict
    detail: str


def _verdict(holds):
    return "PASS" if holds else "FAIL"


def check_assumptions(model, cushions=None, trials=49, seed=0):
    """Check what Theorem 2 and Lemmas 2.1 to 2.4 of the heavy-tail paper assume.

    A PASS is no proof: it says that the test found nothing against the assumption.

    Args:
        model: A built `keras.Model`.
        cushions: `measures.Cushions` of the model, or `None`: the interlayer
            smoothness is then untested.
        trials: Integer >= 1, samples of each power law's bootstrap test.
        seed: Integer >= 0.

    Returns:
        `Rows` of `AssumptionRow`.

    Raises:
        ValueError: If an argument is out of range, or the model holds no kernel.

    Example:
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> rows = check_assumptions(model, trials=9)
    >>> [r.status for r in rows if r.assumption == "sign-symmetric weights"]
    ['PASS']

    Source: [shin2021], section 3, appendices A and C; remark 3.
    """
    check_integer("trials", trials, least=1)
    check_integer("seed", seed, least=0)
    rows = []
    for weight in weights(model):
        checked = _of_matrix(weight.matrix(), trials, seed)
        rows += [AssumptionRow(weight.name, *found) for found in checked]
    if not rows:
        raise ValueError(f"`model` must hold a kernel. Received: '{model.name}'")
    rows += [AssumptionRow("network", *found) for found in _of_network(model, cushions)]
    return Rows(
        rows,
        title=f"Assumptions of the compression theorem, {model.name}",
        caption="PASS: nothing was found against it. UNTESTED: no data can show it, or "
        "none was given.",
    )


def _of_matrix(matrix, trials, seed):
    """Yield (assumption, status, detail) of one kernel."""
    from scipy.stats import binomtest

    signs = np.sign(matrix[matrix != 0])
    p = binomtest(int((signs > 0).sum()), max(signs.size, 1)).pvalue
    deviation = matrix.std()
    lean = abs(matrix.mean()) / deviation if deviation else math.inf
    yield (
        "sign-symmetric weights",
        _verdict(p >= 0.01),
        f"sign test p = {p:.3g}, |mean| / sd = {lean:.3g}",
    )
    p = _heterogeneity(matrix, seed)
    yield (
        "rows and columns of equal variance",
        _verdict(p >= 0.05),
        f"p = {p:.2g} by {_SHUFFLES} shuffles",
    )
    p = goodness_of_fit(matrix, trials=trials, seed=seed).p_value
    yield (
        "power law of |w|",
        "UNTESTED" if math.isnan(p) else _verdict(p >= 0.1),
        f"bootstrap p = {p:.2g}",
    )
    norm = float(np.linalg.norm(matrix))
    yield "Frobenius norm at least 1", _verdict(norm >= 1), f"{norm:.3g}"


def _heterogeneity(matrix, seed):
    """Return how often shuffled entries have variances as unlike as the matrix."""
    squares = (matrix - matrix.mean()) ** 2

    def unlike(array):
        return array.mean(0).var() * len(array) + array.mean(1).var() * array.shape[1]

    rng = np.random.default_rng(seed)
    found = unlike(squares)
    shuffled = [
        unlike(rng.permutation(squares.ravel()).reshape(squares.shape))
        for _ in range(_SHUFFLES)
    ]
    return (1 + sum(value >= found for value in shuffled)) / (1 + _SHUFFLES)


def _of_network(model, cushions):
    layers = list(leaf_layers(model))
    biased = [
        layer.name
        for layer in layers
        if getattr(layer, "bias", None) is not None
        and np.any(keras.ops.convert_to_numpy(layer.bias))
    ]
    yield "no biases", _verdict(not biased), ", ".join(biased[:3]) or "none"
    folded = [layer.name for layer in layers if isinstance(layer, _NORMALIZATIONS)]
    yield (
        "no normalization (or folded)",
        _verdict(not folded),
        ", ".join(folded[:3]) or "none",
    )
    wild = sorted({name for name in map(_activation, layers) if name not in _TAME})
    yield (
        "activations 1-Lipschitz and zero at zero",
        "UNTESTED" if wild else "PASS",
        ", ".join(wild) or "all are",
    )
    if cushions is None:
        yield "interlayer smoothness at least 3 d", "UNTESTED", "no cushions given"
    else:
        smoothness, depth = cushions.interlayer_smoothness, len(cushions)
        yield (
            "interlayer smoothness at least 3 d",
            _verdict(smoothness >= 3 * depth),
            f"{smoothness:.3g} against {3 * depth}",
        )
    yield "threshold chosen before training", "UNTESTED", "no data can show it"
    yield "independent samples", "UNTESTED", "no data can show it"


def _activation(layer):
    if isinstance(layer, keras.layers.LeakyReLU):
        return "linear" if abs(layer.negative_slope) <= 1 else "steep leaky_relu"
    if isinstance(layer, keras.layers.ELU):
        return "elu" if 0 <= layer.alpha <= 1 else "steep elu"
    if isinstance(layer, keras.layers.ReLU):
        tame = abs(layer.negative_slope) <= 1 and not layer.threshold
        return "relu" if tame else "relu with a slope or threshold"
    if isinstance(layer, _WILD_LAYERS):
        return type(layer).__name__
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return str(name)
