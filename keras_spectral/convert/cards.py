"""Provenance cards: where a model's weights came from, and how they were verified."""

import json
import shutil
import weakref
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_spectral.files import replacing, write_json

if TYPE_CHECKING:
    import keras

_METADATA = "metadata.json"
_KEY = "keras_spectral"

# Model -> its card. A model cannot carry one: Keras would track and save it.
_CARDS = weakref.WeakKeyDictionary()


def remember(model, card):
    """Keep a card for a model as long as it lives."""
    _CARDS[model] = card


def provenance(model: "keras.Model | str | Path") -> dict:
    """Return the card of a model's last import: source, dialect, notes, certificate.

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
    return card if isinstance(card, dict) else {}


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
        ValueError: If `path` ends in something else.

    Example:
    >>> import keras, tempfile, pathlib
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> save_model(model, pathlib.Path(tempfile.mkdtemp()) / "model.keras")
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: path={path}")
    card = provenance(model)
    with replacing(path) as temporary:
        model.save(temporary)
        if card:
            _write_metadata(temporary, card)
    if not card:
        return None
    beside = path.with_suffix(".json")
    write_json(beside, card)
    return beside


def load_model(path: str | Path) -> "keras.Model":
    """Load a `.keras` model and remember the card that it was saved with.

    Models of hundreds of layers load here too, where `keras.models.load_model` ends in
    a `RecursionError`.

    Args:
        path: Path of a `.keras` file.

    Returns:
        A `keras.Model`.
    """
    import keras

    from keras_spectral.models.copying import deep_graphs

    with deep_graphs():
        model = keras.models.load_model(path)
    card = provenance(path)
    if card:
        remember(model, card)
    return model


def _write_metadata(path, card):
    """Put a card into the metadata of a `.keras` file."""
    with replacing(path) as temporary:
        with (
            zipfile.ZipFile(path) as source,
            zipfile.ZipFile(temporary, "w") as target,
        ):
            for member in source.infolist():
                if member.filename == _METADATA:
                    metadata = {**json.loads(source.read(member)), _KEY: card}
                    target.writestr(_METADATA, json.dumps(metadata))
                    continue
                with source.open(member) as here, target.open(member, "w") as there:
                    shutil.copyfileobj(here, there, 2**20)
