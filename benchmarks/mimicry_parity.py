"""mimicry's own SNGAN trained beside our cell of the same settings, and judged alike.

    python benchmarks/mimicry_parity.py MIMICRY --output docs/results/gan [--seeds 3]

MIMICRY is a folder outside this repository with mimicry's source (`torch_mimicry` in
it), which is imported as it is: networks, `train_step` of both and the schedule of the
learning rate are its code, in PyTorch. Modules that it imports and that training does
not need (torchvision, tensorboard, skimage) are empty ones. Settings, images, their
order and the number of steps are those of the cell SN of `stable_rank/table_2
--evidence`: 64 real images an update of the discriminator, 128 latents one of the
generator. Ours has mimicry's form there: bilinear upsampling, its epsilon, shortcuts
that read behind the ReLU. Where the images have one channel, so have mimicry's first
and last convolution, of its own classes. What still differs: initial weights are drawn
by torch's seed, its power iteration moves one vector in each of its discriminator's
three calls, and epsilon of Adam is PyTorch's 1e-8 where ours is Keras' 1e-7.

Each network that is finished is written to `OUTPUT/mimicry_parity.json`, and a rerun
goes on from there. Both are judged by our Fréchet distance, on the features of the
classifier in `OUTPUT/classifiers`, which is trained where it is missing. Printed: the
distances, the range of our seeds, and the difference of the means with its 95 %
interval (Welch); and, where `OUTPUT/cells` has them, the same of the table's own cells,
whose form is that of SNGAN's authors.
"""

import argparse
import contextlib
import json
import os
import sys
import time
import types
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import msgspec
import numpy as np
import scipy.stats
import torch

from keras_spectral.convert import dialects
from keras_spectral.experiments import load_recipe
from keras_spectral.experiments.batches import StepBatches
from keras_spectral.experiments.cells import Cell, images_of, train_cell
from keras_spectral.experiments.gan_results import results_of
from keras_spectral.experiments.recipes import recipe_path, settings_of
from keras_spectral.files import output_folder, write_json

RECIPE, SIZE, VARIANT = "stable_rank/table_2", "evidence", "SN"
MEASURES = ["frechet_distance", "loss_instability"]
_STUBS = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.datasets.utils",
    "torchvision.transforms",
    "torchvision.utils",
    "torch.utils.tensorboard",
    "skimage",
    "skimage.io",
)


class _Stub(types.ModuleType):
    """A module that has whatever is asked for, and none of it does anything."""

    __path__: list = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def _stubs():
    before = {name: sys.modules.get(name) for name in _STUBS}
    sys.modules.update({name: _Stub(name) for name in _STUBS})
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def imported(folder):
    """Return mimicry's modules that training needs, by their names.

    Args:
        folder: Path of the folder with `torch_mimicry`.
    """
    if not (Path(folder) / "torch_mimicry" / "__init__.py").is_file():
        raise SystemExit(f"{folder} has no torch_mimicry: name the source's folder.")
    sys.path.insert(0, str(Path(folder).resolve()))
    with _stubs():
        from torch_mimicry.modules.resblocks import DBlockOptimized
        from torch_mimicry.nets.sngan import sngan_32
        from torch_mimicry.training import metric_log, scheduler
    return types.SimpleNamespace(
        nets=sngan_32, first=DBlockOptimized, log=metric_log, schedule=scheduler
    )


class Trainer:
    """mimicry's SNGAN for 32 pixels, and what an update of each network does.

    Args:
        mimicry: What `imported` returns.
        width: Integer, filters of the discriminator.
        generator_width: Integer, of the generator.
        channels: Integer, of the images.
        learning_rate: Float, of Adam, for both.
        betas: Pair of floats.
    """

    def __init__(
        self, mimicry, width, generator_width, channels=3, learning_rate=2e-4,
        betas=(0.0, 0.999),
    ):  # fmt: skip
        self.mimicry = mimicry
        self.generator = mimicry.nets.SNGANGenerator32(ngf=generator_width)
        self.discriminator = mimicry.nets.SNGANDiscriminator32(ndf=width)
        if channels != 3:
            last = torch.nn.Conv2d(generator_width, channels, 3, 1, padding=1)
            torch.nn.init.xavier_uniform_(last.weight.data, 1.0)
            self.generator.c5 = last
            self.discriminator.block1 = mimicry.first(channels, width)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), learning_rate, betas=betas)
            for network in (self.generator, self.discriminator)
        ]

    def judge(self, images):
        """Update the discriminator on real images (batch, h, w, c); return its loss."""
        real = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        log = self.discriminator.train_step(
            real_batch=(real, None),
            netG=self.generator,
            optD=self.optimizers[1],
            log_data=self.mimicry.log.MetricLog(),
        )
        return log.metrics_dict["errD"]["value"]

    def make(self, count):
        """Update the generator on so many latents; return its loss."""
        # Of the real batch it takes the size alone.
        log = self.generator.train_step(
            real_batch=(torch.empty(count, 0),),
            netD=self.discriminator,
            optG=self.optimizers[0],
            log_data=self.mimicry.log.MetricLog(),
        )
        return log.metrics_dict["errG"]["value"]


