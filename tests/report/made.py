"""Results as verbs leave them, small enough for a page of tests."""

import numpy as np

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror=hack()>"


def analysis(names, seed=0):
    rng = np.random.default_rng(seed)
    tensors = []
    for name in names:
        values = np.linalg.svd(rng.standard_normal((40, 30)))[1] ** 2
        tensors.append(
            dict(name=name, kind="convolution", shape=[30, 5, 4, 2], note=None,
                 spectral_norm=float(values[0] ** 0.5),
                 stable_rank=float(values.sum() / values[0]), view="reshaped",
                 alpha_pdf=12.5, standard_error=1.5, tail_size=80, status="ok",
                 eigenvalue_alpha=float(3 + rng.random()), eigenvalue_error=0.4,
                 eigenvalue_tail=20, eigenvalue_status="too small",
                 eigenvalue_xmin=float(values[20]), spikes=2, bulk="ok",
                 shuffled_spikes=0, root_mean_square=1.0, kurtosis=None, alpha_hat=4.0,
                 log_norm=2.0, log_alpha_norm=2.1, bulk_edge=float(values[2]),
                 sampled=1200, eigenvalues=values.tolist())
        )  # fmt: skip
    source = {"file": f"folder/{HOSTILE}.pth", "sha256": "0" * 64}
    return {
        "source": source,
        "tensors": tensors,
        "skipped": {"bias": "a vector, no matrix"},
    }


def recipe():
    rows, cells = [], []
    for place, variant in enumerate(("plain", "SN")):
        rows.append(
            dict(network="net", variant=variant, measure="test_accuracy",
                 published=0.9, mean=0.8 + place / 10, half_width_95=0.02,
                 half_width_75=0.01, difference=None, difference_half_width=None,
                 seeds=3)
        )  # fmt: skip
        history = [
            {"epoch": epoch, "loss": 1 / epoch, "accuracy": 1 - 1 / epoch}
            for epoch in range(1, 9)
        ]
        cells.append(
            dict(network="net", variant=variant, seed=0, error=None, history=history)
        )
    cells[1]["error"] = "OSError: no space left"
    claims = [
        dict(name="C1", network="net", says="SN is better", verdict="holds",
             differences="SN - plain: +0.1")
    ]  # fmt: skip
    pixel = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
    return {"rows": rows, "claims": claims, "cells": cells, "status": "complete",
            "images": [("Images of net", pixel)]}  # fmt: skip


def compression():
    row = dict(name="output", trials=3, alpha_pdf=3.0, alpha_tail=2.0, kept=0.3,
               relative_error=0.5, original_accuracy=0.99)  # fmt: skip
    rows = [
        {**row, "rule": "magnitude", "replacement": word,
         "compressed_accuracy_mean": mean, "compressed_accuracy_sd": sd}
        for word, mean, sd in (("gaussian", 0.9, 0.01), ("zero", 0.95, 0.0))
    ]  # fmt: skip
    return {"replacements": rows, "rule": "magnitude", "replacement": "zero",
            "deviations": 1.0, "values": "int8", "rank_ratio": None, "bytes": 900,
            "float32_bytes": 4000, "int8_bytes": 1000, "int8_accuracy": 0.985,
            "accuracy": 0.95}  # fmt: skip


NAMES = [HOSTILE, *(f"stage.block{i}.conv{j}.kernel" for i in range(5) for j in (1, 2))]


def everything():
    """Two analyses that are compared, learning curves, images, accuracies."""
    return {
        "results": {
            "a": analysis(NAMES[:10]),
            "b": analysis(NAMES[1:4], seed=1),
            "recipe": recipe(),
            "compression": compression(),
        }
    }
