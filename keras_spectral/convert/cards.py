"""Provenance cards: where a model's weights came from, and how they were verified."""

import json
import os
import shutil
import weakref
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from keras_spectral.files import beside, output_file, replacing

if TYPE_CHECKING:
    import keras

_METADATA = "metadata.json"
_KEY = "keras_spectral"
# What every card has, and how large one of a hundred thousand notes may be.
_CARD = {"keras_spectral", "source", "fingerprint"}
_LARGEST_CARD = 2**26


class _Certificate(msgspec.Struct):
    """What of a card's certificate is used."""

    scope: Literal["network", "layers", "none"]
    reference: str
    relative_error: float
    layers: int
    layers_in_all: int
    unchecked: list[str]
    precision: str
    reason: str


class _Card(msgspec.Struct):
    """What of a card is used: a file of a stranger's may hold anything in its place."""

    dialect: str = ""
    notes: list[str] = []
    shapes: dict[str, list[int]] = {}
    num_batches_tracked: dict[str, int] = {}
    flattened: list[str] = []
    not_seen: list[str] = []
    verification: _Certificate | None = None


# Model -> its card. A model cannot carry one: Keras would track and save it.
_CARDS = weakref.WeakKeyDictionary()


def remember(model, card):
    """Keep a card for a model as long as it lives."""
    _CARDS[model] = card


def provenance(model: "keras.Model | str | Path") -> dict:
    """Return the card of a model's last import: source, dialect, notes, certificate.

    `verification` has a `status`: `"passed"` if every layer was compared, `"partial"`
    with those that were not under `unchecked` and the reasons under `why_unchecked`,
    `"none"` without any. `example` is there if one was given. `not_seen` lists what
    nothing of it could tell, such as the wiring.

    Args:
        model: A `keras.Model` that `from_torch` returned or was given, or the path of
            a `.keras` file that `save_model` wrote.

    Returns:
        Dict that JSON can hold; empty if nothing is known.

    Example:
    >>> import keras
    >>> provenance(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    {}
    """
    if not isinstance(model, (str, Path)):
        return dict(_CARDS.get(model, {}))
    with zipfile.ZipFile(model) as archive:
        card = json.loads(archive.read(_METADATA)).get(_KEY)
    try:
        msgspec.convert(card, _Card)
    except msgspec.ValidationError:
        return {}
    return card


def card_path(path):
    """Return where the card of a model goes, if it may: no other file is replaced.

    Args:
        path: Path of a `.keras` file that is to be written.

    Raises:
        ValueError: If something that is no card is there.

    Example:
    >>> card_path("folder/model.keras").name
    'model.json'
    """
    beside = Path(path).with_suffix(".json")
    if os.path.lexists(beside) and not _is_card(beside):
        raise ValueError(
            f"{beside} is there and is no card of a model: the card of {path} would "
            "replace it. Move it, or choose another name for the model."
        )
    return beside


def _is_card(path):
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_CARD:
            return False
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _CARD


def save_model(model: "keras.Model", path: str | Path) -> Path | None:
    """Save a `.keras` model with its card, inside of the file and beside it.

    The card lies in the file's metadata, where Keras passes it over, and as JSON under
    the model's name with `.json`.

    Args:
        model: A `keras.Model`.
        path: Path that ends in `.keras`.

    Returns:
        Path of the JSON card, or `None` for a model without provenance.

    Raises:
        ValueError: If `path` ends in something else, or a file that is no card has the
            card's name; nothing is written then.
        OSError: If a file cannot be written; what was there stays.

    Example:
    >>> import keras, tempfile, pathlib
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> save_model(model, pathlib.Path(tempfile.mkdtemp()) / "model.keras")
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: path={path}")
    output_file(path)
    card = provenance(model)
    if not card:
        with replacing(path) as temporary:
            model.save(temporary)
        return None
    card_file = card_path(path)
    # Both are written before either is renamed: a full disk leaves what was there.
    with replacing(card_file) as note, replacing(path) as temporary:
        note.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        with beside(path) as plain:
            model.save(plain)
            _write_with_card(plain, temporary, card)
    return card_file


def load_model(path: str | Path) -> "keras.Model":
    """Load a `.keras` model and remember the card that it was saved with.

    Every class of this package is known, in whatever order packages were imported.
    Models of hundreds of layers load too, where Keras' own loader ends in a
    `RecursionError`.

    Args:
        path: Path of a `.keras` file.

    Returns:
        A `keras.Model`.

    Example:
    >>> import tempfile
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(model, f"{folder}/model.keras")
    ...     load_model(f"{folder}/model.keras").count_params()
    8
    """
    import keras

    import keras_spectral.registration  # noqa: F401  (what a file may name)
    from keras_spectral.models.copying import deep_graphs

    with deep_graphs():
        model = keras.models.load_model(path)
    card = provenance(path)
    if card:
        remember(model, card)
    return model


def _write_with_card(plain, path, card):
    """Copy a `.keras` file, with a card in its metadata."""
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            if member.filename == _METADATA:
                metadata = {**json.loads(source.read(member)), _KEY: card}
                target.writestr(_METADATA, json.dumps(metadata))
                continue
            with source.open(member) as here, target.open(member, "w") as there:
                shutil.copyfileobj(here, there, 2**20)
