import errno
import json
import os
import stat

import pytest

from keras_spectral.files import (
    no_empty_folders,
    output_folder,
    replacing,
    writable_file,
    write_json,
    write_text,
)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent.parent == tmp_path
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_write_replaces_it(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_output_folder(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="`output`"):
            output_folder(path)


def test_a_folder_that_was_checked_and_taken_away_is_made_again(tmp_path):
    """A command that is refused removes what it made, and another one writes there."""
    folder, page = tmp_path / "out", tmp_path / "pages" / "page.html"
    folder.mkdir()
    page.parent.mkdir()
    with no_empty_folders():
        output_folder(folder)
        writable_file(page)
        for each in (folder, page.parent):
            each.rmdir()
        for path in (folder / "a.txt", page):
            write_text(path, "whole")
        with pytest.raises(FileNotFoundError, match="in a folder that is there"):
            write_text(tmp_path / "never checked" / "a.txt", "")
    assert (folder / "a.txt").read_text() == page.read_text() == "whole"


def test_a_folder_that_is_made_in_part_is_removed(tmp_path, monkeypatch):
    made = os.mkdir

    def full(path, *arguments, **options):
        if os.fspath(path).endswith("b") and os.path.isdir(os.path.dirname(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        made(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="`output` must be"), no_empty_folders():
        output_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
