"""A recipe of a GAN of two kernels each, for images of 8 x 8 pixels."""

import keras

import keras_spectral
from keras_spectral.experiments import run_recipe
from keras_spectral.terminal import Console

RECIPE = """
title = "A small GAN"
source = "sanyal2020"
item = "Table 0"
shows = "Nothing."
measures = [
  "frechet_distance", "slope_real_fake_95", "gradient_distance", "stable_rank_ratio",
  "discriminator_parameters", "loss_instability",
]
seeds = [3]
assumed = ["seeds"]
data = { name = "digits", count = 72, test_count = 50 }
optimizer = { learning_rate = 0.005 }
schedule = { steps = 6, batch_size = 4, linear_decay = true, record_every = 2 }
probes = { images = 20, reference = 40, generated = 30, classifier_epochs = 1 }
networks = [{ name = "tiny", builder = "tiny_gan" }]
variants = [{ name = "SRN-50", normalize = "stable_rank", stable_rank_ratio = 0.5 }]
"""


def tiny_gan(normalize=lambda layer: layer, seed=None, ema_momentum=0.5):
    layers = keras.layers
    generator = [
        keras.Input((5,)),
        layers.Dense(4 * 4 * 3, name="dense"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Reshape((4, 4, 3)),
        layers.UpSampling2D(),
        layers.Conv2D(1, 3, padding="same", activation="tanh", name="conv"),
    ]
    discriminator = [
        keras.Input((8, 8, 1)),
        normalize(layers.Conv2D(6, 3, strides=2, name="conv")),
        layers.ReLU(),
        layers.Flatten(),
        normalize(layers.Dense(1, name="fc")),
    ]
    return keras_spectral.gan.GAN(
        keras.Sequential(generator),
        keras.Sequential(discriminator),
        discriminator_steps=2,
        seed=seed,
        ema_momentum=ema_momentum,
    )


def run(output, changes=()):
    """Run the recipe in a folder beside its file; return the row of its cell."""
    recipe = output.parent / "recipe.toml"
    if not recipe.is_file():
        recipe.write_text(RECIPE)
    keras_spectral.zoo.tiny_gan = tiny_gan
    (row,) = run_recipe(
        recipe, changes=changes, output=output, workers=0, console=Console(quiet=True)
    ).cells
    return row
