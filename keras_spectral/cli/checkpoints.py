"""The commands that treat checkpoints: inspect, convert, verify and export."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.verbs import Found, among
from keras_spectral.experiments.inputs import (
    evaluator,
    fitting_models,
    load_keras,
    load_model,
    start_keras,
    test_data,
)
from keras_spectral.tables import Column, Table, cell
from keras_spectral.terminal import Console


def _models():
    from keras_spectral.zoo import registry

    return registry.list_models()


def _data():
    from keras_spectral import data

    return data.names()


def _dialects():
    from keras_spectral.convert import dialects

    return ["auto", *(each.name for each in dialects.DIALECTS + dialects.SHARED)]


def _forms():
    from keras_spectral.convert.spectral_state import FLAVOURS

    return [form.name for form in FLAVOURS]


known_models, known_data = among(_models), among(_data)
Model = Annotated[
    str | None,
    typer.Option(
        help="Architecture of a PyTorch file, such as resnet20_cifar10.",
        autocompletion=known_models,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Test data: `digits`, `fashion_mnist` ..., an .npz file with arrays x and "
        "y, or a folder of images.",
        autocompletion=known_data,
    ),
]
Entry = Annotated[
    str | None,
    typer.Option(help="Which state dict of several in the file, such as `model_ema`."),
]
Dialect = Annotated[
    str,
    typer.Option(
        help="Whose names the keys are; `auto` goes by the keys.",
        autocompletion=among(_dialects),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def inspect(
    file: Annotated[Path, typer.Argument(help="Any checkpoint.")],
    entry: Entry = None,
    as_json: AsJson = False,
) -> Found:
    """Say what is in a checkpoint.

    Nothing in it is executed, and no model is built.

    Examples:
        keras-spectral inspect resnet20.pth
        keras-spectral inspect checkpoint.tar --entry model_ema --json
    """
    from keras_spectral import convert

    state = convert.read_checkpoint(file, entry)
    report = _described(state, file)
    if not as_json:
        _print_description(Console(), file, state, report)
    return Found(report)


def _print_description(console, file, state, report):
    columns = [Column("tensor", "name"), Column("shape"), Column("type")]
    rows = [
        [
            cell(" = ".join([tensor["name"], *tensor["aliases"]])),
            cell(" x ".join(map(str, tensor["shape"])) or "scalar"),
            cell(tensor["dtype"]),
        ]
        for tensor in report["tensors"]
    ]
    console.print(Table(f"{file} ({state.container})", columns, rows))
    console.print(
        f"{len(report['tensors'])} tensors, {report['numbers']:,} numbers, "
        f"{_size(report['bytes'])}"
    )
    for name, what in (
        ("dialect", "Names of"),
        ("spectral_normalization", "Spectral normalization"),
        ("architectures", "Registered networks of this size"),
        ("notes", "Read as"),
    ):
        if report[name]:
            console.print(f"{what}: {', '.join(report[name])}")
    console.print(f"Fingerprint: {report['fingerprint']}")


def _size(count):
    """Return a number of bytes as it is said."""
    return f"{count:,} bytes" if count < 2**20 else f"{count / 2**20:,.1f} MiB"


def _described(state, file):
    from keras_spectral.convert import dialects, spectral_state, weight_normalization

    shapes, dtypes, nbytes = state.shapes, state.dtypes, state.nbytes
    aliases = state.aliases
    folded, normalized = weight_normalization.folded(state)
    plain, spectral = spectral_state.parse(folded)
    notes = list(state.notes)
    if normalized:
        notes.append(f"weight normalization of {', '.join(normalized)}")
    names = {key: [] for key in shapes if key not in aliases}
    for alias, key in aliases.items():
        names[key].append(alias)
    fitting, trained = fitting_models(state)
    return {
        "file": str(file),
        "container": state.container,
        "notes": notes,
        "dialect": dialects.guess(plain),
        "spectral_normalization": sorted({k.flavour.name for k in spectral.values()}),
        "architectures": fitting,
        "numbers": sum(math.prod(shapes[key]) for key in names),
        "trained": trained,
        "bytes": sum(nbytes[key] for key in names),
        "fingerprint": state.fingerprint(),
        "tensors": [
            {
                "name": key,
                "shape": list(shapes[key]),
                "dtype": dtypes[key],
                "aliases": others,
            }
            for key, others in names.items()
        ],
    }


def convert(
    source: Annotated[Path, typer.Argument(help="A PyTorch or .safetensors file.")],
    output: Annotated[Path, typer.Option(help="The .keras file to write.")],
    model: Model = None,
    dialect: Dialect = "auto",
    entry: Entry = None,
    verify: Annotated[
        bool, typer.Option(help="Compare the result with a float64 reference.")
    ] = True,
    prefix: Annotated[
        str | None,
        typer.Option(help="Take the keys under it alone, such as `encoder.`."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of keys to leave out: `head.*`. Repeatable."),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> Found:
    """Carry a PyTorch file's weights into Keras, verified.

    Every tensor is used once or told of, and the network is compared with a float64
    reference of PyTorch's layers. What was done stands in a card beside the model.

    Examples:
        keras-spectral convert net.pth --model resnet20_cifar10 --output net.keras
        keras-spectral convert net.pth --model resnet20_digits --output net.keras \
            --data digits
    """
    from keras_spectral.convert.cards import card_path

    _writable(output, (".keras",))
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(
            "`--output` must not be the source file. "
            f"Received: --output={output}. Choose another name."
        )
    card_path(output)
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral import convert as converter

    with console.status("Carrying the weights over ..."):
        network = load_model(
            source,
            model,
            dialect=dialect,
            entry=entry,
            verify=verify,
            prefix=prefix,
            ignore=ignore or (),
        )
    card = converter.provenance(network)
    if data is not None:
        with console.status(f"Running it on {data} ..."):
            accuracy = evaluator(test_data(data, network))(network)
        card["accuracy"] = {data: accuracy}
        console.print(f"Accuracy on {data}: {accuracy:.4f}")
    beside = converter.save_model(network, output)
    if not as_json:
        console.print(
            f"{source} -> {output}: {network.count_params():,} parameters of "
            f"{network.name}, every tensor used once."
        )
        _print_card(console, card)
        if beside is not None:
            console.print(f"The card is in {beside} and in the model's metadata.")
    return Found({"output": str(output), **card})


def _print_card(console, card):
    certificate = card.get("verification")
    if certificate is not None:
        whole = "" if certificate["unchecked"] else "whole "
        scope = {
            "network": f"The {whole}network agrees",
            "layers": f"Each layer alone agrees ({certificate['reason']})",
            "none": f"Nothing could be verified ({certificate['reason']})",
        }[certificate["scope"]]
        console.print(
            f"{scope}: {certificate['layers']} of {certificate['layers_in_all']} "
            f"layers in {certificate['precision']}, largest relative error "
            f"{certificate['relative_error']:.1e}, against "
            f"{certificate['reference']}."
        )
        for why, paths in _by_reason(certificate["why_unchecked"]).items():
            console.print(f"Not checked: {', '.join(paths)} ({why}).")
    for note in card.get("notes", ()):
        console.print(f"Note: {note}.")
    if card.get("not_seen"):
        console.print(f"Not seen: {'; '.join(card['not_seen'])}.")


def _by_reason(why):
    """Return {reason: paths} of {path: reason}."""
    found = {}
    for path, reason in why.items():
        found.setdefault(reason, []).append(path)
    return found


def verify(
    a: Annotated[Path, typer.Argument(help="A checkpoint or a .keras model.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    tolerance: Annotated[
        float, typer.Option(help="Relative error to accept; 0 asks for equal bits.")
    ] = 0.0,
    dialect: Dialect = "auto",
    as_json: AsJson = False,
) -> Found:
    """Compare two checkpoints tensor by tensor.

    The exit code is 1 if they differ.

    Examples:
        keras-spectral verify net.pth net.keras
        keras-spectral verify a.safetensors b.safetensors --tolerance 1e-6
    """
    from keras_spectral import convert as converter

    console = Console(stderr=as_json)
    if converter.is_keras_model(a) or converter.is_keras_model(b):
        start_keras(console)
    with console.status("Comparing ..."):
        rows = converter.compare(a, b, tolerance, dialect)
    different = [row for row in rows if row.status != "equal"]
    if not as_json:
        if different:
            console.print(type(rows)(different, title=f"{a} and {b}"))
        count = f"{len(rows) - len(different)} of {len(rows)} tensors are equal"
        console.print(f"{count}{'.' if not tolerance else f' to {tolerance:g}.'}")
    content = {
        "a": str(a),
        "b": str(b),
        "equal": not different,
        "tensors": rows.to_dicts(),
    }
    return Found(content, code=1 if different else 0)


def export(
    source: Annotated[Path, typer.Argument(help="A .keras model.")],
    output: Annotated[
        Path, typer.Option(help="File to write: .safetensors, .pth or .pt.")
    ],
    dialect: Annotated[
        str | None,
        typer.Option(
            help="Whose names to use. Default: those it was imported with.",
            autocompletion=among(_dialects),
        ),
    ] = None,
    spectral_normalization: Annotated[
        str | None,
        typer.Option(
            help="Form of spectral normalization, such as mimicry. Default: none, the "
            "kernels that the layers compute with, converged.",
            autocompletion=among(_forms),
        ),
    ] = None,
    as_json: AsJson = False,
):
    """Write a Keras model's weights as a PyTorch file.

    Examples:
        keras-spectral export net.keras --output net.safetensors
        keras-spectral export net.keras --output net.pth --dialect torchvision
    """
    _writable(output, (".safetensors", ".pth", ".pt"))
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral import convert as converter

    if not converter.is_keras_model(source):
        raise ValueError(
            "`source` must be a .keras model. "
            f"Received: {source}. A PyTorch file needs no export."
        )
    with console.status("Writing the weights ..."):
        network = load_keras(source)
        state = converter.to_torch(network, output, dialect, spectral_normalization)
    report = {
        "output": str(output),
        "tensors": len(state),
        "fingerprint": converter.StateDict(state).fingerprint(),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    console.print(f"{source} -> {output}: {len(state)} tensors of {network.name}.")
    console.print(f"Fingerprint: {report['fingerprint']}")


def _writable(path, suffixes):
    """Check an output file before any work is done for it."""
    if path.suffix not in suffixes:
        one = "one of " if len(suffixes) > 1 else ""
        raise ValueError(
            f"`--output` must end in {one}{', '.join(suffixes)}. "
            f"Received: --output={path}"
        )
    from keras_spectral.files import writable_file

    return writable_file(path, "--output")


COMMANDS = (inspect, convert, verify, export)
