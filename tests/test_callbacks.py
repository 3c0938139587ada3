"""Where the callbacks write, and what they refuse; on TensorFlow."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import keras_spectral as ks


def fitted(model, callbacks, epochs=1):
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.zeros((4, *model.input_shape[1:]), "float32")
    targets = np.zeros((4, *model.output_shape[1:]))
    return model.fit(x, targets, epochs=epochs, callbacks=callbacks, verbose=0).history


def linear(kernel, **arguments):
    kernel = np.asarray(kernel, "float32")
    dense = kl.Dense(kernel.shape[1], use_bias=False, name="head", **arguments)
    model = keras.Sequential([keras.Input(kernel.shape[:1]), dense])
    dense.kernel.assign(kernel)
    return model


@pytest.mark.parametrize(
    ("kernel", "norm", "stable_rank", "gap"),
    [
        (np.diag([4.0, 3.0, 0.0]), 4, 25 / 16, 0.25),
        ([[3.0], [4.0]], 5, 1, 1),
        ([[3.0, 4.0]], 5, 1, 1),
        (1e-30 * np.eye(2), 1e-30, 2, 0),
        (np.zeros((2, 3)), 0, np.nan, np.nan),
    ],
)
def test_what_is_said_of_a_kernel(kernel, norm, stable_rank, gap):
    logger = ks.callbacks.SpectralLogger()
    history = fitted(linear(kernel), [logger])
    (row,) = logger.rows
    assert row.bound is None and "head/bound" not in history
    np.testing.assert_allclose(
        [row.norm, row.stable_rank, row.gap],
        [norm, stable_rank, gap],
        rtol=1e-6,
        atol=1e-38,
    )


def test_the_bound_of_a_convolution_is_one_of_the_layer(rng):
    model = keras.Sequential([keras.Input((6, 6, 2)), kl.Conv2D(3, 3, name="c")])
    logger = ks.callbacks.SpectralLogger(bounds=True)
    fitted(model, [logger])
    units = np.eye(72, dtype="float32").reshape(72, 6, 6, 2)
    matrix = model.predict(units, verbose=0).reshape(72, -1)
    norm = np.linalg.norm(matrix, 2)
    (row,) = logger.rows
    assert row.norm < norm <= row.bound < 1.5 * norm


def test_files_for_tensorboard_and_csv(tmp_path):
    logger = ks.callbacks.SpectralLogger(
        logs=False, csv=tmp_path / "weights.csv", tensorboard=tmp_path / "board"
    )
    keras_csv = keras.callbacks.CSVLogger(tmp_path / "logs.csv")
    model = linear(np.diag([4.0, 3.0]))
    fitted(model, [logger, keras_csv], 2)
    history = fitted(model, [logger, keras_csv], 2)
    assert list(history) == ["loss"]
    with open(tmp_path / "weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # The second training began anew.
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[1]["norm"]) == 4 and rows[1]["bound"] == ""
    written = {}
    for path in (tmp_path / "board").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                step = event.step, value.tag
                written[step] = value.simple_value
    assert written == {
        (epoch, f"head/{what}"): pytest.approx(expected)
        for epoch in (0, 1)
        for what, expected in (("norm", 4), ("stable_rank", 25 / 16), ("gap", 0.25))
    }


def test_the_callbacks_of_keras_that_come_after_read_it(tmp_path):
    model = linear(np.eye(2))
    data = tf.data.Dataset.from_tensor_slices(([[1.0, 0.0], [0.0, 1.0]], [0, 0]))
    callbacks = [
        ks.callbacks.SpectralLogger(where=["head"]),
        ks.callbacks.CertifiedAccuracy(data.batch(1), pixel_scale=2.0),
        keras.callbacks.CSVLogger(tmp_path / "logs.csv"),
    ]
    fitted(model, callbacks, 2)
    with open(tmp_path / "logs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["head/norm"]) for row in rows] == [1, 1]
    # A margin of 1 over sqrt(2), halved by the scale: 90 of 255.
    for key, expected in {"36": 0.5, "72": 0.5, "108": 0, "255": 0}.items():
        assert float(rows[1][f"certified_{key}_255"]) == expected


def test_refused():
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        ks.callbacks.SpectralLogger(every=0)
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        ks.callbacks.CertifiedAccuracy(([], []), every=0.5)
    with pytest.raises(ValueError, match="Did you mean head"):
        fitted(linear(np.eye(2)), [ks.callbacks.SpectralLogger(where=["heat"])])
    model = keras.Sequential([keras.Input((3,)), kl.UnitNormalization(), kl.Dense(2)])
    batches = []
    seen = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(batch)
    )
    with pytest.raises(ValueError, match="Lipschitz constant is known"):
        fitted(model, [ks.callbacks.CertifiedAccuracy(([], [])), seen])
    assert not batches
