"""Which measure orders networks as their generalization gaps do?"""

import dataclasses
import itertools
import math

import numpy as np
from scipy import stats
from scipy.special import xlogy

from keras_spectral.results import Rows
from keras_spectral.validation import check_integer, check_not_negative

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
        worst_environment: String, which hyperparameter moves from what to what in it,
            and where the others stay.
        environments: Integer.
        conditional_information: Float in [0, 1]: what the measure's order tells of the
            gap's, as a share of what is to be told, the least over which
            hyperparameters are fixed.
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
    runs,
    measures=None,
    hyperparameters=None,
    gap="gap",
    least_difference=0.0,
    gap_samples=None,
    least_pairs=1,
) -> Rows:
    """Compare measures with the generalization gap over runs of one's own.

    - Kendall's tau orders all pairs of runs. A measure that merely follows one
      hyperparameter, which drives the gap, does well in it.
    - The sign error asks for more. An environment is two settings of the
      hyperparameters that differ in one; its error is the share of its pairs of runs,
      of repetitions of the one and of the other, that the measure orders otherwise than
      the gap does, where a measure that does not tell them apart is half wrong. The
      robust one is the worst environment's: without repetitions it is 1 as soon as one
      pair is wrong. `gap_samples` weighs pairs by how surely their gaps differ.
    - The conditional mutual information is that of the two orders of pairs of runs,
      given the values of two hyperparameters in both runs of a pair, divided by the
      entropy of the gap's order given these. The least is taken over which two they
      are: 0, a measure that says nothing once they are known; 1, one whose order, or
      the reverse, is always right. Where two leave no order open, as where there are no
      more and no repetitions, it is one, or none. Of few pairs it is too large: compare
      it with that of a random measure.

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
        gap_samples: Integer >= 1, of how many samples each gap is the mean of errors:
            a pair of runs weighs (p - 1/2)+ in its environment, p = (1 - 2 exp(-n d^2 /
            2))+^2 for gaps that differ by d, which bounds the probability that they do.
            `None`: all weigh the same. Dziugaite et al. have 10,000.
        least_pairs: Float >= 1; environments whose weights are worth fewer pairs, by
            (sum w)^2 / sum w^2, are left out. Dziugaite et al. have 12.

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
    >>> row.environments, row.robust_sign_error, row.worst_environment
    (9, 1.0, 'rate: 1, 2 at width=10')

    Source: [dziugaite2020] for the sign error of environments; [jiang2019b] for the
    conditional mutual information.
    """
    check_not_negative("least_difference", least_difference)
    if gap_samples is not None:
        check_integer("gap_samples", gap_samples, least=1)
    if not least_pairs >= 1:
        raise ValueError(
            f"`least_pairs` must be at least 1. Received: least_pairs={least_pairs}"
        )
    settings, values, gaps = _table(runs, measures, hyperparameters, gap)
    known = list(settings[0])
    rows = []
    for name in values[0]:
        measured = np.array([float(row[name]) for row in values])
        kept = np.flatnonzero(~np.isnan(measured))
        compared = _Compared(
            [settings[at] for at in kept],
            measured[kept],
            gaps[kept],
            least_difference,
            gap_samples,
        )
        tau, p_value = math.nan, math.nan
        if len(kept) > 1:
            tau, p_value = stats.kendalltau(measured[kept], gaps[kept])
        errors = compared.sign_errors(known, least_pairs)
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

    def __init__(self, settings, measured, gaps, least_difference, gap_samples):
        self.settings = settings
        # Not the sign of a difference: infinity less itself is none.
        self.order = _order(measured)
        apart = abs(gaps[:, None] - gaps)
        self.truth = np.where(apart > least_difference, _order(gaps), 0)
        self.weights = abs(self.truth).astype(float)
        if gap_samples is not None:
            surely = np.maximum(1 - 2 * np.exp(-gap_samples * apart**2 / 2), 0) ** 2
            self.weights *= np.maximum(surely - 0.5, 0)

    def sign_errors(self, known, least_pairs):
        """Return the error of each environment, by what moves in it and where."""
        found = {}
        for name in known:
            others = [other for other in known if other != name]
            for place, group in _grouped(self.settings, others).items():
                # All repetitions of a setting.
                runs = _grouped(self.settings, [name], group)
                ordered = sorted(runs, key=lambda value: _sorted_key(*value))
                for one, other in itertools.combinations(ordered, 2):
                    pairs = np.ix_(runs[one], runs[other])
                    weights = self.weights[pairs]
                    worth = weights.sum() ** 2 / max((weights**2).sum(), 1e-300)
                    if worth < least_pairs * (1 - 1e-9):
                        continue
                    errors = (1 - self.order[pairs] * self.truth[pairs]) / 2
                    where = ", ".join(map("{}={}".format, others, place))
                    key = f"{name}: {one[0]}, {other[0]}"
                    key += f" at {where}" if where else ""
                    found[key] = float((weights * errors).sum() / weights.sum())
        return found

    def conditional_information(self, known):
        """Return the normalized information, by what is fixed."""
        found, told = {}, self.truth != 0
        orders, truth = self.order[told] + 1, (self.truth[told] > 0).astype(int)
        for count in range(min(_MOST_FIXED, len(known)), -1, -1):
            for names in itertools.combinations(known, count):
                values = np.empty(len(self.settings), int)
                groups = _grouped(self.settings, names).values()
                for at, group in enumerate(groups):
                    values[group] = at
                # What is known of a pair: the values of both runs.
                both = (values[:, None] * len(groups) + values)[told]
                table = np.zeros((len(groups) ** 2, 3, 2))
                np.add.at(table, (both, orders, truth), 1)
                open_order = _entropy(table.sum(1))
                if open_order > 1e-9:
                    share = max(0.0, 1 - _entropy(table) / open_order)
                    found[", ".join(names) or "none"] = share
            if found:
                break
        return found


def _order(values):
    return (values[:, None] > values).astype(int) - (values[:, None] < values)


def _entropy(counts):
    """Return the entropy of the last axis given all others, times the sum of counts."""
    whole = counts.sum(-1)
    return float(xlogy(whole, whole).sum() - xlogy(counts, counts).sum())


def _grouped(settings, names, among=None):
    """Return a dict of lists of the runs that agree in some hyperparameters."""
    groups = {}
    for at in range(len(settings)) if among is None else among:
        key = tuple(settings[at][name] for name in names)
        groups.setdefault(key, []).append(at)
    return groups


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
