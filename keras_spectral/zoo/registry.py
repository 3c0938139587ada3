"""The registered models: one JSON entry for each name."""

import difflib
import fnmatch
import functools
import importlib
import importlib.resources
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras

_DATA = importlib.resources.files("keras_spectral.zoo") / "data"


# How the notes of an entry end whose weights nobody here has seen.
UNVERIFIED = "Architecture only: weights, licence and accuracy are not verified here."

# Builder -> the module that it lives in.
BUILDERS = {
    "cifar_alexnet": "vgg",
    "cifar_densenet": "densenet",
    "cifar_preresnet": "preresnet",
    "cifar_pyramidnet": "pyramidnet",
    "cifar_resnet": "resnet",
    "cifar_vgg": "vgg",
    "cifar_wrn": "preresnet",
    "dcgan_discriminator": "dcgan",
    "dcgan_generator": "dcgan",
    "imagenet_alexnet": "imagenet",
    "imagenet_vgg": "imagenet",
    "low_rank_dcgan": "gans",
    "mnist_convnet": "mnist",
    "ortho_resnet_gan": "gans",
    "resnet_discriminator": "resnet_gan_networks",
    "resnet_gan": "gans",
    "resnet_generator": "resnet_gan_networks",
    "sn_resnet_gan": "gans",
    "srn_resnet_gan": "gans",
    "wgan_gp_resnet_gan": "gans",
}


class Checkpoint(NamedTuple):
    """A bundled checkpoint: paths of its weights and of its JSON card.

    Args:
        weights: `pathlib.Path` of the weights.
        card: `pathlib.Path` of the JSON card.
    """

    weights: Path
    card: Path


@functools.cache
def _entries():
    registry = json.loads((_DATA / "registry.json").read_text(encoding="utf-8"))
    # What is unknown of most models is written once.
    entries = [{**registry["defaults"], **model} for model in registry["models"]]
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The registry has two entries of the name {twice[0]!r}.")
    return dict(zip(names, entries, strict=True))


def list_models(pattern: str = "*") -> list[str]:
    """Return the registered names that match a shell pattern.

    Args:
        pattern: String, such as `"resnet*_svhn"`.

    Returns:
        List of strings, in the registry's order.

    Example:
    >>> list_models("resnet*0_svhn")
    ['resnet20_svhn', 'resnet110_svhn']
    """
    return [name for name in _entries() if fnmatch.fnmatchcase(name, pattern)]


def heavy_tail_models() -> list[str]:
    """Return the 43 registered names that the heavy-tail paper compressed.

    The paper says 43, and its appendix D prints 44, of which 39 exist and differ:
    `resnet20_cifar100`, `resnet56_cifar100`, `sepreresnet56_cifar10` and
    `sepreresnet110_cifar10` stand there twice, and there is no `resnet100_cifar100`.
    By the order of that list the latter is `resnet110_cifar100`, and the second
    SE-PreResNets are those of SVHN. With Table 1's `densenet40_k12_svhn`, which the
    appendix lacks, they are 43. The corrections are ours; the weights are not bundled.

    Returns:
        List of strings, in the appendix's order of families.

    Example:
    >>> len(heavy_tail_models())
    43

    Source: [shin2021], appendix D and Table 1.
    """
    file = _DATA / "heavy_tail_paper.json"
    return json.loads(file.read_text(encoding="utf-8"))["models"]


def entry(name: str) -> dict:
    """Return what is known of a registered model; `None` where it is not.

    Args:
        name: String, a registered name.

    Returns:
        Dict with builder, config, parameters (trainable), the shape (outputs, inputs)
        of the dense layer at the end, input statistics, source, checkpoint, licence,
        reference metric and notes.

    Raises:
        ValueError: On an unknown name, with the nearest ones.

    Example:
    >>> entry("resnet20_cifar10")["parameters"]
    272474
    """
    check_name(name)
    return json.loads(json.dumps(_entries()[name]))


def check_name(name, argument="name"):
    """Raise a ValueError, with the nearest names, unless a model is registered.

    Args:
        name: String.
        argument: String, what the name was given by.
    """
    if name not in _entries():
        near = difflib.get_close_matches(str(name), _entries(), n=3, cutoff=0.4)
        hint = (
            f"Did you mean {' or '.join(near)}?" if near else "docs/zoo.md lists them."
        )
        raise ValueError(
            f"`{argument}` must be a registered network. "
            f"Received: {argument}={name}. {hint}"
        )


def build(name: str, /, **overrides) -> "keras.Model":
    """Build a registered model with fresh weights.

    Weights are loaded by `keras_spectral.convert.from_torch`.

    Args:
        name: String, a registered name.
        **overrides: Arguments of the builder, such as `normalize=`, `classes=` or
            the model's `name=`, in place of the entry's.

    Returns:
        A `keras.Model` of that name.

    Raises:
        ValueError: On an unknown name, with the nearest ones.

    Example:
    >>> build("resnet20_svhn").name
    'resnet20_svhn'
    """
    known = entry(name)
    module = importlib.import_module(f"keras_spectral.zoo.{BUILDERS[known['builder']]}")
    return getattr(module, known["builder"])(
        **{"name": name, **known["config"], **overrides}
    )


def checkpoint(name: str) -> Checkpoint:
    """Return the paths of a bundled checkpoint and of its card.

    Args:
        name: String, a registered name.

    Returns:
        `Checkpoint(weights, card)`, two `pathlib.Path`s.

    Raises:
        ValueError: If the name is unknown or has no bundled weights.

    Example:
    >>> checkpoint("resnet20_digits").weights.name
    'resnet20_digits.safetensors'
    """
    file = entry(name)["checkpoint"]
    if file is None:
        bundled = [n for n, e in _entries().items() if e["checkpoint"]]
        raise ValueError(
            f"No weights are bundled for {name!r}, only for {', '.join(bundled)}. "
            "Load your own file with keras_spectral.convert.from_torch(path, "
            f"{name!r})."
        )
    weights = Path(str(_DATA / "checkpoints" / file))
    return Checkpoint(weights, weights.with_suffix(".json"))


def table():
    """Return the registry as the Markdown table of `docs/zoo.md`.

    Returns:
        String, one row a name.

    Example:
    >>> table().splitlines()[0]
    '| name | builder | trained | stored | normalization | head | source | notes |'
    """
    rows = [
        "| name | builder | trained | stored | normalization | head | source | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, known in _entries().items():
        config = ", ".join(f"{key}={value}" for key, value in known["config"].items())
        head = " x ".join(map(str, known["head_shape"] or ()))
        rows.append(
            f"| `{name}` | `{known['builder']}({config})` | {known['parameters']:,} | "
            f"{known['total_parameters']:,} | "
            f"{known['batch_normalization_statistics']:,} | {head} | "
            f"{known['source']} | "
            f"{known['notes'].removesuffix(UNVERIFIED).strip()} |"
        )
    return "\n".join(rows)
