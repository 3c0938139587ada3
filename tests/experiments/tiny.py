"""A recipe of a network of two kernels: `python -m tests.experiments.tiny OUTPUT N`."""

import sys

import keras

import keras_spectral
from keras_spectral.experiments import run_recipe
from keras_spectral.terminal import Console

RECIPE = """
title = "A small one"
source = "sanyal2020"
item = "Table 0"
shows = "Nothing."
measures = ["train_error", "test_accuracy"]
seeds = [3]
assumed = ["seeds"]
data = { name = "digits", count = 72, test_count = 50, augment = true }
optimizer = { learning_rate = 0.05, momentum = 0.9, weight_decay = 5e-3 }
schedule = { epochs = 3, batch_size = 32, decay = 0.1, decay_epochs = [2] }
networks = [{ name = "tiny", builder = "tiny" }]
variants = [{ name = "SRN-50", normalize = "stable_rank", stable_rank_ratio = 0.5 }]
"""


def tiny(normalize=lambda layer: layer, dropout=0.0):
    layers = [
        keras.Input((8, 8, 1)),
        normalize(keras.layers.Conv2D(6, 3, strides=2, use_bias=False, name="conv")),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        *([keras.layers.Dropout(dropout)] if dropout else []),
        normalize(keras.layers.Dense(10, name="fc")),
    ]
    return keras.Sequential(layers)


def run(output, devices=None, changes=()):
    """Run the recipe in a folder beside its file; return the row of its cell."""
    recipe = output.parent / "recipe.toml"
    if not recipe.is_file():
        recipe.write_text(RECIPE)
    keras_spectral.zoo.tiny = tiny
    (row,) = run_recipe(
        recipe, changes=changes, output=output, workers=0, devices=devices,
        console=Console(quiet=True),
    ).cells  # fmt: skip
    return row


if __name__ == "__main__":
    from pathlib import Path

    print(run(Path(sys.argv[1]), sys.argv[2])["error"])
