"""Measures of a trained network: spectra and power laws of its weights."""

from keras_spectral.measures.power_law import PowerLawFit, fit_power_law
from keras_spectral.measures.spectrum import Spectrum, SpectrumRow, spectrum

__all__ = ["PowerLawFit", "Spectrum", "SpectrumRow", "fit_power_law", "spectrum"]
