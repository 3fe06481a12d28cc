"""Where galleries are kept, and how large they may become."""

import os
import sys
from pathlib import Path

import pytest

from rankproof import RankproofError
from rankproof.cache.folder import ABANDONED, CacheFolder, default_folder, default_size, megabytes, parse_size

KEYS = [f"{number:032x}" for number in range(5)]


def test_the_folder_is_that_of_the_environment_or_of_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("RANKPROOF_CACHE", "elsewhere")
    assert default_folder() == Path("elsewhere")
    monkeypatch.delenv("RANKPROOF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "rankproof"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, as the specification says
    assert default_folder() == tmp_path / ".cache" / "rankproof"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_folder() == tmp_path / "Library" / "Caches" / "rankproof"


def test_sizes(monkeypatch):
    assert default_size() == 2_000_000_000
    monkeypatch.setenv("RANKPROOF_CACHE_SIZE", "0")
    assert default_size() == 0
    assert [parse_size(text, "x") for text in ("500 MB", "2g", "1.5KB", "7")] == [
        5 * 10**8,
        2 * 10**9,
        1500,
        7,
    ]
    for text in ("GB", "-1", "1 PB", "two"):
        with pytest.raises(RankproofError, match="is no size"):
            parse_size(text, "x")
    assert [megabytes(count) for count in (0, 2_600_000, 3_100_000_000)] == ["0.0 MB", "2.6 MB", "3.1 GB"]


def test_the_files_together_stay_within_the_size(tmp_path):
    folder = CacheFolder(tmp_path, 100)
    for age, key in enumerate(KEYS[:3]):
        folder.write(key, b"x" * 40)
        os.utime(folder.file(key), (age, age))
    assert [file.stem for file in folder.files()] == [KEYS[2], KEYS[1]]
    folder.write(KEYS[1], b"x" * 60)  # in its own place: nothing else has to go
    assert {file.stem for file in folder.files()} == {KEYS[1], KEYS[2]}
    folder.write(KEYS[4], b"x" * 100)
    assert [file.stem for file in folder.files()] == [KEYS[4]]
    with pytest.raises(RankproofError, match="more than may be kept"):
        folder.write(KEYS[0], b"x" * 101)
    assert [file.stem for file in folder.files()] == [KEYS[4]]


def test_what_a_killed_command_left_is_removed_and_what_one_is_writing_is_not(tmp_path):
    folder = CacheFolder(tmp_path, 100)
    left, written = (tmp_path / f".{KEYS[number]}.safetensors.{number}" for number in range(2))
    other = tmp_path / ".notes.safetensors.x"
    for file in (left, written, other):
        file.write_bytes(b"x")
    for file in (left, other):
        os.utime(file, (file.stat().st_mtime - ABANDONED - 60,) * 2)
    folder.write(KEYS[0], b"x")
    assert not left.exists()
    assert written.exists()
    assert other.exists()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("RANKPROOF_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(RankproofError, match=r"name a folder in \$RANKPROOF_CACHE"):
        default_folder()


def test_a_tilde_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RANKPROOF_CACHE", "~/kept")
    assert default_folder() == tmp_path / "kept"


def test_a_number_beyond_all_numbers_is_no_size():
    with pytest.raises(RankproofError, match="is no size"):
        parse_size("9" * 400, "x")


def test_only_files_are_read(tmp_path):
    """A pipe of that name would be waited for without end."""
    folder = CacheFolder(tmp_path, 100)
    os.mkfifo(folder.file(KEYS[0]))
    folder.file(KEYS[1]).mkdir()
    folder.file(KEYS[2]).write_bytes(b"x" * 101)
    for key in KEYS[:4]:
        with pytest.raises(OSError):  # noqa: PT011, any will do
            folder.read(key)
    assert folder.files() == [folder.file(KEYS[2])]
    folder.write(KEYS[0], b"x")
    assert folder.read(KEYS[0]) == b"x"
