"""What somebody types who does not know the command line yet, or mistypes."""

import inspect
import json

import keras
import numpy as np
import pytest
import typer

from keras_spectral import layers, zoo
from keras_spectral.cli import app, checkpoints, verbs
from tests.test_cli import WEIGHTS, run

COMMANDS = typer.main.get_command(app.app).commands


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    widths = {"width": 4, "generator_width": 4, "channels": 1}
    gan = zoo.sn_resnet_gan(**widths)
    gan.compile()
    gan.save(folder / "gan.keras")
    dense = layers.SpectralNormalization(keras.layers.Dense(10))
    network = [keras.Input((8, 8, 1)), keras.layers.Flatten(), dense]
    keras.Sequential(network, name="mine").save(folder / "net.keras")
    (folder / "text.txt").write_text("hello")
    return folder


def refused(capfd, *arguments, code=2):
    """Run a verb that fails; return the line that it says."""
    assert run(*arguments) == code
    out, error = capfd.readouterr()
    assert out == "" and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("verb", list(app.VERBS))
def test_errors_name_every_option_as_it_is_typed(verb):
    """`--set` was `--changes` in errors."""
    function = app.VERBS[verb]
    for parameter in COMMANDS[verb].params:
        own = parameter.name in inspect.signature(function).parameters
        if own and parameter.param_type_name == "option" and parameter.name != "model":
            said = verbs.in_options(f"`{parameter.name}` must", function)
            assert said.split("`")[1] in parameter.opts, said


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("run stable_rank/table_6 --small --set foo", "`--set` must look like"),
        (
            "run stable_rank/table_6 --small --set optimizer.learning_rate=x",
            "Changed by `--set`: optimizer.learning_rate=x.",
        ),
        ("certify FOLDER/gan.keras --data digits", "named 'sn_resnet_gan' with other"),
        (
            "convert FOLDER/gan.keras --output FOLDER/x.keras --data digits",
            "`--data` needs a model that takes images of a fixed size",
        ),
        ("bound FOLDER/gan.keras --data digits", "`source` must be a `keras.Seq"),
        ("evaluate-gan FOLDER/text.txt --data digits", "is no .keras model. Save"),
        ("evaluate-gan FOLDER --data digits", "is no .keras model. Save"),
        (
            "evaluate-gan FOLDER/gan.keras --data digits --features no.keras",
            "keras-spectral: --features=no.keras does not exist.",
        ),
        ("sweep --checkpoints nothing", "--checkpoints=nothing does not exist."),
        ("run stable_rank/table_6 --directory no", "--directory=no does not exist."),
        ("convert FOLDER/net.keras --output x.pth", "must end in .keras. Received"),
        (
            "export FOLDER/net.keras --output FOLDER/x.pth --spectral-normalization x",
            "`--spectral-normalization` must be one of BigGAN,",
        ),
        ("report FOLDER/text.txt --output FOLDER/p.html", "text.txt is no result."),
        (
            "convert FOLDER/text.txt --model resnet20_digit --output FOLDER/x.keras",
            "`--model` must be a registered network. Received: --model=resnet20_digit. "
            "Did you mean resnet20_digits",
        ),
        (
            "sweep --models resnet20_digit --output FOLDER/swept",
            "`--models` must be a registered network. Received: --models="
            "resnet20_digit. Did you mean resnet20_digits",
        ),
        (
            "certify FOLDER/net.keras --data digits --model qqqq",
            "Received: --model=qqqq. docs/zoo.md lists them.",
        ),
        ("certify FOLDER/net.keras --data celeb_a", "set KERAS_SPECTRAL_DATA to it"),
    ],
)
def test_a_mistake_is_a_line_in_the_words_of_the_command_line(
    arguments, message, files, capfd, monkeypatch
):
    monkeypatch.delenv("KERAS_SPECTRAL_DATA", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(files / "none"))
    words = [word.replace("FOLDER", str(files)) for word in arguments.split()]
    error = refused(capfd, *words)
    assert message in error
    assert "None" not in error and "`directory`" not in error


def test_options_of_another_verb_are_named_with_it(files, capfd):
    arguments = [WEIGHTS, "--data", "digits", "--model", "resnet56_cifar10"]
    error = refused(capfd, "certify", *arguments, code=1)
    assert "`--prefix` of `convert` takes one part of a file" in error


def test_a_fault_of_our_own_is_no_traceback(files, capfd, monkeypatch):
    def faulty(*arguments):
        raise AttributeError("of a\nprogrammer")

    monkeypatch.setattr(checkpoints, "_described", faulty)
    assert run("inspect", WEIGHTS) == 70
    first, second = capfd.readouterr().err.splitlines()
    assert first == "keras-spectral: AttributeError: of a programmer"
    assert "--debug" in second
    with pytest.raises(AttributeError):
        app.run(["inspect", WEIGHTS, "--debug"])


def test_a_page_replaces_a_page_and_no_other_file(files, tmp_path, capfd):
    page = tmp_path / "new" / "page.html"
    for _ in range(2):
        assert run("inspect", WEIGHTS, "--report", page, "-q") == 0
    assert run("analyze", files / "net.keras", "--output", tmp_path, "-q") == 0
    assert run("report", tmp_path, "--output", page, "-q") == 0
    capfd.readouterr()
    for verb, option in (("inspect", "--report"), ("report", "--output")):
        page.write_text("<!doctype html><title>somebody's</title>")
        error = refused(capfd, verb, WEIGHTS, option, page)
        assert f"`{option}` must be new, or a page of this program" in error
        assert "somebody's" in page.read_text()


def test_a_table_in_a_pipe_begins_with_its_title(files, capfd):
    """A bar that was not shown left an empty line."""
    arguments = ["--data", "digits", "--trials", "2", "--rule", "magnitude"]
    assert run("compress", files / "net.keras", *arguments) == 0
    assert capfd.readouterr().out.startswith("mine: small weights")


def test_small_files_have_bytes_and_not_no_megabytes(tmp_path, capfd):
    np.savez(tmp_path / "x.npz", w=np.ones((2, 3), "float32"))
    assert run("inspect", tmp_path / "x.npz") == 0
    assert "6 numbers, 24 bytes" in capfd.readouterr().out
    assert run("inspect", tmp_path / "x.npz", "--json", "--quiet") == 0
    assert json.loads(capfd.readouterr().out)["bytes"] == 24


@pytest.mark.parametrize(
    "arguments",
    [
        "convert FOLDER/text.txt --model resnet20_cifar10 --output NEW/net.keras",
        "export FOLDER/text.txt --output NEW/net.pth",
        "analyze FOLDER/text.txt --output NEW",
        "analyze FOLDER/text.txt --report NEW/page.html",
        "compress FOLDER/text.txt --model resnet20_cifar10 --output NEW",
        "run stable_rank/table_6 --small --set foo --output NEW",
    ],
)
def test_what_is_refused_leaves_no_folder(arguments, files, tmp_path, capfd):
    (tmp_path / "old").mkdir()
    new = tmp_path / "new" / "one"
    words = arguments.replace("FOLDER", str(files)).replace("NEW", str(new)).split()
    refused(capfd, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    # One that was there stays.
    refused(capfd, *(word.replace(str(new), str(tmp_path / "old")) for word in words))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
