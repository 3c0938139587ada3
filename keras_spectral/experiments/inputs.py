"""What experiments and commands begin with: Keras, a model, test data."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def _native_messages_kept():
    """Hold back what C++ libraries print to stderr; show it if the body fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def start_keras(console):
    """Import Keras and start its backend, with a word on why it takes time."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with console.status("Starting Keras ..."), _native_messages_kept():
        import keras

        import keras_spectral.layers  # noqa: F401  (registers the layers)

        # The first operation is what looks for devices.
        keras.ops.zeros(())


def load_keras(source, name=None):
    """Return the model of a `.keras` file."""
    # Registered by their modules: what a file may name.
    import keras_spectral.experiments.optimizers
    import keras_spectral.gan
    import keras_spectral.layers  # noqa: F401
    from keras_spectral import convert

    if name is not None:
        raise ValueError(
            "`--model` belongs to a PyTorch checkpoint; a .keras file knows its "
            f"architecture. Received: --model={name} for {source}. Leave it out."
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
    from keras_spectral import convert, zoo
    from keras_spectral.convert.comparison import is_keras_model

    if name is not None:
        zoo.entry(name)
    if is_keras_model(source):
        return load_keras(source, name)
    if name is None:
        # An unreadable file is the first thing to say.
        convert.read_checkpoint(source, arguments.get("entry"))
        raise ValueError(
            "`--model` must name the architecture of a PyTorch checkpoint. "
            f"Received: no --model for {source}. Known: " + ", ".join(zoo.list_models())
        )
    return convert.from_torch(source, name, **arguments)


def test_data(name, model, directory=None):
    """Return the data set of `name`, checked against the model's input."""
    shape = tuple(model.input_shape[1:])
    if len(shape) != 3 or None in shape:
        raise ValueError(
            "`--data` needs a model that takes images of a fixed size (height, "
            f"width, channels). Received: '{model.name}' with the input shape {shape}."
        )
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
