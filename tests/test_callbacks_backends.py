import keras
import numpy as np
import pytest

import keras_spectral as ks


def norms(model):
    kernels = [
        keras.ops.convert_to_numpy(layer.effective_kernel())
        for layer in model.layers
        if hasattr(layer, "effective_kernel")
    ]
    return [np.linalg.norm(kernel.astype("float64"), 2) for kernel in kernels]


def network():
    wrap = ks.layers.SpectralNormalization
    return keras.Sequential(
        [
            keras.Input((60,)),
            wrap(keras.layers.Dense(50, activation="relu")),
            wrap(keras.layers.Dense(4)),
        ]
    )


class Norms(keras.callbacks.Callback):
    """The worst distance from 1 in each evaluation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append(max(abs(norm - 1) for norm in norms(self.model)))


def test_averaged_kernels_have_the_bound_where_they_are_used(rng):
    x, y = rng.standard_normal((64, 60)), rng.integers(0, 4, 64)
    worst = {}
    for restart in (False, True):
        keras.utils.set_random_seed(0)
        model = network()
        model.compile(
            keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        seen = Norms()
        callbacks = [keras.callbacks.SwapEMAWeights()]
        callbacks += [ks.callbacks.RestartPowerIteration()] * restart + [seen]
        model.fit(
            x, y, epochs=3, validation_data=(x, y), callbacks=callbacks, verbose=0
        )
        worst[restart] = max(seen.seen)
        assert len(seen.seen) == 3
    assert worst[True] < 1e-5 < worst[False]


@pytest.mark.parametrize("shape", [(20, 30), (700, 600)])
def test_assigned_kernels_have_the_bound_after_a_restart(rng, shape):
    layer = ks.layers.SpectralNormalization(keras.layers.Dense(shape[1]))
    model = keras.Sequential([keras.Input(shape[:1]), layer])
    layer.kernel.assign(rng.standard_normal(shape))
    ks.restart_power_iteration(model)
    assert norms(model)[0] == pytest.approx(1, abs=1e-4)


def test_an_epoch_knows_the_kernels_and_the_certified_accuracy(rng, tmp_path):
    x = rng.standard_normal((32, 60)).astype("float32")
    y = rng.integers(0, 4, 32)
    model = network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logger = ks.callbacks.SpectralLogger(every=2, bounds=True, csv=tmp_path / "w.csv")
    certified = ks.callbacks.CertifiedAccuracy((x, y), radii=[0.1, 36 / 255], every=2)
    history = model.fit(x, y, epochs=3, callbacks=[logger, certified], verbose=0)
    # After epochs 0 and 2 of three; the last is what stands.
    assert [row.epoch for row in logger.rows] == [0, 0, 2, 2]
    found = ks.measures.certify(model, x, y, radii=[0.1, 36 / 255])
    for key, row in zip(("certified_0.1", "certified_36_255"), found, strict=True):
        assert len(history.history[key]) == 2
        assert history.history[key][-1] == row.certified_accuracy
    constant = history.history["lipschitz_constant"][-1]
    assert constant == pytest.approx(found.lipschitz_constant)
    for row, layer in zip(logger.rows[2:], model.layers, strict=True):
        kernel = keras.ops.convert_to_numpy(layer.effective_kernel())
        values = np.linalg.svd(kernel.astype("float64"), compute_uv=False)
        assert row.name == layer.name
        assert row.norm == row.bound == pytest.approx(values[0])
        assert row.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2)
        assert row.gap == pytest.approx(1 - values[1] / values[0], abs=1e-6)
        assert history.history[f"{row.name}/norm"][-1] == row.norm
    lines = (tmp_path / "w.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0] == "epoch,name,norm,stable_rank,gap,bound"
