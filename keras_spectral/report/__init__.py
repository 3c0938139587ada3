"""Figures made from the rows of measures and compressions."""

from keras_spectral.report.analysis_figures import analysis_figure
from keras_spectral.report.figures import compression_figure, demo_figure, save

__all__ = ["analysis_figure", "compression_figure", "demo_figure", "save"]
