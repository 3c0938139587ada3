import keras
import pytest

from keras_spectral import compression, measures, report


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((30,)), keras.layers.Dense(10, name="head")])


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def demo_results(model, **spectra):
    found = measures.spectrum(model).to_dicts()
    names = "plain", "other"
    return {
        "training": [{"name": name, "test_accuracy": 0.9} for name in names],
        "memorization": {"plain": [0.2, 1.0], "other": [0.1, 0.25]},
        "certified": {
            name: [{"radius": 0.5, "certified_accuracy": 0.3}] for name in names
        },
        "spectra": {"plain": found, "other": found, **spectra},
    }


def test_the_demo_figure_shows_the_results(model, tmp_path):
    results = demo_results(model)
    figure = report.demo_figure(results)
    left, middle, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[20, 100], [10, 25]]
    assert [text.get_text() for text in left.texts] == ["plain  100 %", "other  25 %"]
    assert middle.lines[0].get_xdata().tolist() == [0, 0.5]
    assert middle.lines[0].get_ydata().tolist() == [90, 30]
    assert texts(middle) == ["plain", "other"]
    line = next(x for x in right.lines if x.get_label().startswith("plain"))
    values = results["spectra"]["plain"][0]["singular_values"]
    assert line.get_ydata() == pytest.approx([v / values[0] for v in values])
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


def test_spectra_of_models_with_other_layers_are_refused(model):
    dense = keras.layers.Dense(4, name="tail")
    other = measures.spectrum(keras.Sequential([keras.Input((30,)), dense]))
    results = demo_results(model, other=other.to_dicts())
    with pytest.raises(ValueError, match="'other' without the layer 'head'"):
        report.demo_figure(results)
