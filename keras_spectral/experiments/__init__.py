"""Experiments that run end to end and write what they found."""

from keras_spectral.experiments.analysis import (
    Analysis,
    AnalysisRow,
    analyze_checkpoint,
)
from keras_spectral.experiments.demo import Demo, digits_classifier, run_demo

__all__ = [
    "Analysis",
    "AnalysisRow",
    "Demo",
    "analyze_checkpoint",
    "digits_classifier",
    "run_demo",
]
