"""The demo: who memorizes noise, what is certified, and a checkpoint made small."""

import dataclasses
import functools
import json
from pathlib import Path

import keras
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import keras_spectral
from keras_spectral import compression, convert, data, measures, report, zoo
from keras_spectral.files import output_folder, replacing, write_json, write_text
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.results import Rows, RunStatus, column
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

CHECKPOINT = "resnet20_digits"
COMPRESSED = f"{CHECKPOINT}_compressed.safetensors"

# Few enough that the plain network learns all of their random labels in seconds.
IMAGES = 600

# In pixels of [0, 1], Euclidean norm; the table shows one of them.
RADII = tuple(step / 40 for step in range(1, 17))
RADIUS = 0.1

# What the demo compares: the same network and data, three normalizers.
NORMALIZERS = {
    "plain": None,
    "SN": SpectralNormalization,
    "SRN": functools.partial(StableRankNormalization, stable_rank_ratio=0.3),
}


@dataclasses.dataclass(frozen=True)
class TrainingRow:
    """One network, trained twice: on random labels and on the true ones."""

    name: str = column("network")
    random_labels_accuracy: float = column("noise learned", ".1%")
    train_accuracy: float = column("train", table=False)
    test_accuracy: float = column("test", ".1%")
    certified_accuracy: float = column("certified", ".1%")
    lipschitz_bound: float = column("Lipschitz bound", ".3g")
    sum_of_stable_ranks: float = column("stable ranks", ".1f")


@dataclasses.dataclass(frozen=True)
class ImportRow:
    """One number of the imported network, in PyTorch and in Keras."""

    name: str
    pytorch: float
    keras: float


@dataclasses.dataclass(frozen=True)
class FileRow:
    """One file of the imported network."""

    name: str = column("file")
    bytes: int = column("bytes", ",d")
    times_smaller: float = column("times smaller", ".2f")
    test_accuracy: float | None = column("test accuracy", ".2%")


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
    """Train one classifier.

    Args:
        name: String, the model's name.
        normalize: See `digits_classifier`.
        dataset: A `data.Data` of 8x8 digits.
        epochs: Integer >= 1.
        seed: Integer, for the weights and the order of the batches.
        callbacks: Keras callbacks.

    Returns:
        Tuple (model, list of the accuracy in each epoch).
    """
    keras.utils.set_random_seed(seed)
    model = digits_classifier(normalize, name=name)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        dataset.train.inputs(),
        dataset.train.labels,
        batch_size=64,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )
    return model, [float(value) for value in history.history["accuracy"]]


def _measured(name, model, memorized, dataset):
    """Return the row of a network, its certificate and its spectrum."""
    certified = measures.certify(
        model,
        dataset.test.inputs(),
        dataset.test.labels,
        radii=RADII,
        pixel_scale=2.0,
        # The other methods are tighter, and take seconds.
        method="product",
        progress=False,
    )
    spectrum = measures.spectrum(model)
    logits = model.predict(dataset.train.inputs(), batch_size=256, verbose=0)
    row = TrainingRow(
        name=name,
        random_labels_accuracy=memorized,
        train_accuracy=_accuracy(logits, dataset.train.labels),
        test_accuracy=certified.accuracy,
        certified_accuracy=certified[RADII.index(RADIUS)].certified_accuracy,
        lipschitz_bound=certified.lipschitz_constant,
        sum_of_stable_ranks=spectrum.sum_of_stable_ranks,
    )
    return row, certified, spectrum


