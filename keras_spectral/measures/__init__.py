"""Measures of a trained network: spectra and power laws of its weights, cushions."""

from keras_spectral.measures.cushions import CushionRow, Cushions, cushions
from keras_spectral.measures.power_law import PowerLawFit, fit_power_law
from keras_spectral.measures.spectrum import Spectrum, SpectrumRow, spectrum

__all__ = [
    "CushionRow",
    "Cushions",
    "PowerLawFit",
    "Spectrum",
    "SpectrumRow",
    "cushions",
    "fit_power_law",
    "spectrum",
]
