"""Figures made from the rows of measures and compressions."""

from keras_spectral.report.figures import compression_figure, demo_figure, save

__all__ = ["compression_figure", "demo_figure", "save"]
