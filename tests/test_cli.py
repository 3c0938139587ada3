import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import torch

from keras_spectral import cli, convert, zoo
from tests.convert.reference import random_network, torch_logits

WEIGHTS = str(zoo.checkpoint("resnet20_digits").weights)


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_convert_to_keras_and_back(tmp_path, capfd, rng):
    network = random_network("resnet20_cifar10")
    torch.save(network.state_dict(), tmp_path / "net.pth")
    keras_file = tmp_path / "net.keras"
    arguments = ["--model", "resnet20_cifar10", "--output", keras_file]
    assert run("convert", tmp_path / "net.pth", *arguments) == 0
    model = keras.models.load_model(keras_file)
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    expected = torch_logits(network, x)
    assert np.abs(model(x) - expected).max() / np.abs(expected).max() < 1e-4
    back = tmp_path / "back.safetensors"
    assert run("export", keras_file, "--output", back, "--json") == 0
    printed = capfd.readouterr().out
    printed = " ".join(printed.split())  # Lines break where the path ends.
    assert "274,042 parameters" in printed and "network agrees" in printed
    read = convert.read_checkpoint(back)
    assert read.keys() == network.state_dict().keys()
    for key, value in read.items():
        np.testing.assert_array_equal(value, network.state_dict()[key].numpy())
    card = json.loads((tmp_path / "net.json").read_text())
    assert card == convert.provenance(keras_file)
    assert card["fingerprint"] == read.fingerprint() and read.fingerprint() in printed
    assert card["verification"]["status"] == "passed"
    assert card["verification"]["relative_error"] < 1e-10
    for other in (back, keras_file):
        assert run("verify", tmp_path / "net.pth", other) == 0
    changed = {**network.state_dict(), "output.bias": network.output.bias + 1e-3}
    torch.save(changed, tmp_path / "changed.pth")
    capfd.readouterr()
    assert run("verify", tmp_path / "changed.pth", keras_file, "--json") == 1
    report = json.loads(capfd.readouterr().out)
    assert not report["equal"]
    (row,) = [row for row in report["tensors"] if row["status"] != "equal"]
    assert row["name"] == "output.bias"
    assert run("verify", tmp_path / "changed.pth", keras_file, "--tolerance", 1) == 0


def test_convert_takes_a_part_and_leaves_keys_out(tmp_path, capfd):
    state = random_network("resnet20_cifar10").state_dict()
    state = {f"encoder.{key}": value for key, value in state.items()}
    state |= {"head.weight": torch.ones(2, 2), "encoder.position_ids": torch.arange(3)}
    torch.save(state, tmp_path / "net.pth")
    output = tmp_path / "net.keras"
    arguments = ["convert", tmp_path / "net.pth", "--model", "resnet20_cifar10"]
    arguments += ["--output", output]
    assert run(*arguments) == 1
    error = capfd.readouterr().err
    assert "`--prefix`" in error and "`--ignore`" in error
    arguments += ["--prefix", "encoder.", "--ignore", "position*"]
    # The second time its own card is there.
    for more in ([], ["--ignore", "output.*"]):
        assert run(*arguments, *more) == 0
        printed = " ".join(capfd.readouterr().out.split())
        assert "ignored: encoder.position_ids" in printed
        assert "not under `encoder.`, left out: head.weight" in printed
        assert ("the model keeps its own output.{bias,weight}" in printed) == bool(more)
        card = json.loads((tmp_path / "net.json").read_text())
        assert card == convert.provenance(output)


