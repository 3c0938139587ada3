"""What a type checker tells a user, and whether the running program agrees."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERAS_MODEL = "keras.src.models.model.Model"
SPECTRAL = "keras_spectral"

START = """
import pathlib
import keras
import numpy as np
import keras_spectral as ks

folder = pathlib.Path("folder")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="output")])
x = np.ones((9, 8), "float32")
digits = ks.zoo.checkpoint("resnet20_digits")
"""

# Cheap enough to run as well.
EXPRESSIONS = {
    "ks.measures.spectrum(model)": f"{SPECTRAL}.measures.spectrum.Spectrum",
    "ks.measures.lipschitz_bound(model)": (
        f"{SPECTRAL}.measures.lipschitz_bound.LipschitzBound"
    ),
    "ks.measures.certify(model, x, np.zeros(9, int))": (
        f"{SPECTRAL}.measures.certified_accuracy.Certification"
    ),
    "ks.measures.rank_correlation([{'a': 1, 'gap': k} for k in (1, 2)], ['a'])": (
        f"{SPECTRAL}.results.Rows"
    ),
    "ks.measures.cushions(model, x)": f"{SPECTRAL}.measures.cushions.Cushions",
    "ks.measures.complexity_measures(model, x, np.zeros(9, int), measures='Spec-L1')": (
        f"{SPECTRAL}.measures.complexity.Complexity"
    ),
    "ks.measures.noise_sensitivity(model, x, draws=2)": (
        f"{SPECTRAL}.measures.noise.NoiseSensitivity"
    ),
    "ks.measures.empirical_lipschitz(model, x + np.arange(9)[:, None])": (
        f"{SPECTRAL}.measures.distributions.Distributions"
    ),
    "ks.measures.jacobian_norms(model, x)": (
        f"{SPECTRAL}.measures.distributions.Distributions"
    ),
    "ks.measures.segment_norms(model, x, 2 * x, points=1)": f"{SPECTRAL}.results.Rows",
    "ks.measures.alignment(model, x)": (
        f"{SPECTRAL}.measures.distributions.Distributions"
    ),
    "ks.gan.metrics.loss_instability(np.arange(20.0))": "float",
    "ks.theory.low_rank_error_bound(model, 1, 1.0)": (
        f"{SPECTRAL}.theory.low_rank.LowRankBound"
    ),
    "ks.measures.fit_power_law(x)": f"{SPECTRAL}.measures.power_law.PowerLawFit",
    "ks.measures.goodness_of_fit(x, trials=1)": (
        f"{SPECTRAL}.measures.power_law.GoodnessOfFit"
    ),
    "ks.measures.compare_power_law(x)": f"{SPECTRAL}.results.Rows",
    "ks.measures.fit_alpha_stable(x)": (
        f"{SPECTRAL}.measures.alpha_stable.AlphaStableFit"
    ),
    "ks.measures.fit_eigenvalues(x)": f"{SPECTRAL}.measures.eigenvalues.EigenvalueFit",
    "ks.measures.fit_linear_mixture(np.arange(9.0), np.arange(9.0) ** 2)": (
        f"{SPECTRAL}.measures.linear_mixture.LinearMixture"
    ),
    "ks.measures.margin_loss(x, np.zeros(9, int))": "float",
    "ks.measures.random_edge((3, 4))": "float",
    "ks.models.weights(model)": f"{SPECTRAL}.models.weights.Weights",
    "ks.report.page(ks.measures.spectrum(model))": "str",
    "ks.convert.from_torch(digits.weights, 'resnet20_digits')": KERAS_MODEL,
    "ks.convert.read_checkpoint(digits.weights)": (
        f"{SPECTRAL}.convert.files.state.StateDict"
    ),
    "ks.convert.to_torch(model)": "dict",
    "ks.convert.provenance(model)": "dict",
    "ks.convert.save_model(model, folder / 'm.keras')": "None",
    "ks.convert.load_model(folder / 'saved.keras')": KERAS_MODEL,
    "ks.convert.compare(digits.weights, digits.weights)": f"{SPECTRAL}.results.Rows",
    "ks.convert.is_keras_model(folder)": "bool",
    "digits": f"{SPECTRAL}.zoo.registry.Checkpoint",
    "ks.zoo.build('resnet20_cifar10')": KERAS_MODEL,
    "ks.zoo.list_models()": "list",
    "ks.zoo.entry('resnet20_cifar10')": "dict",
    "ks.zoo.cifar_resnet(20, 10)": KERAS_MODEL,
    "ks.zoo.mnist_convnet()": KERAS_MODEL,
    "ks.zoo.small_convnet(10)": KERAS_MODEL,
    "ks.zoo.dcgan_discriminator((8, 16, 16))": KERAS_MODEL,
    "ks.zoo.fid_inception(classes=2, input_shape=(75, 75, 3))": KERAS_MODEL,
    "ks.zoo.low_rank_dcgan(filters=(8, 8, 8))": f"{SPECTRAL}.gan.model.GAN",
    "ks.compression.compress(model)": KERAS_MODEL,
    "ks.compression.compare_replacements(model, trials=2)": (
        f"{SPECTRAL}.compression.heavy_tail.CompressionRows"
    ),
    "ks.compression.factorize(model, rank_ratio=0.5)": "tuple",
    "ks.compression.factorize(model, rank_ratio=0.5)[0]": KERAS_MODEL,
    "ks.compression.save_compressed(model, folder / 'm.safetensors')": (
        f"{SPECTRAL}.results.Rows"
    ),
    "ks.compression.load_compressed(folder / 'saved.safetensors')": KERAS_MODEL,
    "ks.experiments.analyze_model(model)": (
        f"{SPECTRAL}.experiments.analysis_rows.Analysis"
    ),
    "ks.experiments.digits_classifier()": KERAS_MODEL,
    "ks.wrap(model, ks.layers.SpectralNormalization)": KERAS_MODEL,
    "ks.unwrap(model)": KERAS_MODEL,
    "ks.constrain(model, keras.constraints.NonNeg())": KERAS_MODEL,
    "ks.regularize(model, keras.regularizers.L2())": KERAS_MODEL,
}
# These take long.
ONLY_CHECKED = {
    "ks.experiments.analyze_checkpoint(digits.weights)": (
        f"{SPECTRAL}.experiments.analysis_rows.Analysis"
    ),
    "ks.experiments.run_demo(folder)": "dict",
    "ks.gan.metrics.discriminator_slopes(model, x, x)": (
        f"{SPECTRAL}.measures.distributions.Distributions"
    ),
    "ks.gan.metrics.discriminator_jacobians(model, x, x).distance": "float",
    "ks.gan.metrics.neural_divergence(x, x)": f"{SPECTRAL}.gan.metrics.scores.Score",
    "ks.experiments.run_sweep(['resnet20_digits'])": f"{SPECTRAL}.results.Rows",
}
MISTAKES = {
    "ks.nosuch": 'Module has no attribute "nosuch"',
    "ks.measures.nosuch": 'Module has no attribute "nosuch"',
    "ks.zoo.cifar_resnett(20, 10)": 'has no attribute "cifar_resnett"',
    "ks.measures.spectrum(model).left": '"Spectrum" has no attribute "left"',
    "ks.zoo.build(20)": 'incompatible type "int"; expected "str"',
    "ks.compression.compress(model, seed='a')": 'incompatible type "str"',
    "ks.measures.spectrum()": 'Missing positional argument "model"',
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What mypy says of each expression: {expression: message}."""
    types = [*EXPRESSIONS, *ONLY_CHECKED]
    lines = [*START.splitlines(), *(f"reveal_type({text})" for text in types)]
    first = len(lines) - len(types)
    lines += MISTAKES
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "user.py").write_text("\n".join(lines), encoding="utf-8")
    # What `reveal_type` says is of the code "misc", which our own settings leave out.
    options = ["--cache-dir", folder, "--enable-error-code", "misc"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, folder / "user.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert not result.stderr
    found = {}
    for number, message in re.findall(
        r"^.*user.py:(\d+): (?:error|note): (.*)$", result.stdout, re.MULTILINE
    ):
        # Nothing is wrong with the first lines.
        assert int(number) > first, message
        found[[*types, *MISTAKES][int(number) - 1 - first]] = message
    return found


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    namespace = {}
    exec(START, namespace)
    ks, model = namespace["ks"], namespace["model"]
    folder = namespace["folder"] = tmp_path_factory.mktemp("types")
    ks.convert.save_model(model, folder / "saved.keras")
    ks.compression.save_compressed(model, folder / "saved.safetensors")
    return namespace


def is_a(value, name):
    """Whether a value is of the class that a full name names, by its bases' names."""
    if name == "None":
        return value is None
    full = name if "." in name else f"builtins.{name}"
    return full in {f"{c.__module__}.{c.__qualname__}" for c in type(value).__mro__}


@pytest.mark.slow
@pytest.mark.parametrize("expression", [*EXPRESSIONS, *ONLY_CHECKED])
def test_a_type_checker_knows_what_public_functions_return(expression, answers):
    expected = {**EXPRESSIONS, **ONLY_CHECKED}[expression]
    told = re.fullmatch(r'Revealed type is "(.*)"', answers[expression]).group(1)
    # Some versions name the module of what is built in.
    told = told.replace("builtins.", "")
    if expected == "None":
        assert told == "pathlib.Path | None"
    else:
        # A dict with what is in it; a named tuple as its fields and its class.
        assert re.match(rf"(tuple\[.*fallback=)?{re.escape(expected)}($|[\[\]])", told)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_program_returns_what_the_type_checker_is_told(expression, names):
    assert is_a(eval(expression, names), EXPRESSIONS[expression])


@pytest.mark.slow
@pytest.mark.parametrize("expression", MISTAKES)
def test_mistakes_are_found_before_the_program_runs(expression, answers):
    assert MISTAKES[expression] in answers[expression]
