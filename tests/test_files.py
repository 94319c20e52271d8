"""Files are whole or not there, whatever goes wrong on the way."""

import errno
import os

import pytest

from lmdyn import files
from lmdyn.errors import InputError


class Trouble:
    """A function that fails on its n-th call."""

    def __init__(self, function, error, call):
        self.function, self.error, self.left = function, error, call

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.function(*args, **kwargs)


FULL = OSError(errno.ENOSPC, "No space left on device")


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_several_files_are_all_there_or_none(tmp_path, monkeypatch, error, call):
    monkeypatch.setattr(os, "fsync", Trouble(os.fsync, error, call))
    with pytest.raises(type(error)):
        files.atomic_write_all(
            {tmp_path / "a": "x", tmp_path / "b": "y", tmp_path / "c": "z", tmp_path / "d": "w"}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [FULL, KeyboardInterrupt(), RuntimeError("mine")],
    ids=["full disk", "interrupt", "error"],
)
def test_an_old_file_survives_a_failed_write(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half():
        with files.atomic_file(path) as file:
            file.write(b"new, half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert everything(tmp_path) == {path.relative_to(tmp_path): b"old"}


def test_a_file_is_replaced_and_readable(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.atomic_write(path, "one")
    files.atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):
        with files.atomic_folder(path) as new:
            (new / f"{content}.txt").write_text(content)
    assert [p.name for p in path.iterdir()] == ["two.txt"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
@pytest.mark.parametrize("old", [True, False])
def test_a_folder_is_whole_or_as_it_was(tmp_path, error, old):
    path = tmp_path / "model"
    if old:
        path.mkdir()
        (path / "old.txt").write_text("old")
    before = everything(tmp_path)

    def half():
        with files.atomic_folder(path) as new:
            (new / "half.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert everything(tmp_path) == before
    assert path.exists() == old


def test_moving_into_place_that_fails_brings_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    monkeypatch.setattr(os, "replace", Trouble(os.replace, FULL, 2))
    with pytest.raises(OSError, match="No space"), files.atomic_folder(path) as new:
        (new / "new.txt").write_text("new")
    assert [p.name for p in path.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    assert files.check_writable(tmp_path / "new" / "deep" / "a.jsonl")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="is a folder"):
        files.check_writable(tmp_path)
    with pytest.raises(InputError, match="device"):
        files.check_writable(os.devnull)
    with pytest.raises(InputError, match="file is not a folder"):
        files.check_writable(tmp_path / "file" / "a.jsonl")


def test_a_new_folder_is_checked_before(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert files.check_new_folder(tmp_path / "new" / "deep") and files.check_new_folder(
        tmp_path / "empty"
    )
    assert not (tmp_path / "new").exists()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="is not an empty folder; choose another"):
            files.check_new_folder(path)
    with pytest.raises(InputError, match="file is not a folder; choose another folder"):
        files.check_new_folder(tmp_path / "file" / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        files.check_writable(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="no permission"):
        files.check_new_folder(tmp_path / "a")
