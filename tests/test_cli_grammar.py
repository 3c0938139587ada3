"""What all verbs of the command line have in common."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys

import keras
import pytest
import typer

from keras_spectral import data, zoo
from keras_spectral.cli import app, compression, verbs
from keras_spectral.compression.heavy_tail import RULES
from keras_spectral.experiments.inputs import start_keras
from keras_spectral.files import output_folder
from keras_spectral.results import Rows
from keras_spectral.terminal import Console
from tests.test_cli import WEIGHTS, run

GROUP = typer.main.get_command(app.app)
VERBS = list(app.VERBS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("grammar") / "model.keras"
    layers = [keras.Input((30,)), keras.layers.Dense(10, name="head")]
    keras.Sequential(layers, name="mine").save(path)
    return path


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_verbs_stand_in_the_order_of_use(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("-h") == 0
    printed = capfd.readouterr().out
    places = [printed.index(f"│ {verb} ") for verb in VERBS]
    assert places == sorted(places)
    assert VERBS[:4] == ["demo", "inspect", "convert", "verify"]
    assert "--version" in printed and "Print the version." in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    # One line each.
    assert printed.count("│ ") == len(VERBS) + printed[: places[0]].count("│ ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_examples_json_and_quiet(verb, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(verb, "-h") == 0
    printed = capfd.readouterr().out
    assert "--json" in printed and "--quiet" in printed and "Usage: keras-s" in printed
    examples = verbs.text(app.VERBS[verb])["epilog"].split("\n\n")[1:]
    assert examples and " ".join(examples[0].split()) in printed
    for example in examples:
        program, name, *arguments = shlex.split(example)
        assert (program, name) == ("keras-spectral", verb)
        # Wrong options or missing ones raise.
        GROUP.commands[verb].make_context(name, arguments).close()


def test_python_m_and_completion_load_no_keras():
    done = python(["-m", "keras_spectral", "--version"])
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        "import sys\nfrom keras_spectral import cli\n"
        "try: cli.main([])\n"
        "finally: assert not {'keras', 'tensorflow', 'torch'} & set(sys.modules)"
    )
    for words, expected in (
        ("", VERBS),
        ("convert --model resnet20_c", ["resnet20_cifar10", "resnet20_cifar100"]),
        ("certify --data ", list(data.names())),
        ("compress --rule ", list(RULES)),
        ("run heavy_tail/figure", [f"heavy_tail/figure_{n}" for n in (1, 2, 3)]),
        ("export --dialect m", ["mimicry"]),
    ):
        done = python(
            ["-c", code],
            _KERAS_SPECTRAL_COMPLETE="complete_bash",
            COMP_WORDS=f"keras-spectral {words}",
            COMP_CWORD=str(len(words.split(" "))),
        )
        assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--layer haed", "`--layer` must name kernels of 'mine', or layers with "
         "kernels. Received: 'haed'. Did you mean head?"),
        ("--layer x", "Received: 'x'. It has head."),
        ("--rule x", "`--rule` must be one of magnitude, signed. Received: --rule='x'"),
        ("--replacement x", "`--replacement` must be one of gaussian, matched, zero. "
         "Received: --replacement='x'"),
        ("--rank-ratio 7", "`--rank-ratio` must be a number in (0, 1]. Received: "
         "--rank-ratio=7.0"),
        ("--trials 1", "`--trials` must be an integer >= 2. Received: --trials=1"),
    ],
)  # fmt: skip
def test_errors_name_options_and_list_the_choices(arguments, message, model, capfd):
    assert run("compress", model, *arguments.split()) == 2
    assert message in capfd.readouterr().err


def test_errors_name_the_data_option(capfd):
    arguments = ["--model", "resnet20_digits", "--data", "x"]
    assert run("certify", WEIGHTS, *arguments) == 2
    error = capfd.readouterr().err
    assert "`--data` must be one of digits, mnist," in error and "--data='x'" in error


def test_words_of_a_file_stay_what_they_are():
    message = "`x` must be one of (1, 2). Received: a/rule=3, rules=('b',), seed=1"
    assert verbs.in_options(message, app.VERBS["compress"]) == (
        "`x` must be one of 1, 2. Received: a/rule=3, --rule=('b',), --seed=1"
    )


@pytest.mark.parametrize("verb", ["export", "compress", "certify", "bound", "convert"])
def test_a_file_that_is_not_there_is_the_first_thing_to_say(verb, tmp_path, capfd):
    arguments = {
        "export": ["--output", tmp_path / "net.pth"],
        "convert": ["--output", tmp_path / "net.keras"],
        "compress": [],
    }.get(verb, ["--data", "digits"])
    assert run(verb, "missing.pth", *arguments) == 2
    error = capfd.readouterr().err
    assert error == "keras-spectral: missing.pth does not exist. Check the path.\n"


def test_without_a_model_those_that_fit_are_named(tmp_path, capfd, model):
    assert run("convert", WEIGHTS, "--output", tmp_path / "net.keras") == 2
    error = capfd.readouterr().err
    named = error.partition("Of its size: ")[2].rstrip(".\n").split(", ")
    count = zoo.entry("resnet20_digits")["parameters"]
    assert named == [
        name for name in zoo.list_models() if zoo.entry(name)["parameters"] == count
    ]
    assert run("export", model, "--output", tmp_path / "net.safetensors") == 0
    arguments = ["--output", tmp_path / "net.keras"]
    assert run("convert", tmp_path / "net.safetensors", *arguments) == 2
    assert (
        "None of the registered ones has its 310 parameters" in capfd.readouterr().err
    )


def test_quiet_prints_nothing_and_json_alone(model, tmp_path, capfd):
    assert run("inspect", WEIGHTS, "-q") == 0
    assert run("compress", model, "--quiet", "--trials", "2") == 0
    assert capfd.readouterr() == ("", "")
    arguments = ["--trials", "2", "--output", tmp_path, "--json"]
    assert run("compress", model, *arguments, "--quiet") == 0
    out, error = capfd.readouterr()
    assert error == ""
    assert json.loads(out) == json.loads((tmp_path / "compression.json").read_text())
    assert run("verify", WEIGHTS, model, "--quiet", "--dialect", "x") == 2
    assert capfd.readouterr().err.startswith("keras-spectral: `--dialect` must be")


def test_demo_and_sweep_print_json(tmp_path, capfd, monkeypatch):
    class Demo:
        def __init__(self, output, console, **settings):
            self.settings, self.console = settings, console

        def run(self):
            self.console.print("on stderr")
            return {"settings": self.settings}

    monkeypatch.setattr("keras_spectral.experiments.Demo", Demo, raising=False)
    assert run("demo", "--epochs", 3, "--output", tmp_path, "--json") == 0
    out, error = capfd.readouterr()
    assert json.loads(out)["settings"]["epochs"] == 3 and "on stderr" in error
    table = Rows([compression.SizeRow("x", 1, 1.0, None)])
    table[0].__dict__["error"] = "no data"
    monkeypatch.setattr(
        "keras_spectral.experiments.run_sweep", lambda *_, **__: table, raising=False
    )
    assert run("sweep", "--output", tmp_path, "--json") == 1
    assert json.loads(capfd.readouterr().out)[0]["name"] == "x"


def test_compressing_without_data_shows_that_it_works():
    console = Console(file=io.StringIO(), force_terminal=True)
    with compression._progress(console, None, 60) as measured:
        assert measured is None
    assert "Compressing" in console.file.getvalue()


# What comes as a module is imported: at any moment, and not at a time.
AT = """
import signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == sys.argv[1] and self in sys.meta_path:
            sys.meta_path.remove(self)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if sys.argv[2] == "raised":
                    raise
