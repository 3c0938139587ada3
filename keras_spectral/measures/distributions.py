"""What a measure of each sample comes to over all of them: quantiles, histograms."""

import dataclasses

import numpy as np

from keras_spectral.results import Rows


@dataclasses.dataclass(frozen=True)
class DistributionRow:
    """The law of one measure over the samples, or pairs of them.

    Args:
        name: String.
        samples: Integer, how many counted.
        left_out: Integer, how many did not: see the function that made it.
        minimum, percentile_10, median, percentile_90, percentile_95, maximum, mean:
            Floats; NaN where no sample counted.
    """

    name: str
    samples: int
    left_out: int = dataclasses.field(metadata={"label": "left out"})
    minimum: float
    percentile_10: float = dataclasses.field(metadata={"label": "10 %"})
    median: float
    percentile_90: float = dataclasses.field(metadata={"label": "90 %"})
    percentile_95: float = dataclasses.field(metadata={"label": "95 %"})
    maximum: float
    mean: float


class Distributions(Rows):
    """Rows of `DistributionRow`, one a measure, and the values that they are of.

    Args:
        values: Dict from a measure's name to a float64 array, one number a sample or
            pair in the order in which they were given; NaN where it was left out.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> found = Distributions({"margin": np.array([1.0, 3.0, np.nan])})
    >>> found[0].median, found[0].left_out, found.percentile("margin", 100)
    (2.0, 1, 3.0)
    """

    def __init__(self, values, **kwargs):
        self.values = {k: np.asarray(v, "float64") for k, v in values.items()}
        super().__init__([_row(*item) for item in self.values.items()], **kwargs)

    def percentile(self, name: str, percent: float) -> float:
        """Return a percentile of a measure over the samples that counted.

        Args:
            name: String, a row's.
            percent: Float from 0 to 100; the papers print the 90th of the measures of
                complexity and the 95th of empirical Lipschitz constants.
        """
        counted = _counted(self.values[name])
        return float(np.percentile(counted, percent)) if len(counted) else np.nan

    def histogram(self, name: str, bins=50):
        """Return a measure's histogram, as `numpy.histogram` does.

        Args:
            name: String, a row's.
            bins: Integer, or the edges.

        Returns:
            Tuple of the counts and the edges.
        """
        return np.histogram(_counted(self.values[name]), bins)


def _counted(values):
    return values[~np.isnan(values)]


def _row(name, values):
    counted = _counted(values)
    points = [np.nan] * 7
    if len(counted):
        points = [*np.percentile(counted, (0, 10, 50, 90, 95, 100)), counted.mean()]
    left_out = len(values) - len(counted)
    return DistributionRow(name, len(counted), left_out, *map(float, points))
