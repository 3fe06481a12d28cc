"""The embedded photos are those that tools/make_groceries.py makes, with their notice, and nothing else."""

import csv
import importlib.util
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import PIL
import pytest

from rankproof.data import groceries, load
from rankproof.errors import RankproofError

TOOL = Path(__file__).parents[2] / "tools" / "make_groceries.py"


def test_eight_square_photos_of_each_class_in_colour():
    data = load("groceries")
    assert data.images.shape == (648, 3, 96, 96)
    assert set(Counter(data.labels.tolist()).values()) == {8}
    assert len(data.classes) == len(set(data.classes)) == 81
    assert data.note.startswith("the embedded groceries, test split: 648 images of 96x96 in 81 classes")
    # The name of the class is in the path of each photo: a label that slipped would not agree.
    for file, label in zip(data.files, data.labels.tolist(), strict=True):
        assert data.classes[label] in file.split("/")
    assert not (data.images[:, 0] == data.images[:, 2]).all()  # really colour


def test_they_are_what_is_loaded_where_nothing_is_named():
    assert load().sha256 == load("groceries").sha256


def test_they_are_a_test_split_that_can_be_divided():
    with pytest.raises(RankproofError, match=r"groceries, train split: no images; choose another split"):
        load("groceries", "train")
    assert len(load("groceries", "train", split_by="classes", size=8)) == 320  # 40 of 81 classes


def test_the_archive_is_small_and_carries_its_notice_and_its_sources():
    assert groceries.ARCHIVE.stat().st_size <= 3_000_000
    with zipfile.ZipFile(groceries.ARCHIVE) as archive:
        assert b"MIT License" in archive.read("LICENSE")
        assert b"Marcus Klasson" in archive.read("LICENSE")
        assert b"marcusklasson/GroceryStoreDataset" in archive.read("SOURCES.md")


def test_another_file_in_its_place_is_noticed(tmp_path, monkeypatch):
    changed = bytearray(groceries.ARCHIVE.read_bytes())
    changed[1_000_000] ^= 1
    (tmp_path / "groceries.zip").write_bytes(changed)
    monkeypatch.setattr(groceries, "ARCHIVE", tmp_path / "groceries.zip")
    with pytest.raises(RankproofError, match=r"groceries, damaged or missing; install rankproof again"):
        load("groceries")
    monkeypatch.setattr(groceries, "ARCHIVE", tmp_path / "nowhere.zip")
    with pytest.raises(RankproofError, match=r"groceries, damaged or missing; install rankproof again"):
        load("groceries")


def test_making_them_again_gives_the_same_bytes():
    source = Path(os.environ.get("RANKPROOF_DATA") or "data") / "grocery_128.zip"
    if not source.is_file():
        pytest.skip("grocery_128.zip is not there: set RANKPROOF_DATA to the folder that holds it")
    spec = importlib.util.spec_from_file_location("make_groceries", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    again = zipfile.ZipFile(io.BytesIO(content := tool.make(source)))
    with zipfile.ZipFile(groceries.ARCHIVE) as archive:
        made_by = f"by Pillow {PIL.__version__}." in archive.read("SOURCES.md").decode()
        assert again.namelist() == archive.namelist()
        assert again.read("metadata.csv") == archive.read("metadata.csv")
        rows = list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode())))
        assert {row["split"] for row in rows} == {"test"}
    if made_by:
        assert content == groceries.ARCHIVE.read_bytes()
