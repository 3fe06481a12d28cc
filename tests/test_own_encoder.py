"""The page about one's own encoder, executed from top to bottom, and pictures on their way."""

import json
import logging
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rankproof import Preprocess, RankproofError
from rankproof.cli import app
from rankproof.models import new_encoder, save_checkpoint
from rankproof.system import SystemOptions, open_system, preprocess_of

PAGE = Path(__file__).parent.parent / "docs" / "your-own-encoder.md"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def call(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.stderr, result.exception)
    return result


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("few_queries")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter that needs no other package
def test_the_page_from_top_to_bottom(workplace, capsys):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    text, space, told = PAGE.read_text(), {"__name__": "page"}, []
    for found in BLOCK.finditer(text):
        if "onnx" in found[2] and find_spec("onnx2torch") is None:
            continue
        if found[1] == "python":
            exec(compile("\n" * text[: found.start(2)].count("\n") + found[2], PAGE, "exec"), space)
            continue
        for line in found[2].splitlines():
            # How many trials fit into five minutes depends on the machine; that five are enough does not.
            told.append(call(shlex.split(line.replace("--time 5m", "--time 5h"))[1:]))
    report = json.loads((workplace / "runs" / "places" / "report.json").read_text())
    assert report["model"] == "hf:vit"
    assert "resized to 32x32, the size of hf:vit" in report["data_note"]
    assert report["model_record"]["arch"] == "ViTModel"
    passes = "every image passes jpeg=75, resize=32, resample=bilinear before the encoder"
    own = "every image is attacked at its own size, and passes the encoder's own"
    assert all(any(said in each.stdout for each in told) for said in (passes, own))
    figures = [
        tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) % -> ([\d.]+) %", capsys.readouterr().out)
    ]
    assert len(figures) == 2
    assert all(after < before for before, after in figures)


# -- pictures on their way


def folder_of(root, *, mode="RGB", size=(20, 16)):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(
                root / name / f"{number}.png"
            )
    return str(root)


@pytest.fixture
def colour(workplace):
    """The name of an encoder of 12x12 colour pictures that gives all their pixels."""
    (workplace / "flat.py").write_text(
        "from torch import nn\n\n"
        "def encoder():\n    return nn.Flatten(), {'size': 12, 'mean': [0.5] * 3, 'std': [0.5] * 3}\n\n"
        "def any_size():\n    return nn.Flatten()\n"
    )
    return "flat.py:encoder"


def test_images_are_resized_to_what_the_encoder_was_made_for(workplace, colour):
    data = folder_of(workplace / "photos")
    target = open_system(colour, data, SystemOptions(split_by="none"))
    assert target.dataset.images.shape == (10, 3, 12, 12)
    assert "resized to 12x12, the size of flat.py:encoder" in target.dataset.note
    assert target.notes == ()
    assert target.gallery.ranker.name == colour
    assert target.record["input"] == [3, 12, 12]
    with pytest.raises(RankproofError, match="wants images of 3x12x12, photos has 3x16x16; try --size 12"):
        open_system(colour, data, SystemOptions(size=16, split_by="none"))
    assert open_system("flat.py:any_size", data, SystemOptions(split_by="none")).dataset.images.shape == (
        10,
        3,
        16,
        20,
    )


def test_images_that_have_the_size_are_left_alone(workplace):
    record = {"arch": "digits", "distance": "sphere", "input": [1, 8, 8]}
    save_checkpoint(workplace / "model", new_encoder("digits"), record)
    target = open_system("model", None)
    assert "resized" not in target.dataset.note
    assert target.gallery.ranker.distance.name == "sphere"
    assert target.gallery.ranker.chunk == 500


def test_digits_for_an_encoder_of_larger_images(workplace):
    target = open_system("zoo:fashion-mnist/c2f1-ct", None)
    assert target.dataset.images.shape[1:] == (1, 28, 28)
    assert "resized to 28x28, the size of zoo:fashion-mnist/c2f1-ct" in target.dataset.note


