"""Masks and values as bytes: there and back, near the entropy, and nothing else."""

import math
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_spectral.compression import coding


def entropy(p):
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


masks = st.one_of(
    arrays.arrays(bool, st.integers(0, 2000)),
    # Sparse ones, whose gaps need several bytes.
    st.builds(
        lambda size, places: np.isin(np.arange(size), places),
        st.integers(0, 3000),
        st.lists(st.integers(0, 2999), max_size=9),
    ),
)


@given(masks, st.sampled_from(["bitmap", "delta", "auto"]))
@settings(deadline=None)
def test_masks_come_back(kept, index):
    name, packed = coding.encode_index(kept, index)
    assert name == index or index == "auto"
    back = coding.decode_index(name, packed, kept.size, int(kept.sum()))
    np.testing.assert_array_equal(back, kept)
    # Of another size or count it is not.
    for size, count in [(255, 0), (-255, 0), (0, 1), (0, -1)]:
        size, count = kept.size + size, int(kept.sum()) + count
        if min(size, count) >= 0:
            with pytest.raises(ValueError, match="index"):
                coding.decode_index(name, packed, size, count)


@given(
    st.sampled_from(["bitmap", "delta"]),
    st.binary(max_size=60),
    st.integers(0, 3000),
    st.integers(0, 60),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_mask_or_a_value_error(index, data, size, count, deflate):
    packed = np.frombuffer(zlib.compress(data) if deflate else data, "uint8")
    try:
        kept = coding.decode_index(index, packed, size, count)
    except ValueError:
        return
    assert kept.shape == (size,) and kept.sum() == count


def test_gaps_by_hand():
    def bytes_of(*places, size):
        kept = np.isin(np.arange(size), places)
        return list(zlib.decompress(coding.encode_index(kept, "delta")[1].tobytes()))

    assert bytes_of(0, 1, 5, size=6) == [0, 0, 3]
    assert bytes_of(254, size=255) == [254]
    assert bytes_of(255, size=256) == [255, 0]
    assert bytes_of(0, 600, size=1200) == [0, 255, 255, 89, 255, 255]


@pytest.mark.parametrize("law", ["normal", "laplace"])
@pytest.mark.parametrize("deviations", [1, 2, 3])
def test_an_index_is_near_the_entropy(rng, law, deviations):
    weights = getattr(rng, law)(size=500_000)
    kept = np.abs(weights) > deviations * weights.std()
    _, packed = coding.encode_index(kept)
    bound = kept.size * entropy(kept.mean())
    assert 0.999 < 8 * packed.size / bound < 1.2
    # With values of 16 bits, as in the table of sizes.
    values = 16 * kept.sum()
    assert (8 * packed.size + values) / (bound + values) < 1.07


def test_a_bomb_is_not_inflated():
    bomb = np.frombuffer(zlib.compress(bytes(10**8), 9), "uint8")
    tracemalloc.start()
    for index in coding.INDICES:
        with pytest.raises(ValueError, match="wrong length"):
            coding.decode_index(index, bomb, 1000, 10)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**6
    packed = coding.encode_index(np.ones(100, bool), "delta")[1]
    for other in (packed[:-1], np.append(packed, np.uint8(0))):
        with pytest.raises(ValueError, match="wrong length"):
            coding.decode_index("delta", other, 100, 100)
    with pytest.raises(ValueError, match="inflated"):
        coding.decode_index("delta", np.zeros(9, "uint8"), 100, 100)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kind", coding.VALUES)
def test_values_are_rounded_once(rng, dtype, kind):
    values = rng.standard_normal(1000).astype(coding.dtype_named(dtype))
    stored, scale = coding.encode_values(values, kind)
    assert stored.dtype.itemsize <= coding.dtype_named(kind).itemsize
    back = coding.decode_values(stored, scale, dtype)
    assert back.dtype == values.dtype
    wide = values.astype("float64")
    error = np.abs(back.astype("float64") - wide)
    if kind == "int8":
        assert scale == np.float32(np.abs(wide).max() / 127)
        # Half a step, and the rounding to a narrow type of the tensor.
        narrow = {"float16": 2**-11, "bfloat16": 2**-8}.get(dtype, 1e-7)
        assert (error <= 0.5001 * scale + narrow * np.abs(wide)).all()
    elif kind == dtype or (kind == "float32" and dtype != "float64"):
        assert not error.any()
    else:
        step = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24}[kind]
        smallest = 2**-24 if kind == "float16" else 0
        assert (error <= step * np.abs(wide) + smallest).all()


def test_values_beyond_a_type():
    with pytest.raises(ValueError, match="too large for float16"):
        coding.encode_values(np.array([7e4], "float32"), "float16")
    with pytest.raises(ValueError, match="not finite"):
        coding.encode_values(np.array([np.nan], "float32"), "int8")
    with pytest.raises(ValueError, match="not finite"):
        coding.encode_values(np.array([1e300]), "float32")
    stored, _ = coding.encode_values(np.array([7e4], "float32"), "bfloat16")
    assert stored.dtype == ml_dtypes.bfloat16
    for values in (np.zeros(0, "float32"), np.zeros(3, "float32")):
        stored, scale = coding.encode_values(values, "int8")
        assert scale == 1.0 and not stored.any()
