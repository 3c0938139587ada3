"""What a trained network comes to: the measures that a recipe can ask for."""

import math


def results_of(model, data, names) -> dict:
    """Return the values of measures of a trained network.

    Args:
        model: A `keras.Model` that returns logits.
        data: A `data.Data` of the images it was trained and is tested on.
        names: List of strings, of `recipes.Measure`.

    Returns:
        Dict from the names to numbers.
    """
    found = {}
    if {"train_accuracy", "train_error", "gap"} & set(names):
        found["train_accuracy"] = accuracy(
            model, data.train.inputs(), data.train.labels
        )
        found["train_error"] = 1 - found["train_accuracy"]
    if {"test_accuracy", "test_error", "gap"} & set(names):
        found["test_accuracy"] = accuracy(model, data.test.inputs(), data.test.labels)
        found["test_error"] = 1 - found["test_accuracy"]
    if "gap" in names:
        found["gap"] = found["train_accuracy"] - found["test_accuracy"]
    if "parameters" in names:
        # As the papers count: what is trained.
        found["parameters"] = sum(math.prod(x.shape) for x in model.trainable_variables)
    return {name: found[name] for name in names}


def accuracy(model, x, labels) -> float:
    """Return the share of inputs whose largest logit is their label's."""
    import numpy as np

    logits = model.predict(x, batch_size=256, verbose=0)
    logits = logits.reshape(len(logits), -1)
    return float(np.mean(logits.argmax(-1) == labels))
