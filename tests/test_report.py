import dataclasses

import keras
import pytest

from keras_spectral import compression, measures, report


@dataclasses.dataclass
class Training:
    name: str
    train_accuracy: float
    test_accuracy: float
    sum_of_stable_ranks: float = 3.0
    log_product_of_spectral_norms: float = 1.0


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((30,)), keras.layers.Dense(10, name="head")])


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_demo_figure_shows_the_rows(model, tmp_path):
    rows = compression.compress(model, trials=2, evaluate=lambda model: 0.9)
    spectra = {"plain": measures.spectrum(model), "other": measures.spectrum(model)}
    training = [Training("plain", 1.0, 0.95), Training("other", 0.9, 0.92)]
    figure = report.demo_figure(training, spectra, rows)
    left, middle, right = figure.axes
    labels = [label.get_text() for label in left.get_xticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["plain", "other"]
    line = next(x for x in middle.lines if x.get_label().startswith("plain"))
    values = spectra["plain"][0].singular_values
    assert line.get_ydata() == pytest.approx([v / values[0] for v in values])
    assert texts(right) == ["gaussian", "matched", "zero"]
    report.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_rows_without_accuracies_are_refused(model):
    with pytest.raises(ValueError, match="evaluate"):
        report.compression_figure(compression.compress(model, trials=2))


def test_a_wrong_suffix_leaves_nothing(model, tmp_path):
    rows = compression.compress(model, trials=2, evaluate=lambda model: 0.9)
    with pytest.raises(ValueError):
        report.save(report.compression_figure(rows), tmp_path / "figure.docx")
    assert list(tmp_path.iterdir()) == []
