"""Analysis of files: every matrix, no architecture, little memory."""

import hashlib
import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file

import keras_spectral
from keras_spectral import cli, zoo
from keras_spectral.convert import CheckpointError
from keras_spectral.experiments import analyze_checkpoint, analyze_model
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.measures import fit_power_law, spectrum
from keras_spectral.report import analysis_figure


@pytest.fixture
def tensors(rng):
    return {
        "fc.weight": rng.standard_t(3, (40, 30)).astype("float32"),
        "conv.weight": rng.normal(size=(12, 5, 3, 3)).astype("float32"),
        "half.weight": rng.normal(size=(9, 8)).astype("float16"),
        "fc.bias": rng.normal(size=40).astype("float32"),
        "bn.num_batches_tracked": np.array(3),
        "conv.mask": np.ones((12, 5), "float32"),
        "conv.weight_u": np.ones((1, 12), "float32"),
        "dead.weight": np.zeros((4, 4), "float32"),
        "broken.weight": np.full((3, 3), np.nan, "float32"),
    }


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
def test_every_matrix_is_measured_and_the_rest_has_a_reason(suffix, tensors, tmp_path):
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(tensors, path)
    elif suffix == "npz":
        np.savez(path, **tensors)
    else:
        torch.save({k: torch.tensor(v) for k, v in tensors.items()}, path)
    found = analyze_checkpoint(path)
    rows = {row.name: row for row in found}
    assert sorted(rows) == ["conv.weight", "fc.weight", "half.weight"]
    for name, row in rows.items():
        matrix = tensors[name].astype("float64").reshape(len(tensors[name]), -1)
        values = np.linalg.svd(matrix, compute_uv=False)
        assert row.spectral_norm == pytest.approx(values[0], rel=1e-6)
        stable_rank = (values**2).sum() / values[0] ** 2
        assert row.stable_rank == pytest.approx(stable_rank, rel=1e-6)
        direct = fit_power_law(tensors[name].astype("float64"))
        assert row.alpha_pdf == pytest.approx(direct.alpha_pdf, rel=1e-9)
        assert row.eigenvalue_alpha == pytest.approx(
            fit_power_law(values**2).alpha_pdf, rel=1e-6
        )
        mean = matrix.mean()
        fourth = ((matrix - mean) ** 4).mean() / matrix.var() ** 2 - 3
        assert row.kurtosis == pytest.approx(fourth, rel=1e-6)
    reasons = {name: reason.split(",")[0] for name, reason in found.skipped.items()}
    assert reasons["fc.bias"] == "a vector"
    assert reasons["bn.num_batches_tracked"] == "int64"
    assert reasons["conv.mask"] == "a mask"
    assert reasons["conv.weight_u"] == "a vector of 12 numbers"
    assert reasons["dead.weight"] == "all zero"
    assert "NaN" in reasons["broken.weight"]
    assert len(found) + len(found.skipped) == len(tensors)


def test_keras_files_have_their_filters_last(tmp_path):
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
        keras.layers.Flatten(), keras.layers.Dense(10, name="head"),
    ])  # fmt: skip
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 10)), verbose=0)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    direct = {row.kind: row.stable_rank for row in spectrum(model)}
    for name in ("m.keras", "m.weights.h5"):
        found = analyze_checkpoint(tmp_path / name)
        ranks = sorted(row.stable_rank for row in found)
        expected = [direct["Conv2D"], direct["Dense"]]
        for value in expected:
            assert min(abs(rank - value) for rank in ranks) < 1e-4 * value
        assert len(found) == 3
    assert any("optimizer" in name for name in analyze_checkpoint(
        tmp_path / "m.keras").skipped)  # fmt: skip
    # Read as PyTorch's, the same convolution is another matrix.
    other = analyze_checkpoint(tmp_path / "m.keras", layout="torch")
    assert {row.shape for row in other} == {row.shape for row in found}
    assert [row.stable_rank for row in other] != [row.stable_rank for row in found]


