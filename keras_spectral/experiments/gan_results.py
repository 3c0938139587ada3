"""What a trained GAN comes to: the measures that a recipe of GANs can ask for."""

import functools
import math
from pathlib import Path

import keras
import numpy as np

from keras_spectral import convert, zoo
from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.cell_results import Results, chosen
from keras_spectral.experiments.inputs import load_keras
from keras_spectral.experiments.optimizers import sgd
from keras_spectral.files import output_folder, replacing
from keras_spectral.gan import metrics
from keras_spectral.measures import spectrum

# Latents of the images that are measured; the grid's are others.
_SEED = 1
# Of `small_convnet`: 128 features before the logits.
_FEATURES = "hidden_bn"


def results_of(gan, data, names, probes, history=(), folder=Path()) -> Results:
    """Return the values of measures of a trained GAN.

    Args:
        gan: A `keras_spectral.gan.GAN`.
        data: The `data.Data` of its images.
        names: List of strings, of `recipe_settings.GanMeasure`.
        probes: A `recipe_settings.GanProbes`.
        history: List of dicts, the losses; see `gan_cells`.
        folder: `pathlib.Path` of the run, where the classifier is kept.

    Returns:
        `Results`, as of `cell_results.results_of`.
    """
    looked_at = _LookedAt(gan, data, probes, history, folder)
    found, reasons = {}, {}
    for group, compute in _GROUPS.items():
        wanted = [name for name in names if name in group]
        if not wanted:
            continue
        try:
            found |= compute(looked_at, wanted)
        except Exception as error:  # What was trained counts without this measure.
            reasons |= dict.fromkeys(wanted, f"{type(error).__name__}: {error}")
    return chosen(found, reasons, names)


class _LookedAt:
    """A GAN and the images that measures look at, made once."""

    def __init__(self, gan, data, probes, history, folder):
        self.gan, self.data, self.probes = gan, data, probes
        self.history, self.folder = history, folder

    @functools.cached_property
    def generated(self):
        """Uint8 images: what a file of them would have."""
        return metrics.to_uint8(self.gan.generate(self.probes.generated, seed=_SEED))

    @functools.cached_property
    def labels(self):
        """Of `generated`, as `GAN.generate` has them; `None` without classes."""
        classes = self.gan.classes
        return None if classes is None else np.arange(len(self.generated)) % classes

    @functools.cached_property
    def reference(self):
        """A `data.Split`."""
        return self.data.train[: self.probes.reference]

    @functools.cached_property
    def held_out(self):
        """A `data.Split`: images that the GAN was not trained on."""
        return self.data.test[: self.probes.images]

    @functools.cached_property
    def classifier(self):
        return classifier_features(
            self.data, self.probes.classifier_epochs, self.folder
        )

    def inception(self, layer="2048"):
        path = self.probes.inception
        if path is None:
            raise ValueError(
                "`probes.inception` must be the path of the Inception's weights, "
                "pt_inception-2015-12-05-6726825d.pth. Received: None. Pass "
                "--set probes.inception=FILE"
            )
        model = convert.from_torch(path, zoo.fid_inception())
        return metrics.inception(model, path, layer)

    def of_the_discriminator(self, compute):
        """Return a measure of the discriminator at generated and held-out images."""
        count = self.probes.images
        conditional = self.gan.classes is not None
        return compute(
            self.gan.discriminator,
            self.generated[:count],
            self.held_out.inputs(),
            generated_labels=self.labels[:count] if conditional else None,
            real_labels=self.held_out.labels if conditional else None,
            count=count,
        )


def classifier_features(data, epochs, folder):
    """Return the features of a small network that is trained on the true labels.

    It is a function of images and labels, and of the number of epochs, so that all
    cells have the same one; it is kept below `classifiers`.

    Args:
        data: A `data.Data`.
        epochs: Integer >= 1.
        folder: `pathlib.Path` of a run.

    Returns:
        `gan.metrics.Features`, 128 numbers an image.
    """
    digest = data.provenance().sha256[0][:8]
    name = f"classifier of {data.name}, {epochs} epochs"
    path = (
        output_folder(folder / "classifiers") / f"{data.name}-{epochs}-{digest}.keras"
    )
    if path.is_file():
        model = load_keras(path)
    else:
        model = _classifier(data, epochs)
        with replacing(path) as temporary:
            model.save(temporary)
    return metrics.Features(model, name, layer=_FEATURES, batch_size=256)


