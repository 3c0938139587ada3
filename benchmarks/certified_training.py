"""Certified accuracy beside deel-torchlip's, trained alike on Fashion-MNIST.

    pip download --no-deps -d wheels deel-torchlip==1.0.5
    unzip -d wheels/deel wheels/deel_torchlip-1.0.5-py3-none-any.whl
    python benchmarks/certified_training.py --deel wheels/deel

A perceptron 784-256-256-10 with GroupSort, the same data in the same order, loss, Adam,
rate and epochs; from each seed one network of ours (`AlmostOrthogonal`, or
`--layers sn`) and one of theirs (`SpectralLinear`, Bjorck's iteration). What theirs
computes with is exported to plain layers, and `measures.certify` judges both. Printed:
each network's accuracies, and the difference of certified accuracy at 36/255, paired by
seed, with its 95 % interval (Student's t).
"""

import argparse
import math
import os
import runpy
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
from keras import layers as kl
from scipy import stats

import keras_spectral as ks

EXAMPLE = Path(__file__).parents[1] / "examples" / "certify_fashion_mnist.py"
SIZES, BATCH, RATE = (784, 256, 256, 10), 128, 3e-3
WRAPPERS = {
    "aol": ks.layers.AlmostOrthogonal,
    "sn": ks.layers.SpectralNormalization,
    "optimal": ks.layers.OptimalSpectralNormalization,
}


def network(wrap):
    """Return our network: GroupSort between the layers."""
    layers = [keras.Input(SIZES[:1])]
    for size in SIZES[1:]:
        layers += [wrap(kl.Dense(size, kernel_initializer="orthogonal"))]
        layers += [ks.layers.GroupSort()]
    return keras.Sequential(layers[:-1])


def batches(images, labels, seed, epochs):
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[at : at + BATCH]
            yield images[rows], labels[rows]


def rates(steps):
    return [RATE * 0.5 * (1 + math.cos(math.pi * k / steps)) for k in range(steps)]


def train_ours(wrap, x, y, options, seed):
    keras.utils.set_random_seed(seed)
    model = network(wrap)
    margin = options.margin
    loss = ks.losses.MarginCrossEntropy(margin, margin / 4)
    steps = options.epochs * (len(x) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), loss)
    for images, labels in batches(x, y, seed, options.epochs):
        model.train_on_batch(images, labels)
    return model


def train_theirs(x, y, options, seed):
    from deel import torchlip

    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in zip(SIZES, SIZES[1:], strict=False):
        layers += [torchlip.SpectralLinear(inputs, outputs), torchlip.GroupSort2()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), RATE, eps=1e-7)
    temperature = options.margin / 4
    schedule = rates(options.epochs * (len(x) // BATCH))
    for rate, (images, labels) in zip(
        schedule, batches(x, y, seed, options.epochs), strict=True
    ):
        optimizer.param_groups[0]["lr"] = rate
        labels = torch.tensor(labels)
        moved = options.margin * torch.nn.functional.one_hot(labels, 10)
        logits = (model(torch.tensor(images)) - moved) / temperature
        loss = temperature * torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    plain = network(lambda layer: layer)
    dense = [layer.vanilla_export() for layer in model[::2]]
    plain.set_weights(
        [
            array
            for layer in dense
            for array in (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
        ]
    )
    with torch.no_grad():
        expected = model(torch.tensor(x[:100])).numpy()
    np.testing.assert_allclose(plain.predict(x[:100], verbose=0), expected, atol=1e-3)
    return plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--deel", type=Path, required=True, help="Their unpacked wheel."
    )
    parser.add_argument("--folder", type=Path, help="Of Fashion-MNIST's four files.")
    parser.add_argument("--layers", choices=WRAPPERS, default="aol")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=1.0)
    options = parser.parse_args()
    sys.path.insert(0, str(options.deel))
    example = runpy.run_path(str(EXAMPLE))
    data = example["load"]("fashion_mnist", options.folder)
    x, y = (part[: options.images] for part in data[:2])
    x, test = (part.reshape(len(part), -1) for part in (x, data[2]))
    trained = {
        f"ours, {options.layers}": lambda seed: train_ours(
            WRAPPERS[options.layers], x, y, options, seed
        ),
        "deel-torchlip": lambda seed: train_theirs(x, y, options, seed),
    }
    found = {name: [] for name in trained}
    for seed in range(options.seeds):
        for name, train in trained.items():
            start = time.process_time()
            model = train(seed)
            seconds = time.process_time() - start
            try:
                certified = ks.measures.certify(model, test, data[3])
            except ValueError as error:  # Weights that are not finite.
                print(f"{name}, seed {seed}: diverged. {error}", flush=True)
                found[name].append(math.nan)
                continue
            shares = [row.certified_accuracy for row in certified]
            found[name].append(shares[0])
            print(
                f"{name}, seed {seed}: clean {certified.accuracy:.2%}, certified at "
                f"36, 72, 108, 255: {', '.join(f'{share:.2%}' for share in shares)}; "
                f"constant {certified.lipschitz_constant:.4f}; {seconds:.0f} s of CPU",
                flush=True,
            )
    ours, theirs = (np.array(found[name]) for name in trained)
    difference = 100 * (ours - theirs)
    difference = difference[~np.isnan(difference)]  # What diverged was printed.
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    print(
        f"ours - theirs at 36/255, {len(difference)} pairs: "
        f"{difference.mean():.2f} points, 95 % interval "
        f"{difference.mean() - half:.2f} to {difference.mean() + half:.2f}"
    )


if __name__ == "__main__":
    main()
