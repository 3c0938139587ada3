import math

import numpy as np
import pytest
from scipy.stats import cauchy, levy_stable, norm

from keras_spectral import report
from keras_spectral.experiments import SweepRow
from keras_spectral.report import heavy_tail_figures


def rows(size=43, status="ok", seed=0):
    """Points of two lines, 26 on the first one."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(2, 6, size)
    rank = np.where(np.arange(size) < 26, 3 + 0.1 * alpha, 1 + 1.1 * alpha)
    rank += 0.1 * rng.standard_normal(size)
    return [
        SweepRow(
            "net",
            "net.pth",
            "",
            {},
            dataset=("cifar10", "svhn")[index % 2],
            alpha_pdf=x,
            standard_error=0.2,
            stable_rank=y,
            status=status,
        )  # fmt: skip
        for index, (x, y) in enumerate(zip(alpha, rank, strict=True))
    ]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_figure_1_is_the_laws_densities(monkeypatch, tmp_path):
    asked = []
    density = heavy_tail_figures.alpha_stable_density
    monkeypatch.setattr(
        heavy_tail_figures,
        "alpha_stable_density",
        lambda x, alpha: asked.append(x.size) or density(x, alpha),
    )
    figure = report.figure_1(alphas=(2.0, 1.5, 1.0))
    assert sum(asked) <= 400
    left, right = figure.axes
    laws = (norm(scale=math.sqrt(2)), levy_stable(1.5, 0), cauchy())
    for axes, tolerance in ((left, 1e-6), (right, 1e-4)):
        for line, law in zip(axes.lines, laws, strict=True):
            x, y = line.get_data()
            assert y[::9] == pytest.approx(law.pdf(x[::9]), rel=tolerance)
    assert left.lines[0].get_xdata().min() == -left.lines[0].get_xdata().max()
    assert legend(left)[2].endswith("(Cauchy)")
    report.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_figure_2_is_the_printed_formula_and_where_it_holds():
    steps, scale, levels, columns = 5, 1.3, 5, 64
    figure = report.figure_2(scale, levels, columns, steps)
    printed, kinds, exact = (
        np.reshape(axes.collections[0].get_array(), (levels + 1, steps))
        for axes in figure.axes[:3]
    )
    centres = 0.1 + 1.9 * (np.arange(steps) + 0.5) / steps
    for j, alpha in enumerate(centres):
        constant = math.sin(math.pi * alpha / 2) * math.gamma(alpha) / math.pi
        for i in range(levels + 1):
            p = constant * scale ** (-alpha * (i - 1)) * (1 - scale**-alpha)
            kappa = scale ** (levels - i)
            bound = (columns * p / kappa) ** kappa
            bound *= ((1 - p) / (1 - kappa / columns)) ** (columns - kappa)
            assert printed[i, j] == pytest.approx(bound, rel=1e-9)
            holds = kappa > columns * p
            assert kinds[i, j] == (0 if not holds else 2 if bound >= exact[i, j] else 1)
    assert set(np.unique(kinds)) == {0, 1, 2}
    # The hatched squares are those without a bound.
    assert len(figure.axes[0].collections) - 1 == (kinds == 0).sum()
    share = f"({np.mean(kinds == 0):.0%})"
    assert legend(figure.axes[1])[0].endswith(share)


def test_figure_3_has_the_mixtures_lines():
    points = rows()
    mixture = report.stable_rank_mixture(points)
    axes = report.figure_3(points).axes[0]
    assert mixture.components == 2
    lines = [line for line in axes.lines if "alpha" in str(line.get_label())]
    for k, line in enumerate(lines):
        x, y = line.get_data()
        assert y == pytest.approx(mixture.slopes[k] * x + mixture.intercepts[k])
    assert len(lines) == 2
    assert legend(axes)[-2:] == ["cifar10", "svhn"]
    assert any("BIC" in text.get_text() for text in axes.texts)
    low, high = axes.get_xlim()
    assert all(
        low < row.alpha_pdf - 0.2 and row.alpha_pdf + 0.2 < high for row in points
    )


def test_figure_3_leaves_what_is_not_reliable_out_of_the_lines():
    points = rows()
    doubtful = rows(3, status="too small", seed=1)
    far = [SweepRow(**{**vars(doubtful[0]), "alpha_pdf": 93.0})]
    mixture = report.stable_rank_mixture(points + doubtful + far)
    alone = report.stable_rank_mixture(points)
    assert (mixture.slopes == alone.slopes).all()
    axes = report.figure_3(points + doubtful + far).axes[0]
    assert "fit not reliable" in legend(axes) and axes.get_xlim()[1] < 10
    assert any("1 more" in text.get_text() for text in axes.texts)
    only = report.figure_3(doubtful).axes[0]
    assert all(only.get_xlim()[0] < row.alpha_pdf for row in doubtful)


def test_figure_3_of_few_points_has_no_line():
    assert report.stable_rank_mixture(rows(5)) is None
    axes = report.figure_3(rows(5)).axes[0]
    assert legend(axes) == ["cifar10", "svhn"]
    with pytest.raises(ValueError, match="`rows`"):
        report.figure_3([])
