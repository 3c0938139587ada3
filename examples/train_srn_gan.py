"""Train a small SRN-GAN on digits, and write a grid of samples.

    python examples/train_srn_gan.py --output srn-gan

The discriminator's layers are stable rank normalized (c = 0.7), the rest is the
stable-rank paper's 32x32 ResNet GAN with fewer filters and one grey channel, so that
two cores suffice: 45 epochs took 339 s with other work beside them. The grid holds the
first 64 samples of a fixed seed, none chosen by hand.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def grid(images, columns=8, gap=6, scale=2):
    """Return images (n, height, width, 1) in [-1, 1] as tiles of one, in [0, 1]."""
    rows = len(images) // columns
    tiles = np.pad(
        (images[: rows * columns, ..., 0] + 1) / 2,
        ((0, 0), (gap, gap), (gap, gap)),
        constant_values=0.25,
    )
    height, width = tiles.shape[1:]
    tiles = tiles.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    joined = tiles.reshape(rows * height, columns * width)
    return joined.repeat(scale, 0).repeat(scale, 1)


def main(arguments=None):
    """Train, save and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("srn-gan"))
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--width", type=int, default=32, help="Filters of both.")
    parser.add_argument("--steps", type=int, default=2, help="Of D a step of G.")
    parser.add_argument("--batch", type=int, default=32, help="Images a step of D.")
    parser.add_argument("--rate", type=float, default=5e-4, help="Learning rate.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    import keras
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from keras_spectral import data, zoo
    from keras_spectral.files import output_folder, replacing

    output_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    images = data.load("digits", image_size=32).train.inputs()
    gan = zoo.srn_resnet_gan(
        width=options.width,
        generator_width=options.width,
        channels=1,
        discriminator_steps=options.steps,
    )
    gan.compile(
        keras.optimizers.Adam(options.rate, beta_1=0.0, beta_2=0.9),
        keras.optimizers.Adam(options.rate, beta_1=0.0, beta_2=0.9),
    )
    batch = options.batch * options.steps
    images = images[: len(images) // batch * batch]
    start = time.perf_counter()
    gan.fit(images, batch_size=batch, epochs=options.epochs, verbose=2)
    print(f"{time.perf_counter() - start:.0f} s, {len(images)} digits")

    with replacing(options.output / "srn_gan.keras") as temporary:
        gan.save(temporary)
    with replacing(options.output / "samples.png") as temporary:
        pyplot.imsave(
            temporary, grid(gan.generate(64, seed=0)), cmap="gray", vmin=0, vmax=1
        )
    print(f"samples.png and srn_gan.keras are in {options.output.resolve()}")


if __name__ == "__main__":
    main()
