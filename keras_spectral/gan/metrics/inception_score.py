"""The inception score of logits."""

from typing import NamedTuple

import numpy as np

from keras_spectral.gan.metrics.statistics import checked_features
from keras_spectral.validation import check_integer


class InceptionScore(NamedTuple):
    """An inception score.

    Args:
        mean: Float, the mean over splits.
        deviation: Float, the standard deviation over them, with n below.
        splits: Integer.
    """

    mean: float
    deviation: float
    splits: int


def inception_score(
    logits, splits: int = 10, shuffle_seed: int | None = None
) -> InceptionScore:
    """Return the inception score, exp of the mean of KL(p(class | image), p(class)).

    Higher is better; it rises with the samples of a split, as fewer have fewer classes
    among them. The original takes logits without the bias of the last layer, those of
    StudioGAN have it; all 1008 outputs count. Samples go to splits in their order, so
    images sorted by class need a shuffle.

    Args:
        logits: Array (samples, classes). They need not be normalized.
        splits: Integer >= 1; split i is samples i n // splits to (i + 1) n // splits.
        shuffle_seed: Integer, of a shuffle before; `None` for none. torch-fidelity
            has 2020.

    Returns:
        `InceptionScore`.

    Raises:
        ValueError: If there are fewer samples than splits, or logits are not finite.

    Example:
    >>> import numpy as np
    >>> round(inception_score(1000 * np.eye(4), splits=1).mean, 6)
    4.0

    Source: [salimans2016b], the inception score.
    """
    check_integer("splits", splits, least=1)
    logits = checked_features("logits", logits, least=splits)
    count = len(logits)
    if shuffle_seed is not None:
        logits = logits[np.random.RandomState(shuffle_seed).permutation(count)]
    # Never log(p): p of a sure network underflows.
    logits = logits - logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = []
    for split in range(splits):
        part = logs[split * count // splits : (split + 1) * count // splits]
        highest = part.max(axis=0)
        marginal = highest + np.log(np.mean(np.exp(part - highest), axis=0))
        divergence = (np.exp(part) * (part - marginal)).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), splits)
