"""What experiments and commands begin with: Keras, a model, test data."""

import contextlib
import logging
import math
import os
import sys
import tempfile

from keras_spectral.interrupts import interrupts_heeded

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "mask")


@contextlib.contextmanager
def _native_messages_kept():
    """Hold back what C++ libraries print to stderr; show it if the body fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # Of an interrupt it is no reason.
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def start_keras(console, backend=True):
    """Import Keras and start its backend, with a word on why it takes time.

    Args:
        console: A `Console`.
        backend: Boolean; `False` leaves to others which devices it finds.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of every network but the first: each is compiled, and used once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with (
        console.status("Starting Keras ..."),
        _native_messages_kept(),
        interrupts_heeded() as check,
    ):
        try:
            import keras
        except ModuleNotFoundError as error:
            raise ImportError(
                f"Keras cannot start: {error}. `pip install {error.name}`, or choose "
                "an installed backend: KERAS_BACKEND=tensorflow."
            ) from error

        import keras_spectral.layers  # noqa: F401  (registers the layers)

        if backend:
            # The first operation is what looks for devices.
            keras.ops.zeros(())
        # Of what libraries do as they are imported, some swallow an interrupt.
        check()


def load_keras(source, name=None):
    """Return the model of a `.keras` file."""
    import keras_spectral.experiments.optimizers  # noqa: F401  (registers them)
    from keras_spectral import convert

    if name is not None:
        raise ValueError(
            "`--model` belongs to a PyTorch checkpoint; a .keras file knows its "
            f"architecture. Received: --model={name} for {source}. Leave it out."
        )
    if not convert.is_keras_model(source):
        raise ValueError(
            f"{source} is no .keras model. Save one with model.save('NAME.keras')."
        )
    try:
        return convert.load_model(source)
    except Exception as error:  # Keras raises nearly anything on a foreign file.
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{source} is no Keras model that can be loaded here ({reason}). Save it "
            "with the layers of Keras and keras_spectral alone."
        ) from error


def load_model(source, name, **arguments):
    """Return the Keras model of a `.keras` file or of a PyTorch checkpoint."""
    from keras_spectral import convert
    from keras_spectral.convert.comparison import is_keras_model
    from keras_spectral.zoo import registry

    if name is not None:
        registry.check_name(name, "--model")
    if is_keras_model(source):
        return load_keras(source, name)
    if name is None:
        # An unreadable file is the first thing to say.
        state = convert.read_checkpoint(source, arguments.get("entry"))
        fitting, count = fitting_models(state)
        hint = (
            f"Of its size: {', '.join(fitting)}."
            if fitting
            else f"None of the registered ones has its {count:,} parameters: build the "
            "model in Python and call keras_spectral.convert.from_torch(file, model)."
        )
        raise ValueError(
            "`--model` must name the architecture of a PyTorch checkpoint. "
            f"Received: no --model for {source}. {hint}"
        )
    return convert.from_torch(source, name, **arguments)


def fitting_models(state):
    """Return the registered names with as many trained parameters as a state dict.

    Args:
        state: A `keras_spectral.convert.StateDict`; its arrays are not read.

    Returns:
        Tuple (list of names, the number of parameters).
    """
    from keras_spectral.convert import spectral_state, weight_normalization
    from keras_spectral.zoo import registry

    folded, _ = weight_normalization.folded(state)
    plain, _ = spectral_state.parse(folded)
    # Tied weights count once.
    sizes = {
        key: math.prod(shape)
        for key, shape in folded.shapes.items()
        if key not in folded.aliases
    }
    count = sum(
        sizes.get(theirs, 0)
        for key, theirs in plain.items()
        if not key.endswith(_STATISTICS)
    )
    names = registry.list_models()
    return [x for x in names if registry.entry(x)["parameters"] == count], count


def test_data(name, model, directory=None):
    """Return the data set of `name`, checked against the model's input."""
    inputs = getattr(model, "inputs", None) or ()  # Of a GAN, say, there are none.
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or None in shapes[0]:
        what = f"the input shape {shapes[0]}" if len(shapes) == 1 else "other inputs"
        raise ValueError(
            "`--data` needs a model that takes images of a fixed size (height, width, "
            f"channels). Received: a {type(model).__name__} named '{model.name}' with "
            f"{what}."
        )
    (shape,) = shapes
    return images_of_shape(name, shape, directory)


def images_of_shape(name, shape, directory=None):
    """Return the data set of `name` as images of a shape (height, width, channels)."""
    from keras_spectral import data

    # Those by name come in other sizes, too; files are what they are.
    sizes = (shape[0], shape[2]) if name in data.names() else ()
    dataset = data.load(name, *sizes, directory=directory)
    if dataset.test.images.shape[1:] != shape:
        raise ValueError(
            f"`--data` must hold images of the model's shape {shape}. "
            f"Received: images of shape {dataset.test.images.shape[1:]} in {name}."
        )
    return dataset


def evaluator(dataset):
    """Return a function that gives a model's accuracy on the test images."""
    import numpy as np

    x = dataset.test.inputs()

    def evaluate(model):
        logits = model.predict(x, batch_size=64, verbose=0)
        return float(np.mean(np.argmax(logits, axis=-1) == dataset.test.labels))

    return evaluate
