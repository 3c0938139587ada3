"""One checkpoint's row of Table 1 and point of Figure 3."""

import dataclasses
from pathlib import Path

import keras
import msgspec
import numpy as np

from keras_spectral import compression, convert, surgery
from keras_spectral.compression.heavy_tail import CompressionRow
from keras_spectral.experiments import inputs
from keras_spectral.experiments.checkpoint_task import file_digest
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.measures import fit_power_law
from keras_spectral.measures.power_law import FitStatus
from keras_spectral.models.copying import deep_graphs
from keras_spectral.models.graph import is_output
from keras_spectral.models.weights import leaf_layers, weights
from keras_spectral.results import Rows


@dataclasses.dataclass(frozen=True)
class SweepRow:
    """What a sweep finds out about one checkpoint; without an error all is there.

    Args:
        model: String, the network's name.
        file: String, the checkpoint's path.
        sha256: String, of the file.
        settings: Dict, see `CheckpointTask`.
        dataset: String, or `None` if unknown.
        classes: Integer, outputs of the final dense layer.
        layer: String, that layer's name.
        compressed: Integer, its weights: the ones that are compressed.
        parameters: Integer, trainable parameters of the network.
        share: Float, compressed / parameters.
        alpha_pdf: Float, exponent of the density of |w|, see `fit_power_law`.
        standard_error: Float, of the exponent.
        xmin: Float, where the tail begins.
        tail_size: Integer, weights in the tail.
        status: String, of the fit.
        stable_rank: Float, of the layer, by an exact SVD in float64; at most `classes`,
            however heavy the tail.
        original_accuracy: Float in [0, 1]; `None` without data.
        compressions: List of `CompressionRow`, see
            `compression.compare_replacements`.
        note: String, why there are no accuracies.
        error: String, why there is no row; then the numbers are `None`.
    """

    model: str
    file: str
    sha256: str
    settings: dict
    dataset: str | None = None
    classes: int | None = None
    layer: str | None = None
    compressed: int | None = None
    parameters: int | None = None
    share: float | None = None
    alpha_pdf: float | None = None
    standard_error: float | None = None
    xmin: float | None = None
    tail_size: int | None = None
    status: FitStatus | None = None
    stable_rank: float | None = None
    original_accuracy: float | None = None
    compressions: list[CompressionRow] = dataclasses.field(default_factory=list)
    note: str | None = None
    error: str | None = None

    @property
    def name(self):
        """String, the checkpoint's file name without its ending."""
        return Path(self.file).stem

    def compression(self, rule, replacement):
        """Return the `CompressionRow` of a rule and a replacement, or `None`."""
        for row in self.compressions:
            if (row.rule, row.replacement) == (rule, replacement):
                return row
        return None

    def to_dict(self):
        """Return the row as JSON has it; NaN becomes `None`."""
        return Rows([self]).to_dicts()[0]

    @classmethod
    def from_dict(cls, values):
        """Return the row of `to_dict`.

        Raises:
            ValueError: If these are no such values, with the one that is wrong.
        """
        row = msgspec.convert(values, cls)
        # msgspec takes no notice of a dataclass's fields that are missing or too many.
        if row.to_dict() != values:
            raise ValueError("The fields are not those of a row, or one is NaN")
        return row


def measure_checkpoint(task):
    """Measure and compress one checkpoint; whatever goes wrong becomes its row.

    Args:
        task: A `CheckpointTask`.

    Returns:
        A `SweepRow`.
    """
    try:
        return _measure(task)
    except Exception as error:
        return failed_row(task, error)
    finally:
        # Workers live on, and a model of 36 million parameters would, too.
        keras.utils.clear_session()


def failed_row(task, error):
    """Return the row of a checkpoint that could not be measured.

    Example:
    >>> from keras_spectral.experiments.checkpoint_task import CheckpointTask
    >>> task = CheckpointTask("a", "a.pth", "0" * 64, True, *[None] * 4, 10, 0)
    >>> failed_row(task, ValueError("no weights")).error
    'ValueError: no weights'
    """
    message = " ".join(str(error).split())
    return SweepRow(
        model=task.model,
        file=task.file,
        sha256=task.sha256,
        settings=task.settings,
        dataset=task.dataset,
        error=f"{type(error).__name__}: {message}",
    )


