"""The command that judges a GAN: evaluate-gan."""

from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.checkpoints import AsJson, known_data
from keras_spectral.cli.gan_sides import DISCRIMINATOR, FEATURES, Network, Sampler
from keras_spectral.cli.verbs import Found
from keras_spectral.experiments.inputs import images_of_shape, load_keras, start_keras
from keras_spectral.terminal import Console

# Critics are trained.
_CRITICS = "logistic_divergence", "cnn_divergence"
_METRICS = *FEATURES, *_CRITICS, *DISCRIMINATOR
_SHOWN = 40
_FILES = "evaluation.json", "slopes.png", "jacobians.png"


def evaluate_gan(
    model: Annotated[
        Path, typer.Argument(help="A .keras file of a GAN, or of a generator alone.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Real images: cifar10, fashion_mnist ..., an .npz file, a folder.",
            autocompletion=known_data,
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"By commas: {', '.join(_METRICS)}. Default: frechet, kernel and "
            "manifold where --features is given, slopes and jacobians of a GAN."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Network whose features are compared: the FID Inception's .pth file, "
            "or a .keras model of images in [-1, 1]."
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Inner layer of a .keras model whose outputs are features."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Generated images.", min=2)] = 5000,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Statistics of the real images, .npz: read where the file is there, "
            "else written. Those of pytorch-fid and others are read too."
        ),
    ] = None,
    reference_samples: Annotated[
        int | None,
        typer.Option(
            help="Real images for features, the first of the training set (spread over "
            "it where those lack classes), or of the test set where there is no other. "
            "Default: 10,000.",
            min=2,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Updates of a divergence's critic. Default: 2,000. The papers' are "
            "100,000, each of new images: this takes hours without a GPU. Its real "
            "images are the test set's, as those of slopes and jacobians.",
            min=1,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Of the bootstrap for the Fréchet distance's interval.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(help="Seed of latents, pairs, critics and draws.", min=0)
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json, slopes.png and jacobians.png."),
    ] = None,
    as_json: AsJson = False,
) -> Found:
    """Judge a GAN by metrics that are named with their protocol.

    Examples:
        keras-spectral evaluate-gan gan.keras --data fashion_mnist
        keras-spectral evaluate-gan gan.keras --data cifar10 \
            --features pt_inception-2015-12-05-6726825d.pth --output evaluation
    """
    chosen = None if metrics is None else _chosen(metrics)
    if features is None and set(chosen or ()) & set(FEATURES):
        raise ValueError(
            f"`--features` must name a network for {', '.join(FEATURES)}. Received: "
            f"--metrics={metrics} and no --features."
        )
    _check_use(chosen, features, layer, draws, steps, reference_samples)
    steps = 2000 if steps is None else steps
    if reference is not None:
        from keras_spectral.files import writable_file

        if features is None or reference.suffix != ".npz":
            raise ValueError(
                "`--reference` must be an .npz file, of the features of --features. "
                f"Received: --reference={reference}, "
                + ("no --features" if features is None else f"--features={features}")
            )
        writable_file(reference, "--reference")
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output, *_FILES)
    console = Console(stderr=as_json)
    start_keras(console)
    sampler = Sampler(load_keras(model), model, seed)
    if chosen is None:
        chosen = FEATURES[:3] if features is not None else ()
        chosen += DISCRIMINATOR if sampler.discriminator is not None else ()
    sampler.check(chosen)
    dataset = images_of_shape(data, sampler.shape)
    _check_range(data, dataset)
    sampler.check_classes(dataset)
    network = real = None
    if set(chosen) & set(FEATURES):
        network = Network(features, layer, sampler.shape, chosen, draws, seed)
        with console.status("Looking at real images ..."):
            real = network.reference(
                reference, dataset, data, reference_samples, samples
            )
    with console.status(f"Generating {samples:,} images ..."):
        generated, labels = sampler(samples)
    scores, figures = [], {}
    if network is not None:
        with console.status("Comparing features ..."):
            scores += network.scores(generated, real)
    test = dataset.test
    for metric in _CRITICS:
        if metric in chosen:
            from keras_spectral.gan.metrics import neural_divergence

            kind = metric.removesuffix("_divergence")
            with console.status(f"Training a critic, {steps:,} steps ..."):
                score = neural_divergence(
                    sampler.generate,
                    test.inputs(),
                    kind,
                    steps,
                    evaluation_samples=samples,
                    seed=seed,
                )
            scores.append(score)
    if set(chosen) & set(DISCRIMINATOR):
        with console.status("Running the discriminator ..."):
            found, figures = _discriminated(
                sampler, chosen, generated, labels, test, seed
            )
            scores += found
    content = _tell(console, scores, figures, model, output, as_json)
    return Found(content, page=lambda: {**content, "images": _grid(generated)})


