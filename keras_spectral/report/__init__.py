"""Figures made from the rows of measures and compressions."""

from keras_spectral.report.analysis_figures import analysis_figure
from keras_spectral.report.figures import compression_figure, demo_figure, save
from keras_spectral.report.gan_figures import distribution_figure
from keras_spectral.report.heavy_tail_figures import (
    figure_1,
    figure_2,
    figure_3,
    stable_rank_mixture,
)
from keras_spectral.report.recipe_figures import recipe_figure

__all__ = [
    "analysis_figure",
    "compression_figure",
    "demo_figure",
    "distribution_figure",
    "figure_1",
    "figure_2",
    "figure_3",
    "recipe_figure",
    "save",
    "stable_rank_mixture",
]
