"""The command that compresses a network: compress."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keras_spectral.cli.checkpoints import Data, Model
from keras_spectral.experiments.inputs import (
    evaluator,
    load_model,
    start_keras,
    test_data,
)

Source = Annotated[
    Path,
    typer.Argument(help="A PyTorch .pth or .safetensors file, or a .keras model."),
]


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
    trials: Annotated[int, typer.Option(help="Compressions a replacement.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the replacements.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for compression.json, figure and compressed.keras."),
    ] = None,
):
    """Replace the small weights of kernels by noise, and measure what it costs."""
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output)
    console = Console()
    start_keras(console)
    from keras_spectral import compression, report
    from keras_spectral.files import replacing, write_json

    network = load_model(source, model)
    evaluate = None
    if data is not None:
        evaluate = evaluator(test_data(data, network))
    rows = compression.compare_replacements(
        network, where=layer, trials=trials, seed=seed, evaluate=evaluate
    )
    console.print(rows)
    if output is None:
        return
    write_json(output / "compression.json", rows.to_dicts())
    if evaluate is not None:
        report.save(report.compression_figure(rows), output / "compression.png")
    compressed = compression.compress(
        network, where=layer, replacement="matched", seed=seed
    )
    with replacing(output / "compressed.keras") as temporary:
        compressed.save(temporary)
    console.print(f"Results and the compressed model are in {output.resolve()}")


COMMANDS = (compress,)
