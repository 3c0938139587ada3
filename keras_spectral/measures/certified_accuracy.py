"""Certified radii of a classifier's predictions, and its accuracy within them."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.measures.certified_locally import local_radii
from keras_spectral.measures.layer_calls import exact_backend
from keras_spectral.measures.lipschitz_bound import Method, lipschitz_bound
from keras_spectral.measures.margins import margins
from keras_spectral.measures.plain_copies import keep_ceiling, plain_copy
from keras_spectral.measures.samples import Samples, last_operation
from keras_spectral.models.copying import rebuilt
from keras_spectral.models.graph import check_graph
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer, check_positive

# Those that the literature prints, of pixels in [0, 1].
RADII = (36 / 255, 72 / 255, 108 / 255, 255 / 255)
# What the rounding of a quotient may lose.
_OUTWARDS = 1 + 1e-12


@dataclasses.dataclass(frozen=True)
class CertifiedRow:
    """What is certified at one radius.

    Args:
        radius: Float, in pixels of [0, 1].
        radius_255: Float, the same in pixels of 0 to 255.
        certified_accuracy: Float, the share of samples that are right, and stay so for
            every change of the input of at most this norm.
        samples: Integer, how many those are.
    """

    radius: float
    radius_255: float = dataclasses.field(metadata={"label": "radius * 255"})
    certified_accuracy: float = dataclasses.field(metadata={"format": ".2%"})
    samples: int


class Certification(Rows):
    """Rows of `CertifiedRow`, one a radius, and what they were made of.

    Args:
        rows: List of `CertifiedRow`.
        sample_radii: Float64 array (samples,): the radius, in pixels of [0, 1], within
            which the prediction stays right; below zero where it is wrong: how far it
            is at least to where it would be right.
        accuracy: Float, the clean accuracy.
        lipschitz_constant: Float, the bound that the radii stand on.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> rows = [CertifiedRow(0.5, 127.5, 0.25, 1)]
    >>> Certification(rows, np.zeros(4), 0.75, 1.0)[0].certified_accuracy
    0.25
    """

    def __init__(self, rows, sample_radii, accuracy, lipschitz_constant, **kwargs):
        super().__init__(rows, **kwargs)
        self.sample_radii = sample_radii
        self.accuracy = float(accuracy)
        self.lipschitz_constant = float(lipschitz_constant)


def certified_radii(logits, labels, constants) -> np.ndarray:
    """Return how far each input may move before its label can change.

    The margin to class j, z_y - z_j, moves by at most `constants[y, j]` times what the
    input does, so the radius is the least of the quotients over all j. The class that
    decides need not be the one with the second largest logit.

    Args:
        logits: Float array (samples, classes).
        labels: Integer array (samples,).
        constants: Float, a Lipschitz constant L of the vector of all logits, where each
            margin has sqrt(2) L; or an array (classes, classes) of the margins' own.

    Returns:
        Float64 array (samples,); below zero where the label is not the prediction,
        infinite where nothing can change it.

    Raises:
        ValueError: If the shapes do not fit, a label is no class, or a constant is
            negative.

    Example:
    >>> logits = [[3.0, 1.0, 0.5], [0.2, 0.1, 0.0], [1.0, 2.0, 0.0]]
    >>> certified_radii(logits, [0, 0, 0], 2.0).round(8).tolist()
    [0.70710678, 0.03535534, -0.35355339]

    Source: [tsuzuku2018]; with the margins' own, [leino2021].
    """
    margins(logits, labels)  # Checks both.
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels, "int64")
    classes = logits.shape[1]
    constants = np.asarray(constants, "float64")
    if constants.shape not in ((), (classes, classes)) or not (constants >= 0).all():
        raise ValueError(
            "`constants` must be a number >= 0, or one for each pair of the "
            f"{classes} classes. Received: constants={constants}"
        )
    if not constants.shape:
        constants = np.full((classes, classes), math.sqrt(2) * constants)
    rows = np.arange(len(labels))
    differences = logits[rows, labels][:, None] - logits
    radii = _quotient(differences, constants[labels])
    radii[rows, labels] = np.inf
    return radii.min(1)


def _quotient(margin, constant):
    """Return margin / constant; where nothing moves the margin, infinity or zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        radii = margin / constant
    return np.where(margin == 0, 0.0, radii)