class Demo:
    """The stages of the demo, each written to the folder as it ends.

    Args:
        output: Folder for models, `results.json`, `demo.png` and `demo.html`.
        epochs: Integer >= 1, epochs of each of the six trainings.
        seed: Integer.
        console: Optional `rich.console.Console` to print to.

    Raises:
        OSError: If the folder cannot be written; before anything is trained.
        ValueError: If `epochs` is out of range.
    """

    def __init__(self, output, epochs=60, seed=0, console=None):
        check_integer("epochs", epochs, least=1)
        names = (*map(str.lower, NORMALIZERS), CHECKPOINT)
        files = [*(f"{name}.keras" for name in names), COMPRESSED]
        own = "results.json", "demo.png", "demo.html"
        self.output = output_folder(output, *own, *files)
        self.epochs = epochs
        self.seed = seed
        self.console = console or Console()
        self.results = {
            "keras_spectral": keras_spectral.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "settings": {
                "epochs": epochs,
                "seed": seed,
                "images": IMAGES,
                "radius": RADIUS,
            },
            "status": "running",
            "training": [],
            "memorization": {},
            "certified": {},
            "spectra": {},
            "import": [],
            "files": [],
        }

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
                self._train(check)
                network, dataset = self._import()
                check()
                self._compress(network, dataset)
                check()
                figure = report.demo_figure(self.results)
                report.save(figure, self.output / "demo.png")
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        except Exception:
            self._write("failed")
            raise
        self._write("complete")
        command = f"keras-spectral demo --epochs {self.epochs} --seed {self.seed}"
        page = report.page({"results": {"demo": self.results}}, command)
        write_text(self.output / "demo.html", page)
        return self.results

    def _write(self, status: RunStatus):
        self.results["status"] = status
        write_json(self.output / "results.json", self.results)

    def _save(self, model, name):
        with replacing(self.output / f"{name}.keras") as temporary:
            model.save(temporary)

    def _progress(self):
        return Progress(
            TextColumn("{task.description:>20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )

    def _train(self, check):
        digits = data.load("digits").subset(IMAGES, seed=self.seed)
        noise = digits.random_labels(seed=self.seed)
        self.console.rule("1. Train with spectral layers")
        self.console.print(
            f"Who learns noise by heart? One small network on {IMAGES} digits, by "
            "`model.fit`: plain, with spectral normalization (SN) and with stable rank "
            "normalization (SRN). Of random labels there is nothing to learn but each "
            "by itself (lower is better). With the true ones certified is the share of "
            "test images that are right and that no change below "
            f"{RADIUS} in the Euclidean norm of the pixels can turn."
        )
        rows = []
        with self._progress() as progress:
            for name, normalize in NORMALIZERS.items():

                def fit(labels, dataset, name=name, normalize=normalize):
                    task = progress.add_task(
                        f"{name}, {labels}", total=self.epochs, note=""
                    )
                    bar = _EpochBar(progress, task)
                    return train(
                        name, normalize, dataset, self.epochs, self.seed, [bar]
                    )

                _, curve = fit("random labels", noise)
                check()
                model, _ = fit("true labels", digits)
                self._save(model, name.lower())
                row, certified, spectrum = _measured(name, model, curve[-1], digits)
                rows.append(row)
                self.results["training"] = Rows(rows).to_dicts()
                self.results["memorization"][name] = curve
                self.results["certified"][name] = certified.to_dicts()
                self.results["spectra"][name] = spectrum.to_dicts()
                self._write("running")
                check()
        self.console.print(
            Rows(
                rows,
                title="Normalization, side by side",
                caption="But for noise, all is of training on true labels. Stable "
                "ranks: their sum over all layers.",
            )
        )

    def _import(self):
        self.console.rule("2. Import a PyTorch checkpoint")
        self.console.print(
            "A file that PyTorch wrote, read without PyTorch; nothing in it is "
            "executed. The Keras model must compute what its card says."
        )
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
        self.console.rule("3. Make it small")
        self.console.print(
            "Weights below a quarter of their kernel's standard deviation become zero, "
            "the others int8. The file opens as a plain Keras model, whose accuracy "
            "this is; it needs no training."
        )
        file = self.output / COMPRESSED
        small = compression.compress(network, replacement="zero", deviations=0.25)
        whole = compression.save_compressed(small, file, values="int8")[-1]
        again = compression.load_compressed(file)

        def accuracy(model):
            logits = model.predict(dataset.test.inputs(), batch_size=64, verbose=0)
            return _accuracy(logits, dataset.test.labels)

        files = {
            "float32": (whole.float32_bytes, accuracy(network)),
            "int8 alone": (whole.int8_bytes, None),
            "zeros and int8": (whole.bytes, accuracy(again)),
        }
        rows = Rows(
            [
                FileRow(name, size, whole.float32_bytes / size, right)
                for name, (size, right) in files.items()
            ],
            title=f"Files of {CHECKPOINT}",
            caption=f"The last one is {COMPRESSED}; int8 alone is not written.",
        )
        self.results["files"] = rows.to_dicts()
        self._write("running")
        self.console.print(rows)


def _trainable(model):
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


def run_demo(output: str | Path = "keras-spectral-demo", **arguments) -> dict:
    """Run the demo and return its results; see `Demo` for the arguments."""
    return Demo(output, **arguments).run()
