"""Radii of predictions by what a network does on balls around its inputs."""

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.measures.lipschitz_local import LocalWalk
from keras_spectral.terminal import progress_bar

# A ball is a little larger than the radius in question, which it must exceed.
_BEYOND = 1 + 1e-6


def local_radii(model, x, logits, labels, known, radii, progress):
    """Return how far each input may move at most before its label can change.

    On a ball each margin z_y - z_j has a constant L_j of its own, and does not vanish
    closer to the center than m_j / L_j; of what lies beyond the ball nothing is said.

    Args:
        model: A plain copy in float64, to logits (samples, classes) or (samples, 1);
            the walk takes the activations off its layers.
        x: Float array (samples, ...).
        logits: Float64 array (samples, classes), of two classes for one logit.
        labels: Integer array (samples,).
        known: Float64 array (samples,), radii that hold.
        radii: List of floats, ascending: of balls that are looked at, in turn, for
            each sample that is right, until one is not certified. None where more is
            known.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        Float64 array (samples,) not below `known`, and the number of balls.

    Raises:
        ValueError: If the network has a bound on none of the balls.
    """
    found = known.copy()
    classes = logits.shape[1]
    one = model.outputs[0].shape[1] == 1
    # The margins of one class to all are a linear map of the logits.
    head = kl.Dense(classes, use_bias=False, dtype="float64", name="margins")
    network = keras.Model(model.inputs, head(model.outputs[0]))
    margins = logits[np.arange(len(labels)), labels][:, None] - logits
    right = np.flatnonzero((np.sort(margins, axis=1)[:, 1] > 0) & (known < radii[-1]))
    walk, balls, reason, bounded = LocalWalk(1.0), 0, None, False
    with progress_bar("Balls", len(right), progress) as advance:
        for at in right:
            label = labels[at]
            kernel = -np.eye(classes)
            kernel[label] += 1.0
            head.kernel.assign(kernel[1:] if one else kernel)  # Of 0 and z.
            others = np.arange(classes) != label
            walk.centers = [x[at].astype("float64")]
            for radius in radii:
                if found[at] > radius:
                    continue
                walk.radius = float(radius * _BEYOND)
                balls += 1
                try:
                    walk.run(network, x[at].shape)
                except ValueError as error:  # The ball holds a point without a bound.
                    reason = error
                    break
                bounded = True
                (output,) = walk.outputs
                constants = walk.entries(output)[others] * _BEYOND
                with np.errstate(divide="ignore"):
                    least = (margins[at, others] / constants).min()
                found[at] = max(found[at], min(least, walk.radius))
                if least <= walk.radius:
                    break
            advance()
    if reason is not None and not bounded and not (known > 0).any():
        raise reason
    return found, balls