def test_a_card_replaces_no_other_file(tmp_path):
    layers = [keras.Input((3,)), keras.layers.Dense(2, name="fc")]
    model = keras.Sequential(layers)
    (tmp_path / "net.json").write_text("[1]")
    # A model without a card needs no room for one.
    assert convert.save_model(model, tmp_path / "net.keras") is None
    (tmp_path / "net.keras").unlink()
    convert.from_torch({"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}, model)
    with pytest.raises(ValueError, match=r"net\.json is there and is no card"):
        convert.save_model(model, tmp_path / "net.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]
    assert (tmp_path / "net.json").read_text() == "[1]"


def test_inspect_has_one_row_a_tied_tensor(tmp_path, capfd):
    w = torch.ones(3, 2)
    torch.save({"a.weight": w, "[b].weight": w, "c": w.clone()}, tmp_path / "w.pth")
    assert run("inspect", tmp_path / "w.pth") == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "a.weight = [b].weight" in printed
    assert "2 tensors, 12 numbers" in printed
    assert run("inspect", tmp_path / "w.pth", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert [t["aliases"] for t in report["tensors"]] == [["[b].weight"], []]
    assert report["bytes"] == 48 and report["trained"] == 12


def test_inspect_loads_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom keras_spectral import cli\n"
        "try: cli.main(['inspect', sys.argv[1], '--json'])\nexcept SystemExit: pass\n"
        "assert not {'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, WEIGHTS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["container"] == "safetensors"
    assert report["dialect"] == ["pytorchcv"]
    assert report["trained"] == 272_474
    assert "resnet20_cifar10" in report["architectures"]
    shapes = {tensor["name"]: tensor["shape"] for tensor in report["tensors"]}
    assert shapes["output.weight"] == [10, 64]


def test_inspect_names_spectral_normalization_and_what_was_unwrapped(tmp_path, capfd):
    module = torch.nn.utils.spectral_norm(torch.nn.Linear(3, 2))
    state = {f"module.{k}": v for k, v in module.state_dict().items()}
    torch.save({"model": {"state_dict": state}}, tmp_path / "net.pth")
    assert run("inspect", tmp_path / "net.pth") == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "Spectral normalization: utils.spectral_norm" in printed
    assert "the entry `model.state_dict` was read" in printed
    assert "the prefix `module.` was taken off" in printed


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_exit_codes_of_bad_checkpoints(command, tmp_path, capfd):
    class Hostile:
        def __reduce__(self):
            return print, ("this must not run",)

    torch.save({"w": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    for name, code in (("hostile.pth", 3), ("cut.pth", 2)):
        more = [WEIGHTS] if command == "verify" else []
        assert run(command, tmp_path / name, *more) == code
        out, error = capfd.readouterr()
        assert out == "" and error.count("\n") == 1 and name in error


def test_convert_prints_the_accuracy(tmp_path, capfd):
    arguments = ["--model", "resnet20_digits", "--data", "digits"]
    output = tmp_path / "net.keras"
    assert run("convert", WEIGHTS, *arguments, "--output", output) == 0
    card = json.loads(zoo.checkpoint("resnet20_digits").card.read_text())
    expected = f"Accuracy on digits: {card['test_accuracy']:.4f}"
    assert expected in capfd.readouterr().out


def test_names_are_printed_as_they_are(tmp_path, capfd):
    folder = tmp_path / "a[" / "x] [red]b"
    folder.mkdir(parents=True)
    torch.save({"[/red]w": torch.ones(1), "[bold]": torch.ones(2)}, folder / "w.pth")
    torch.save({"[/red]w": torch.zeros(1)}, folder / "v.pth")
    assert run("inspect", folder / "w.pth") == 0
    assert run("verify", folder / "w.pth", folder / "v.pth") == 1
    for printed in capfd.readouterr().out.split("tensors,"):
        assert "[/red]w" in printed and "[bold]" in printed
    assert "[/red]w" in str(convert.compare(folder / "w.pth", folder / "v.pth"))


@pytest.mark.parametrize("damage", ["config", "metadata", "none", "card", "directory"])
def test_a_damaged_keras_model_is_exit_code_2(damage, tmp_path, capfd):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    model.save(tmp_path / "right.keras")
    path = tmp_path / "net.keras"
    changed = {
        "config": {"config.json": '{"class_name": "a.b", "config": {}, "module": "a"}'},
        "metadata": {"metadata.json": "[]"},
        "none": {"metadata.json": None},
        "card": {"metadata.json": '{"keras_spectral": 3}'},
        "directory": {},
    }[damage]
    with (
        zipfile.ZipFile(tmp_path / "right.keras") as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for name in source.namelist():
            content = changed.get(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    if damage == "directory":
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"PK\x01\x02", b"PK\x01\x03"))
    commands = [
        ("verify", path, tmp_path / "right.keras"),
        ("export", path, "--output", tmp_path / "out.safetensors"),
    ]
    # A card that is none says nothing; the model is whole.
    code = 0 if damage == "card" else 2
    for command in commands:
        assert run(*command) == code
        assert capfd.readouterr().err.count("\n") == (code != 0)


def bad_convert(source="net.pth", model="resnet20_cifar10", output="out.keras"):
    return ["convert", source, "--model", model, "--output", output]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of bad files; nothing may be added to it."""
    monkeypatch.chdir(tmp_path)
    state = random_network("resnet20_cifar10").state_dict()
    torch.save(state, "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<html>Sign in</html>")
    torch.save(torch.nn.Linear(2, 2), "module.pth")
    torch.save({**state, "output.bias": torch.full((10,), torch.nan)}, "nan.pth")
    keras.Sequential([keras.Input((3,)), keras.layers.PReLU()]).save("prelu.keras")
    rms = keras.layers.RMSNormalization()
    keras.Sequential([keras.Input((3,)), rms]).save("rms.keras")
    (tmp_path / "mine.json").write_text('{"keras_spectral": "of another kind"}')
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("nowhere")
    (tmp_path / "broken.keras").write_bytes((tmp_path / "prelu.keras").read_bytes()[:9])
    with zipfile.ZipFile("foreign.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    before = sorted(tmp_path.rglob("*"))
    yield tmp_path
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments, match",
    [
        (bad_convert(source="missing.pth"), "missing.pth does not exist"),
        (bad_convert(source="empty.pth"), "is empty"),
        (bad_convert(source="cut.pth"), "is cut off"),
        (bad_convert(source="page.pth"), "is a web page"),
        (bad_convert(source="nan.pth"), "10 NaN or infinite values"),
        (bad_convert(source="broken.keras"), "is cut off"),
        (bad_convert(output="out.pth"), "`--output` must end in"),
        (["export", "net.pth", "--output", "o.pth"], "must be a .keras model"),
        (bad_convert(model="resnet20_cifar"), "Did you mean resnet20_cifar10"),
        (bad_convert(output="out.onnx"), "`--output` must end in"),
        (
            ["convert", "prelu.keras", "--output", "prelu.keras"],
            "must not be the source",
        ),
        (bad_convert(output="net.pth/out.keras"), "folder that can be written"),
        *(
            (
                bad_convert(output=f"{name}.keras"),
                f"{name}.json is there and is no card",
            )
            for name in ("mine", "folder", "link")
        ),
        (bad_convert() + ["--prefix", "net."], "no keys under `--prefix`"),
        (bad_convert() + ["--ignore", "haed.*"], "'haed.*', which match none"),
        (
            ["verify", "net.pth", "net.pth", "--tolerance", "-1"],
            "`--tolerance` must be",
        ),
        (
            ["verify", "net.pth", "net.pth", "--tolerance", "nan"],
            "`--tolerance` must be",
        ),
        (
            ["verify", "net.pth", "net.pth", "--tolerance", "inf"],
            "`--tolerance` must be",
        ),
        (["convert", "net.pth", "--output", "out.keras"], "`--model` must name"),
        (
            ["export", "rms.keras", "--output", "out.safetensors"],
            "there is no rule",
        ),
        (["compress", "prelu.keras"], "a kernel that can be compressed"),
        (["compress", "prelu.keras", "--data", "digits"], "images of a fixed size"),
        (
            ["compress", "prelu.keras", "--model", "resnet20_digits"],
            "belongs to a PyTorch checkpoint",
        ),
        (["compress", "foreign.keras"], "no Keras model that can be loaded"),
        (
            ["compress", WEIGHTS, "--model", "resnet20_digits", "--layer", "outptu"],
            "Did you mean output",
        ),
        (
            ["compress", WEIGHTS, "--model", "resnet20_digits", "--data", "digit"],
            "Did you mean 'digits'",
        ),
        (["demo", "--output", "net.pth"], "folder that can be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, match, folder, capfd):
    assert run(*arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("keras-spectral: ") and error.count("\n") == 1
    assert match in error


@pytest.mark.parametrize(
    "arguments, code, match",
    [
        (bad_convert(model="resnet56_cifar10"), 1, "keys are missing"),
        (bad_convert(source="module.pth"), 3, "pickled object of torch.nn"),
    ],
)
def test_mismatch_is_exit_code_1_and_unsafe_3(arguments, code, match, folder, capfd):
    assert run(*arguments) == code
    assert match in capfd.readouterr().err


def test_debug_shows_the_traceback(folder):
    with pytest.raises(convert.CheckpointError, match="is empty"):
        cli.main([*bad_convert(source="empty.pth"), "--debug"])


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]])
def test_help_and_version(arguments, capfd):
    assert run(*arguments) == 0
    assert capfd.readouterr().out


def test_unknown_options_are_exit_code_2(capfd):
    assert run("demo", "--epoch", "3") == 2
    assert "--epochs" in capfd.readouterr().err
