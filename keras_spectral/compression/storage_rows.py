"""Rows that tell what a compressed file takes, weight by weight."""

import dataclasses

from keras_spectral.results import column


@dataclasses.dataclass(frozen=True)
class StorageRow:
    """Bytes of one weight, of the description, or of the whole file.

    Args:
        name: String, the weight's path; `"total"` of the file.
        stored: String, how: a type, with an index where weights are left out.
        shape: List of integers.
        kept: Float in [0, 1], share of the weights that are stored.
        bytes: Integer, of it in this file.
        float32_bytes: Integer, of it in a file that is not compressed.
        float16_bytes: Integer, likewise.
        int8_bytes: Integer, likewise, with one scale a matrix.
        float32_ratio: Float, those bytes by the bytes here.
        float16_ratio: Float, likewise.
        int8_ratio: Float, likewise.
        error: Float, relative, of rounding the stored values.
    """

    name: str = column("weight")
    stored: str = column("stored as")
    shape: list | None = column(table=False)
    kept: float | None = column("kept", ".2%")
    bytes: int = column("bytes")
    float32_bytes: int = column(table=False)
    float16_bytes: int = column(table=False)
    int8_bytes: int = column(table=False)
    float32_ratio: float = column("fp32 /", ".2f")
    float16_ratio: float = column("fp16 /", ".2f")
    int8_ratio: float = column("int8 /", ".2f")
    error: float | None = column("rounding", ".1e")


def storage_row(name, stored, size, dense, shape=None, kept=None, error=None):
    """Return a `StorageRow` with the ratios of bytes to those of uncompressed files."""
    ratios = [bytes_ / size if size else 1.0 for bytes_ in dense]
    return StorageRow(name, stored, shape, kept, size, *dense, *ratios, error)
