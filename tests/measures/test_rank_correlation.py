"""Against SciPy, scikit-learn, plain loops, and dependence that was planted."""

import itertools
import math

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from keras_spectral.measures import rank_correlation

WIDTHS, RATES, DECAYS = (8, 16, 32), (0.1, 0.01), ("none", "some")


def grid(gap, repetitions=3, seed=0, **measures):
    """Runs on a grid; each measure is a function of the setting, the gap and noise."""
    rng = np.random.default_rng(seed)
    runs = []
    for width, rate, decay in itertools.product(WIDTHS, RATES, DECAYS):
        for _ in range(repetitions):
            setting = {"width": width, "rate": rate, "decay": decay}
            value = gap(setting, rng.standard_normal())
            found = {
                name: float(make(setting, value, rng.standard_normal()))
                for name, make in measures.items()
            }
            runs.append({"hyperparameters": setting, "measures": found, "gap": value})
    return runs


def by_width(setting, noise):
    return math.log(setting["width"]) + noise / 10


def row_of(runs, name, **arguments):
    rows = rank_correlation(runs, **arguments)
    return next(row for row in rows if row.measure == name)


RUNS = grid(
    lambda s, noise: by_width(s, noise) + (s["decay"] == "some") / 2,
    truth=lambda s, gap, noise: gap,
    reverse=lambda s, gap, noise: -(gap**3),
    noisy=lambda s, gap, noise: gap + noise / 2,
    coarse=lambda s, gap, noise: round(gap),
    random=lambda s, gap, noise: noise,
    size=lambda s, gap, noise: s["width"],
)


def test_kendalls_tau_is_that_of_scipy():
    for row in rank_correlation(RUNS):
        values = [run["measures"][row.measure] for run in RUNS]
        expected = stats.kendalltau(values, [run["gap"] for run in RUNS])
        assert row.runs == len(RUNS)
        assert row.kendall_tau == expected.statistic
        assert row.p_value == expected.pvalue


def sign(x):
    return (x > 0) - (x < 0)


def sign_errors(runs, measure):
    """Every pair of runs, in the order in which values of the grid are."""
    order = {8: 0, 16: 1, 32: 2, 0.01: 0, 0.1: 1, "none": 0, "some": 1}
    found = {}
    for one, other in itertools.permutations(runs, 2):
        a, b = one["hyperparameters"], other["hyperparameters"]
        moved = [name for name in a if a[name] != b[name]]
        if len(moved) == 1 and order[a[moved[0]]] < order[b[moved[0]]]:
            measured = sign(other["measures"][measure] - one["measures"][measure])
            error = (1 - measured * sign(other["gap"] - one["gap"])) / 2
            key = f"{moved[0]}: {a[moved[0]]}, {b[moved[0]]}"
            found.setdefault(key, []).append(error)
    return {key: np.mean(errors) for key, errors in found.items()}


@pytest.mark.parametrize("measure", RUNS[0]["measures"])
def test_sign_errors_are_those_of_plain_loops(measure):
    expected = sign_errors(RUNS, measure)
    row = row_of(RUNS, measure)
    assert row.environments == len(expected) == 5
    assert row.sign_error == pytest.approx(np.mean(list(expected.values())))
    assert row.robust_sign_error == pytest.approx(max(expected.values()))
    assert expected[row.worst_environment] == pytest.approx(row.robust_sign_error)


def information(runs, measure, fixed):
    """The conditional mutual information by scikit-learn, group by group."""
    total, count = 0.0, 0
    key = lambda run: tuple(str(run["hyperparameters"][name]) for name in fixed)  # noqa: E731
    for _, group in itertools.groupby(sorted(runs, key=key), key=key):
        pairs = list(itertools.permutations(group, 2))
        first = [
            sign(a["measures"][measure] - b["measures"][measure]) for a, b in pairs
        ]
        second = [sign(a["gap"] - b["gap"]) for a, b in pairs]
        total += len(pairs) * mutual_info_score(first, second)
        count += len(pairs)
    return total / count / math.log(2)