def test_a_model_and_its_file_are_one(tmp_path):
    model = keras.Sequential([
        keras.Input((9, 9, 3)), SpectralNormalization(keras.layers.Conv2D(8, 3)),
        keras.layers.BatchNormalization(), keras.layers.Flatten(),
        keras.Sequential([keras.layers.Dense(12, name="inner")]),
        keras.layers.Dense(1, name="scalar"),
    ])  # fmt: skip
    found = analyze_model(model)
    assert [row.kind for row in found] == ["Conv2D", "Dense"]
    # A wrapped layer is measured as it computes.
    assert found[0].spectral_norm == pytest.approx(1.0, rel=1e-2)
    assert found.skipped["scalar"] == "a vector of 12 numbers"
    assert any("scales channels" in reason for reason in found.skipped.values())
    ranks = {row.name: row.stable_rank for row in spectrum(model)}
    for row in found:
        assert row.stable_rank == pytest.approx(ranks[row.name], rel=1e-6)


@pytest.mark.parametrize("norm", ["reshaped", "operator"])
def test_singular_vectors_are_no_kernels(norm, tmp_path):
    layer = StableRankNormalization(keras.layers.Conv2D(40, 3), 0.5, norm=norm)
    model = keras.Sequential([keras.Input((8, 8, 5)), layer])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.weights.h5"):
        analysis = analyze_checkpoint(tmp_path / name)
        assert [tuple(row.shape) for row in analysis] == [(3, 3, 5, 40)]
        assert not analysis.skipped
    assert len(analyze_model(model)) == 1


def test_large_tensors_are_sampled_and_seeded(rng, tmp_path):
    save_file(
        {"w": rng.standard_t(3, (8_000, 60)).astype("float32")}, tmp_path / "w.st"
    )
    one, two = (analyze_checkpoint(tmp_path / "w.st", seed=seed) for seed in (0, 1))
    assert 190_000 < one[0].sampled < 1 << 18
    assert one[0].eigenvalues == two[0].eigenvalues
    assert one[0].alpha_pdf != two[0].alpha_pdf
    assert one[0].alpha_pdf == analyze_checkpoint(tmp_path / "w.st")[0].alpha_pdf
    assert abs(one[0].alpha_pdf - 4) < 0.5