class Judged:
    """What our measures ask of a GAN, with mimicry's generator."""

    classes = None

    def __init__(self, generator):
        self.generator = generator

    @torch.no_grad()
    def generate(self, count, seed=None):
        """Return images of our latents of the seed."""
        self.generator.eval()
        latents = np.random.default_rng(seed).standard_normal((count, 128))
        parts = torch.from_numpy(latents.astype("float32")).split(256)
        images = torch.cat([self.generator(part) for part in parts])
        return images.numpy().transpose(0, 2, 3, 1)


def train(cell, mimicry):
    """Train one network as a cell says, and measure it; return its row."""
    recipe, network, variant = cell.parts()
    optimizer, schedule = settings_of(recipe, network, variant)
    data, seed, wanted = images_of(cell), cell.seed, network.arguments
    torch.manual_seed(seed)
    trainer = Trainer(
        mimicry,
        wanted["width"],
        wanted["generator_width"],
        wanted["channels"],
        optimizer.learning_rate,
        (optimizer.beta_1, optimizer.beta_2),
    )
    decay = mimicry.schedule.LRScheduler(
        lr_decay="linear" if schedule.linear_decay else None,
        optD=trainer.optimizers[1],
        optG=trainer.optimizers[0],
        num_steps=schedule.steps,
    )
    size, parts = schedule.batch_size, wanted["discriminator_steps"]
    batches = StepBatches(
        data.train, parts * size, seed, 0, schedule.steps, labels=False
    )
    history, judged, made, begun = [], [], [], time.process_time()
    for step in range(schedule.steps):
        (images,) = batches[step]
        judged += [trainer.judge(part) for part in np.split(images, parts)]
        made.append(trainer.make(2 * size))
        decay.step(mimicry.log.MetricLog(), step + 1)
        if (step + 1) % schedule.record_every == 0 or step + 1 == schedule.steps:
            losses = {"discriminator_loss": judged, "generator_loss": made}
            means = {name: float(np.mean(x)) for name, x in losses.items()}
            history.append({"steps": step + 1, **means})
            judged, made = [], []
            print(f"seed {seed}, step {step + 1}: {means}", flush=True)
    seconds = time.process_time() - begun
    found = results_of(
        *(Judged(trainer.generator), data, MEASURES, recipe.probes, history),
        folder=Path(cell.folder),
    )
    return {
        "results": found.values,
        "reasons": found.reasons,
        "history": history,
        "cpu_seconds": seconds,
        "torch": torch.__version__,
    }


def train_ours(cell):
    """Train our network as a cell says, and measure it; return its row."""
    for part in ("state", "models"):
        output_folder(Path(cell.folder) / part)
    row = train_cell(cell)
    kept = ("results", "reasons", "history", "cpu_seconds", "environment")
    return {name: row[name] for name in kept}


def show(theirs, ours, what):
    """Print both sides' distances.

    Args:
        theirs: List of dicts, the rows of mimicry.
        ours: List of dicts, of ours.
        what: String, what ours are.
    """
    name = MEASURES[0]
    sides = [
        [row["results"][name] for row in side if row["results"].get(name) is not None]
        for side in (theirs, ours)
    ]
    print(f"{name}, mimicry | ours, {what}")
    print(*(", ".join(f"{x:.4g}" for x in side) for side in sides), sep=" | ")
    if min(map(len, sides)) < 2:
        print("Two seeds of each are needed to compare.")
        return
    first, second = sides
    print(f"means: {np.mean(first):.4g} | {np.mean(second):.4g}")
    print(f"range of our seeds: {min(second):.4g} to {max(second):.4g}")
    low, high = scipy.stats.ttest_ind(
        first, second, equal_var=False
    ).confidence_interval()
    print(f"difference of the means, 95 % interval: {low:+.4g} to {high:+.4g}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mimicry", type=Path, help="Folder with torch_mimicry.")
    parser.add_argument("--output", type=Path, default=Path("docs/results/gan"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    mimicry = imported(arguments.mimicry)
    output_folder(arguments.output, "mimicry_parity.json")
    recipe = load_recipe(recipe_path(RECIPE), SIZE, arguments.changes)
    (network,) = recipe.networks
    authors, probes = msgspec.to_builtins(recipe), msgspec.to_builtins(recipe.probes)
    form = msgspec.to_builtins(recipe) | {"measures": MEASURES}
    form["networks"][0]["arguments"] |= dialects.named("mimicry").config
    file = arguments.output / "mimicry_parity.json"
    known = json.loads(file.read_text()) if file.exists() else []
    sides, table = {"mimicry": [], "ours": []}, []
    for seed in range(arguments.seeds):
        where = network.name, VARIANT, seed, str(arguments.output)
        cell = Cell(form, *where)
        for side, rows in sides.items():
            key = {"side": side, "seed": seed, "settings": cell.settings(),
                   "probes": probes}  # fmt: skip
            # A row of other settings is none.
            found = [row for row in known if row.items() >= key.items()]
            if not found:
                made = train(cell, mimicry) if side == "mimicry" else train_ours(cell)
                found = [{**key, **made}]
                known += found
                write_json(file, known)
            rows += found
        path = arguments.output / "cells" / f"{Cell(authors, *where).key}.json"
        if path.is_file():
            row = json.loads(path.read_text())
            if row["error"] is None and row["probes"] == probes:
                table.append(row)
    show(sides["mimicry"], sides["ours"], "in mimicry's form")
    if table:
        show(sides["mimicry"], table, "in the authors' form")


if __name__ == "__main__":
    main()
