"""Losses with a margin against PyTorch, NumPy and the distance that one estimates."""

import keras
import numpy as np
import pytest
import torch
from keras import ops

from keras_spectral.layers import AlmostOrthogonal, GroupSort
from keras_spectral.losses import HingeKantorovichRubinstein, MarginCrossEntropy


def samples(rng, count=40, classes=5):
    # Class 4 is in no batch.
    logits = rng.standard_normal((count, classes)).astype("float32")
    return rng.integers(0, classes - 1, count), logits


@pytest.mark.parametrize(("margin", "temperature"), [(0.0, 1.0), (0.7, 0.25), (2, 3)])
def test_cross_entropy_is_that_of_pytorch(rng, margin, temperature):
    labels, logits = samples(rng)
    moved = torch.tensor(logits, dtype=torch.float64)
    moved[range(40), labels] -= margin
    expected = temperature * torch.nn.functional.cross_entropy(
        moved / temperature, torch.tensor(labels), reduction="none"
    )
    loss = MarginCrossEntropy(margin, temperature, reduction=None)
    found = ops.convert_to_numpy(loss(labels, logits))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def class_by_class(labels, logits, alpha, margin):
    """The loss class by class, each against the others."""
    classes = logits.shape[1]
    total = 0.0
    for k in range(classes):
        own, others = logits[labels == k, k], logits[labels != k, k]
        distance = (own.mean() if len(own) else 0.0) - others.mean()
        hinge = (classes - 1) * np.maximum(0, margin / 2 - own).sum()
        hinge += np.maximum(0, margin / 2 + others).sum()
        total += alpha * hinge / len(labels) - (1 - alpha) * distance
    return total / classes


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_hinge_kantorovich_rubinstein_class_by_class(rng, alpha):
    labels, logits = samples(rng)
    expected = class_by_class(labels, logits.astype("float64"), alpha, 1.3)
    found = float(HingeKantorovichRubinstein(alpha, 1.3)(labels, logits))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


LOSSES = [MarginCrossEntropy(1.0), HingeKantorovichRubinstein()]


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_in_every_form_and_weights_of_samples(rng, loss):
    labels, logits = samples(rng)
    expected = float(loss(labels, logits))
    one_hot = np.eye(5, dtype="float32")[labels]
    for given in (labels[:, None], one_hot, labels.astype("float32")):
        assert float(loss(given, logits)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(labels, logits, 2 * np.ones(40))) == pytest.approx(2 * expected)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match="`y_pred` must be logits"):
        loss(labels, logits[:, 0])


def test_the_distance_of_two_points_is_found():
    """Two classes at distance d: no 1-Lipschitz function parts them by more, W = d."""
    x = np.repeat([[0.0, 0.0], [3.0, 4.0]], 8, axis=0).astype("float32")
    labels = np.repeat([0, 1], 8)
    layers = [AlmostOrthogonal(keras.layers.Dense(8)), GroupSort()]
    layers += [AlmostOrthogonal(keras.layers.Dense(2))]
    model = keras.Sequential([keras.Input((2,)), *layers])
    loss = HingeKantorovichRubinstein(alpha=0.0)
    model.compile(keras.optimizers.Adam(0.05), loss)
    data = np.tile(x, (150, 1)), np.tile(labels, 150)
    model.fit(*data, batch_size=16, shuffle=False, verbose=0)
    moved = model.predict(x, verbose=0)
    distance = np.linalg.norm(moved[0] - moved[-1])
    # Each of two logits may move by 5 / sqrt(2), and the loss is the mean of both.
    assert 5 * 0.97 < distance <= 5 * (1 + 1e-5)
    assert -float(loss(labels, moved)) == pytest.approx(5 / np.sqrt(2), rel=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginCrossEntropy(-1), "`margin` must be a finite number >= 0"),
        (lambda: MarginCrossEntropy(1, 0), "`temperature` must be a positive"),
        (lambda: HingeKantorovichRubinstein(1.5), r"`alpha` must be a number in \[0"),
        (lambda: HingeKantorovichRubinstein(margin=0), "`margin` must be a positive"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