def certify(
    model: keras.Model,
    x,
    y=None,
    radii=RADII,
    pixel_scale=1.0,
    method: Method = "merged",
    batch_size: int = 256,
    progress: bool = True,
) -> Certification:
    """Certify a classifier's predictions against every change of a given norm.

    A sample counts at radius r if it is classified right, and every input closer than
    or at r, in the Euclidean norm, is classified the same. The margin z_y - z_j moves
    by at most |w_y - w_j| L_h times what the input does, where w are the columns of the
    last kernel and L_h is `lipschitz_bound` of the network before it; or by sqrt(2) L,
    with L the bound of the whole network, where that is less or the network does not
    end in one `Dense` without activation. With one logit, the sign of which is the
    class, it is |z| / L. Wrapped layers count with the kernels that they compute with.

    With `method="local"` a sample that is not certified at a radius is looked at on
    its own ball of that radius, where each margin has a constant of its own; nothing is
    said beyond the ball. That costs a walk over the network for a sample and radius, a
    second to some tens of seconds for convolutional networks: take a few hundred.

    Logits are those of a copy in float64: the certificate is of the function that the
    weights define, not of how float32 rounds it.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` from one input to
            logits (samples, classes), or (samples, 1) for two classes.
        x: Array of inputs, or a stream of batches (x, y), such as a
            `tf.data.Dataset`, that ends.
        y: Integer array of labels (samples,); `None` with batches.
        radii: Numbers > 0, in pixels of [0, 1]. By default those of the literature:
            36, 72, 108 and 255 over 255.
        pixel_scale: Float > 0, by how much an input moves when a pixel in [0, 1] moves
            by one: 1 for inputs in [0, 1], 2 in [-1, 1], 255 in [0, 255], and
            1 / min(sd) where the channels were divided by standard deviations.
        method: `"merged"`, `"product"` or `"local"`, see `lipschitz_bound`.
        batch_size: Integer >= 1, samples run at once.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        A `Certification`. With `"local"` its `lipschitz_constant` is the merged bound,
        infinite where there is none for all inputs.

    Raises:
        ValueError: If the model has no bound, ends in softmax or a sigmoid (margins of
            logits are meant) or in another shape, inputs, labels or radii do not fit,
            or there is no data.

    Example:
    >>> dense = keras.layers.Dense(2, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> x = np.array([[1.0, 0.0], [0.6, 0.4], [0.0, 1.0]])
    >>> found = certify(model, x, [0, 0, 0], radii=[0.2, 0.5])
    >>> [round(row.certified_accuracy, 3) for row in found]
    [0.333, 0.333]
    >>> found.sample_radii.round(4).tolist()
    [0.7071, 0.1414, -0.7071]

    Source: [tsuzuku2018]; with the last kernel, [leino2021].
    """
    check_choice("method", method, Method)
    check_positive("pixel_scale", pixel_scale)
    check_integer("batch_size", batch_size, least=1)
    radii = _checked_radii(radii)
    check_graph(model)
    copy = plain_copy(model)
    samples = Samples(copy, x, y, batch_size, labels=True, binary=True)
    local = method == "local"
    try:
        constants, constant, how = _margin_constants(
            copy, "merged" if local else method, progress
        )
    except ValueError:
        if not local:
            raise
        constants, constant, how = math.inf, math.inf, "No Lipschitz constant."
    inputs, logits, labels = _logits(copy, samples, local)
    if logits.shape[1] == 1:
        # Of classes 0 and 1 with logits 0 and z: the margin moves as z does.
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    found = certified_radii(logits, labels, constants) / _OUTWARDS
    if local:
        found, balls = local_radii(
            plain_copy(model),
            inputs,
            logits,
            labels,
            found,
            sorted(radius * pixel_scale for radius in radii),
            progress,
        )
        how += f" Beyond it {balls:,} balls around samples were looked at."
    found = found / (pixel_scale * _OUTWARDS)
    rows = []
    for radius in radii:
        held = int((found > radius).sum())
        rows.append(CertifiedRow(radius, 255 * radius, held / len(found), held))
    # Ties are errors: not every way to break them is right.
    accuracy = float((found > 0).mean())
    return Certification(
        rows,
        found,
        accuracy,
        constant,
        title=f"Certified accuracy of {model.name}; clean: {accuracy:.2%} of "
        f"{len(found):,}",
        caption="Euclidean norm; a pixel goes from 0 to 1, which moves an input by "
        f"{pixel_scale:g}. {how}",
    )


def _checked_radii(radii):
    radii = [radii] if np.ndim(radii) == 0 else list(radii)
    if not radii:
        raise ValueError("`radii` must have at least one radius. Received: radii=[]")
    for radius in radii:
        check_positive("radii", radius)
    return [float(radius) for radius in radii]


def _margin_constants(model, method, progress):
    """Return the constants of all margins, that of the network, and what they are of.

    Args:
        model: A plain copy in float64.
        method: As in `lipschitz_bound`.
        progress: Likewise.
    """
    last = last_operation(model)
    # The walk takes the activations off the layers of its own copy.
    whole = lipschitz_bound(model, method=method, progress=progress).bound * _OUTWARDS
    classes = model.outputs[0].shape[1]
    if classes == 1:
        pair = np.full((2, 2), whole)
        return pair, whole, f"Lipschitz constant of the logit: {whole:.4g}."
    pairs = np.full((classes, classes), math.sqrt(2) * whole)
    how = f"Lipschitz constant of the logits: {whole:.4g}."
    if type(last) is not kl.Dense or _uses(model, last) != 1:
        return pairs, whole, how
    before = rebuilt(
        model,
        lambda layer: kl.Identity(dtype="float64") if layer is last else None,
        dtype="float64",
    )
    for old, new in before.kept:
        keep_ceiling(old, new)
    found = lipschitz_bound(before.model, method=method, progress=progress)
    hidden = found.bound * _OUTWARDS
    kernel = np.asarray(ops.convert_to_numpy(last.kernel), "float64")
    distances = np.linalg.norm(kernel[:, :, None] - kernel[:, None, :], axis=0)
    how = f"Lipschitz constant before '{last.name}': {hidden:.4g}."
    with np.errstate(invalid="ignore"):  # The bound may be infinite.
        return np.fmin(pairs, distances * hidden), hidden, how


def _uses(model, layer):
    """Return how often a layer is called, in nested models too."""
    count = 0
    for call in functional_graph(model)[1]:
        if isinstance(call.operation, keras.Model):
            count += _uses(call.operation, layer)
        count += call.operation is layer
    return count


def _logits(model, samples, keep):
    """Return all inputs if they are to be kept, logits (float64) and labels (int64)."""
    dtype = "float64" if exact_backend() else "float32"
    logits, labels, kept = [], [], []
    for inputs, truth in samples.each("Logits", progress=False):
        tensors = [ops.convert_to_tensor(array, dtype) for array in inputs]
        outputs = model(tensors[0] if len(tensors) == 1 else tensors, training=False)
        logits.append(ops.convert_to_numpy(outputs).astype("float64"))
        labels.append(truth)
        kept += inputs if keep else []
    inputs = np.concatenate(kept) if keep else None
    return inputs, np.concatenate(logits), np.concatenate(labels)
