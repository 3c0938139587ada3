"""Terminals of few characters, and standard streams that are closed, full or gone."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy

import keras_spectral.cli.streams  # noqa: F401 - it has the error handler
from keras_spectral.terminal import Console

COMMAND = f"{sys.executable} -m keras_spectral.cli"
LONG = "features.stage1.unit1.body.conv1.convolution.of.a.long.name" * 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminals")
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((60, 50)).astype("float32")
    for name, scale in (("a", 1), ("b", 2)):
        tensors = {f"{LONG}.weight": weights * scale}
        safetensors.numpy.save_file(tensors, folder / f"{name}.safetensors")
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    (folder / "sweep").mkdir()
    keras.Sequential(layers, name="n" * 90).save(folder / "sweep/small_digits-1.keras")
    return folder


def shell(folder, line, **environment):
    """Run a line in bash, `keras-spectral` in it being this one."""
    script = f'keras-spectral() {{ {COMMAND} "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "COLUMNS": "60", "KERAS_BACKEND": "numpy", **environment},
    )


TERMINALS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "c": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
LINES = {
    "inspect": "keras-spectral inspect a.safetensors",
    "verify": "keras-spectral verify a.safetensors b.safetensors; [ $? = 1 ]",
    "analyze": "keras-spectral analyze a.safetensors",
    "compress": "keras-spectral compress sweep/small_digits-1.keras --trials 2",
    "sweep": "keras-spectral sweep --checkpoints sweep --workers 0 --trials 2 "
    "--output out",
    "export": "keras-spectral export sweep/small_digits-1.keras --output "
    "$'\\xc3\\xa9.safetensors'",
    "help": "keras-spectral --help && keras-spectral convert --help",
}


@pytest.mark.parametrize("terminal", TERMINALS)
def test_a_terminal_of_few_characters_gets_every_table(files, terminal):
    # Keras takes seconds to start, and what it says is the same in all three.
    light = ("inspect", "verify", "analyze", "help")
    for name in LINES if terminal == "latin-1" else light:
        line = LINES[name]
        done = shell(files, line, **TERMINALS[terminal])
        error = done.stderr.decode(errors="replace")
        assert done.returncode == 0 and "Traceback" not in error, (name, error)
        encoding = "latin-1" if terminal == "latin-1" else "ascii"
        text = done.stdout.decode(encoding)
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
        if name == "inspect":
            assert f" {LONG}.weight " in text and "+--" in text
    # What a narrow terminal cuts.
    assert "name\N{HORIZONTAL ELLIPSIS}".encode("ascii", "keras_spectral.replaced") == (
        b"name~"
    )


def test_a_name_that_is_no_text_is_shown(files):
    line = "cp a.safetensors $'\\xff.safetensors'; "
    done = shell(files, f"{line} keras-spectral inspect $'\\xff.safetensors'")
    assert done.returncode == 0 and rb"\udcff.safetensors" in done.stdout


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("wrong", ["inspect missing", "no-such-command"])
def test_an_error_that_cannot_be_told_is_an_exit_code(files, stream, wrong):
    assert shell(files, f"keras-spectral {wrong} {stream}").returncode == 2


@pytest.mark.parametrize("line", ["inspect a.safetensors", "--help"])
def test_a_full_stdout_is_one_line(files, line):
    done = shell(files, f"keras-spectral {line} >/dev/full")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_a_reader_that_has_gone_is_no_error(files):
    """The exit code is the verb's own."""
    line = "keras-spectral inspect a.safetensors | true; exit ${PIPESTATUS[0]}"
    done = shell(files, line)
    assert (done.returncode, done.stderr) == (0, b"")
    line = "keras-spectral inspect a.safetensors --json | true; exit ${PIPESTATUS[0]}"
    done = shell(files, line)
    assert (done.returncode, done.stderr) == (0, b"")
    line = "keras-spectral verify {a,b}.safetensors | true; exit ${PIPESTATUS[0]}"
    done = shell(files, line)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_closed_stream_gives_its_number_to_no_file(files):
    """What a library prints would be written into the file that is written."""
    line = "keras-spectral {} a.safetensors {} >&- 2>&-"
    line = line.format("analyze", "--output analysis")
    done = shell(files, line)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads((files / "analysis/analysis.json").read_text())["tensors"]
    code = (
        "import os\nfrom keras_spectral.cli import streams\n"
        "with streams.usable():\n    number = os.open('a.safetensors', os.O_RDONLY)\n"
        "    os._exit(0 if number > 2 else 1)\n"
    )
    line = f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' <&- >&- 2>&-"
    assert shell(files, line).returncode == 0


def test_a_line_in_a_pipe_is_as_wide_as_a_screen(capfd):
    Console().rule("A part")
    (line,) = capfd.readouterr().out.splitlines()
    assert len(line) == 80 and " A part " in line
