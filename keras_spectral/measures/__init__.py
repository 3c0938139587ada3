"""Measures of a trained network: spectra and power laws of its weights."""

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
    "ComparisonRow",
    "GoodnessOfFit",
    "PowerLawFit",
    "Spectrum",
    "SpectrumRow",
    "compare_power_law",
    "fit_power_law",
    "goodness_of_fit",
    "spectrum",
]
