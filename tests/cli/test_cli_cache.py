"""`rankproof cache`, `--no-cache`, and commands that find a gallery kept by an earlier one."""

import errno
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rankproof.cache import GalleryCache
from rankproof.cache.tensor_file import encoded
from rankproof.cli import app
from rankproof.ranking import Ranker

ENCODER = """
from pathlib import Path

from torch import nn


def encoder():
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
"""


ITEMS = 24
SHOP = "--data", "shop", "--divide", "none"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An encoder and a shop of the user's, and a folder of kept galleries of this test alone."""
    (tmp_path / "own.py").write_text(ENCODER)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (ITEMS, 8, 8), dtype=np.uint8)):
        file = tmp_path / "shop" / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.setenv("RANKPROOF_CACHE", str(tmp_path / "kept"))
    return tmp_path


@pytest.fixture
def embedded(monkeypatch):
    """The number of images in each call of `embed_all`."""
    counts, embed_all = [], Ranker.embed_all

    def counting(self, images, *given):
        counts.append(len(images))
        return embed_all(self, images, *given)

    monkeypatch.setattr(Ranker, "embed_all", counting)
    return counts


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def evaluate(*options):
    result = run("evaluate", "--model", "own.py:encoder", *SHOP, "--no-robustness", "--json", *options)
    figures = json.loads(result.stdout)
    return {name: value for name, value in figures.items() if name != "seconds"}, result.stderr


def test_a_second_command_embeds_eight_items_and_prints_the_same(place, embedded):
    first, again = evaluate(), evaluate()
    assert first == again
    assert embedded == [ITEMS, 8, 8]


def test_no_cache_reads_and_writes_nothing(place, embedded):
    evaluate("--no-cache")
    assert not (place / "kept").exists()
    evaluate()
    evaluate("--no-cache")
    assert embedded == [ITEMS, ITEMS, 8, ITEMS]


def test_a_changed_file_of_the_user_is_another_gallery(place, embedded):
    before, _ = evaluate()
    (place / "own.py").write_text(ENCODER.replace("AvgPool2d(2)", "AvgPool2d(4)"))
    after, said = evaluate()
    assert embedded == [ITEMS, 8, ITEMS, 8]
    assert before["map"] != after["map"]
    assert "any more" not in said


def test_attack_takes_what_evaluate_kept(place, embedded):
    evaluate()
    embedded.clear()
    run("attack", "--model", "own.py:encoder", *SHOP, "--goal", "qa+", "--eps", "1/255", "--trials", "2")
    assert embedded[0] == 8
    assert ITEMS not in embedded


def test_a_full_disk_is_one_line(place, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        figures, said = evaluate()
    assert figures == evaluate("--no-cache")[0]
    (line,) = [line for line in said.splitlines() if "No space left" in line]
    assert line.endswith("nothing is kept on disk")


def test_the_list_and_clearing(place):
    assert "0.0 MB of at most 2.0 GB" in run("cache").stdout
    evaluate()
    evaluate("--size", "6")
    listed = json.loads(run("cache", "--json").stdout)
    galleries = [each for each in listed["kept"] if each["kind"] == "embeddings"]
    assert [each["model"] for each in galleries] == ["own.py:encoder"] * 2
    assert {each["dimensions"] for each in galleries} == {9, 16}
    assert {each["kind"] for each in listed["kept"]} == {"embeddings", "pixels"}
    assert listed["bytes"] == sum(each["bytes"] for each in listed["kept"])
    key = listed["kept"][0]["key"]
    table = run("cache").stdout
    assert key[:8] in table
    assert "shop" in table
    assert "MB freed" in run("cache", "--clear", key[:6]).stdout
    assert json.loads(run("cache", "--clear", "--json").stdout)["freed"] > 0
    assert not json.loads(run("cache", "--json").stdout)["kept"]


def test_names_in_the_list_are_no_markup(place):
    """A closing tag that opens nothing would end the list, an opening one vanish from it."""
    kept = GalleryCache(place / "kept")
    metadata = {"model": "/photos [/old]", "data": "shop [red]\x1b[31m"}
    kept.folder.write("0" * 32, encoded({"embeddings": torch.ones(3, 4)}, metadata))
    table = run("cache").stdout
    assert "/photos [/old]" in table
    assert "shop [red]\\x1b[31m" in table


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        (["abc"], "2GB", "abc: add --clear to remove it"),
        (["--clear", "abc"], "2GB", "abc: no key begins so"),
        ([], "much", "$RANKPROOF_CACHE_SIZE: 'much' is no size; write 500MB or 2GB"),
    ],
)
def test_errors_are_one_line(place, monkeypatch, arguments, size, message):
    monkeypatch.setenv("RANKPROOF_CACHE_SIZE", size)
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
