"""Train a small SRN-GAN on digits, and write a grid of samples after each epoch.

    python examples/train_srn_gan.py --output srn-gan

The discriminator's layers are stable rank normalized (c = 0.7), the rest is the
stable-rank paper's 32x32 ResNet GAN with fewer filters and one grey channel, so that
two cores suffice: 45 epochs took 339 s with other work beside them. Grids hold the
first 64 samples of a fixed seed, none chosen by hand.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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

    from keras_spectral import data, zoo
    from keras_spectral.files import output_folder, replacing
    from keras_spectral.gan.callbacks import SampleGrid
    from keras_spectral.validation import check_integer

    for name in ("epochs", "width", "steps", "batch"):
        check_integer(f"--{name}", getattr(options, name), least=1)
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
    gan.fit(
        images,
        batch_size=batch,
        epochs=options.epochs,
        verbose=2,
        callbacks=[SampleGrid(options.output / "samples")],
    )
    print(f"{time.perf_counter() - start:.0f} s, {len(images)} digits")

    with replacing(options.output / "srn_gan.keras") as temporary:
        gan.save(temporary)
    print(f"srn_gan.keras and samples/ are in {options.output.resolve()}")


if __name__ == "__main__":
    main()