def test_memory_is_three_times_the_largest_tensor_or_the_threads_budget(tmp_path):
    """Two tensors of 96 MiB or six of 16: the peak above imports and a first file."""
    rng = np.random.default_rng(0)
    for name, count, mebibytes in (("few", 2, 96), ("many", 6, 16)):
        shape = (mebibytes << 12, 64)
        tensors = {f"w{i}": rng.random(shape, "float32") for i in range(count)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    del tensors
    code = (
        "import sys\n"
        "from keras_spectral.experiments import analyze_checkpoint\n"
        "def status(field):\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith(field))\n"
        "analyze_checkpoint(sys.argv[1])\n"
        "for file, count in ((sys.argv[2], 2), (sys.argv[3], 6)):\n"
        "    open('/proc/self/clear_refs', 'w').write('5')\n"
        "    before = status('VmRSS')\n"
        "    assert len(analyze_checkpoint(file, workers=10)) == count\n"
        "    print((status('VmHWM') - before) / 1024)\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    small = zoo.checkpoint("resnet20_digits").weights
    files = [tmp_path / f"{name}.safetensors" for name in ("few", "many")]
    done = subprocess.run(
        [sys.executable, "-c", code, small, *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = map(float, done.stdout.split())
    assert few < 3 * 96
    assert many < 256


def test_the_command(tensors, tmp_path, capfd):
    tensors["[/red]evil.weight"] = np.eye(3, dtype="float32")
    save_file(tensors, tmp_path / "w.safetensors")

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["analyze", *map(str, arguments)])
        return stopped.value.code

    assert run(tmp_path / "w.safetensors", "--output", tmp_path / "out") == 0
    printed = capfd.readouterr().out
    assert "skipped, a mask: conv.mask" in printed and "[/red]evil" in printed
    content = json.loads((tmp_path / "out/analysis.json").read_text())
    assert {row["name"] for row in content["tensors"]} >= {"fc.weight", "conv.weight"}
    assert "dead.weight" in content["skipped"]
    assert (tmp_path / "out/analysis.png").stat().st_size > 10_000
    assert run(tmp_path / "w.safetensors", "--json") == 0
    assert json.loads(capfd.readouterr().out)["tensors"][0]["stable_rank"] > 1
    assert run(tmp_path / "absent.pth") == 2


def test_bad_arguments(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        analyze_checkpoint(tmp_path / "x.pth")
    with pytest.raises(ValueError, match="`layout`"):
        analyze_checkpoint(tmp_path / "x.pth", layout="jax")
    with pytest.raises(ValueError, match="`rows`"):
        analysis_figure([])


def test_values_out_of_range_do_not_stop_the_analysis(rng, tmp_path, recwarn):
    matrices = {
        "huge": rng.normal(size=(9, 9)) * 1e200,
        "tiny": rng.normal(size=(9, 9)) * 1e-200,
        "infinite": np.where(np.eye(9) > 0, np.inf, 1.0),
        "fine": rng.normal(size=(9, 9)),
    }
    save_file(matrices, tmp_path / "odd.safetensors")
    found = analyze_checkpoint(tmp_path / "odd.safetensors")
    assert [row.name for row in found] == ["fine"]
    assert set(found.skipped) == {"huge", "tiny", "infinite"}
    assert not [w for w in recwarn if w.category is RuntimeWarning]


def test_an_analysis_says_what_it_is_of(tmp_path, capfd):
    path = tmp_path / "mine.npz"
    np.savez(path, **{"fc.weight": np.random.default_rng(0).normal(size=(30, 20))})
    with pytest.raises(SystemExit, match="0"):
        command = ["analyze", str(path), "--seed", "3", "--workers", "2"]
        cli.main([*command, "--output", f"{tmp_path}/out"])
    source = json.loads((tmp_path / "out" / "analysis.json").read_text())["source"]
    assert source == {
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "container": "npz",
        "entry": None,
        "layout": "auto",
        "convolution": "reshaped",
        "seed": 3,
        "keras_spectral": keras_spectral.__version__,
    }
    capfd.readouterr()


def test_names_stay_apart_in_a_terminal_and_whole_in_a_pipe(tmp_path, capfd):
    names = [f"transformer.encoder.layers.{n}.attention.projection" for n in (1, 12)]
    rng = np.random.default_rng(0)
    arrays = {f"{name}.weight": rng.normal(size=(30, 20)) for name in names}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["analyze", str(tmp_path / "mine.npz")])
    lines = capfd.readouterr().out.splitlines()
    assert [any(name in line for line in lines) for name in names] == [True, True]
    console = Console(width=80, file=io.StringIO())
    console.print(analyze_checkpoint(tmp_path / "mine.npz"))
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    lines = printed.splitlines()
    head = next(line for line in lines if line.split()[:2] == ["tensor", "shape"])
    start, end = head.index("tensor"), head.index("shape")
    column = "".join(line[start:end].strip() for line in lines)
    assert all(name in column for name in names)


def normalized_modules():
    from torch.nn.utils import parametrizations, spectral_norm, weight_norm

    torch.manual_seed(0)
    linear = torch.nn.Linear(20, 30)
    convolution = torch.nn.Conv2d(5, 12, 3)
    square = torch.nn.ConvTranspose2d(7, 7, 3)
    transposed = torch.nn.ConvTranspose2d(6, 9, 3)
    return {
        "spectral": spectral_norm(torch.nn.Linear(20, 30)),
        "parametrized": parametrizations.spectral_norm(convolution),
        "transposed": spectral_norm(transposed, dim=1),
        "square": spectral_norm(square, n_power_iterations=9),
        "wide": parametrizations.spectral_norm(torch.nn.ConvTranspose2d(4, 6, 3)),
        "weight": weight_norm(torch.nn.Linear(20, 30)),
        "weights": parametrizations.weight_norm(linear),
    }


def test_normalized_weights_are_those_of_the_network(tmp_path):
    modules = normalized_modules()
    for module in modules.values():
        size = (1, 20) if module.weight.ndim == 2 else (1, module.in_channels, 5, 5)
        module.train()(torch.ones(size))
    net = torch.nn.ModuleDict(modules).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = {row.name: row for row in analyze_checkpoint(tmp_path / "net.pth")}
    assert found.keys() == {f"{name}.weight" for name in modules}
    for name, module in modules.items():
        # Evaluation sets the weight that is computed with.
        shape = (1, 20) if module.weight.ndim == 2 else (1, module.in_channels, 5, 5)
        module(torch.ones(shape))
        weight = module.weight.detach().numpy().astype("float64")
        row = found[f"{name}.weight"]
        # Of the square one, which axis has the outputs is not in the file.
        assert (row.note is not None) is (name == "square")
        if name in ("transposed", "wide"):
            weight = weight.swapaxes(0, 1)
        matrix = weight.reshape(weight.shape[0], -1)
        assert row.spectral_norm == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)