def _classifier(data, epochs):
    keras.utils.set_random_seed(0)
    shape = data.train.images.shape[1:]
    model = zoo.small_convnet(max(data.classes, 2), input_shape=shape)
    model.compile(
        sgd(0.05, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    for epoch in range(epochs):
        batches = Batches(data.train, 128, 0, epoch)
        model.fit(batches, shuffle=False, verbose=0)
    model.compiled, model.optimizer = False, None
    return model


def _frechet(looked_at, names):
    features = looked_at.classifier
    return _distances(looked_at, names, features, "frechet_distance")


def _inception_distances(looked_at, names):
    return _distances(looked_at, names, looked_at.inception(), "fid")


def _distances(looked_at, names, features, name):
    reference = looked_at.reference
    ours, theirs = features(looked_at.generated), features(reference.inputs())
    found = {}
    if name in names:
        found[name] = metrics.frechet_distance(ours, theirs)
    if f"intra_{name}" in names:
        if looked_at.labels is None:
            raise ValueError(f"`intra_{name}` needs a conditional GAN")
        found[f"intra_{name}"] = metrics.intra_frechet_distance(
            ours, looked_at.labels, theirs, reference.labels
        ).mean
    return found


def _inception_score(looked_at, names):
    logits = looked_at.inception("logits_unbiased")
    return {
        "inception_score": metrics.inception_score(logits(looked_at.generated)).mean
    }


def _divergence(kind):
    def compute(looked_at, names):
        probes, gan = looked_at.probes, looked_at.gan
        size = getattr(probes, f"{kind}_batch_size")
        found = metrics.neural_divergence(
            gan.generate,
            looked_at.data.test.inputs(),
            kind,
            getattr(probes, f"{kind}_steps"),
            batch_size=size,
            evaluation_samples=probes.divergence_batches * size,
        )
        return {f"neural_divergence_{kind}": found.value}

    return compute


def _slopes(looked_at, names):
    found = looked_at.of_the_discriminator(metrics.discriminator_slopes)
    values = {}
    for name, samples in found.values.items():
        start = f"slope_{name.replace('-', '_').replace(' ', '_')}"
        values[start], values[f"{start}_95"] = samples, found.percentile(name, 95)
    return values


def _gradients(looked_at, names):
    found = looked_at.of_the_discriminator(metrics.discriminator_jacobians)
    return {
        "gradient_real": found.values["real"],
        "gradient_real_50": found.percentile("real", 50),
        "gradient_fake": found.values["generated"],
        "gradient_fake_50": found.percentile("generated", 50),
        "gradient_distance": found.distance,
    }


def _stable_ranks(looked_at, names):
    rows = spectrum(looked_at.gan.discriminator)
    ratios = [row.stable_rank / min(row.shape) for row in rows]
    return {"stable_rank_ratio": sum(ratios) / len(ratios)}


def _parameters(looked_at, names):
    weights = looked_at.gan.discriminator.trainable_variables
    count = sum(math.prod(x.shape) for x in weights)
    return {
        "discriminator_parameters": count,
        "discriminator_mebibytes": 4 * count / 2**20,
    }


def _instability(looked_at, names):
    losses = [row["discriminator_loss"] for row in looked_at.history]
    # Each is a mean already.
    return {"loss_instability": metrics.loss_instability(losses, window=1)}


# Measures that are computed together, or refused together.
_GROUPS = {
    ("frechet_distance", "intra_frechet_distance"): _frechet,
    ("fid", "intra_fid"): _inception_distances,
    ("inception_score",): _inception_score,
    ("neural_divergence_logistic",): _divergence("logistic"),
    ("neural_divergence_cnn",): _divergence("cnn"),
    (
        "slope_real_fake_95",
        "slope_fake_95",
        "slope_real_95",
        "slope_same_class_95",
        "slope_real_fake_of_a_class_95",
    ): _slopes,
    ("gradient_real_50", "gradient_fake_50", "gradient_distance"): _gradients,
    ("stable_rank_ratio",): _stable_ranks,
    ("discriminator_parameters", "discriminator_mebibytes"): _parameters,
    ("loss_instability",): _instability,
}
