"""Losses with a margin, for classifiers of a bounded Lipschitz constant.

Cross-entropy alone asks such a network for logits that it cannot make, and stops caring
about a margin too late or too early; these say how far apart classes should be.
"""

import keras
from keras import ops

from keras_spectral.validation import check_not_negative, check_positive, check_share


def _one_hot(y_true, y_pred):
    """Return labels, or rows of zeros and ones, as rows of the dtype of the logits."""
    classes = y_pred.shape[-1]
    if classes is None or classes < 2 or len(y_pred.shape) != 2:
        raise ValueError(
            "`y_pred` must be logits of shape (samples, classes), of two classes or "
            f"more. Received: y_pred of shape {tuple(y_pred.shape)}"
        )
    y_true = ops.convert_to_tensor(y_true)
    if len(y_true.shape) == 2 and y_true.shape[1] == classes:
        return ops.cast(y_true, y_pred.dtype)
    return ops.one_hot(
        ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=y_pred.dtype
    )


@keras.saving.register_keras_serializable(package="keras_spectral")
class MarginCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits with an offset and a temperature.

    temperature * CE(y, softmax((z - margin y) / temperature)): the true class must lead
    by about `margin` before a sample is let go. A margin m of a network whose logits
    are L-Lipschitz is a certified radius of m / (sqrt(2) L).

    Args:
        margin: Float >= 0, in units of the logits: sqrt(2) L times the radius that is
            wanted.
        temperature: Float > 0; a small one cares for the samples near the margin alone.
        **kwargs: `reduction`, `name` and `dtype` of a `keras.losses.Loss`.

    Call arguments:
        y_true: Integer labels (samples,) or (samples, 1), or one-hot rows.
        y_pred: Logits (samples, classes).

    Raises:
        ValueError: If an argument is out of range, or `y_pred` of another shape.

    Example:
    >>> loss = MarginCrossEntropy(margin=1.0, temperature=0.25)
    >>> round(float(loss([0], [[1.0, 0.0]])), 4)
    0.1733

    Source: [prach2022].
    """

    def __init__(self, margin=0.5, temperature=0.25, **kwargs):
        check_not_negative("margin", margin)
        check_positive("temperature", temperature)
        kwargs.setdefault("name", "margin_cross_entropy")
        super().__init__(**kwargs)
        self.margin, self.temperature = float(margin), float(temperature)

    def call(self, y_true, y_pred):
        y_pred = ops.convert_to_tensor(y_pred)
        truth = _one_hot(y_true, y_pred)
        logits = (y_pred - self.margin * truth) / self.temperature
        return self.temperature * ops.categorical_crossentropy(
            truth, logits, from_logits=True
        )

    def get_config(self):
        config = super().get_config()
        return {**config, "margin": self.margin, "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="keras_spectral")
class HingeKantorovichRubinstein(keras.losses.Loss):
    """The multi-class hinge-Kantorovich-Rubinstein loss, one class against the others.

    alpha * hinge - (1 - alpha) * KR, each the mean over classes k. KR is the mean of
    logit k over the batch's samples of class k less that over the others: of a
    1-Lipschitz network an estimate of their Wasserstein distance from below, which
    drives the logits apart. The hinge is max(0, margin / 2 - z_k) on the true class,
    times the number of the other classes, and max(0, margin / 2 + z_k) on them.

    Of a class that is not in the batch, or fills it, KR is the mean of what there is.
    On several replicas the means are each replica's own.

    Args:
        alpha: Float in [0, 1], the weight of the hinge.
        margin: Float > 0, in units of the logits.
        **kwargs: `reduction`, `name` and `dtype` of a `keras.losses.Loss`.

    Call arguments:
        y_true: Integer labels (samples,) or (samples, 1), or one-hot rows.
        y_pred: Logits (samples, classes).

    Raises:
        ValueError: If an argument is out of range, or `y_pred` of another shape.

    Example:
    >>> loss = HingeKantorovichRubinstein(alpha=0.0)
    >>> round(float(loss([0, 1], [[2.0, 0.0], [0.0, 1.0]])), 4)
    -1.5

    Source: [serrurier2021], with the weights of its authors' library deel-lip.
    """

    def __init__(self, alpha=0.95, margin=1.0, **kwargs):
        check_share("alpha", alpha)
        check_positive("margin", margin)
        kwargs.setdefault("name", "hinge_kantorovich_rubinstein")
        super().__init__(**kwargs)
        self.alpha, self.margin = float(alpha), float(margin)

    def call(self, y_true, y_pred):
        y_pred = ops.convert_to_tensor(y_pred)
        truth = _one_hot(y_true, y_pred)
        other = 1.0 - truth
        # Of each sample its part in the mean over the batch.
        shares = [
            ops.where(
                share > 0, 1.0 / ops.where(share > 0, share, ops.ones_like(share)), 0.0
            )
            for share in (ops.mean(truth, axis=0), ops.mean(other, axis=0))
        ]
        distance = ops.mean((truth * shares[0] - other * shares[1]) * y_pred, axis=-1)
        hinge = ops.mean(
            (truth.shape[-1] - 1) * truth * ops.relu(self.margin / 2 - y_pred)
            + other * ops.relu(self.margin / 2 + y_pred),
            axis=-1,
        )
        return self.alpha * hinge - (1.0 - self.alpha) * distance

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "margin": self.margin}
