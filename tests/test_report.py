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
    rows = compression.compare_replacements(model, trials=2, evaluate=lambda model: 0.9)
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
        report.compression_figure(compression.compare_replacements(model, trials=2))


def test_a_wrong_suffix_leaves_nothing(model, tmp_path):
    rows = compression.compare_replacements(model, trials=2, evaluate=lambda model: 0.9)
    with pytest.raises(ValueError):
        report.save(report.compression_figure(rows), tmp_path / "figure.docx")
    assert list(tmp_path.iterdir()) == []


def test_every_point_is_in_view(model):
    """Also where compression raises the accuracy."""
    answers = iter([0.5, *[0.7, 0.8] * 9])
    rows = compression.compare_replacements(
        model, trials=2, evaluate=lambda model: next(answers)
    )
    low, high = report.compression_figure(rows).axes[0].get_ylim()
    for row in rows:
        mean, sd = row.compressed_accuracy_mean, row.compressed_accuracy_sd
        assert low < 100 * (mean - sd) and 100 * (mean + sd) < high


def test_a_product_of_norms_that_overflows(model):
    rows = compression.compare_replacements(model, trials=2, evaluate=lambda model: 0.9)
    training = [Training("deep", 1.0, 0.95, log_product_of_spectral_norms=1000.0)]
    figure = report.demo_figure(training, {"deep": measures.spectrum(model)}, rows)
    # log10(e^1000) = 434.3
    assert "1e+434" in figure.axes[0].get_xticklabels()[0].get_text()


def test_spectra_of_models_with_other_layers_are_refused(model):
    rows = compression.compare_replacements(model, trials=2, evaluate=lambda model: 0.9)
    dense = keras.layers.Dense(4, name="tail")
    other = measures.spectrum(keras.Sequential([keras.Input((30,)), dense]))
    spectra = {"plain": measures.spectrum(model), "other": other}
    with pytest.raises(ValueError, match="'other' without the layer 'head'"):
        report.demo_figure([Training("plain", 1.0, 0.95)], spectra, rows)
