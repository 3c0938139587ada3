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
    """The loss of each pair of settings that differ in one hyperparameter, as
    Dziugaite et al. define it: the mean over the pairs of their repetitions."""
    order = {8: 0, 16: 1, 32: 2, 0.01: 0, 0.1: 1, "none": 0, "some": 1}
    found = {}
    for one, other in itertools.permutations(runs, 2):
        a, b = one["hyperparameters"], other["hyperparameters"]
        moved = [name for name in a if a[name] != b[name]]
        if len(moved) == 1 and order[a[moved[0]]] < order[b[moved[0]]]:
            measured = sign(other["measures"][measure] - one["measures"][measure])
            error = (1 - measured * sign(other["gap"] - one["gap"])) / 2
            where = ", ".join(f"{k}={v}" for k, v in a.items() if k != moved[0])
            key = f"{moved[0]}: {a[moved[0]]}, {b[moved[0]]} at {where}"
            found.setdefault(key, []).append(error)
    return {key: np.mean(errors) for key, errors in found.items()}


@pytest.mark.parametrize("measure", RUNS[0]["measures"])
def test_sign_errors_are_those_of_plain_loops(measure):
    expected = sign_errors(RUNS, measure)
    row = row_of(RUNS, measure)
    # 3 pairs of widths in 4 settings of the rest, 1 of rates and decays in 6 each.
    assert row.environments == len(expected) == 24
    assert row.sign_error == pytest.approx(np.mean(list(expected.values())))
    assert row.robust_sign_error == pytest.approx(max(expected.values()))
    assert expected[row.worst_environment] == pytest.approx(row.robust_sign_error)


def information(runs, measure, fixed, itself=False):
    """I(order of the measure; order of the gap | both runs' values) / H(gap's order |
    the values), by scikit-learn and the chain rule; with `itself` as the competition
    counts, whose tables have each run beside itself, as a smaller one."""
    given, orders, gaps = [], [], []
    for one, other in itertools.product(runs, repeat=2):
        if itself or one is not other:
            a, b = one["hyperparameters"], other["hyperparameters"]
            given.append(str([(a[name], b[name]) for name in fixed]))
            order = sign(one["measures"][measure] - other["measures"][measure])
            orders.append(order > 0 if itself else order)
            gaps.append(one["gap"] > other["gap"])
    both = [f"{order} {values}" for order, values in zip(orders, given, strict=True)]
    known = mutual_info_score(given, gaps)
    told = mutual_info_score(both, gaps) - known
    return told / (mutual_info_score(gaps, gaps) - known)


@pytest.mark.parametrize("measure", RUNS[0]["measures"])
def test_the_information_is_that_of_scikit_learn(measure):
    expected = {
        ", ".join(fixed): information(RUNS, measure, fixed)
        for fixed in itertools.combinations(RUNS[0]["hyperparameters"], 2)
    }
    row = row_of(RUNS, measure)
    assert row.conditional_information == pytest.approx(
        min(expected.values()), abs=1e-12
    )
    assert expected[row.fixed] == pytest.approx(row.conditional_information, abs=1e-12)


def cube(measure):
    """Eight runs on a cube of hyperparameters without repetition."""
    return [
        {**dict(zip("abc", at, strict=True)), "m": measure(*at), "gap": gap(*at)}
        for at in itertools.product((0, 1), repeat=3)
        for gap in [lambda a, b, c: 4 * a + 2 * b + c]
    ]


def test_information_worked_by_hand():
    """The measure takes c the wrong way round.

    Given a and b, all that is open is the order by c: always wrong, information 1.
    Given a and c: 8 pairs that agree in both (b decides, right: 1 bit of 1), 16 with
    equal a and other c, in 4 groups whose table is (+, +) 1, (+, -) 2, (-, -) 1; of the
    others a decides. Given b and c: 8 pairs that agree (a decides, right), 32 with
    other b in tables (+, +) 3, (-, -) 1, and 16 with equal b and other c, as above.
    """
    h = 2 - 0.75 * math.log2(3)  # The entropy of (3/4, 1/4).
    i = 0.5 * math.log2(4 / 3) + 0.5 * math.log2(8 / 9)
    given_ac = (8 + 16 * i) / (8 + 16 * h)
    given_bc = (8 + 32 * h + 16 * i) / (8 + 48 * h)
    row = rank_correlation(cube(lambda a, b, c: 4 * a + 2 * b - c), ["m"])[0]
    assert (
        row.conditional_information == pytest.approx(given_ac) and given_ac < given_bc
    )
    assert given_ac == pytest.approx(0.474770, abs=1e-6) and row.fixed == "a, c"
    # One that is noise for all but a: given a and another, nothing.
    row = rank_correlation(cube(lambda a, b, c: a), ["m"])[0]
    assert row.conditional_information == 0 and "a" in row.fixed.split(", ")


def test_two_hyperparameters_without_repetitions():
    """Given both no order is open; given one, that of the other."""
    runs = [
        {**run, "gap": run["gap"]} for run in cube(lambda a, b, c: b) if not run["a"]
    ]
    row = rank_correlation(runs, ["m"], ["b", "c"])[0]
    assert (row.conditional_information, row.fixed) == (0, "b")
    assert math.isnan(rank_correlation(runs[:1] * 2, ["m"])[0].conditional_information)


def test_runs_beside_themselves_change_little():
    """The competition's scoring counts them: a matter of percents."""
    for measure in ("noisy", "truth", "size", "random"):
        expected = min(
            information(RUNS, measure, fixed, itself=True)
            for fixed in itertools.combinations(RUNS[0]["hyperparameters"], 2)
        )
        found = row_of(RUNS, measure).conditional_information
        assert found == pytest.approx(expected, abs=0.05)


def test_weights_of_pairs_worked_by_hand():
    """n = 10,000: gaps that differ by 0.02 weigh (1 - 2 / e^2)^2 - 1/2, 0.0319; by 0.05
    0.499985; by 0.01, where the square is 0, nothing."""
    runs = [
        {"rate": rate, "m": m, "gap": gap}
        for rate, m, gap in [(1, 3, 0.10), (2, 4, 0.12), (2, 2, 0.15), (2, 1, 0.11)]
    ]
    arguments = {"measures": ["m"], "hyperparameters": ["rate"]}
    assert rank_correlation(runs, **arguments)[0].sign_error == pytest.approx(2 / 3)
    arguments["gap_samples"] = 10_000
    row = rank_correlation(runs, **arguments)[0]
    small = (1 - 2 * math.exp(-2)) ** 2 - 0.5
    large = (1 - 2 * math.exp(-12.5)) ** 2 - 0.5
    assert row.sign_error == pytest.approx(large / (small + large))
    assert row.sign_error == pytest.approx(0.94, abs=1e-3)
    # Worth (small + large)^2 / (small^2 + large^2) = 1.127 pairs.
    assert rank_correlation(runs, **arguments, least_pairs=1.12)[0].environments == 1
    row = rank_correlation(runs, **arguments, least_pairs=1.13)[0]
    assert row.environments == 0 and math.isnan(row.robust_sign_error)


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
        (RUNS, {"gap_samples": 0}, "`gap_samples` must be"),
        (RUNS, {"least_pairs": 0}, "`least_pairs` must be at least 1"),
    ],
)
def test_refused(runs, arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_correlation(runs, **arguments)
