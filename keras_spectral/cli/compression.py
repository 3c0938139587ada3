"""The commands that make a network small and bound its error: compress and bound."""

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.checkpoints import AsJson, Data, Model, known_data
from keras_spectral.cli.verbs import Found, among
from keras_spectral.experiments.inputs import (
    evaluator,
    load_model,
    start_keras,
    test_data,
)
from keras_spectral.terminal import Console, progress_bar

Source = Annotated[
    Path,
    typer.Argument(help="A PyTorch .pth or .safetensors file, or a .keras model."),
]
_FILE = "compressed.safetensors"


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """A form of a network as a file."""

    name: str = dataclasses.field(metadata={"label": "form"})
    bytes: int
    smaller: float = dataclasses.field(
        metadata={"format": ".2f", "label": "times smaller"}
    )
    accuracy: float | None = dataclasses.field(metadata={"format": ".2%"})


def compress(
    source: Source,
    model: Model = None,
    data: Data = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer, or kernel such as mha/query, to compress; repeat for more. "
            "Default: all kernels. The paper compresses the final dense layer alone."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="magnitude or signed. Default: the best of the table.",
            autocompletion=among("magnitude", "signed"),
        ),
    ] = None,
    replacement: Annotated[
        str | None,
        typer.Option(
            help="gaussian, matched or zero. Default: the best of the table.",
            autocompletion=among("gaussian", "matched", "zero"),
        ),
    ] = None,
    deviations: Annotated[
        float, typer.Option(help="Threshold in standard deviations of a kernel.")
    ] = 1.0,
    values: Annotated[
        str,
        typer.Option(
            help="Type of stored values: int8, float16, bfloat16, float32.",
            autocompletion=among("int8", "float16", "bfloat16", "float32"),
        ),
    ] = "int8",
    rank_ratio: Annotated[
        float | None,
        typer.Option(help="Factorize first, to this share of each kernel's rank."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Compressions a replacement.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the replacements.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help=f"Folder for compression.json, a figure and {_FILE}."),
    ] = None,
    as_json: AsJson = False,
) -> Found:
    """Make a small file of a network, and measure the cost.

    Without --output nothing is written: the table alone tells what each rule costs.

    Examples:
        keras-spectral compress net.pth --model resnet20_cifar10 --layer output
        keras-spectral compress net.keras --data digits --output small \
            --deviations 0.25
    """
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output, _FILE, "compression.json", "compression.png")
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral import compression, report
    from keras_spectral.compression import coding, heavy_tail
    from keras_spectral.files import write_json
    from keras_spectral.validation import check_choice

    rules = _chosen("rule", rule, heavy_tail.RULES)
    replacements = _chosen("replacement", replacement, heavy_tail.REPLACEMENTS)
    check_choice("values", values, coding.VALUES)
    with console.status("Reading the network ..."):
        network = _plain(load_model(source, model))
    evaluate = None if data is None else evaluator(test_data(data, network))
    original, where = network, layer
    if rank_ratio is not None:
        with console.status("Factorizing ..."):
            network, factors = compression.factorize(
                network, rank_ratio=rank_ratio, where=layer
            )
        console.print(factors)
        names = {inner.name for inner in network.layers}
        where = layer and [
            name
            for outer in layer
            for name in (f"{outer}-left", outer)
            if name in names or name == outer
        ]
    draws = sum(1 if name == "zero" else trials for name in replacements)
    with _progress(console, evaluate, 1 + len(rules) * draws) as measured:
        rows = compression.compare_replacements(
            network,
            where=where,
            rules=rules,
            replacements=replacements,
            trials=trials,
            seed=seed,
            evaluate=measured,
            deviations=deviations,
        )
    console.print(rows)
    best = _best(rows)
    content = {
        "replacements": rows.to_dicts(),
        "rule": best.rule,
        "replacement": best.replacement,
        "deviations": deviations,
        "values": values,
        "rank_ratio": rank_ratio,
    }
    if output is None:
        return Found(content)
    with console.status(f"Writing {_FILE} ..."):
        small = compression.compress(
            network, where, best.rule, best.replacement, seed, deviations
        )
        stored = compression.save_compressed(small, output / _FILE, values=values)
        dense = stored[-1] if network is original else _plain_sizes(original)
        accuracies = [None, None]
        if evaluate is not None:
            loaded = compression.load_compressed(output / _FILE)
            control = compression.round_weights(original)
            accuracies = [evaluate(loaded), evaluate(control)]
            report.save(report.compression_figure(rows), output / "compression.png")
    content |= {
        "weights": stored.to_dicts(),
        "bytes": stored[-1].bytes,
        "accuracy": accuracies[0],
        "float32_bytes": dense.float32_bytes,
        "int8_bytes": dense.int8_bytes,
        "int8_accuracy": accuracies[1],
    }
    write_json(output / "compression.json", content)
    if not as_json:
        console.print(_sizes(best, stored[-1], dense, values, *accuracies))
        console.print(f"Results and {_FILE} are in {output.resolve()}")
    return Found(content)


