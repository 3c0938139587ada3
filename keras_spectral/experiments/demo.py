"""The demo: train with spectral layers, import a PyTorch checkpoint, compress it."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import keras
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import keras_spectral
from keras_spectral import compression, convert, data, measures, report, zoo
from keras_spectral.files import output_folder, replacing, write_json
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.results import Rows, RunStatus
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

CHECKPOINT = "resnet20_digits"

# What the demo compares: the same network and data, three normalizers.
NORMALIZERS = {
    "plain": None,
    "SN": SpectralNormalization,
    "SRN": functools.partial(StableRankNormalization, stable_rank_ratio=0.3),
}


@dataclasses.dataclass(frozen=True)
class TrainingRow:
    """One trained classifier: what it learned and what its spectra are."""

    name: str
    train_accuracy: float = dataclasses.field(metadata={"format": ".2%"})
    test_accuracy: float = dataclasses.field(metadata={"format": ".2%"})
    sum_of_stable_ranks: float
    log_product_of_spectral_norms: float = dataclasses.field(metadata={"table": False})
    product_of_spectral_norms: float


@dataclasses.dataclass(frozen=True)
class ImportRow:
    """One number of the imported network, in PyTorch and in Keras."""

    name: str
    pytorch: float
    keras: float


class _EpochBar(keras.callbacks.Callback):
    """Moves one bar of a `rich` progress display an epoch."""

    def __init__(self, progress, task):
        super().__init__()
        self.progress = progress
        self.task = task

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        self.progress.update(
            self.task,
            advance=1,
            note=f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}",
        )


def digits_classifier(normalize=None, name: str = "digits_classifier") -> keras.Model:
    """Build the demo's small convolutional classifier for 8x8 digits.

    Args:
        normalize: Callable, layer to layer, applied to every Conv2D and Dense;
            `None` for plain layers.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from (8, 8, 1) to 10 logits.

    Example:
    >>> digits_classifier().count_params()
    45736
    """
    normalize = normalize or (lambda layer: layer)
    inputs = keras.Input((8, 8, 1))
    x = normalize(keras.layers.Conv2D(32, 3, padding="same", name="conv1"))(inputs)
    x = keras.layers.ReLU()(x)
    x = normalize(keras.layers.Conv2D(64, 3, strides=2, padding="same", name="conv2"))(
        x
    )
    x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = normalize(keras.layers.Dense(26, name="hidden"))(x)
    x = keras.layers.ReLU()(x)
    outputs = normalize(keras.layers.Dense(10, name="logits"))(x)
    return keras.Model(inputs, outputs, name=name)


def _accuracy(logits, labels):
    return float(np.mean(np.argmax(np.asarray(logits), axis=-1) == labels))


def train(name, normalize, dataset, epochs, seed, callbacks=()):
    """Train one classifier and measure it.

    Args:
        name: String, the row's name.
        normalize: See `digits_classifier`.
        dataset: A `data.Data` of 8x8 digits.
        epochs: Integer >= 1.
        seed: Integer, for the weights and the order of the batches.
        callbacks: Keras callbacks.

    Returns:
        Tuple (model, `TrainingRow`, spectrum).
    """
    keras.utils.set_random_seed(seed)
    model = digits_classifier(normalize, name=name)
    # The decay lets power iteration catch up with the kernels.
    steps = epochs * math.ceil(len(dataset.train) / 64)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        dataset.train.inputs(),
        dataset.train.labels,
        batch_size=64,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )
    spectrum = measures.spectrum(model)
    train_logits, test_logits = (
        model.predict(split.inputs(), batch_size=256, verbose=0)
        for split in (dataset.train, dataset.test)
    )
    row = TrainingRow(
        name=name,
        train_accuracy=_accuracy(train_logits, dataset.train.labels),
        test_accuracy=_accuracy(test_logits, dataset.test.labels),
        sum_of_stable_ranks=spectrum.sum_of_stable_ranks,
        log_product_of_spectral_norms=spectrum.log_product_of_spectral_norms,
        product_of_spectral_norms=float(np.exp(spectrum.log_product_of_spectral_norms)),
    )
    return model, row, spectrum


class Demo:
    """The three stages of the demo, each written to the folder as it ends.

    Args:
        output: Folder for models, `results.json` and `demo.png`.
        epochs: Integer >= 1, epochs for each of the three classifiers.
        trials: Integer >= 2, compressions for each replacement.
        seed: Integer.
        console: Optional `rich.console.Console` to print to.

    Raises:
        OSError: If the folder cannot be written; before anything is trained.
        ValueError: If `epochs` or `trials` is out of range.
    """

    def __init__(self, output, epochs=40, trials=10, seed=0, console=None):
        check_integer("epochs", epochs, least=1)
        check_integer("trials", trials, least=2)
        models = (*map(str.lower, NORMALIZERS), CHECKPOINT, f"{CHECKPOINT}_compressed")
        files = [f"{name}.keras" for name in models]
        self.output = output_folder(output, "results.json", "demo.png", *files)
        self.epochs = epochs
        self.trials = trials
        self.seed = seed
        self.console = console or Console()
        self.results = {
            "keras_spectral": keras_spectral.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "settings": {"epochs": epochs, "trials": trials, "seed": seed},
            "status": "running",
            "training": [],
            "spectra": {},
            "import": [],
            "compression": [],
        }
        self.spectra = {}

    def run(self):
        """Run all stages and return the results, the content of `results.json`.

        On Ctrl-C the results so far are written with status "interrupted" and
        the interrupt goes on to the caller.

        Returns:
            Dict, the content of `results.json`.
        """
        try:
            with interrupts_heeded() as check:
                self._write("running")
                training = self._train(check)
                network, dataset = self._import()
                check()
                compressed = self._compress(network, dataset)
                check()
                figure = report.demo_figure(training, self.spectra, compressed)
                report.save(figure, self.output / "demo.png")
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        except Exception:
            self._write("failed")
            raise
        self._write("complete")
        return self.results

    def _write(self, status: RunStatus):
        self.results["status"] = status
        write_json(self.output / "results.json", self.results)

    def _save(self, model, name):
        with replacing(self.output / f"{name}.keras") as temporary:
            model.save(temporary)

    def _progress(self):
        return Progress(
            TextColumn("{task.description:>24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )

    def _train(self, check):
        dataset = data.load("digits")
        self.console.rule("1. Train with spectral layers")
        self.console.print(
            "One small convolutional network on scikit-learn's digits, trained by "
            f"`model.fit` ({len(dataset.train)} images to train on, "
            f"{len(dataset.test)} to test)."
        )
        rows = []
        with self._progress() as progress:
            for name, normalize in NORMALIZERS.items():
                task = progress.add_task(name, total=self.epochs, note="")
                model, row, spectrum = train(
                    name,
                    normalize,
                    dataset,
                    self.epochs,
                    self.seed,
                    [_EpochBar(progress, task)],
                )
                self._save(model, name.lower())
                rows.append(row)
                self.spectra[name] = spectrum
                self.results["training"] = Rows(rows).to_dicts()
                self.results["spectra"][name] = spectrum.to_dicts()
                self._write("running")
                check()
        table = Rows(
            rows,
            title="Normalization, side by side",
            caption="Norms and stable ranks are those of the flattened kernels "
            '(norm="reshaped") that the layers compute with.',
        )
        self.console.print(table)
        return table

    def _import(self):
        self.console.rule("2. Import a PyTorch checkpoint")
        path, card_path = zoo.checkpoint(CHECKPOINT)
        card = json.loads(card_path.read_text(encoding="utf-8"))
        network = convert.from_torch(path, CHECKPOINT)
        dataset = data.load("digits", image_size=32, channels=3)
        logits = network.predict(dataset.test.inputs(), batch_size=64, verbose=0)
        reference = np.array(card["reference_logits"])
        difference = np.max(np.abs(logits[: len(reference)] - reference)) / np.max(
            np.abs(reference)
        )
        accuracy = _accuracy(logits, dataset.test.labels)
        rows = Rows(
            [
                ImportRow("test accuracy", card["test_accuracy"], accuracy),
                ImportRow("parameters", card["parameters"], _trainable(network)),
                ImportRow("relative difference of logits", 0.0, float(difference)),
            ],
            title=f"{CHECKPOINT}: PyTorch's card and the Keras model",
            caption=f"Logits of the first {len(reference)} test images; "
            "1e-4 is allowed.",
        )
        self.results["import"] = rows.to_dicts()
        self.console.print(rows)
        if difference > 1e-4 or accuracy != card["test_accuracy"]:
            raise ValueError(
                f"The imported `{CHECKPOINT}` does not compute what its card says: "
                f"logits differ by {difference:.1e} (1e-4 is allowed), accuracy is "
                f"{accuracy} (card: {card['test_accuracy']}). Please report this "
                "with the versions of Keras and its backend."
            )
        self._save(network, CHECKPOINT)
        self._write("running")
        return network, dataset

    def _compress(self, network, dataset):
        self.console.rule("3. Compress its final layer")
        head = network.get_layer("output")
        # Only the head changes, so the layers before it run once.
        trunk = keras.Model(network.inputs, head.input)
        features = trunk.predict(dataset.test.inputs(), batch_size=64, verbose=0)
        rows = compression.compare_replacements(
            network,
            where=[head.name],
            trials=self.trials,
            seed=self.seed,
            evaluate=lambda _: _accuracy(
                keras.ops.convert_to_numpy(head(features)), dataset.test.labels
            ),
        )
        self.results["compression"] = rows.to_dicts()
        self._write("running")
        self.console.print(rows)
        compressed = compression.compress(
            network, where=[head.name], replacement="matched", seed=self.seed
        )
        self._save(compressed, f"{CHECKPOINT}_compressed")
        return rows


def _trainable(model):
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


def run_demo(output: str | Path = "keras-spectral-demo", **arguments) -> dict:
    """Run the demo and return its results; see `Demo` for the arguments."""
    return Demo(output, **arguments).run()