def _measure(task):
    path = Path(task.file)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path} here. On a cluster every worker must see the "
            "checkpoints, and the data, under the same paths."
        )
    if file_digest(path) != task.sha256:
        raise ValueError(f"{path} has changed since the sweep began.")
    if task.registered:
        model = convert.from_torch(path, task.model)
    else:
        model = inputs.load_keras(path)
        if any(isinstance(x.layer, Reparametrization) for x in weights(model)):
            # What is compressed is what the network computes with.
            model = surgery.unwrap(model)
    evaluate = None
    if task.data is not None:
        dataset = inputs.test_data(task.data, model, task.directory)
        evaluate = head_evaluator(model, dataset)
    weight = _final_dense(model)
    # Not by name: in nested models another layer may have it, too.
    rows = compression.compare_replacements(
        model,
        where=lambda other: other.layer is weight.layer,
        trials=task.trials,
        seed=task.seed,
        evaluate=evaluate,
    )
    kernel = keras.ops.convert_to_numpy(weight.variable).astype("float64")
    fit = fit_power_law(kernel)
    parameters = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return SweepRow(
        model=task.model,
        file=task.file,
        sha256=task.sha256,
        settings=task.settings,
        dataset=task.dataset,
        classes=kernel.shape[-1],
        layer=weight.name,
        compressed=kernel.size,
        parameters=parameters,
        share=kernel.size / parameters,
        alpha_pdf=fit.alpha_pdf,
        standard_error=fit.standard_error,
        xmin=fit.xmin,
        tail_size=fit.tail_size,
        status=fit.status,
        stable_rank=stable_rank_of(np.linalg.svd(kernel, compute_uv=False)),
        original_accuracy=rows[0].original_accuracy,
        compressions=list(rows),
        note=task.note,
    )


def _final_dense(model):
    """Return the `models.Weight` of the layer that the paper compresses.

    One in another layer counts, and is then refused: not an earlier one in its place.
    """
    layers = [
        layer
        for layer in leaf_layers(model)
        if isinstance(getattr(layer, "layer", layer), keras.layers.Dense)
    ]
    for weight in weights(model):
        if layers and weight.layer is layers[-1]:
            return weight
    received = f"'{layers[-1].name}', which is quantized" if layers else "none"
    raise ValueError(
        f"`model` must have a final dense layer with a kernel of floats. Received: "
        f"{received}, in '{model.name}'."
    )


def head_evaluator(model, dataset):
    """Return a function that gives a model's accuracy while its head changes.

    The layers before the final dense one run once if that layer's output is the
    model's; 43 evaluations of 10,000 images then cost as much as one.

    Args:
        model: A `keras.Model` from images to logits.
        dataset: A `data.Dataset`; its test part is used.

    Returns:
        Callable, model to accuracy in [0, 1].

    Raises:
        ValueError: If there are labels beyond the model's outputs.

    Example:
    >>> from keras_spectral import data
    >>> digits = data.load("digits", image_size=8, channels=1)
    >>> network = keras.Sequential(
    ...     [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    ... )
    >>> 0 <= head_evaluator(network, digits)(network) <= 1
    True
    """
    outputs = model.output_shape[-1]
    if dataset.classes > outputs:
        raise ValueError(
            f"`data` must hold labels below {outputs}, the outputs of '{model.name}'. "
            f"Received: labels up to {dataset.classes - 1} in {dataset.name}"
        )
    head = next(
        (x for x in reversed(model.layers) if isinstance(x, keras.layers.Dense)), None
    )
    if head is None or not is_output(model, head):
        return inputs.evaluator(dataset)
    with deep_graphs():
        trunk = keras.Model(model.inputs, head.input)
    features = trunk.predict(dataset.test.inputs(), batch_size=64, verbose=0)

    def evaluate(_):
        logits = keras.ops.convert_to_numpy(head(features))
        return float(np.mean(np.argmax(logits, axis=-1) == dataset.test.labels))

    return evaluate
