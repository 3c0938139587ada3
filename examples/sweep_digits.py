"""Train small residual networks on digits, and sweep them: Table 1 and Figure 3.

    python examples/sweep_digits.py --output sweep_digits

Networks of two depths, with and without weight decay, from several seeds, are written
to `sweep_digits/checkpoints` as .keras files, each once; then `keras-spectral sweep`
measures and compresses them. A second run goes on where the first one stopped.

With `pip install '.[sweep]'` it takes one process a core, and one in all without.
"""

import argparse
import math
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from keras_spectral import data, zoo
from keras_spectral.experiments import run_sweep
from keras_spectral.files import output_folder, replacing


def train(depth, weight_decay, seed, epochs, digits, name):
    keras.utils.set_random_seed(seed)
    model = zoo.cifar_resnet(depth, classes=10, input_shape=(8, 8, 1), name=name)
    steps = epochs * math.ceil(len(digits.train) / 64)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(4e-3, steps),
            weight_decay=weight_decay,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        digits.train.inputs(),
        digits.train.labels,
        batch_size=64,
        epochs=epochs,
        verbose=0,
    )
    print(f"{name}, seed {seed}: {history.history['accuracy'][-1]:.3f}", flush=True)
    return model


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("sweep_digits"))
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 14])
    parser.add_argument("--seeds", type=int, default=3, help="Networks of a kind.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--workers", type=int, help="0: without Dask.")
    options = parser.parse_args(arguments)

    checkpoints = output_folder(options.output / "checkpoints")
    digits = data.load("digits")
    for depth in options.depths:
        for kind, weight_decay in (("", 0.0), ("decay_", 0.5)):
            for seed in range(options.seeds):
                # All before the dash is the network's name, its end that of the data.
                name = f"resnet{depth}_{kind}digits"
                path = checkpoints / f"{name}-seed{seed}.keras"
                if path.exists():
                    continue
                model = train(depth, weight_decay, seed, options.epochs, digits, name)
                with replacing(path) as temporary:
                    model.save(temporary)
    run_sweep(
        ["all"],
        checkpoints,
        options.output,
        trials=options.trials,
        workers=options.workers,
    )
    print(f"Tables and figure are in {options.output.resolve()}")


# Dask's workers import this file: without the guard each would start a sweep.
if __name__ == "__main__":
    main()