@pytest.mark.parametrize("measure", RUNS[0]["measures"])
def test_the_information_is_that_of_scikit_learn(measure):
    names = list(RUNS[0]["hyperparameters"])
    expected = {
        ", ".join(fixed) or "none": information(RUNS, measure, fixed)
        for count in range(3)
        for fixed in itertools.combinations(names, count)
    }
    row = row_of(RUNS, measure)
    assert row.conditional_information == pytest.approx(
        min(expected.values()), abs=1e-12
    )
    assert expected[row.fixed] == pytest.approx(row.conditional_information, abs=1e-12)


def test_what_was_planted_is_found():
    truth, reverse = row_of(RUNS, "truth"), row_of(RUNS, "reverse")
    assert (truth.kendall_tau, truth.robust_sign_error) == (1, 0)
    assert (reverse.kendall_tau, reverse.sign_error) == (-1, 1)
    assert truth.conditional_information == pytest.approx(1)
    assert reverse.conditional_information == pytest.approx(1)
    random = row_of(RUNS, "random")
    assert abs(random.kendall_tau) < 0.3 and random.conditional_information < 0.05


def test_a_measure_that_follows_what_drives_the_gap_says_nothing_of_its_own():
    row = row_of(RUNS, "size")
    assert row.kendall_tau > 0.5
    # With the width fixed it is constant: half wrong, and without information.
    assert row.conditional_information == 0 and "width" in row.fixed
    assert row.robust_sign_error == 0.5 and not row.worst_environment.startswith(
        "width"
    )


def test_pairs_of_nearly_equal_gaps_can_be_left_out():
    runs = grid(
        by_width,
        noisy=lambda s, gap, noise: gap + noise / 20,
    )
    every, far = (row_of(runs, "noisy", least_difference=d) for d in (0.0, 0.4))
    assert far.kendall_tau == every.kendall_tau
    assert far.sign_error < every.sign_error
    assert far.environments < every.environments
    assert far.conditional_information > every.conditional_information


def flat():
    return [
        {**run["hyperparameters"], **run["measures"], "seed": at, "error": run["gap"]}
        for at, run in enumerate(RUNS)
    ]


@pytest.mark.parametrize("form", [list, pandas.DataFrame], ids=["dicts", "frame"])
def test_flat_runs_are_as_good(form):
    arguments = {"measures": list(RUNS[0]["measures"]), "gap": "error"}
    names = ["width", "rate", "decay"]
    found = rank_correlation(form(flat()), **arguments, hyperparameters=names)
    assert found.to_dicts() == rank_correlation(RUNS).to_dicts()
    # With the seed among them no two runs differ in another hyperparameter alone.
    seeded = rank_correlation(form(flat()), **arguments)
    assert seeded[4].environments == 36
    assert seeded[4].worst_environment.startswith("seed")
    assert seeded[0].kendall_tau == 1
    assert "tau" in str(seeded)


def test_a_measure_that_is_not_a_number_everywhere():
    runs = [{**run, "measures": dict(run["measures"])} for run in RUNS]
    runs[3]["measures"]["truth"] = math.nan
    runs[4]["measures"]["noisy"] = math.inf
    largest = max(range(len(runs)), key=lambda at: runs[at]["gap"])
    runs[largest]["measures"]["truth"] = math.inf
    truth, noisy = row_of(runs, "truth"), row_of(runs, "noisy")
    assert truth.runs == len(RUNS) - 1 and truth.kendall_tau == 1
    assert truth.robust_sign_error == 0 and noisy.runs == len(RUNS)
    for run in runs:
        run["measures"]["random"] = math.nan
    empty = row_of(runs, "random")
    assert empty.runs == 0 and math.isnan(empty.conditional_information)


@pytest.mark.parametrize(
    ("runs", "arguments", "message"),
    [
        (RUNS[:1], {}, "two runs or more"),
        ([], {}, "two runs or more"),
        ([*RUNS, {"gap": 1}], {}, "all have 'hyperparameters'"),
        (RUNS, {"gap": "loss"}, "all have 'loss'"),
        (flat(), {"measures": ["nosuch"], "gap": "error"}, "all have 'nosuch'"),
        (flat(), {"measures": [], "gap": "error"}, "at least one"),
        ([*RUNS, {**RUNS[0], "gap": math.nan}], {}, "finite gaps.*1 of 37"),
        (RUNS, {"least_difference": -1}, "`least_difference` must be"),
    ],
)
def test_refused(runs, arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_correlation(runs, **arguments)
