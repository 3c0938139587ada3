"""Compression of trained networks, and a certificate of what is left."""

from keras_spectral.compression.approximation import (
    approximate_matrix,
    split,
)
from keras_spectral.compression.assumptions import AssumptionRow, check_assumptions
from keras_spectral.compression.certification import (
    CertificateRow,
    ErrorCertificate,
    certify_error,
    quantize_large_weights,
)
from keras_spectral.compression.factorization import FactorizationRow, factorize
from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    CompressionRows,
    compare_replacements,
    compress,
    compress_matrix,
)
from keras_spectral.compression.low_rank import (
    Truncation,
    round_factors,
    truncate,
)
from keras_spectral.compression.masks import ReplacedKernel, compression_of, keep_mask
from keras_spectral.compression.projection import (
    project_matrix,
    project_vector,
    rebuild_matrix,
    rebuild_vector,
)
from keras_spectral.compression.rounding import round_weights
from keras_spectral.compression.storage import (
    load_compressed,
    save_compressed,
)
from keras_spectral.compression.storage_rows import StorageRow

__all__ = [
    "AssumptionRow",
    "CertificateRow",
    "CompressionRow",
    "CompressionRows",
    "ErrorCertificate",
    "FactorizationRow",
    "ReplacedKernel",
    "StorageRow",
    "Truncation",
    "approximate_matrix",
    "certify_error",
    "check_assumptions",
    "compare_replacements",
    "compress",
    "compress_matrix",
    "compression_of",
    "factorize",
    "keep_mask",
    "load_compressed",
    "project_matrix",
    "project_vector",
    "quantize_large_weights",
    "rebuild_matrix",
    "rebuild_vector",
    "round_factors",
    "round_weights",
    "save_compressed",
    "split",
    "truncate",
]


def __getattr__(name):
    hint = ". It is `compress` now." if name == "apply" else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
