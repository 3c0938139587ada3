"""One cell of a recipe of GANs: a GAN trained with one seed, which resumes bit for bit.

Cells, rows, files and checkpoints are those of `cells`.
"""

import functools
import io
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_spectral as ks
from keras_spectral.experiments.batches import StepBatches
from keras_spectral.experiments.cell_results import measured
from keras_spectral.experiments.cells import (
    builder_of,
    images_of,
    kept_model,
    normalizer_of,
    row_of,
)
from keras_spectral.experiments.curves import write_curves
from keras_spectral.experiments.gan_results import results_of
from keras_spectral.experiments.recipe_settings import settings_of
from keras_spectral.experiments.training_state import (
    Checkpoint,
    WithinEpoch,
    environment,
)
from keras_spectral.files import output_folder, replacing
from keras_spectral.gan.callbacks import sample_grid

_LOSSES = ("discriminator_loss", "generator_loss")
# Images of the grid of a cell, the first ones of a fixed latent.
_SAMPLES = 64


def train_gan(cell) -> dict:
    """Train a cell from where its checkpoint is, and measure it.

    Args:
        cell: A `cells.Cell` of a `GanRecipe`.

    Returns:
        Dict, see `cells.CellRow`; its `layers` are the discriminator's.
    """
    recipe, network, variant = cell.parts()
    data, folder = images_of(cell), Path(cell.folder)
    path = folder / "models" / f"{cell.key}.keras"
    compute = functools.partial(results_of, folder=folder)
    if cell.row is not None and path.is_file():
        return measured(cell.row, kept_model(path), data, recipe, compute)
    gan = _gan(cell, network, variant, data)
    state = Checkpoint(
        folder / "state" / f"{cell.key}.npz",
        {**environment(), "images": list(data.provenance().sha256)},
    )
    history, seconds = _trained(cell, gan, data, state)
    # What is kept loads without optimizers, and is a third as large.
    gan.compiled, gan.optimizer = False, None
    gan.generator_optimizer = gan.discriminator_optimizer = None
    with replacing(path) as temporary:
        gan.save(temporary)
    _write_samples(gan, output_folder(folder / "samples") / f"{cell.key}.png")
    row = row_of(cell, gan.discriminator, history, seconds, state, data)
    return measured(row, gan, data, recipe, compute)


def _gan(cell, network, variant, data):
    """Return a variant's GAN, which begins with the plain networks' kernels."""
    build = builder_of(network)
    arguments = {**network.arguments, **variant.arguments, "seed": cell.seed}
    keras.utils.set_random_seed(cell.seed)
    gan = build(**arguments)
    if not isinstance(gan, ks.gan.GAN):
        raise ValueError(
            "`networks.builder` must build a GAN where the schedule has `steps`. "
            f"Received: '{network.builder}'"
        )
    shape = gan.discriminator.inputs[0].shape[1:]
    if tuple(shape) != data.test.images.shape[1:]:
        raise ValueError(
            f"`networks.arguments` must fit the images, {data.test.images.shape[1:]}. "
            f"Received: {network.builder} for images of {tuple(shape)}"
        )
    normalize = normalizer_of(variant)
    if normalize is None:
        return gan
    normalized = build(**arguments, normalize=normalize)
    normalized.generator.set_weights(gan.generator.get_weights())
    if gan.averaged_generator is not None:
        normalized.averaged_generator.set_weights(gan.generator.get_weights())
    ks.surgery.copy_weights(gan.discriminator, normalized.discriminator)
    return normalized


def _compile(gan, settings, schedule):
    def adam(updates):
        rate: Any = settings.learning_rate
        if schedule.linear_decay and updates:
            rate = keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)
        return keras.optimizers.Adam(rate, settings.beta_1, settings.beta_2)

    gan.compile(
        adam(schedule.steps),
        adam(schedule.steps * gan.discriminator_steps),
        # TensorFlow's graphs are compiled sooner without XLA; JAX has nothing else.
        jit_compile=keras.backend.backend() == "jax",
    )


def _trained(cell, gan, data, state):
    """Train to the end; return the history and the seconds, of wall and of CPU."""
    optimizer, schedule = settings_of(*cell.parts())
    _compile(gan, optimizer, schedule)
    progress = state.restore(gan)
    wall, cpu = time.perf_counter(), time.process_time()
    before, history = progress.seconds, progress.history

    def seconds():
        now = time.perf_counter() - wall, time.process_time() - cpu
        return [one + other for one, other in zip(before, now, strict=True)]

    count = gan.discriminator_steps * schedule.batch_size
    done = history[-1]["steps"] if history else 0
    while done < schedule.steps:
        last = min(done + schedule.record_every, schedule.steps)
        batches = StepBatches(
            *(data.train, count, cell.seed, done + progress.step, last),
            labels=gan.classes is not None,
        )
        within = WithinEpoch(state, progress, seconds, cell.seed)
        fitted = gan.fit(batches, shuffle=False, verbose=0, callbacks=[within])
        progress.step, done = 0, last
        losses = {name: float(fitted.history[name][-1]) for name in _LOSSES}
        broken = [name for name in _LOSSES if not np.isfinite(losses[name])]
        if broken:  # And not kept: the next run would go on from it.
            raise FloatingPointError(f"{broken[0]} is not finite after {done} steps")
        history.append({"epoch": len(history) + 1, "steps": done, **losses})
        write_curves(Path(cell.folder), cell.key, history)
        state.save(gan, history, seconds())
    return history, seconds()


def _write_samples(gan, path):
    """Write the grid of the first images of a fixed latent: never chosen."""
    content = io.BytesIO()
    sample_grid(gan.generate(_SAMPLES, seed=0)).save(content, "PNG")
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())
