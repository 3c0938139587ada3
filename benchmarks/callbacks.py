"""What `SpectralLogger` costs an epoch, relative to that epoch of the same network.

    python benchmarks/callbacks.py [--images 50000] [--rounds 5]

A ResNet-20 for CIFAR-10, batches of 128, SGD with momentum. In each round a training
step and a call of each logger are timed in turn, in CPU time of the process; the epoch
is the number of its steps times one. Medians and ranges of the rounds' ratios.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_spectral as ks

BATCH = 128


def timed(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000, help="Of an epoch.")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = ks.zoo.build("resnet20_cifar10")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, 0.9), loss)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, BATCH)
    loggers = {
        "SpectralLogger()": ks.callbacks.SpectralLogger(),
        "SpectralLogger(bounds=True)": ks.callbacks.SpectralLogger(bounds=True),
    }
    for logger in loggers.values():
        logger.set_model(model)
        logger.on_epoch_end(0, {})
    model.train_on_batch(x, y)
    ratios = {name: [] for name in loggers}
    for _ in range(arguments.rounds):
        step = timed(model.train_on_batch, x, y)
        epoch = step * arguments.images / BATCH
        for name, logger in loggers.items():
            ratios[name].append(timed(logger.on_epoch_end, 0, {}) / epoch)
    for name, found in ratios.items():
        low, middle, high = (100 * np.quantile(found, q) for q in (0, 0.5, 1))
        print(f"{name}: {middle:.3f} % of an epoch ({low:.3f}-{high:.3f})")


if __name__ == "__main__":
    main()
