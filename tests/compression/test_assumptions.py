"""Assumptions: each check passes where it holds, and fails where it does not."""

import keras
import numpy as np
import pytest

from keras_spectral.compression import assumptions, check_assumptions
from keras_spectral.measures import cushions


def network(kernel, bias=None, activation="relu"):
    model = keras.Sequential([
        keras.Input((kernel.shape[0],)),
        keras.layers.Dense(kernel.shape[1], activation, name="hidden"),
    ])  # fmt: skip
    model.set_weights([kernel, np.zeros(kernel.shape[1]) if bias is None else bias])
    return model


def statuses(model, **arguments):
    rows = check_assumptions(model, trials=19, **arguments)
    return {row.assumption: row.status for row in rows}


def test_weights_as_the_paper_has_them(rng):
    w = rng.choice([-1, 1], (60, 40)) * (rng.pareto(2.0, (60, 40)) + 1)
    found = statuses(network(w))
    assert set(found.values()) == {"PASS", "UNTESTED"}
    untested = {name for name, status in found.items() if status == "UNTESTED"}
    assert untested == {
        "interlayer smoothness at least 3 d",
        "threshold chosen before training",
        "independent samples",
    }


@pytest.mark.parametrize(
    ("kernel", "broken"),
    [
        (lambda r: r.pareto(2.0, (60, 40)) + 1, "sign-symmetric weights"),
        (lambda r: r.normal(size=(60, 40)) * np.linspace(0.2, 3, 40),
         "rows and columns of equal variance"),
        (lambda r: r.choice([-1, 1], (60, 40)) * r.uniform(1, 1.2, (60, 40)),
         "power law of |w|"),
        (lambda r: r.normal(size=(60, 40)) * 1e-3, "Frobenius norm at least 1"),
    ],
)  # fmt: skip
def test_each_check_of_a_matrix_can_fail(kernel, broken, rng):
    assert statuses(network(kernel(rng)))[broken] == "FAIL"


def test_each_check_of_a_network_can_fail(rng):
    w = rng.normal(size=(6, 5))
    found = statuses(network(w, np.ones(5), "softplus"))
    assert found["no biases"] == "FAIL"
    assert found["activations 1-Lipschitz and zero at zero"] == "UNTESTED"
    normalized = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization(),
    ])  # fmt: skip
    assert statuses(normalized)["no normalization (or folded)"] == "FAIL"
    # A linear network's smoothness is infinite.
    linear = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(5, use_bias=False),
        keras.layers.Dense(4, use_bias=False),
    ])  # fmt: skip
    measured = cushions(linear, rng.normal(size=(20, 6)))
    found = statuses(linear, cushions=measured)
    assert found["interlayer smoothness at least 3 d"] == "PASS"


def test_the_tests_have_their_size(rng):
    """Sign test at 1 %, variances at 5 %: 60 normal matrices, three errors of that."""
    rows = [
        check_assumptions(network(rng.normal(size=(12, 10))), trials=1, seed=seed)
        for seed in range(60)
    ]
    for name, level in (
        ("sign-symmetric weights", 0.01),
        ("rows and columns of equal variance", 0.05),
    ):
        failed = np.mean(
            [
                r.status == "FAIL"
                for found in rows
                for r in found
                if r.assumption == name
            ]
        )
        assert failed <= level + 3 * np.sqrt(level * (1 - level) / 60)


def test_bad_arguments():
    model = keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="kernel"):
        check_assumptions(model)
    with pytest.raises(ValueError, match="`trials`"):
        check_assumptions(model, trials=0)


TAME = "activations 1-Lipschitz and zero at zero"


@pytest.mark.parametrize(
    "layer, assumption, status",
    [
        (keras.layers.LayerNormalization(), "no normalization (or folded)", "FAIL"),
        (keras.layers.UnitNormalization(), "no normalization (or folded)", "FAIL"),
        (keras.layers.PReLU(), TAME, "UNTESTED"),
        (keras.layers.Softmax(), TAME, "UNTESTED"),
        (keras.layers.ELU(3.0), TAME, "UNTESTED"),
    ],
)  # fmt: skip
def test_layers_that_the_theorem_does_not_know(layer, assumption, status):
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10), layer])
    found = {row.assumption: row for row in check_assumptions(model, trials=1)}
    assert found[assumption].status == status


def test_the_p_value_of_shuffles_counts_the_matrix_itself(rng):
    """Among 100 equally likely orders none has a rank of zero (Phipson and Smyth)."""
    uneven = rng.normal(size=(60, 40)) * np.linspace(0.2, 3, 40)
    assert assumptions._heterogeneity(uneven, 0) == 1 / 100
    # Where every order is as uneven, all 100 are.
    assert assumptions._heterogeneity(np.ones((6, 4)), 0) == 1
    detail = {
        r.assumption: r.detail for r in check_assumptions(network(uneven), trials=1)
    }
    assert detail["rows and columns of equal variance"] == "p = 0.01 by 99 shuffles"
