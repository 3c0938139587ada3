"""Imports, docstrings, README and the wheel: what a newcomer meets first."""

import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from keras import ops

import keras_spectral

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_spectral.__path__, "keras_spectral.")
]


@pytest.mark.parametrize(
    "module",
    ["keras_spectral", "keras_spectral.cli", "keras_spectral.convert.files.reader"],
)
def test_light_modules_load_no_framework(module):
    code = (
        f"import sys, {module}; print(sorted({{'keras', 'tensorflow', 'torch', "
        "'jax', 'sklearn', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_public_names_resolve():
    for name in keras_spectral.__all__:
        assert getattr(keras_spectral, name) is not None
    assert set(keras_spectral.__all__) <= set(dir(keras_spectral))
    with pytest.raises(AttributeError, match="nothing"):
        keras_spectral.nothing  # noqa: B018
    for module in map(importlib.import_module, MODULES):
        for name in getattr(module, "__all__", []):
            assert getattr(module, name).__doc__


@pytest.mark.parametrize("name", ["zoo", "convert", "experiments"])
def test_lazy_packages_list_what_there_is_and_nothing_private(name):
    package = importlib.import_module(f"keras_spectral.{name}")
    # Listed before anything was loaded, and the same afterwards.
    code = f"import keras_spectral as ks; print(*dir(ks.{name}))"
    fresh = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    for listed in fresh:
        assert not listed.startswith("_")
        # Things that are documented here, not modules and not NumPy's or Keras' names.
        value = getattr(package, listed)
        assert value.__module__.startswith(f"keras_spectral.{name}.") and value.__doc__
    assert dir(package) == fresh == sorted(set(fresh))
    # Whatever the documentation calls is among them.
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]
    called = {
        found
        for page in pages
        for found in re.findall(rf"\b{name}\.(\w+)\(", page.read_text(encoding="utf-8"))
    }
    assert called and called <= set(fresh)
    if name == "zoo":
        builders = {package.entry(model)["builder"] for model in package.list_models()}
        assert builders <= set(fresh)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


@pytest.mark.parametrize("index", range(6))
def test_readme_examples(index, tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 6
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(examples[index], f"README example {index}", "exec"), names)
    if index == 3:
        whole = names["rows"][-1]
        assert (tmp_path / "small.safetensors").stat().st_size == whole.bytes
        # As the example says.
        assert round(whole.float32_ratio, 2) == 3.85
        assert round(whole.float32_bytes / whole.int8_bytes, 2) == 3.70
    elif index == 4:
        assert (tmp_path / "resnet20_again.safetensors").exists()
    elif index == 5:
        assert names["samples"].shape == (16, 32, 32, 1)
    if index in (0, 1, 2):
        assert "┃" in capsys.readouterr().out


def test_the_norm_of_a_residual_block_is_that_of_the_page():
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1], names)
    # The norm is that of the answer at its vector, here without our code.
    first, second = (weight.effective() for weight in names["unit"])
    *_, (right,) = names["svds"](names["block"].to_scipy(), k=1)
    x = right.reshape(names["block"].input_shape)
    y = x + ops.conv(ops.conv(x, first, padding="same"), second, padding="same")
    assert names["norm"][0] == pytest.approx(np.linalg.norm(y), rel=1e-4)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A wheel outside any checkout: unpacked, as its dependencies are here already."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, ROOT],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_a_wheel_has_its_data(site, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import keras_spectral;"
        "assert keras_spectral.__file__.startswith(sys.argv[1]);"
        "from keras_spectral.cli import main;"
        "main(['demo', '--epochs', '1', '--output', 'out'])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(site)],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["status"] == "complete"


def test_a_wheel_brings_the_recipes(site, tmp_path):
    names = keras_spectral.experiments.list_recipes()
    recipes = site / "keras_spectral" / "_recipes"
    found = [
        path.relative_to(recipes).with_suffix("").as_posix()
        for path in recipes.rglob("*.toml")
    ]
    assert sorted(found) == names
    program = (
        "from keras_spectral.experiments import recipes as r; print(r.list_recipes())"
    )

    def listed():
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONPATH": str(site), "PATH": ""},
            capture_output=True,
            text=True,
        )

    assert listed().stdout.strip() == str(names)
    recipes.rename(tmp_path / "away")
    try:
        assert "installed without its recipes" in listed().stderr
    finally:
        (tmp_path / "away").rename(recipes)


def test_no_file_is_too_long():
    for path in (ROOT / "keras_spectral").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
