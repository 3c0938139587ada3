"""What the measures refuse, in one clear error, before any work."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.measures import (
    Linearization,
    alignment,
    certify,
    complexity_measures,
    cushions,
    empirical_lipschitz,
    jacobian_norms,
    lipschitz_bound,
    noise_sensitivity,
    segment_norms,
    spectrum,
)
from keras_spectral.theory import low_rank_error_bound

X = np.random.default_rng(0).normal(size=(6, 4))
MEASURES = {
    "complexity": lambda model, x=X: complexity_measures(model, x, [0] * len(x)),
    "noise": lambda model, x=X: noise_sensitivity(model, x, draws=2),
    "pairs": lambda model, x=X: empirical_lipschitz(model, x, count=2),
    "jacobians": lambda model, x=X: jacobian_norms(model, x),
    "segments": lambda model, x=X: segment_norms(model, x, x, points=1),
    "alignment": lambda model, x=X: alignment(model, x),
    "cushions": lambda model, x=X: cushions(model, x, draws=1),
    "certify": lambda model, x=X: certify(model, x, np.zeros(len(x), int)),
}
# They take no samples, or not in batches.
OF_MODELS = {
    "low rank": lambda model: low_rank_error_bound(model, 1, 1.0),
    "bound": lipschitz_bound,
    "products": lambda model: Linearization(model),
    "spectrum": spectrum,
}


def network(*last):
    layers = [kl.Dense(5, "relu", name="hidden"), kl.Dense(3, name="head"), *last]
    return keras.Sequential([keras.Input((4,)), *layers])


def unbuilt():
    return keras.Sequential([kl.Dense(3)]), "`model` must be built"


def broken():
    model = network()
    model.get_layer("head").kernel.assign(np.full((5, 3), np.nan))
    return model, "must have finite.*Received: NaN or infinity in '.*head"


def training():
    x = keras.Input((4,))
    y = kl.BatchNormalization(name="bn")(kl.Dense(5)(x), training=True)
    inner = keras.Model(x, y)
    model = keras.Model(x, kl.Dense(3)(inner(x)))
    return model, "'bn'.*`training=True`"


def no_model():
    return 3, "`model` must be a `keras"


EVERY = {**MEASURES, **OF_MODELS}


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize("made", [unbuilt, broken, training, no_model])
def test_models(measure, made):
    if (measure, made) == ("spectrum", training):
        return  # Kernels are the same then.
    model, message = made()
    with pytest.raises(ValueError, match=message):
        EVERY[measure](model)


def test_kernels_of_zero():
    """Where a number has no logarithm the sample is left out, and the rest is zero."""
    model = network()
    head = model.get_layer("head")
    head.kernel.assign(np.zeros((5, 3)))
    for measure in ("noise", "alignment"):
        assert {row.left_out for row in MEASURES[measure](model)} == {6}
    row = MEASURES["cushions"](model)[1]
    assert np.isnan([row.layer_cushion, row.stable_rank]).all()
    assert segment_norms(model, X, X + 1, points=1)[0].maximum == 0
    assert MEASURES["jacobians"](model)[0].maximum == 0
    assert MEASURES["pairs"](model)[0].maximum == 0
    with pytest.raises(ValueError, match="not zero.*Received: 'head'"):
        complexity_measures(model, X, [0] * 6)
    # All margins are one; nothing that is hidden matters to them.
    head.bias.assign([1, 0, 0])
    found = complexity_measures(
        model, X, [0] * 6, measures="Jac-Norm", where=["hidden"]
    )
    assert (found[1].samples, found[1].left_out) == (0, 6) and found.misclassified == 0


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_inputs(measure):
    model = network()
    for x, message in [
        (np.zeros((0, 4)), "must hold at least one sample"),
        (np.zeros((2, 3)), r"must hold samples of shape \(4,\).*Received: \(2, 3\)"),
        (np.zeros(()), "must hold samples of shape"),
        ([], "must hold at least one sample"),
        (np.full((2, 4), np.nan), "must hold finite numbers"),
        (np.array([["a"] * 4]), "must hold finite numbers"),
    ]:
        given = x if np.ndim(x) else np.zeros((1, 1, 4))
        with pytest.raises(ValueError, match=message):
            measure(model, given)


@pytest.mark.parametrize(
    "last",
    [
        kl.Softmax(),
        kl.Activation("softmax"),
        kl.Dense(3, "softmax"),
        kl.Activation("sigmoid"),
        kl.Activation("log_softmax"),
        keras.Sequential([kl.Softmax(), kl.Dropout(0.1)]),
    ],
)
def test_margins_are_of_logits(last):
    for measure in ("complexity", "certify"):
        with pytest.raises(ValueError, match="must end in logits, of which margins ar"):
            MEASURES[measure](network(last))


def test_a_wrapped_softmax_and_one_that_only_its_outputs_show():
    model = network(kl.Dense(3, "softmax"))
    model = ks.wrap(model, ks.layers.SpectralNormalization)
    with pytest.raises(ValueError, match="which ends in softmax"):
        complexity_measures(model, X, [0] * 6)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = kl.Dense(3)

        def call(self, x):
            return keras.ops.softmax(self.dense(x))

    model = Own()
    model(X)
    with pytest.raises(ValueError, match="a `keras.Sequential` or a functional"):
        complexity_measures(model, X, [0] * 6)
    with pytest.raises(ValueError, match="not negative and sum to one"):
        complexity_measures(model, X, [0] * 6, measures="Spec-Fro")


def test_labels():
    model = network()
    for y, message in [
        (None, "`y` must be the labels"),
        ([0] * 5, "one label for each of 6 samples"),
        ([0.5] * 6, "`y` must be integers"),
        (np.eye(3)[[0] * 6], "`y` must be integers"),
        ([0, 1, 2, 3, 0, 0], "classes from 0 to 2.*from 0 to 3"),
        ([-1] * 6, "classes from 0 to 2"),
    ]:
        for measure in (complexity_measures, certify):
            with pytest.raises(ValueError, match=message):
                measure(model, X, y)
    column = np.array([[0]] * 6)
    assert complexity_measures(model, X, column)[0].samples == 6


def test_streams():
    import tensorflow as tf

    model, y = network(), np.array([0, 1, 2, 0, 1, 2])
    whole = complexity_measures(model, X, y)
    stream = tf.data.Dataset.from_tensor_slices((X, y)).batch(4)
    parts = complexity_measures(model, stream)
    for name in whole.values:
        np.testing.assert_allclose(whole.values[name], parts.values[name], rtol=1e-4)
    with pytest.raises(ValueError, match="`y` must be left out"):
        complexity_measures(model, stream, y)
    with pytest.raises(ValueError, match="yield pairs"):
        complexity_measures(model, stream.map(lambda x, y: x))
    with pytest.raises(ValueError, match="at least one sample"):
        complexity_measures(model, stream.take(0))
    with pytest.raises(ValueError, match="classes from 0 to 2"):
        complexity_measures(model, stream.map(lambda x, y: (x, y + 1)))
    found = cushions(model, stream, draws=2).to_dicts()
    assert found == cushions(model, X, batch_size=4, draws=2).to_dicts()
    assert len(segment_norms(model, stream, stream, points=1)) == 6
    assert alignment(model, stream)[0].samples == 6
    assert empirical_lipschitz(model, stream, pairs="same class")[0].samples == 2000
    assert jacobian_norms(model, stream)[0].samples == 6
    assert noise_sensitivity(model, stream.map(lambda x, y: x), draws=2)[0].samples == 6


def test_other_arguments():
    model = network()
    for arguments, message in [
        (dict(measures="Spec"), "`measures` must be one of"),
        (dict(norm="spectral"), "`norm` must be one of"),
        (dict(batch_normalization="keep"), "`batch_normalization` must be one of"),
        (dict(where=["nosuch"]), "nosuch"),
        (dict(hidden=["nosuch"]), "nosuch"),
        (dict(batch_size=0), "`batch_size`"),
    ]:
        with pytest.raises(ValueError, match=message):
            complexity_measures(model, X, [0] * 6, **arguments)
    for arguments in (dict(noise=0), dict(draws=1), dict(seed=-1)):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            noise_sensitivity(model, X, **arguments)
    alone = keras.Sequential([keras.Input((4,)), kl.Dense(3)])
    with pytest.raises(ValueError, match="must have hidden layers"):
        complexity_measures(alone, X, [0] * 6)


def test_outputs_that_overflow():
    model = network()
    with pytest.raises(ValueError, match="must give finite outputs"):
        noise_sensitivity(model, np.full((2, 4), 3e38), draws=2)


def test_a_bar_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    from keras_spectral import terminal

    with terminal.progress_bar("work [red]", 2) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.progress_bar("work", 2) as advance:
        advance()
        advance()
    assert "work" in capsys.readouterr().err
    with terminal.progress_bar("work", 2, shown=False) as advance:
        advance()
    assert capsys.readouterr().err == ""
