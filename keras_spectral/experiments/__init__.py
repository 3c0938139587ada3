"""Experiments that run end to end and write what they found.

They are imported at first use, so that a sweep's workers start Keras by themselves.
"""

import importlib

_MODULES = {
    "Analysis": "analysis",
    "AnalysisRow": "analysis",
    "Demo": "demo",
    "SweepRow": "checkpoint_row",
    "analyze_checkpoint": "analysis",
    "analyze_model": "analysis",
    "digits_classifier": "demo",
    "run_demo": "demo",
    "run_sweep": "sweep",
}

__all__ = [
    "Analysis",
    "AnalysisRow",
    "Demo",
    "SweepRow",
    "analyze_checkpoint",
    "analyze_model",
    "digits_classifier",
    "run_demo",
    "run_sweep",
]


def __getattr__(name):
    if name in _MODULES:
        module = importlib.import_module(f"keras_spectral.experiments.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(
        f"module 'keras_spectral.experiments' has no attribute '{name}'"
    )
