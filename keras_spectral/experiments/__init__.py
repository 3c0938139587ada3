"""Experiments that run end to end and write what they found."""

from keras_spectral.experiments.demo import Demo, digits_classifier, run_demo

__all__ = ["Demo", "digits_classifier", "run_demo"]
