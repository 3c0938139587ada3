"""The command line, `keras-spectral VERB`; nothing else of the package imports it."""

from keras_spectral.cli.app import app, main

__all__ = ["app", "main"]