def _plain(network):
    """Return a network with the kernels that its wrappers compute with."""
    from keras_spectral import models, surgery

    if any(weight.is_wrapped for weight in models.weights(network)):
        return surgery.unwrap(network)
    return network


def _chosen(name, value, choices):
    from keras_spectral.validation import check_choice

    if value is None:
        return choices
    check_choice(name, value, choices)
    return (value,)


@contextlib.contextmanager
def _progress(console, evaluate, count):
    """Yield an `evaluate` that moves a bar, or `None`."""
    if evaluate is None:
        with console.status("Compressing ..."):
            yield None
        return
    with progress_bar("Evaluations", count) as advance:

        def measured(model):
            accuracy = evaluate(model)
            advance()
            return accuracy

        yield measured


def _best(rows):
    """Return the row of the highest accuracy, without data of the smallest error.

    Of several it is the one that keeps least: the smallest file.
    """
    return max(
        rows,
        key=lambda row: (
            -row.relative_error
            if row.compressed_accuracy_mean is None
            else row.compressed_accuracy_mean,
            -row.kept,
        ),
    )


def _plain_sizes(model):
    """Return the sizes of plain files of a model."""
    from keras_spectral import compression

    with tempfile.TemporaryDirectory() as folder:
        return compression.save_compressed(model, Path(folder) / _FILE, compression={})[
            -1
        ]


def _sizes(best, total, dense, values, accuracy, int8_accuracy):
    """Return the file beside what needs no thought: int8 alone."""
    from keras_spectral.results import Rows

    how = f"{best.rule}, {best.replacement}, {values}"
    verdict = "The file is smaller."
    if total.bytes >= dense.int8_bytes:
        verdict = "The file is not smaller: try larger --deviations."
    elif accuracy is not None and best.original_accuracy - accuracy > 0.01:
        verdict = (
            "The file is smaller, and loses "
            f"{100 * (best.original_accuracy - accuracy):.1f} points of accuracy: try "
            "smaller --deviations, such as 0.25."
        )
    sizes = [
        SizeRow("float32", dense.float32_bytes, 1.0, best.original_accuracy),
        SizeRow(
            "int8 alone",
            dense.int8_bytes,
            dense.float32_bytes / dense.int8_bytes,
            int8_accuracy,
        ),
        SizeRow(how, total.bytes, dense.float32_bytes / total.bytes, accuracy),
    ]
    return Rows(
        sizes,
        title="The file",
        caption="int8 alone: the control, every matrix rounded, nothing replaced. "
        + verdict,
    )


def bound(
    source: Source,
    data: Annotated[
        str,
        typer.Option(
            help="Data that the network was trained on: `digits`, `fashion_mnist` ..., "
            "an .npz file, or a folder of images.",
            autocompletion=known_data,
        ),
    ],
    model: Model = None,
    kept: Annotated[
        str, typer.Option(help="Shares of the entries to try, by commas.")
    ] = "0.1,0.3",
    value_bits: Annotated[
        str, typer.Option(help="Bits of a value to try, by commas.")
    ] = "2,3,4",
    delta: Annotated[
        float, typer.Option(help="Probability that the bound fails.")
    ] = 0.05,
    as_json: AsJson = False,
) -> Found:
    """Bound the true error of a compressed copy.

    The bound is of what a classifier does on new data, by its training data alone.

    Examples:
        keras-spectral bound net.keras --data digits
        keras-spectral bound net.keras --data digits --kept 0.1 --value-bits 3 --json
    """
    shares = _numbers("kept", kept, float)
    widths = _numbers("value-bits", value_bits, int)
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral import compression

    with console.status("Reading the network ..."):
        network = _plain(load_model(source, model))
    dataset = test_data(data, network)
    if not len(dataset.train):
        raise ValueError(
            "`--data` must have a training part: the bound is of what a network was "
            f"trained on. Received: --data={data}, which has test data only. In Python "
            "call keras_spectral.compression.certify_error(model, x_train, y_train)."
        )
    with console.status("Trying every setting on the training set ..."):
        train = dataset.train
        found = compression.certify_error(
            network, train.inputs(), train.labels, shares, widths, delta=delta
        )
    if not as_json:
        console.print(found)
        best = found.best
        console.print(
            f"True error at most {best.bound:.3f} with probability {1 - delta:g}"
            + (": vacuous, guessing errs less." if best.vacuous else ".")
        )
        for each in found.assumptions:
            console.print(f"{each.status}: {each.name}. {each.detail}")
    return Found(found.content())


def _numbers(name, text, kind):
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"`--{name}` must be numbers, separated by commas. "
            f"Received: --{name}={text}"
        ) from None


COMMANDS = (compress, bound)
