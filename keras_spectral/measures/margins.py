"""Margins of a classifier, and the share of samples that do not reach one."""

import numpy as np

from keras_spectral.validation import check_choice


def margins(logits, labels) -> np.ndarray:
    """Return each sample's margin f(x)[y] - max_{j != y} f(x)[j].

    Args:
        logits: Float array (samples, classes), at least two classes.
        labels: Integer array (samples,).

    Returns:
        Float64 array (samples,); NaN where the logits are not finite.

    Raises:
        ValueError: If the shapes do not fit, or a label is no class.

    Example:
    >>> margins(np.array([[2.0, 0.5], [0.0, 1.0]]), [0, 0]).tolist()
    [1.5, -1.0]

    Source: [shin2021], equation 1; [sanyal2020], section 5.2.
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "`logits` must have shape (samples, classes) and `labels` (samples,). "
            f"Received: {logits.shape} and {labels.shape}"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"`labels` must be classes from 0 to {logits.shape[1] - 1}. Received: "
            f"labels={labels}"
        )
    if labels.dtype.kind not in "iub":
        raise ValueError(
            f"`labels` must be integers. Received: labels of dtype {labels.dtype}"
        )
    # As indices, booleans would be a mask.
    labels = labels.astype("int64")
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        return logits[rows, labels] - others.max(1)


def margin_loss(logits, labels, margin: float = 0.0, ties: str = "errors") -> float:
    """Return the share of samples whose margin is at most `margin`.

    A sample whose margin is NaN is an error.

    Args:
        logits: Float array (samples, classes).
        labels: Integer array (samples,).
        margin: Float >= 0, the paper's gamma.
        ties: `"errors"`, margins equal to `margin` count ("<=", the heavy-tail
            paper's); `"correct"`, they do not ("<", the notes' classification loss).

    Returns:
        Float in [0, 1].

    Raises:
        ValueError: As `margins`, or if `margin` is negative.

    Example:
    >>> margin_loss(np.array([[2.0, 0.5], [1.0, 1.0]]), [0, 0])
    0.5

    Source: [shin2021], equation 1.
    """
    check_choice("ties", ties, ("errors", "correct"))
    if not margin >= 0:
        raise ValueError(f"`margin` must be at least 0. Received: margin={margin}")
    found = margins(logits, labels)
    # What is right, and not what is wrong: no comparison with NaN is true.
    right = found > margin if ties == "errors" else found >= margin
    return float((~right).mean())