sys.meta_path.insert(0, Finder())
from keras_spectral import cli
cli.main(["compress", sys.argv[3]])
"""


@pytest.mark.parametrize(
    "module, how",
    [
        ("typer", "raised"),
        ("rich.console", "raised"),
        ("keras", "raised"),
        ("keras", "swallowed"),
        ("scipy", "raised"),
    ],
)
def test_an_interrupt_at_any_moment_is_a_line_and_130(module, how, model):
    done = python(["-c", AT], module, how, str(model), KERAS_BACKEND="numpy")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "keras-spectral: interrupted\n"


def test_an_interrupt_as_options_are_read_is_that_line_too(monkeypatch):
    """typer, which imports some of its own modules then, ended without a word."""

    def interrupting(*arguments):
        raise KeyboardInterrupt

    told = []
    monkeypatch.setattr(typer.core.TyperGroup, "parse_args", interrupting)
    monkeypatch.setattr(app.streams, "interrupted", lambda: told.append("once"))
    with contextlib.suppress(TypeError):  # It would have ended the process.
        app.app(["recipes"], prog_name="keras-spectral")
    assert told == ["once"]


@pytest.mark.parametrize("rows", [0, 1])
def test_an_interrupt_tells_of_rows_that_are_there(rows, tmp_path, monkeypatch):
    """It told of rows before there was any, and left an empty folder."""
    told, output = [], tmp_path / "new"

    def interrupted(*arguments, **options):
        folder = output_folder(output / "rows")
        for row in range(rows):
            (folder / f"{row}.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_spectral.experiments.run_sweep", interrupted)
    monkeypatch.setattr(app.streams, "interrupted", told.append)
    run("sweep", "--output", output)
    assert [text[:13] for text in told] == [["", "finished rows"][rows]]
    assert output.exists() == bool(rows)


def test_what_tensorflow_says_as_it_starts_is_not_shown():
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0", "KERAS_BACKEND": "tensorflow"}
    done = python(["-m", "keras_spectral", "run", "nosuch"], **environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("keras-spectral: `recipe` must be")


def test_a_backend_that_is_not_installed_says_how_to_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)  # As where an import fails.
    with pytest.raises(ImportError, match="(?s)pip install keras.*KERAS_BACKEND"):
        start_keras(Console())


@pytest.mark.parametrize(
    "typed, told",
    [
        ("analyze --wrokers 2", "No such option: --wrokers (Possible options: --wo"),
        ("analize x", "No such command 'analize'. Did you mean 'analyze'? See"),
        ("run x --seeds=many", "as an integer. Received: --seeds=many. See `keras-"),
        ("run x --seeds many", "as an integer. Received: --seeds many. See `keras-"),
        ("convert", "Missing argument 'source'. See `keras-spectral convert -h`."),
    ],
)
def test_wrong_arguments_are_told_in_a_line(typed, told, capfd):
    assert run(*typed.split()) == 2
    out, said = capfd.readouterr()
    assert out == "" and said.count("\n") == 1
    assert said.startswith("keras-spectral: ") and told in said
