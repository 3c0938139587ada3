"""The command line, `keras-spectral VERB`; nothing else of the package imports it."""

from keras_spectral.cli.entry import main

__all__ = ["main"]