def _chosen(text):
    from keras_spectral.validation import check_choice

    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        check_choice("metrics", word, _METRICS)
    return words


def _check_use(chosen, features, layer, draws, steps, reference_samples):
    """Raise a ValueError for options that would count for nothing."""
    if steps is not None and not set(chosen or ()) & set(_CRITICS):
        raise ValueError(
            f"`--steps` must be left out but for {' and '.join(_CRITICS)}. Received: "
            f"--steps={steps} and no such metric in --metrics."
        )
    if features is None:
        if reference_samples is not None:
            raise ValueError(
                "`--reference-samples` must be left out without --features, whose real "
                f"images they are. Received: --reference-samples={reference_samples}"
            )
        if layer is not None:
            raise ValueError(
                "`--layer` must be one of the network of --features. Received: "
                f"--layer={layer} and no --features."
            )
    elif chosen is not None and not set(chosen) & set(FEATURES):
        raise ValueError(
            f"`--features` must be for one of {', '.join(FEATURES)}. Received: "
            f"--metrics={','.join(chosen)} and --features={features}"
        )
    if draws and (features is None or "frechet" not in (chosen or FEATURES)):
        raise ValueError(
            "`--draws` must be 0 but for frechet, whose interval it is of. Received: "
            f"--draws={draws} and no such metric."
        )


def _check_range(name, dataset):
    """Raise a ValueError unless images of one's own are scaled as generated ones."""
    for split in (dataset.train, dataset.test):
        images = split.images
        if images.dtype == "uint8" or not len(images):
            continue
        low, high = float(images.min()), float(images.max())
        if not -1.001 <= low <= high <= 1.001:
            raise ValueError(
                "`--data` of an .npz file must hold images in [-1, 1], as the GAN "
                f"makes them. Received: {name}, from {low:g} to {high:g}. Of pixels "
                "from 0 to 255 take x / 127.5 - 1."
            )


def _discriminated(sampler, chosen, generated, labels, test, seed):
    """Return the scores of the discriminator, and the distributions to draw."""
    from keras_spectral.gan import metrics

    conditional = sampler.classes is not None
    given = {
        "generated_labels": labels,
        "real_labels": test.labels if conditional else None,
    }
    arguments = sampler.discriminator, generated, test.inputs()
    counts = len(generated), len(test)
    scores, found = [], {}
    if "slopes" in chosen:
        slopes = metrics.discriminator_slopes(*arguments, seed=seed, **given)
        found["slopes"] = slopes
        scores += [
            metrics.Score(
                f"eLhist {row.name}, 95th percentile of {row.samples:,} pairs "
                f"({row.left_out} equal ones left out)",
                row.percentile_95,
                "lower",
                *counts,
            )
            for row in slopes
        ]
    if "jacobians" in chosen:
        jacobians = metrics.discriminator_jacobians(*arguments, **given)
        found["jacobians"] = jacobians
        most = [row.samples for row in jacobians]
        name = (
            "Kolmogorov-Smirnov distance of gradient norms, "
            f"{most[0]:,} real and {most[1]:,} generated"
        )
        distance = metrics.Score(name, jacobians.distance, "lower", *reversed(most))
        scores.append(distance)
    return scores, found


def _tell(console, scores, figures, model, output, as_json):
    from keras_spectral import report
    from keras_spectral.files import write_json
    from keras_spectral.results import Rows

    rows = Rows(
        scores,
        title=f"Images of {model.name}",
        caption="Only numbers of one protocol compare: network, resize, counts, steps.",
    )
    content = {
        "scores": rows.to_dicts(),
        "distributions": {name: found.to_dicts() for name, found in figures.items()},
    }
    if not as_json:
        console.print(rows)
    if output is not None:
        write_json(output / _FILES[0], content)
        for name, found in figures.items():
            figure = report.distribution_figure({model.stem: found})
            report.save(figure, output / f"{name}.png")
        console.print(f"Results are in {output.resolve()}")
    return content


def _grid(generated):
    """Return the first images as a page shows them."""
    import io

    from keras_spectral.gan.callbacks import sample_grid
    from keras_spectral.report.saved import data_uri

    stream = io.BytesIO()
    sample_grid(generated[:_SHOWN]).save(stream, "PNG")
    return [
        (f"The first {min(_SHOWN, len(generated))} images", data_uri(stream.getvalue()))
    ]


COMMANDS = (evaluate_gan,)
