"""Metrics of features against vectors of other projects, closed forms, Monte Carlo."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.gan import metrics


def waves(n, d, a, b):
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return np.sin(1.7 * i * (j + 1) + a) + b * np.cos(0.3 * i**2 + j) + 0.1 * j


X, Y = waves(64, 8, 0, 0.5), waves(80, 8, 1, 0.7) + 0.2


def test_the_vectors_are_what_the_others_were_given():
    assert X.sum() == pytest.approx(184.77813774, abs=1e-5)
    assert Y.sum() == pytest.approx(357.69373977, abs=1e-8)


def test_frechet_distance_is_that_of_the_four_tools():
    assert metrics.frechet_distance(X, Y) == pytest.approx(0.4236582759559, abs=1e-12)
    assert metrics.frechet_distance(X, X) == pytest.approx(0, abs=1e-13)
    pair = metrics.Statistics.of(X), metrics.Statistics.of(Y)
    assert metrics.frechet_distance(*pair) == pytest.approx(0.4236582759559, abs=1e-12)


def with_moments(mean, covariance, count=6):
    """Features of exactly these moments."""
    x = np.random.default_rng(0).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_gaussians_in_closed_form():
    x = with_moments([1, 0], [[2, 1], [1, 2]])
    y = with_moments([0, 1], np.diag([3.0, 1.0]))
    assert metrics.frechet_distance(x, y) == pytest.approx(2.5166852264521, abs=1e-12)


@pytest.mark.parametrize("counts", [(12, 15), (12, 99), (99, 12), (20, 21), (21, 22)])
def test_few_samples_have_the_distance_of_the_definition(counts):
    random = np.random.default_rng(1)
    d = 20
    x, y = (random.normal(size=(n, d)) @ np.diag(0.9 ** np.arange(d)) for n in counts)
    # The nuclear norm of A B', in twice the digits that singular roots would leave.
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    root = scipy.linalg.svdvals(a @ b.T).sum()
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + (a**2).sum() + (b**2).sum() - 2 * root
    if min(counts) <= d:
        with pytest.warns(UserWarning, match="samples in 20 dimensions"):
            found = metrics.frechet_distance(x, y)
        kept = [metrics.Statistics.of(z, keep_features=True) for z in (x, y)]
        with pytest.warns(UserWarning, match="mostly bias"):
            assert metrics.frechet_distance(*kept) == pytest.approx(found, rel=1e-10)
        with pytest.warns(UserWarning, match="mostly bias"):
            moments = metrics.frechet_distance(*map(metrics.Statistics.of, (x, y)))
        assert moments == pytest.approx(found, rel=1e-6)
    else:
        found = metrics.frechet_distance(x, y)
    assert found == pytest.approx(expected, rel=1e-10)


def test_features_that_never_fire_have_no_part():
    """Their covariance has no Cholesky factor."""
    x, y = (
        np.random.default_rng(n).normal(size=(50, 5)) * [1, 2, 3, 4, 5] for n in (0, 1)
    )
    expected = metrics.frechet_distance(x, y)
    dead = np.zeros((50, 2))
    for ours, theirs in ((x, y), (y, x)):
        padded = (np.hstack([z, dead]) for z in (ours, theirs))
        assert metrics.frechet_distance(*padded) == pytest.approx(expected, rel=1e-9)
    # One side alone: what the other has there is all its own.
    alone = metrics.frechet_distance(np.hstack([x, dead]), np.hstack([y, x[:, :2]]))
    alone_swapped = metrics.frechet_distance(
        np.hstack([y, x[:, :2]]), np.hstack([x, dead])
    )
    assert alone == pytest.approx(alone_swapped, rel=1e-9)


def test_samples_times_distance_is_constant():
    """So numbers of other counts are no comparison: the bias is as 1 / n."""
    random = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 17))

    def mean(n, repeats=40):
        draws = random.normal(size=(repeats, 2, n, 16)) * spectrum
        found = [n * metrics.frechet_distance(*pair) for pair in draws]
        return np.mean(found), np.std(found) / np.sqrt(repeats)

    (small, error), (large, other) = mean(200), mean(1600)
    # Four standard errors, and the 1 / n^2 that 200 samples leave.
    assert abs(small - large) < 4 * np.hypot(error, other) + 0.02 * large


def test_the_extrapolation_takes_the_bias_off():
    random = np.random.default_rng(0)
    reference = metrics.Statistics.of(random.normal(size=(200_000, 16)))
    shift = np.zeros(16)
    shift[0] = 0.1
    runs = [
        metrics.frechet_distance_infinity(
            random.normal(size=(2000, 16)) + shift, reference, sizes=8, seed=seed
        )
        for seed in range(40)
    ]
    intercepts = [run.intercept for run in runs]
    error = np.std(intercepts, ddof=1) / np.sqrt(40)
    assert abs(np.mean(intercepts) - 0.01) < 4 * error < 0.01
    whole = np.mean([run.distances[-1] for run in runs])
    assert whole > 0.01 + 4 * error
    assert runs[0].counts.tolist()[::7] == [200, 2000]
    # Of equal shapes the bias is d (d + 3) / 4 n where the reference is exact.
    assert np.mean([run.slope for run in runs]) == pytest.approx(76, rel=0.15)


def test_intra_distance_is_the_mean_over_classes():
    labels, others = np.arange(64) % 3, np.arange(80) % 3
    found = metrics.intra_frechet_distance(X, labels, Y, others)
    alone = [metrics.frechet_distance(X[labels == c], Y[others == c]) for c in range(3)]
    assert [row.distance for row in found] == pytest.approx(alone)
    assert found.mean == pytest.approx(np.mean(alone))
    assert [(row.generated, row.reference) for row in found] == [
        (22, 27), (21, 27), (21, 26)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"\[2\] on one side only"):
        metrics.intra_frechet_distance(X, labels, Y, others % 2)


def test_kernel_distance_is_torch_fidelitys():
    once = metrics.kernel_distance(X, Y[:64])
    assert once.value == pytest.approx(0.1859880788202, abs=1e-12)
    drawn = metrics.kernel_distance(X, Y, subsets=1, size=64)
    assert drawn.value == pytest.approx(0.1063043901921, abs=1e-12)
    many = metrics.kernel_distance(X, Y, subsets=100, size=32)
    assert many.value == pytest.approx(0.1759350944651, abs=1e-12)
    assert many.error == pytest.approx(0.1946444442178, abs=1e-12)
    rbf = metrics.kernel_distance(X, Y, subsets=1, size=64, kernel="rbf")
    assert rbf.value == pytest.approx(7.7966359783e-4, abs=1e-13)
    with pytest.raises(ValueError, match="`size` must be at most"):
        metrics.kernel_distance(X, Y, subsets=1)


def test_kernel_distance_by_hand():
    found = metrics.kernel_distance([[1, 0], [0, 1]], [[1, 1], [2, 0]])
    assert found.value == pytest.approx(1.125, abs=1e-15)
    pairs = [[((x @ y / 8) + 1) ** 3 for y in Y] for x in X]
    own = sum(((a @ b / 8) + 1) ** 3 for a in X for b in X) - sum(
        ((a @ a / 8) + 1) ** 3 for a in X
    )
    other = sum(((a @ b / 8) + 1) ** 3 for a in Y for b in Y) - sum(
        ((a @ a / 8) + 1) ** 3 for a in Y
    )
    expected = own / 64 / 63 + other / 80 / 79 - 2 * np.mean(pairs)
    assert metrics.kernel_distance(X, Y).value == pytest.approx(expected, rel=1e-11)


def test_the_jackknifes_error_is_that_of_leaving_one_out(monkeypatch):
    value, error, *_ = metrics.kernel_distance(X[:9], Y[:7])
    left = [
        metrics.kernel_distance(np.delete(X[:9], i, 0), Y[:7]).value for i in range(9)
    ]
    right = [
        metrics.kernel_distance(X[:9], np.delete(Y[:7], i, 0)).value for i in range(7)
    ]
    expected = np.sqrt(8 * np.var(left) + 6 * np.var(right))
    assert error == pytest.approx(expected, rel=1e-10)
    # Blocks change nothing.
    monkeypatch.setattr("keras_spectral.gan.metrics.kernel._BLOCK", 4)
    again = metrics.kernel_distance(X[:9], Y[:7])
    assert again[:2] == pytest.approx((value, error), rel=1e-10)


def test_the_kernel_distance_is_unbiased_and_its_error_is_its_spread():
    random = np.random.default_rng(0)
    found = [
        metrics.kernel_distance(
            random.normal(size=(60, 3)), random.normal(size=(40, 3)) + 0.5
        )
        for _ in range(400)
    ]
    values, errors = np.array([f[:2] for f in found]).T
    mean = np.full(3, 0.5)

    def expected(m1, m2):
        """E (x . y / 3 + 1)^3 by the mean, variance and third moment of x . y / 3."""
        m = m1 @ m2 / 3
        s = (3 + m1 @ m1 + m2 @ m2) / 9
        return 1 + 3 * m + 3 * (s + m * m) + (6 * m1 @ m2 / 27 + 3 * m * s + m**3)

    zero = np.zeros(3)
    exact = expected(zero, zero) + expected(mean, mean) - 2 * expected(zero, mean)
    assert abs(values.mean() - exact) < 4 * values.std() / 20
    # The spread of 400 draws is known to 4 percent or so; tails make it more.
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=0.2)


def test_precision_and_recall_are_torch_fidelitys_and_prdcs():
    found = metrics.precision_recall_density_coverage(X, Y, neighbours=3)
    assert (found.precision, found.recall) == (0.921875, 0.95)
    # prdc: real X, fake Y.
    for neighbours, expected in (
        (3, (0.95, 0.921875, 0.8083333333, 0.9375)),
        (5, (0.9875, 0.953125, 1.01, 1.0)),
    ):
        for block in (7, 1024):
            found = metrics.precision_recall_density_coverage(
                Y, X, neighbours, ties="open", block=block
            )
            assert found[:4] == pytest.approx(expected, abs=1e-9)


def test_ties_are_inside_or_not():
    """Between equal sets all that decides is the tie at the k-th neighbour."""
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 2), -1).reshape(-1, 2) + 1e6
    closed = metrics.precision_recall_density_coverage(grid, grid, 1)
    opened = metrics.precision_recall_density_coverage(grid, grid, 1, ties="open")
    # Itself and its neighbours on the grid, 2 * 2 * 30 / 36 on average, or only itself.
    assert closed[:4] == pytest.approx((1, 1, 1 + 120 / 36, 1))
    assert opened[:4] == (1, 1, 1, 1)
    twice = np.repeat(grid, 2, axis=0)
    # Radius 0: prdc finds nothing inside.
    opened = metrics.precision_recall_density_coverage(twice, twice, 1, ties="open")
    assert opened[:4] == (0, 0, 0, 0)
    closed = metrics.precision_recall_density_coverage(twice, twice, 1)
    assert closed[:4] == (1, 1, 2, 1)


def test_inception_score_is_that_of_the_others():
    shuffled = metrics.inception_score(3 * X, shuffle_seed=2020)
    assert shuffled[:2] == pytest.approx((1.998594383, 0.229253930), abs=1e-9)
    plain = metrics.inception_score(3 * X)
    assert plain[:2] == pytest.approx((2.139592532, 0.327606189), abs=1e-9)
    assert metrics.inception_score(3 * X, splits=1).mean == pytest.approx(
        2.373192690, abs=1e-9
    )
    uneven = metrics.inception_score(3 * waves(65, 8, 0, 0.5))
    assert uneven[:2] == pytest.approx((2.134983813, 0.265775672), abs=1e-9)


def test_inception_score_in_closed_form():
    # One-hot of four classes, of logits whose other probabilities underflow.
    sure = metrics.inception_score(1e4 * np.eye(4)[np.arange(40) % 4])
    assert sure[:2] == (pytest.approx(4), pytest.approx(0, abs=1e-12))
    assert metrics.inception_score(np.ones((20, 5))).mean == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 64), max_size=6),
    order=st.randoms(use_true_random=False),
    shift=st.sampled_from([0.0, 3300.0]),
)
def test_statistics_merge_in_any_order(cuts, order, shift):
    data = X + shift
    parts = np.split(data, sorted(cuts))
    order.shuffle(parts)
    replicas = [metrics.Statistics(keep_features=True).update(part) for part in parts]
    order.shuffle(replicas)
    while len(replicas) > 1:
        one = replicas.pop(order.randrange(len(replicas)))
        replicas[order.randrange(len(replicas))].merge(one)
    (whole,) = replicas
    assert whole.count == 64
    np.testing.assert_allclose(whole.mean, data.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(
        whole.covariance, np.cov(data.T), rtol=0, atol=1e-15 * max(1, shift * 50)
    )
    assert sorted(whole.features.ravel()) == sorted(data.ravel())


def test_statistics_go_to_a_file_that_others_read(tmp_path):
    ours = metrics.Statistics.of(X, keep_features=True)
    ours.provenance = {"data": "waves", "split": "train"}
    ours.save(tmp_path / "waves.npz")
    with np.load(tmp_path / "waves.npz") as file:  # As pytorch-fid has it.
        mu, sigma = file["mu"][:], file["sigma"][:]
    np.testing.assert_array_equal(mu, X.mean(axis=0))
    np.testing.assert_allclose(sigma, np.cov(X, rowvar=False), atol=1e-15)
    back = metrics.Statistics.load(tmp_path / "waves.npz")
    assert (back.count, back.provenance) == (64, ours.provenance)
    np.testing.assert_array_equal(back.features, X)
    np.testing.assert_allclose(back.covariance, sigma, rtol=1e-15)
    assert metrics.frechet_distance(back, Y) == pytest.approx(0.4236582759559)
    more = back.merge(metrics.Statistics.of(Y))
    both = np.concatenate([X, Y])
    np.testing.assert_allclose(more.covariance, np.cov(both.T), atol=1e-14)
    # Theirs name no count.
    np.savez(tmp_path / "theirs.npz", mu=mu, sigma=sigma)
    theirs = metrics.Statistics.load(tmp_path / "theirs.npz")
    assert theirs.count is None
    assert metrics.frechet_distance(X, theirs) == pytest.approx(0, abs=1e-13)
    with pytest.raises(ValueError, match="both counts are known"):
        more.merge(theirs)
    with pytest.raises(ValueError, match="cannot be added to"):
        theirs.update(X)


def test_files_that_are_no_statistics(tmp_path):
    metrics.Statistics.of(X).save(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ValueError, match="of another file than"):
        metrics.Statistics.load(tmp_path / "a.npz")
    bad = {
        "no mu and no sigma": {"x": np.zeros(2)},
        "shapes": {"mu": np.zeros(2), "sigma": np.eye(3)},
        "not finite": {"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)},
        "allow_pickle": {"mu": np.array([{}]), "sigma": np.eye(1)},
    }
    for message, arrays in bad.items():
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            metrics.Statistics.load(tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="must be an .npz file"):
        metrics.Statistics.load(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        metrics.Statistics.of(X).save(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "metric",
    [
        metrics.frechet_distance,
        metrics.frechet_distance_infinity,
        metrics.kernel_distance,
        metrics.precision_recall_density_coverage,
    ],
)
def test_what_is_refused(metric):
    with pytest.raises(ValueError, match="same dimensions"):
        metric(X, Y[:, :5])
    with pytest.raises(ValueError, match="`reference` must be finite"):
        metric(X, np.where(Y == Y[3, 2], np.nan, Y))
    with pytest.raises(ValueError, match="`generated` must be features"):
        metric(X[0], Y)
    with pytest.raises(ValueError, match="`reference` must be features"):
        metric(X, Y[:1])


def test_kept_features_stay_where_their_array_is_filled_anew(rng):
    buffer, kept, seen = np.empty((4, 2)), metrics.Statistics(keep_features=True), []
    for _ in range(2):
        buffer[:] = rng.normal(size=buffer.shape)
        seen.append(buffer.copy())
        kept.update(buffer)
    np.testing.assert_array_equal(kept.features, np.concatenate(seen))


def test_provenance_that_is_no_json_leaves_no_file(rng, tmp_path):
    statistics = metrics.Statistics.of(rng.normal(size=(4, 2)))
    statistics.provenance["images"] = object()
    with pytest.raises(ValueError, match="`provenance` must be what JSON has.*object"):
        statistics.save(tmp_path / "statistics.npz")
    assert not list(tmp_path.iterdir())
