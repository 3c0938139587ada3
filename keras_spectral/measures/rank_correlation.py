"""Which measure orders networks as their generalization gaps do?"""

import dataclasses
import itertools
import math

import numpy as np
from scipy import stats

from keras_spectral.results import Rows
from keras_spectral.validation import check_not_negative

# Hyperparameters that are held fixed together, as the competition has it.
_MOST_FIXED = 2


@dataclasses.dataclass(frozen=True)
class CorrelationRow:
    """How one measure goes with the generalization gap.

    Args:
        measure: String.
        runs: Integer, runs that have it.
        kendall_tau: Float in [-1, 1]: tau-b, over all pairs of runs.
        p_value: Float, of no relation at all; it takes the runs for independent.
        sign_error: Float in [0, 1], the mean over the environments of the share of
            pairs that the measure orders wrongly; 0.5 is guessing.
        robust_sign_error: Float in [0, 1], that of the worst environment.
        worst_environment: String, which hyperparameter moves from what to what in it.
        environments: Integer.
        conditional_information: Float in [0, 1]: the least mutual information of the
            orders, over which hyperparameters are fixed, as a share of its largest.
        fixed: String, those hyperparameters.
    """

    measure: str
    runs: int
    kendall_tau: float = dataclasses.field(metadata={"label": "tau", "format": ".3f"})
    p_value: float = dataclasses.field(metadata={"format": ".2g"})
    sign_error: float = dataclasses.field(metadata={"format": ".3f"})
    robust_sign_error: float = dataclasses.field(
        metadata={"label": "worst sign error", "format": ".3f"}
    )
    worst_environment: str = dataclasses.field(metadata={"label": "where"})
    environments: int
    conditional_information: float = dataclasses.field(
        metadata={"label": "conditional information", "format": ".3f"}
    )
    fixed: str


def rank_correlation(
    runs, measures=None, hyperparameters=None, gap="gap", least_difference=0.0
) -> Rows:
    """Compare measures with the generalization gap over runs of one's own.

    - Kendall's tau orders all pairs of runs. A measure that merely follows one
      hyperparameter, which drives the gap, does well in it.
    - The sign error asks for more. In an environment one hyperparameter moves from a
      value to another and all others are equal; its error is the share of its pairs of
      runs that the measure orders otherwise than the gap does, where a measure that
      does not tell them apart is half wrong. The robust one is the worst environment's.
    - The conditional mutual information is that of the two orders over pairs of runs
      that agree in up to two hyperparameters, the least over which these are, divided
      by the entropy of the gap's order: 0, a measure that says nothing once they are
      fixed; 1, one whose order, or the reverse, is always right. Of few pairs it is too
      large: compare it with that of a random measure.

    Args:
        runs: List of dicts with the keys `"hyperparameters"` and `"measures"`, dicts
            by name, and `"gap"`; or, with `measures`, flat dicts or a
            `pandas.DataFrame`. What no network should differ in, such as the seed, is
            left out of the hyperparameters: runs that are equal in them are then
            repetitions.
        measures: List of names, of flat runs.
        hyperparameters: List of names, of flat runs; by default all others.
        gap: String, the name of the gap, which is test less training error or
            whatever is to be ordered.
        least_difference: Float >= 0; pairs whose gaps differ by no more count for
            neither of the last two.

    Returns:
        `Rows` of `CorrelationRow`, one a measure. NaN where there is no such pair. Runs
        whose measure is NaN are left out of it; infinity is larger than all.

    Raises:
        ValueError: If there are fewer than two runs, one lacks a name, or a gap is not
            finite.

    Example:
    >>> runs = [
    ...     {"hyperparameters": {"width": w, "rate": r}, "measures": {"norm": w - r},
    ...      "gap": w + r}
    ...     for w in (10, 20) for r in (1, 2, 3)
    ... ]
    >>> row = rank_correlation(runs)[0]
    >>> row.sign_error, row.robust_sign_error, row.worst_environment
    (0.75, 1.0, 'rate: 1, 2')

    Source: [jiang2019b] for the conditional mutual information; [dziugaite2020] for the
    sign error of environments.
    """
    check_not_negative("least_difference", least_difference)
    settings, values, gaps = _table(runs, measures, hyperparameters, gap)
    known = list(settings[0])
    rows = []
    for name in values[0]:
        measured = np.array([float(row[name]) for row in values])
        kept = np.flatnonzero(~np.isnan(measured))
        compared = _Compared(
            [settings[at] for at in kept], measured[kept], gaps[kept], least_difference
        )
        tau, p_value = math.nan, math.nan
        if len(kept) > 1:
            tau, p_value = stats.kendalltau(measured[kept], gaps[kept])
        errors = compared.sign_errors(known)
        worst = max(errors, key=errors.get, default="-")
        information = compared.conditional_information(known)
        fixed = min(information, key=information.get, default="-")
        rows.append(
            CorrelationRow(
                measure=name,
                runs=len(kept),
                kendall_tau=float(tau),
                p_value=float(p_value),
                sign_error=float(np.mean(list(errors.values())))
                if errors
                else math.nan,
                robust_sign_error=errors.get(worst, math.nan),
                worst_environment=worst,
                environments=len(errors),
                conditional_information=information.get(fixed, math.nan),
                fixed=fixed,
            )
        )
    return Rows(
        rows,
        title=f"Measures and the generalization gap of {len(gaps)} runs",
        caption="Sign error: 0.5 is guessing. Conditional information: 0 is none, 1 an "
        "order that is always right, or always wrong.",
    )


