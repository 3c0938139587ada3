"""What evaluate-gan compares: a sampler of images, a network and real ones."""

from keras_spectral.experiments.inputs import load_keras

# The metrics of a network's features, and of the discriminator.
FEATURES = "frechet", "kernel", "manifold", "inception_score"
DISCRIMINATOR = "slopes", "jacobians"
# Real images, where neither an option nor a file says how many.
_REFERENCE = 10_000


class Sampler:
    """What makes images: a GAN, or a generator alone."""

    def __init__(self, model, path, seed):
        from keras_spectral.gan import GAN

        self.model, self.seed, self.discriminator = model, seed, None
        self.classes = None
        if isinstance(model, GAN):
            self.discriminator, self.classes = model.discriminator, model.classes
            self.shape = tuple(model.generator.output_shape[1:])
            return
        inputs = getattr(model, "inputs", None) or ()
        shape = tuple(getattr(model, "output_shape", ())[1:])
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or len(shape) != 3:
            raise ValueError(
                "`model` must be a keras_spectral.gan.GAN, or a generator of images "
                f"from latents (samples, latent) alone. Received: {path}, a "
                f"{type(model).__name__} named '{model.name}'. Of a conditional one "
                "save the GAN."
            )
        self.shape = shape

    def check(self, chosen):
        """Raise a ValueError unless the metrics can be had of the model."""
        if not chosen:
            raise ValueError(
                "`--metrics` must name one that a generator alone has. Received: none, "
                "and no --features."
            )
        if self.discriminator is None and set(chosen) & set(DISCRIMINATOR):
            raise ValueError(
                f"`--metrics` {' and '.join(DISCRIMINATOR)} need a discriminator. "
                f"Received: a generator alone, '{self.model.name}'"
            )

    def check_classes(self, dataset):
        """Raise a ValueError unless the test images' labels are the GAN's."""
        from keras_spectral.gan.inputs import check_labels

        if self.classes is not None:
            check_labels("data", dataset.test.labels, self.classes)

    def __call__(self, count):
        """Return images of the seed and their labels, `None` where there are none."""
        import numpy as np

        labels = None if self.classes is None else np.arange(count) % self.classes
        return self.generate(count, self.seed), labels

    def generate(self, count, seed, labels=None):
        if self.discriminator is not None:
            return self.model.generate(count, labels=labels, seed=seed)
        import numpy as np

        # Those of `GAN.generate`.
        shape = count, self.model.inputs[0].shape[1]
        latents = np.random.default_rng(seed).standard_normal(shape).astype("float32")
        return self.model.predict(latents, batch_size=64, verbose=0)


def _chosen(split, count):
    """Return the first images, or, where they lack classes of the rest, some of all.

    The images of a folder are sorted by class.
    """
    if count >= len(split):
        return split
    import numpy as np

    if set(np.unique(split.labels[:count])) == set(np.unique(split.labels)):
        return split[:count]
    return split[np.linspace(0, len(split) - 1, count).astype(int)]


class Network:
    """The features that generated and real images are compared by."""

    def __init__(self, path, layer, shape, chosen, draws, seed):
        from keras_spectral import convert, zoo
        from keras_spectral.gan.metrics import Features, inception

        self.kinds = [kind for kind in FEATURES[:3] if kind in chosen]
        self.draws, self.seed, self.logits = draws, seed, None
        if convert.is_keras_model(path):
            model = load_keras(path)
            self.features = Features(model, path.stem, layer)
            fits = self.features.shape
            if any(n not in (None, m) for n, m in zip(fits, shape, strict=True)):
                if (shape[2], fits[2]) != (1, 3) or fits[:2] != shape[:2]:
                    raise ValueError(
                        f"`--features` must take images of {shape}, as the generator "
                        f"makes them. Received: {path}, which takes {fits}"
                    )
            if "inception_score" in chosen:
                self.logits = Features(model, path.stem)
            return
        if layer is not None:
            raise ValueError(
                "`--layer` belongs to a .keras model; of the Inception the paper's is "
                f"taken. Received: --layer={layer}"
            )
        model = convert.from_torch(path, zoo.fid_inception())
        self.features = inception(model, path)
        if "inception_score" in chosen:
            self.logits = inception(model, path, "logits_unbiased")

    def reference(self, path, dataset, name, count, generated):
        """Return the statistics of real images, of a file where it is there.

        What cannot be compared with so many generated images is refused first.
        """
        from keras_spectral.gan.metrics import Statistics
        from keras_spectral.gan.metrics.scores import check_scores

        split = "train" if len(dataset.train) else "test"
        kept = Statistics.load(path) if path is not None and path.exists() else None
        count = count or (kept and kept.count) or _REFERENCE
        images = _chosen(getattr(dataset, split), count)
        check_scores(
            *(generated, kept or len(images), self.features, self.kinds),
            self.logits,
            draws=self.draws,
        )
        if kept is not None:
            wanted, known = images.sha256(), kept.provenance.get("images_sha256")
            if known not in (None, wanted):
                raise ValueError(
                    "`--reference` must be statistics of the images that --data and "
                    f"--reference-samples name. Received: --reference={path}, of "
                    f"others, of {kept.provenance.get('data')}. Remove the file, or "
                    "name another one."
                )
            return kept
        found = self.features.statistics(images.inputs(), keep_features=True)
        found.provenance["data"] = f"{name} {split}"
        found.provenance["source"] = dataset.source
        found.provenance["images_sha256"] = images.sha256()
        if path is not None:
            found.save(path)
        return found

    def scores(self, generated, reference):
        from keras_spectral.gan.metrics import score_images

        return score_images(
            generated, reference, self.features, self.kinds, self.logits,
            draws=self.draws, seed=self.seed,
        )  # fmt: skip
