"""Disks that are full, folders that are gone or in the way, and writers that died."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keras_spectral import cli, zoo
from keras_spectral.files import beside, output_file, output_folder, replacing
from tests.faults import disks
from tests.faults.disks import SAVERS, contents, network

fcntl = pytest.importorskip("fcntl")
WEIGHTS = str(zoo.checkpoint("resnet20_digits").weights)
saver = pytest.mark.parametrize(("name", "save"), SAVERS.values(), ids=SAVERS)


@pytest.mark.parametrize("name", SAVERS)
def test_a_full_disk_leaves_what_was_there(tmp_path, name):
    """At whatever byte it is full, and whatever the library makes of it."""
    assert disks.fill(tmp_path, name, limits=5) == 5


@saver
def test_a_small_disk_leaves_what_was_there(tmp_path, name, save):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(mounted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        (mounted / name).write_text("old")
        (mounted / "rest").write_bytes(bytes(24 * 1024))
        with pytest.raises(OSError, match="a") as caught:
            save(mounted / name)
        assert caught.value.filename == str(mounted / name)
        assert (mounted / name).read_text() == "old"
        assert {path.name for path in mounted.iterdir()} == {name, "rest"}
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@saver
def test_a_folder_in_the_way_and_one_that_is_missing(tmp_path, name, save):
    (tmp_path / name).mkdir()
    for path in (tmp_path / name, tmp_path / "missing" / name):
        with pytest.raises(OSError, match=r"`path`"):
            save(path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_unplugged_while_it_is_written(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        with replacing(folder / "a.txt") as temporary:
            temporary.parent.parent.rename(tmp_path / "gone")
            temporary.write_text("half")
    assert caught.value.filename == str(folder / "a.txt")


def test_a_mistake_in_the_body_is_no_full_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a.txt"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "a." + "b" * 253, "\udcff.txt"])
def test_a_name_of_any_length_can_be_written(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_said_before(tmp_path):
    with pytest.raises(OSError, match="too long"):
        output_file(tmp_path / ("a" * 256))


def test_what_a_dead_writer_left_is_removed_and_only_that(tmp_path):
    """A live writer's lock is held; other files' temporaries are none of ours."""
    code = (
        "import os, sys\nfrom keras_spectral.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    for name in ("a.txt", "b.txt"):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        assert subprocess.run(command).returncode == -9
    dead = {path.name for path in tmp_path.iterdir()}
    assert len(dead) == 2 and all(len(name) == 34 for name in dead)
    prefix = min(dead)[:18]
    strangers = {f"{prefix}notes", f"{prefix}{'0' * 16}x", f"{prefix}{'1' * 16}"}
    for name in strangers:
        (tmp_path / name).write_text("a file, or of another name")
    with replacing(tmp_path / "a.txt") as first:
        with replacing(tmp_path / "a.txt") as second:
            assert first.parent.is_dir()
            second.write_text("second")
        assert first.parent.is_dir()
        first.write_text("first")
    assert (tmp_path / "a.txt").read_text() == "first"  # The last to end.
    left = {path.name for path in tmp_path.iterdir()} - strangers - {"a.txt"}
    assert len(left) == 1 and left < dead
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == strangers | {"a.txt", "b.txt"}


def test_without_locks_what_is_left_stays(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    with beside(tmp_path / "a.txt") as temporary:
        dead = tmp_path / f"{temporary.parent.name[:-1]}x"
    dead = dead.with_name(dead.name[:-1] + "0")
    dead.mkdir()
    for stand_in in (None, type("fcntl", (), {**vars(fcntl), "flock": no_locks})):
        monkeypatch.setattr("keras_spectral.files.fcntl", stand_in)
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
        assert dead.is_dir() and (tmp_path / "a.txt").read_text() == "whole"


def test_many_writers_of_one_file_leave_one_whole_result(tmp_path):
    """Processes and threads; the permissions are those of a plain file."""
    path, umask = tmp_path / "a.txt", os.umask(0o027)
    code = (
        "import sys\nfrom keras_spectral.files import replacing\n"
        "for number in range(25):\n"
        "    with replacing(sys.argv[1]) as temporary:\n"
        "        temporary.write_text(sys.argv[2] * 100_000)\n"
    )
    try:
        writers = [
            subprocess.Popen([sys.executable, "-c", code, str(path), letter])
            for letter in "abc"
        ]

        def write():
            for _ in range(25):
                with replacing(path) as temporary:
                    temporary.write_text("d" * 100_000)

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(writer.poll() is None for writer in writers):
            if path.exists():
                text = path.read_text()
                assert len(text) == 100_000 and len(set(text)) == 1
        for thread in threads:
            thread.join()
        assert [writer.returncode for writer in writers] == [0] * 3
        assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(umask)
    assert os.umask(umask) == umask


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


# Each command that writes, the name in its way, and what it is given.
COMMANDS = {
    "convert": ("out.keras", ["--model", "resnet20_digits", "--no-verify"]),
    "export": ("out.pth", []),
    "compress": ("compressed.safetensors", ["--model", "resnet20_digits"]),
    "analyze": ("analysis.json", []),
    "sweep": ("table.md", []),
    "demo": ("demo.png", []),
    "run": ("stable_rank-table_6-small.md", ["stable_rank/table_6", "--small"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", ["folder", "file"])
def test_a_wrong_output_is_said_before_the_work(command, wrong, tmp_path, capfd):
    """A folder where a file goes, and a file where the folder goes."""
    name, more = COMMANDS[command]
    output = tmp_path / "results"
    if wrong == "folder":
        (output / name).mkdir(parents=True)
    else:
        output.write_text("mine")
    target = output / name if command in ("convert", "export") else output
    (tmp_path / "source").write_bytes(b"no checkpoint")
    source = [] if command in ("sweep", "demo", "run") else [tmp_path / "source"]
    assert run(command, *source, "--output", target, *more) == 2
    out, error = capfd.readouterr()
    assert error.count("\n") == 1 and "output" in error and str(output) in error
    assert "checkpoint" not in error
    assert wrong == "folder" or output.read_text() == "mine"


@pytest.mark.parametrize("command", ["export", "analyze", "convert"])
def test_a_full_disk_is_one_line_and_exit_code_2(command, tmp_path):
    """The shell's own limit, in a process of its own."""
    name, more = COMMANDS[command]
    target = tmp_path / name
    source = WEIGHTS
    if command == "export":
        network().save(tmp_path / "in.keras")
        source = str(tmp_path / "in.keras")
    target.write_text("old")
    before = contents(tmp_path)
    output = str(tmp_path if command == "analyze" else target)
    arguments = [command, source, "--output", output, *more]
    code = (
        "import resource, signal, sys\nfrom keras_spectral import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "cli.main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "MPLCONFIGDIR": str(Path.home()),
            "KERAS_BACKEND": "numpy",
        },
    )
    lines = [line for line in done.stderr.splitlines() if "keras-spectral:" in line]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(lines) == 1 and str(target) in lines[0] and "stays" in lines[0]
    assert contents(tmp_path) == before


def test_output_folder_names_the_folder_in_its_way(tmp_path):
    (tmp_path / "table.md").mkdir()
    with pytest.raises(IsADirectoryError, match=r"`output`.*table\.md"):
        output_folder(tmp_path, "table.md")
