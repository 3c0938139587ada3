"""Spectra and power laws of every matrix in a checkpoint, whatever network it is of."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import keras_spectral
from keras_spectral import models
from keras_spectral.convert import (
    CheckpointError,
    read_checkpoint,
    spectral_state,
    weight_normalization,
)
from keras_spectral.experiments.analysis_rows import Analysis, AnalysisRow
from keras_spectral.experiments.checkpoint_task import file_digest
from keras_spectral.experiments.engine import cores
from keras_spectral.experiments.side_by_side import side_by_side
from keras_spectral.measures import fit_eigenvalues, fit_power_law
from keras_spectral.models.keras_files import KerasFile, stored_weights
from keras_spectral.models.reasons import nothing_left
from keras_spectral.models.stored import torch_weights
from keras_spectral.models.views import MatrixView
from keras_spectral.validation import check_choice, check_integer

if TYPE_CHECKING:
    import keras

# Of larger tensors a sample of this size is fitted, so that memory stays small.
_SAMPLE = 1 << 18
# The spectrum of a matrix takes the cube of its shorter side.
_LONGEST_SHORT_SIDE = 8192
_BLOCK = 1 << 20

Layout = Literal["auto", "keras", "torch"]
Convolution = Literal["reshaped", "slices"]


def analyze_checkpoint(
    path: str | Path,
    entry: str | None = None,
    layout: str = "auto",
    seed: int = 0,
    progress=None,
    convolution: str = "reshaped",
    workers: int | None = None,
) -> Analysis:
    """Measure every matrix and convolution of a checkpoint, tensor by tensor.

    No architecture is needed, and nothing in the file is executed. Tensors that are
    worked on side by side take at most 256 MiB together; a larger one is alone.

    Args:
        path: Path of a PyTorch, .safetensors, .npz, .keras or .h5 file, or of a sharded
            checkpoint (see `read_checkpoint`).
        entry: String, which state dict of several in the file.
        layout: Where a convolution's filters are: `"torch"`, first; `"keras"`, last;
            `"auto"`, by the kind of file.
        seed: Integer >= 0, of the shuffled control, and of the sample of 262,144
            draws to which the law of |w| is fitted in larger tensors.
        progress: Callable of (tensor's name, its number, how many), or `None`.
        convolution: Whose eigenvalues those of a convolution are: `"reshaped"`, of
            its kernel flattened by its filters; `"slices"`, of the matrices (channels,
            filters), one a pixel of its kernel, pooled as WeightWatcher does.
        workers: Integer >= 1, threads; default one a core. Results are the same.

    Returns:
        An `Analysis`; `.skipped` names every other tensor with the reason.

    Raises:
        CheckpointError: If the file cannot be read.
        ValueError: On an unknown layout, seed or number of workers, or if no matrix can
            be measured: the error says why not.

    Example:
    >>> from keras_spectral import zoo
    >>> found = analyze_checkpoint(zoo.checkpoint("resnet20_digits").weights)
    >>> len(found), found[-1].name, round(found[-1].stable_rank, 2)
    (22, 'output.weight', 5.98)

    Source: [shin2021], section 6 and appendix D.
    """
    check_choice("layout", layout, Layout)
    _check(seed, convolution, workers)
    state = read_checkpoint(path, entry)
    if layout == "auto" and state.container in ("keras", "hdf5"):
        file = KerasFile(state.layer_names, state.config, state.dtypes)
        found, skipped = stored_weights(state.shapes, file)
        unit = "layers"
    else:
        found, skipped, state = _tensors(state, layout)
        unit = "tensors"
    tasks = [
        _Task(each.name, each.kind, each.note, each.view, partial(each.matrix, state))
        for each in found
    ]
    rows = _rows(tasks, skipped, seed, convolution, workers, progress)
    if not rows:
        error = nothing_left("path", "a matrix to measure", str(path), skipped)
        raise CheckpointError(str(error))
    source = {
        "file": str(path),
        "sha256": file_digest(path) if Path(path).is_file() else None,
        "container": state.container,
        "entry": entry,
        "layout": layout,
        "convolution": convolution,
        "seed": seed,
        "keras_spectral": keras_spectral.__version__,
    }
    return _analysis(rows, skipped, f"{path} ({state.container})", unit, source)


def _tensors(state, layout):
    """Return every tensor that may be a kernel, and why the others are none.

    Of PyTorch's normalizations it is the weight that the network computes with; a
    state dict of those comes third.
    """
    folded, _ = weight_normalization.folded(state)
    plain, spectral = spectral_state.parse(folded)
    names = {theirs: ours for ours, theirs in plain.items()}
    found, skipped = [], {}
    shapes, dtypes, aliases = folded.shapes, folded.dtypes, folded.aliases
    told = {ours: shapes[theirs] for theirs, ours in names.items()}
    for key, shape in shapes.items():
        reason = _unfit(key, shape, dtypes[key])
        if key in aliases:
            reason = f"the same tensor as {aliases[key]}"
        elif key not in names:
            reason = "state of spectral normalization"
        if reason is not None:
            skipped[key] = reason
            continue
        name = names[key]
        weights = torch_weights(name, shape, told, layout)
        weights = [dataclasses.replace(each, keys=(key,)) for each in weights]
        vectors = spectral.get(name.removesuffix(".weight"))
        if vectors is not None:
            combine = partial(_divided, folded, vectors)
            weights = [dataclasses.replace(weights[0], combine=combine)]
        found += weights
    return found, skipped, folded


def _divided(state, keys, weight):
    """Return what PyTorch's spectral normalization makes of a weight."""
    if keys.u is None:
        raise ValueError(f"`{keys.flavour.weight}` without its singular vectors")
    size = math.prod(state.shapes[keys.u])
    # The rows are on the second axis of a transposed convolution's.
    axes = [axis for axis in (0, 1) if weight.shape[axis] == size]
    found = [spectral_state.read(state, keys, weight, axis == 1) for axis in axes]
    if not found:
        raise ValueError(f"`{keys.u}` is of another weight")
    # Of a square one u' W v is the norm on one axis, and any number on the other.
    best = min(found, key=lambda each: abs(each.estimate / each.true_sigma - 1))
    return weight / best.sigma


def analyze_model(
    model: "keras.Model",
    seed: int = 0,
    where=None,
    convolution: str = "reshaped",
    workers: int | None = None,
) -> Analysis:
    """Measure every kernel of a model: what `analyze_checkpoint` does to a file.

    A wrapped layer is measured by its effective kernel, and a layer with several
    kernels has a row for each, as in `measures.spectrum`.

    Args:
        model: A built `keras.Model`; nested models are entered.
        seed: Integer >= 0, see `analyze_checkpoint`.
        where: Which kernels, see `models.weights`; by default all.
        convolution: `"reshaped"` or `"slices"`, see `analyze_checkpoint`.
        workers: Integer >= 1, threads, see `analyze_checkpoint`.

    Returns:
        An `Analysis`.

    Raises:
        ValueError: If a layer is not built, on a seed or number of workers out of
            range, or if no matrix can be measured: the error says why not.

    Example:
    >>> import keras
    >>> layers = [keras.Input((30,)), keras.layers.Dense(20, name="head")]
    >>> analyze_model(keras.Sequential(layers))[0].name
    'head'

    Source: [shin2021], section 6 and appendix D.
    """
    _check(seed, convolution, workers)
    found, skipped = models.weights(model, where), {}
    tasks = [
        _Task(each.name, each.kind, None, each.slot.view, each.matrix) for each in found
    ]
    rows = _rows(tasks, skipped, seed, convolution, workers)
    skipped |= {f"{left.name} ({left.kind})": left.reason for left in found.left_out}
    if not rows:
        raise nothing_left("model", "a matrix to measure", f"'{model.name}'", skipped)
    source = {
        "model": model.name,
        "convolution": convolution,
        "seed": seed,
        "keras_spectral": keras_spectral.__version__,
    }
    return _analysis(rows, skipped, model.name, "layers", source)


def _analysis(rows, skipped, origin, unit, source):
    pooled = ""
    if source["convolution"] == "slices":
        pooled = " Eigenvalues of a convolution: of its slices, one a pixel, pooled."
    return Analysis(
        rows,
        skipped,
        source,
        title=f"{origin}: {len(rows)} matrices, {len(skipped)} other {unit} skipped",
        caption="norm, stable rank: of the tensor flattened by its filters. alpha: "
        "exponent of a density +- its error, ? if the tail has less than 50 numbers, "
        "spans less than a factor of 1.5 or lies on a coarse grid, or no exponent is "
        "clear of 1. spikes: eigenvalues above the edge of random "
        "entries at 99 %, taken out until there are no more (? if that ends with more "
        "than a third of them), and in brackets those of the same entries shuffled."
        f"{pooled}",
    )


def _unfit(name, shape, dtype):
    """Return why a tensor is skipped, from its description alone, or `None`."""
    parts = name.replace("/", ".").split(".")
    if parts[0] in ("optimizer", "optimizer_weights"):
        return "state of an optimizer"
    if "float" not in dtype:
        return f"{dtype}, no weights"
    if len(shape) < 2:
        return "a vector, no matrix" if shape else "a single number"
    if 0 in shape:
        return "empty"
    if parts[-1] == "mask":
        return "a mask"
    return None


@dataclasses.dataclass(frozen=True)
class _Task:
    """A matrix to measure: what is known of it, and how to read W (outputs, inputs)."""

    name: str
    kind: str
    note: str | None
    view: MatrixView
    read: Callable


def _check(seed, convolution, workers):
    check_choice("convolution", convolution, Convolution)
    check_integer("seed", seed, least=0)
    if workers is not None:
        check_integer("workers", workers, least=1)


def _rows(tasks, skipped, seed, convolution, workers, progress=None):
    """Return the rows of tasks in their order; add why others have none to a dict."""

    def announced():
        for number, task in enumerate(tasks):
            if progress is not None:
                progress(task.name, number, len(tasks))
            yield task

    results = side_by_side(
        announced(),
        partial(_measured, seed=seed, convolution=convolution),
        lambda error: getattr(error, "reason", str(error)),
        _bytes,
        workers or cores(),
    )
    for task, result in zip(tasks, results, strict=True):
        if isinstance(result, str):
            skipped[task.name] = result
    return [result for result in results if not isinstance(result, str)]


def _bytes(matrix):
    """Return how many bytes a matrix takes when it is measured, itself among them.

    It, its entries in a row, shuffled, and one passing copy; the Gram matrix twice;
    the sample and what the search for its tail keeps of each number.
    """
    gram = 8 * min(matrix.shape) ** 2
    return 4 * matrix.nbytes + 2 * gram + 96 * min(matrix.size, _SAMPLE)


def _measured(task, matrix, seed, convolution):
    """Return the row of W (outputs, inputs)."""
    view = task.view
    if min(matrix.shape) < 2:
        raise ValueError(f"a vector of {max(matrix.shape)} numbers")
    if min(matrix.shape) > _LONGEST_SHORT_SIDE:
        raise ValueError(
            f"its shorter side is {min(matrix.shape):,} > {_LONGEST_SHORT_SIDE:,}: the "
            "spectrum would take hours"
        )
    flat = matrix.reshape(-1)
    if not flat.any():
        raise ValueError("all zero")
    # It refuses what has no moments either.
    spectrum = whole = fit_eigenvalues(matrix, seed)
    kind = "reshaped" if view.taps else "matrix"
    if view.taps and convolution == "slices":
        stack = view.slices(matrix.T)
        if min(stack.shape[1:]) < 2:
            raise ValueError(
                f"its slices are vectors of {max(stack.shape[1:])} numbers"
            )
        kind, spectrum = "slices", fit_eigenvalues(stack, seed)
    with np.errstate(over="ignore", invalid="ignore"):
        square, kurtosis = _moments(flat)
    sample = flat
    if flat.size > _SAMPLE:
        # Drawn with replacement, each entry once: no list of all places is made.
        places = np.random.default_rng(seed).integers(0, flat.size, _SAMPLE)
        # `np.unique` takes ten times as long.
        places.sort()
        sample = flat[places[np.diff(places, prepend=-1) > 0]]
    law, eigen = fit_power_law(sample), spectrum.power_law
    return AnalysisRow(
        name=task.name,
        kind=task.kind,
        note=task.note,
        shape=tuple(view.kernel_shape),
        spectral_norm=math.sqrt(whole.eigenvalues[0]),
        stable_rank=whole.stable_rank,
        view=kind,
        alpha_pdf=law.alpha_pdf,
        standard_error=law.standard_error,
        tail_size=law.tail_size,
        status=law.status,
        eigenvalue_alpha=eigen.alpha_pdf,
        eigenvalue_error=eigen.standard_error,
        eigenvalue_tail=eigen.tail_size,
        eigenvalue_status=eigen.status,
        eigenvalue_xmin=eigen.xmin,
        spikes=spectrum.spikes,
        bulk=spectrum.bulk,
        shuffled_spikes=spectrum.shuffled_spikes,
        root_mean_square=math.sqrt(square),
        kurtosis=kurtosis,
        alpha_hat=spectrum.alpha_hat,
        log_norm=spectrum.log_norm,
        log_alpha_norm=spectrum.log_alpha_norm,
        bulk_edge=spectrum.bulk_edge,
        sampled=sample.size,
        eigenvalues=tuple(spectrum.eigenvalues.tolist()),
    )


def _moments(flat):
    """Return (mean square, excess kurtosis) in float64, block by block."""
    blocks = [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]
    mean = sum(float(block.sum(dtype="float64")) for block in blocks) / flat.size
    second = fourth = square = 0.0
    for block in blocks:
        wide = block.astype("float64")
        square += float(wide @ wide)
        wide -= mean
        wide *= wide
        second += float(wide.sum())
        fourth += float(wide @ wide)
    if not second:
        return square / flat.size, math.nan
    return square / flat.size, flat.size * fourth / second**2 - 3
