import math

import numpy as np
import pytest
from scipy.stats import norm

from keras_spectral.measures import fit_linear_mixture


def planted(size, deviation=0.1, seed=0):
    """Two lines, y = 3 + 0.1 x with 60 % of the points and y = 1 + 0.8 x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(3, 8, size)
    first = np.arange(size) < 0.6 * size
    y = np.where(first, 3 + 0.1 * x, 1 + 0.8 * x)
    return x, y + deviation * rng.standard_normal(size), first


def test_one_line_is_polyfit(rng):
    x = rng.uniform(100, 101, 30)
    y = 2e6 - 3e4 * x + rng.standard_normal(30)
    fit = fit_linear_mixture(x, y, components=(1,))
    slope, intercept = np.polyfit(x - 100, y, 1)
    errors = y - intercept - slope * (x - 100)
    assert fit.slopes == pytest.approx([slope], rel=1e-9)
    assert fit.intercepts + 100 * fit.slopes == pytest.approx([intercept], rel=1e-9)
    assert fit.deviations == pytest.approx([errors.std()], rel=1e-6)
    assert fit.weights == [1] and (fit.responsibilities == 1).all()
    expected = norm.logpdf(errors, scale=errors.std()).sum()
    assert fit.log_likelihood == pytest.approx(expected, rel=1e-8)
    assert fit.bic == pytest.approx(3 * math.log(30) - 2 * expected, rel=1e-8)


def test_two_planted_lines_are_found():
    """Within four standard errors of least squares on the points of each line."""
    x, y, first = planted(200)
    fit = fit_linear_mixture(x, y)
    assert fit.components == 2
    assert np.mean(fit.responsibilities.argmax(1) == ~first) > 0.97
    for k, (mine, slope, intercept) in enumerate(
        [(first, 0.1, 3.0), (~first, 0.8, 1.0)]
    ):
        spread = np.sqrt(((x[mine] - x[mine].mean()) ** 2).sum())
        error = 0.1 / spread
        assert abs(fit.slopes[k] - slope) < 4 * error
        at_zero = 0.1 * math.hypot(1 / math.sqrt(mine.sum()), x.mean() / spread)
        assert abs(fit.intercepts[k] - intercept) < 4 * at_zero
        relative = 1 / math.sqrt(2 * mine.sum())
        assert abs(fit.deviations[k] / 0.1 - 1) < 4 * relative
    assert fit.weights == pytest.approx([0.6, 0.4], abs=0.05)


def test_the_result_is_a_mixtures_own_likelihood():
    """By a loop over points and lines with SciPy's normal density."""
    x, y, _ = planted(60, deviation=0.4)
    fit = fit_linear_mixture(x, y, components=(3,))
    total = 0.0
    for i in range(x.size):
        parts = [
            fit.weights[k]
            * norm.pdf(
                y[i], fit.slopes[k] * x[i] + fit.intercepts[k], fit.deviations[k]
            )
            for k in range(3)
        ]
        total += math.log(sum(parts))
        shares = [part / sum(parts) for part in parts]
        assert fit.responsibilities[i] == pytest.approx(shares, abs=1e-9)
    assert fit.log_likelihood == pytest.approx(total, abs=1e-8)
    assert fit.bic == pytest.approx(11 * math.log(60) - 2 * total)
    assert fit.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3])
def test_the_likelihood_never_falls(seed, count):
    x, y, _ = planted(150, deviation=0.5, seed=seed)
    fit = fit_linear_mixture(x, y, components=(count,), seed=seed)
    assert len(fit.trace) > 3
    assert (np.diff(fit.trace) > -1e-9).all()


def test_more_lines_are_at_least_as_likely():
    x, y, _ = planted(43, deviation=0.3)
    one, two, three = fit_linear_mixture(x, y).candidates
    assert one.log_likelihood < two.log_likelihood < three.log_likelihood


def test_the_bic_takes_one_line_for_one_line():
    """Of 43 points, the paper's number; the share of mistakes is below a sixth."""
    mistakes = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = rng.uniform(1.5, 5, 43)
        y = 2 + 0.5 * x + 0.4 * rng.standard_normal(43)
        mistakes += fit_linear_mixture(x, y, restarts=5).components > 1
    assert mistakes <= 5


def test_no_component_collapses_on_a_few_points():
    """Two points that are joined by an exact line, and four equal ones, are no line."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 1, 30), [0.5] * 4])
    y = np.concatenate([rng.standard_normal(30), [9.0] * 4])
    fit = fit_linear_mixture(x, y)
    assert fit.responsibilities.sum(0).min() >= 5.99
    whole = np.std(y - np.polyval(np.polyfit(x, y, 1), x))
    assert fit.deviations.min() > 0.0999 * whole


def test_the_scales_do_not_matter():
    x, y, _ = planted(43)
    fit = fit_linear_mixture(x, y)
    scaled = fit_linear_mixture(1e-8 * x + 3e-8, 1e9 * y - 1e9)
    assert scaled.components == fit.components == 2
    assert scaled.slopes == pytest.approx(1e17 * fit.slopes)
    assert scaled.responsibilities == pytest.approx(fit.responsibilities, abs=1e-6)
    likelihood = fit.log_likelihood - 43 * math.log(1e9)
    assert scaled.log_likelihood == pytest.approx(likelihood)


def test_points_on_one_line():
    x = np.arange(20.0)
    fit = fit_linear_mixture(x, 2 * x - 1)
    assert fit.components == 1 and fit.slopes == pytest.approx([2])
    flat = fit_linear_mixture(x, np.full(20, 7.0))
    assert flat.components == 1 and flat.intercepts == pytest.approx([7])


def test_a_seed_gives_the_same_fit_and_few_points_one_line():
    x, y, _ = planted(43, deviation=0.5)
    one, other = (fit_linear_mixture(x, y, seed=3) for _ in range(2))
    assert (one.responsibilities == other.responsibilities).all()
    few = fit_linear_mixture(x[:8], y[:8])
    assert few.components == 1
    assert [row.status for row in few.candidates][1:] == ["too few points"] * 2


@pytest.mark.parametrize(
    ("x", "y", "arguments", "message"),
    [
        (range(5), range(5), {}, "6 points"),
        (range(6), range(7), {}, "one number a point"),
        ([1] * 6, range(6), {}, "two different numbers"),
        ([math.nan, *range(6)], range(7), {}, "finite"),
        (range(6), range(6), {"components": ()}, "components"),
        (range(6), range(6), {"components": (0,)}, "components"),
        (range(6), range(6), {"components": (2,)}, "too few points"),
        (range(6), range(6), {"restarts": 0}, "restarts"),
    ],
)
def test_bad_arguments(x, y, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_linear_mixture(list(x), list(y), **arguments)