def test_grey_images_for_an_encoder_of_colour(workplace, colour):
    target = open_system(colour, folder_of(workplace / "grey", mode="L"), SystemOptions(split_by="none"))
    assert target.dataset.images.shape == (10, 1, 12, 12)
    assert target.notes == ("grey images are given to the encoder in three equal channels",)
    assert target.dataset.note.endswith(target.notes[0])
    grey = target.dataset.as_float()[:2]
    expected = ((grey.repeat(1, 3, 1, 1) - 0.5) / 0.5).flatten(1)
    torch.testing.assert_close(target.gallery.embeddings[:2], expected)


def test_colour_images_for_an_encoder_of_grey_are_refused(workplace):
    data = folder_of(workplace / "photos")
    with pytest.raises(RankproofError, match="wants images of 1x28x28, photos has 3x28x28; choose other"):
        open_system("zoo:fashion-mnist/c2f1-ct", data, SystemOptions(split_by="none"))


def test_what_is_resized_on_the_way_is_attacked_as_it_was_loaded(workplace, colour):
    data = folder_of(workplace / "photos")
    target = open_system(
        colour, data, SystemOptions(split_by="none", preprocess=Preprocess(resize=12, crop=12, jpeg=60))
    )
    assert target.dataset.images.shape == (10, 3, 16, 20)
    assert target.notes == (
        "every image passes jpeg=60, resize=12, resample=bilinear, crop=12 before the encoder",
    )
    with pytest.raises(RankproofError, match="3x12x12, photos has 3x12x15; try --resize 12"):
        open_system(colour, data, SystemOptions(split_by="none", preprocess=Preprocess(resize=12)))
    with pytest.raises(RankproofError, match="a square of 17 pixels does not fit"):
        open_system(colour, data, SystemOptions(split_by="none", preprocess=Preprocess(crop=17)))
    only_jpeg = open_system(colour, data, SystemOptions(split_by="none", preprocess=Preprocess(jpeg=60)))
    assert only_jpeg.dataset.images.shape == (10, 3, 12, 12)


def test_large_images_pass_in_small_numbers(workplace):
    (workplace / "mean.py").write_text(
        "from torch import nn\n\n"
        "def encoder():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())\n"
    )
    target = open_system(
        "mean.py:encoder", folder_of(workplace / "photos"), SystemOptions(split_by="none", size=224)
    )
    assert target.gallery.ranker.chunk == 16


def test_a_network_that_views_its_features_keeps_its_layout(workplace):
    (workplace / "views.py").write_text(
        "from torch import nn\n\n"
        "class Views(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n        return self.conv(x).view(len(x), -1)\n"
    )
    target = open_system(
        "views.py:Views", folder_of(workplace / "photos"), SystemOptions(split_by="none", size=8)
    )
    assert target.gallery.embeddings.shape == (10, 4 * 36)


def test_options_of_preprocessing(workplace, colour):
    assert preprocess_of(None, None, None) is None
    assert repr(preprocess_of(12, 10, 60)) == "Preprocess(jpeg=60, resize=12, resample=bilinear, crop=10)"
    words = ["attack", "--goal", "qa+", "--eps", "8/255", "--model", colour, "--trials", "2", "--steps", "1"]
    words += ["--data", folder_of(workplace / "photos"), "--divide", "none"]
    result = call([*words, "--resize", "12", "--crop", "12", "--jpeg", "60", "--json"])
    notes = json.loads(result.stdout)["notes"]
    assert "every image passes jpeg=60, resize=12, resample=bilinear, crop=12 before the encoder" in notes
    bad = CliRunner().invoke(app, [*words, "--jpeg", "0"])
    assert bad.exit_code == 2
    assert bad.stderr.startswith("error: jpeg: the quality must be in [1, 100], got 0")


def test_a_program_needs_trust_on_the_command_line(workplace):
    (workplace / "net.pt2").write_text("x")
    words = ["--eps", "8/255", "--model", "net.pt2"]
    for command in (["attack", "--goal", "qa+"], ["audit", "--out", "out"]):
        result = CliRunner().invoke(app, [*command, *words])
        assert result.exit_code == 2
        assert "if you trust whoever made it, add --trust" in result.stderr
        result = CliRunner().invoke(app, [*command, *words, "--trust"])
        assert "cannot be opened as a program" in result.stderr
