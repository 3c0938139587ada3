"""Norms on the host: never below SVDs of the kernel's transform, and close to them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import keras_spectral.linalg.certified_norms as module
from keras_spectral.linalg import convolution_operator, transposed_convolution_operator
from keras_spectral.linalg.certified_norms import certified_norm
from keras_spectral.linalg.threads import one_thread
from keras_spectral.measures.kernel_certificates import matrix_norm


def largest_of_grid(kernel, points):
    """The norm at the most of a fine grid of frequencies, by float64 SVDs."""
    axes = tuple(range(kernel.ndim - 2))
    transforms = np.fft.fftn(kernel, (points,) * len(axes), axes=axes)
    return np.linalg.svd(transforms, compute_uv=False).max()


def adversarial(rng, kind, shape):
    kernel = rng.standard_normal(shape)
    if kind == "positive":
        return np.abs(kernel)
    if kind == "rank one":
        return kernel[..., :1] * rng.standard_normal(shape[-1])
    if kind == "orthonormal":
        u, _, vt = np.linalg.svd(kernel, full_matrices=False)
        return u @ vt
    if kind == "one tap":
        kernel *= 0
        kernel[-1, 0] = np.diag(np.ones(max(shape[-2:])))[: shape[-2], : shape[-1]]
    if kind == "between":
        # I + R exp(it) has its peak at the angle of the rotation R: any frequency.
        angle, taps = rng.uniform(0, math.pi), shape[0]
        kernel = np.zeros((*shape[:2], 2, 2))
        for tap in range(taps):
            turn = tap * angle
            kernel[tap, 0] = [
                [math.cos(turn), -math.sin(turn)],
                [math.sin(turn), math.cos(turn)],
            ]
    return kernel


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(
        ["random", "positive", "rank one", "orthonormal", "one tap", "between"]
    ),
    taps=st.sampled_from([(1, 1), (2, 1), (3, 3), (2, 4), (5, 2)]),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    tolerance=st.sampled_from([0.3, 0.01, 0.002]),
    scale=st.sampled_from([1e-300, 1.0, 1e150]),
)
@settings(max_examples=120, deadline=None)
def test_never_below_and_within_the_tolerance(
    seed, kind, taps, channels, tolerance, scale
):
    kernel = adversarial(np.random.default_rng(seed), kind, (*taps, *channels))
    exact = largest_of_grid(kernel, 48) * scale
    bound = certified_norm(kernel * scale, "convolution", tolerance=tolerance)
    # How far the norm on an unbounded image can be above that on the fine grid.
    most = math.prod(1 / math.cos(math.pi * (size - 1) / 96) for size in taps)
    assert exact * (1 - 1e-14) <= bound <= exact * most * (1 + tolerance) * (1 + 1e-9)


def test_thousands_of_kernels_whose_peak_is_between_the_grid(rng):
    for _ in range(2000):
        kernel = adversarial(rng, "between", (int(rng.integers(2, 4)), 1))
        # Taps of orthogonal matrices that all point one way at one frequency.
        bound = certified_norm(kernel, "convolution")
        assert len(kernel) <= bound <= 1.01 * len(kernel)


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["dense", "convolution", "transposed", "depthwise", "three"]),
)
@settings(max_examples=40, deadline=None)
def test_every_kind_of_kernel(seed, kind):
    rng = np.random.default_rng(seed)
    if kind == "dense":
        kernel = rng.standard_normal((int(rng.integers(1, 30)), 12))
        exact = np.linalg.norm(kernel, 2)
        assert exact <= certified_norm(kernel, "dense") * (1 + 1e-15) <= 1.01 * exact
    elif kind == "depthwise":
        kernel = rng.standard_normal((3, 3, 4, 2))
        norms = [largest_of_grid(kernel[:, :, [c]], 32) for c in range(4)]
        assert max(norms) <= certified_norm(kernel, kind) <= 1.03 * max(norms)
    elif kind == "convolution":
        kernel = rng.standard_normal((3, 3, 3, 4))
        grouped = certified_norm(kernel, kind, groups=2)
        parts = [
            convolution_operator(part, (5, 4, 3), (2, 1), "same").to_matrix()
            for part in np.split(kernel, 2, axis=-1)
        ]
        assert max(np.linalg.norm(part, 2) for part in parts) <= grouped
        assert grouped <= certified_norm(kernel, kind) * 1.01
    elif kind == "transposed":
        kernel = rng.standard_normal((2, 3, 3, 2))
        operator = transposed_convolution_operator(kernel, (4, 5), 1, "same")
        assert np.linalg.norm(operator.to_matrix(), 2) <= certified_norm(kernel, kind)
    else:
        kernel = rng.standard_normal((2, 3, 2, 2, 3))
        bound = certified_norm(kernel, "convolution", tolerance=0.02)
        exact = largest_of_grid(kernel, 16)
        assert exact <= bound <= exact * 1.06


@pytest.mark.parametrize("shape", [(3, 3, 96, 64), (600, 700), (3, 64, 128)])
def test_larger_kernels(rng, shape):
    kernel = rng.standard_normal(shape)
    kind = "dense" if len(shape) == 2 else "convolution"
    exact = np.linalg.norm(kernel, 2) if kind == "dense" else 0.0
    if kind == "convolution":
        exact = largest_of_grid(kernel, 24 if len(shape) == 4 else 64)
    bound = certified_norm(kernel, kind)
    assert exact <= bound <= exact * 1.02
    # Equal eigenvalues, where nothing converges quickly.
    equal = np.zeros(shape)
    equal += np.eye(*shape[-2:])
    largest = float(math.prod(shape[:-2]))
    assert largest <= certified_norm(equal, kind) <= 1.01 * largest


@pytest.mark.parametrize("small", [0.0, 1e-161, 1e-300, 1.0])
@pytest.mark.parametrize("first", [True, False])
def test_a_group_of_zeros_or_hardly_more(rng, small, first):
    kernel = rng.standard_normal((3, 3, 4, 8))
    exact = largest_of_grid(kernel[..., 4:] if first else kernel[..., :4], 48)
    kernel[..., :4] *= small if first else 1.0
    kernel[..., 4:] *= 1.0 if first else small
    if small == 1.0:
        exact = max(largest_of_grid(half, 48) for half in np.split(kernel, 2, -1))
    bound = certified_norm(kernel, "convolution", groups=2)
    assert exact <= bound <= 1.02 * exact
    # Of channels in the place of groups, and of a kernel that has few of them.
    kernel[:, :, 0] *= small
    exact = largest_of_grid(kernel, 48)
    assert exact <= certified_norm(kernel, "convolution") <= 1.02 * exact
    zeros = np.zeros((3, 3, 2, 4))
    zeros[1, 1, 1, 3] = 1.0
    assert 1.0 <= certified_norm(zeros, "convolution", groups=2) <= 1.01


def test_edges():
    assert certified_norm(np.zeros((3, 3, 2, 2)), "convolution") == 0.0
    assert certified_norm(np.zeros((0, 4)), "dense") == 0.0
    for value in (np.nan, np.inf):
        assert math.isnan(certified_norm(np.full((2, 2), value), "dense"))
    least = np.full((1, 1), 5e-324)
    assert certified_norm(least, "dense") >= 5e-324
    with pytest.raises(ValueError, match="`tolerance`"):
        certified_norm(np.eye(2), "dense", tolerance=0.0)


@pytest.mark.parametrize("shape", [(130, 200), (400, 150), (129, 129)])
def test_a_matrix_that_is_not_small_has_its_norm(rng, shape):
    for matrix in (rng.standard_normal(shape), np.ones(shape), np.eye(*shape) * 1e200):
        norm = np.linalg.norm(matrix, 2)
        assert norm * (1 - 1e-15) <= matrix_norm(matrix) <= norm * (1 + 1e-10)


def test_the_last_of_several_users_takes_the_limit_off():
    """Each restored what it had found, and the last one had found the limit."""

    def threads():
        info = threadpool_info()
        return {x["num_threads"] for x in info if x["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        first, second = one_thread(), one_thread()
        for step, wanted in (
            (first.__enter__, 1),
            (second.__enter__, 1),
            (lambda: first.__exit__(None, None, None), 1),
            (lambda: second.__exit__(None, None, None), 2),
        ):
            step()
            assert threads() == {wanted}


def test_many_small_factorizations_are_not_shared_out(rng, monkeypatch):
    """On a busy machine threads waited 20 times as long as they worked."""
    seen, inner = [], module._exceeding

    def watched(*arguments):
        info = threadpool_info()
        seen.append({x["num_threads"] for x in info if x["user_api"] == "blas"})
        return inner(*arguments)

    monkeypatch.setattr(module, "_exceeding", watched)
    with threadpool_limits(2, "blas"):
        certified_norm(rng.standard_normal((3, 3, 8, 8)), "convolution", 1, 0.5)
    assert len(seen) > 1 and seen == [{1}] * len(seen)
