"""Measures of a trained network: spectra, power laws, margins and cushions."""

from keras_spectral.measures.alpha_stable import (
    AlphaStableFit,
    alpha_stable_density,
    alpha_stable_tail,
    fit_alpha_stable,
    sample_alpha_stable,
)
from keras_spectral.measures.cushions import CushionRow, Cushions, cushions
from keras_spectral.measures.eigenvalues import (
    EigenvalueFit,
    fit_eigenvalues,
    random_edge,
    squared_singular_values,
)
from keras_spectral.measures.linear_mixture import LinearMixture, fit_linear_mixture
from keras_spectral.measures.margins import margin_loss, margins
from keras_spectral.measures.power_law import (
    ComparisonRow,
    GoodnessOfFit,
    PowerLawFit,
    compare_power_law,
    fit_power_law,
    goodness_of_fit,
)
from keras_spectral.measures.spectrum import Spectrum, SpectrumRow, spectrum

__all__ = [
    "AlphaStableFit",
    "ComparisonRow",
    "CushionRow",
    "Cushions",
    "EigenvalueFit",
    "GoodnessOfFit",
    "LinearMixture",
    "PowerLawFit",
    "Spectrum",
    "SpectrumRow",
    "alpha_stable_density",
    "alpha_stable_tail",
    "compare_power_law",
    "cushions",
    "fit_alpha_stable",
    "fit_eigenvalues",
    "fit_linear_mixture",
    "fit_power_law",
    "goodness_of_fit",
    "margin_loss",
    "margins",
    "random_edge",
    "sample_alpha_stable",
    "spectrum",
    "squared_singular_values",
]