class _Compared:
    """The orders of all pairs of runs by a measure and by the gap."""

    def __init__(self, settings, measured, gaps, least_difference):
        self.settings = settings
        # Not the sign of a difference: infinity less itself is none.
        self.order = _order(measured)
        self.truth = np.where(
            abs(gaps[:, None] - gaps) > least_difference, _order(gaps), 0
        )

    def sign_errors(self, known):
        """Return the error of each environment, by what moves in it."""
        found = {}
        for name in known:
            groups = _grouped(
                self.settings, [other for other in known if other != name]
            )
            for group in groups:
                for i, j in itertools.permutations(group, 2):
                    values = self.settings[i][name], self.settings[j][name]
                    if _sorted_key(values[0]) < _sorted_key(values[1]):
                        pair = (1 - self.order[i, j] * self.truth[i, j]) / 2
                        key = f"{name}: {values[0]}, {values[1]}"
                        if self.truth[i, j]:
                            found.setdefault(key, []).append(pair)
        return {key: float(np.mean(pairs)) for key, pairs in found.items()}

    def conditional_information(self, known):
        """Return the normalized information, by what is fixed."""
        found = {}
        for count in range(min(_MOST_FIXED, len(known)) + 1):
            for names in itertools.combinations(known, count):
                total, pairs = 0.0, 0
                for group in _grouped(self.settings, names):
                    inside = np.ix_(group, group)
                    truth = self.truth[inside]
                    told = truth != 0
                    orders = self.order[inside][told]
                    total += told.sum() * _information(orders, truth[told])
                    pairs += int(told.sum())
                if pairs:
                    # Both ways round, a pair's truth has the entropy log 2.
                    share = float(total) / pairs / math.log(2)
                    found[", ".join(names) or "none"] = share
        return found


def _order(values):
    return (values[:, None] > values).astype(int) - (values[:, None] < values)


def _information(first, second):
    """Return the mutual information of two arrays of signs, in nats."""
    total = 0.0
    for a, b in itertools.product((-1, 0, 1), (-1, 1)):
        both = np.mean((first == a) & (second == b)) if len(first) else 0.0
        if both:
            total += both * math.log(
                both / (np.mean(first == a) * np.mean(second == b))
            )
    return max(0.0, float(total))


def _grouped(settings, names):
    """Return lists of the runs that agree in some hyperparameters."""
    groups = {}
    for at, setting in enumerate(settings):
        groups.setdefault(tuple(setting[name] for name in names), []).append(at)
    return groups.values()


def _sorted_key(value):
    """Return what orders values, numbers among themselves and words too."""
    is_number = isinstance(value, (int, float, np.number))
    return (not is_number, value if is_number else 0, str(value))


def _table(runs, measures, hyperparameters, gap):
    """Return the hyperparameters, the measures and the gaps of all runs."""
    if hasattr(runs, "to_dict"):
        runs = runs.to_dict("records")
    runs = list(runs)
    if len(runs) < 2:
        raise ValueError(
            f"`runs` must be two runs or more. Received: {len(runs)}. A correlation "
            "needs pairs."
        )
    try:
        if measures is None:
            names = list(runs[0]["hyperparameters"])
            settings = [{n: run["hyperparameters"][n] for n in names} for run in runs]
            kinds = list(runs[0]["measures"])
            values = [{name: run["measures"][name] for name in kinds} for run in runs]
        else:
            kinds = list(measures)
            names = hyperparameters
            if names is None:
                names = [name for name in runs[0] if name not in (*kinds, gap)]
            settings = [{name: run[name] for name in names} for run in runs]
            values = [{name: run[name] for name in kinds} for run in runs]
        gaps = np.array([float(run[gap]) for run in runs])
    except KeyError as error:
        raise ValueError(
            f"`runs` must all have {error.args[0]!r}. Received: one without. Runs are "
            'dicts with "hyperparameters", "measures" and "gap"; pass `measures` with '
            "the names for flat ones."
        ) from None
    if not kinds:
        raise ValueError("`measures` must name at least one. Received: none")
    if not np.isfinite(gaps).all():
        raise ValueError(
            "`runs` must have finite gaps. Received: NaN or infinity in "
            f"{int((~np.isfinite(gaps)).sum())} of {len(gaps)}. Leave these out."
        )
    return settings, values, gaps
