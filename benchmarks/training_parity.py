"""One cell of a recipe trained in PyTorch, beside the same cell of ours.

    python benchmarks/training_parity.py --output docs/results

pytorchcv's residual network under `torch.nn.utils.parametrizations.spectral_norm`,
trained by `torch.optim.SGD` with the settings of `stable_rank/table_7 --evidence`, from
our plain network's weights, on the same images in the same order. Cells of ours are
read from `OUTPUT/cells`; `keras-spectral run stable_rank/table_7 --evidence --output
OUTPUT` makes them. Each seed that is finished is written to
`OUTPUT/training_parity.json`, and a rerun goes on from there. Printed: the test
accuracies, their paired difference with its 95 % interval (Student's t), and how far
apart the seeds of ours are.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import msgspec
import numpy as np
import torch
from pytorchcv.models.resnet_cifar import CIFARResNet
from torch.nn.utils.parametrizations import spectral_norm

from keras_spectral import convert, zoo
from keras_spectral.experiments import load_recipe
from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.cells import Cell, images_of
from keras_spectral.experiments.recipe_table import mean_and_half_width
from keras_spectral.experiments.recipes import recipe_path, settings_of
from keras_spectral.files import write_json

VARIANT = "SN"


def plain_network(arguments):
    """pytorchcv's network of our builder's arguments; any image size."""
    units = (arguments["depth"] - 2) // 6
    height, width, channels = arguments["input_shape"]
    network = CIFARResNet(
        [[filters] * units for filters in arguments["filters"]],
        init_block_channels=arguments["filters"][0],
        bottleneck=False,
        in_channels=channels,
        in_size=(height, width),
        num_classes=arguments["classes"],
    )
    network.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return network


def tensor(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def accuracy(network, x, labels):
    network.eval()
    logits = torch.cat([network(tensor(x[i : i + 256])) for i in range(0, len(x), 256)])
    return float(np.mean(logits.argmax(1).numpy() == labels))


def train(cell):
    """Train one network; return its row."""
    recipe, network_settings, variant = cell.parts()
    optimizer, schedule = settings_of(recipe, network_settings, variant)
    images, seed = images_of(cell), cell.seed
    torch.manual_seed(seed)
    keras.utils.set_random_seed(seed)
    start = getattr(zoo, network_settings.builder)(**network_settings.arguments)
    network = plain_network(network_settings.arguments)
    state = {key: torch.tensor(x) for key, x in convert.to_torch(start).items()}
    counts = [key for key in network.state_dict() if key.endswith("batches_tracked")]
    network.load_state_dict({**state, **dict.fromkeys(counts, torch.tensor(0))})
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            spectral_norm(module)
    sgd = torch.optim.SGD(
        network.parameters(),
        optimizer.learning_rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
    )
    steps = torch.optim.lr_scheduler.MultiStepLR(
        sgd, schedule.decay_epochs, schedule.decay
    )
    test, history, begun = images.test.inputs(), [], time.process_time()
    for epoch in range(schedule.epochs):
        network.train()
        batches = Batches(
            images.train, schedule.batch_size, seed, epoch, recipe.data.augment
        )
        for step in range(len(batches)):
            x, y = batches[step]
            sgd.zero_grad()
            labels = torch.from_numpy(np.asarray(y, np.int64))
            torch.nn.functional.cross_entropy(network(tensor(x)), labels).backward()
            sgd.step()
        steps.step()
        history.append(accuracy(network, test, images.test.labels))
    return {
        "seed": seed,
        "test_accuracy": history[-1],
        "history": history,
        "cpu_seconds": time.process_time() - begun,
        "torch": torch.__version__,
        "settings": cell.settings(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--recipe", default="stable_rank/table_7")
    parser.add_argument("--size", default="evidence")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(recipe_path(arguments.recipe), arguments.size)
    network, plain = recipe.networks[0].name, msgspec.to_builtins(recipe)
    cells = [
        Cell(plain, network, VARIANT, seed, str(arguments.output))
        for seed in range(arguments.seeds)
    ]
    file = arguments.output / "training_parity.json"
    known = json.loads(file.read_text()) if file.exists() else []
    rows, ours = [], {}
    for cell in cells:
        # A row of other settings is none.
        found = [row for row in known if row["settings"] == cell.settings()]
        if not found:
            found = [train(cell)]
            known += found
            write_json(file, known)
        rows += found
        path = arguments.output / "cells" / f"{cell.key}.json"
        if path.is_file():
            ours[cell.seed] = json.loads(path.read_text())["results"]["test_accuracy"]
    for row in rows:
        mine = ours.get(row["seed"])
        print(f"seed {row['seed']}: PyTorch {row['test_accuracy']:.4f}, ours {mine}")
    pairs = [
        ours[row["seed"]] - row["test_accuracy"] for row in rows if row["seed"] in ours
    ]
    mean, half = mean_and_half_width(pairs)
    if half is not None:
        print(f"ours less PyTorch's: {mean:+.4f} +- {half:.4f} ({len(pairs)} pairs)")
        print(f"range of our seeds: {np.ptp(list(ours.values())):.4f}")


if __name__ == "__main__":
    main()
