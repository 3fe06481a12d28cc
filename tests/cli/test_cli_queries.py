"""`--queries`: images that are searched for and are no part of the gallery."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rankproof import Gallery, QueryRaise, Ranker, Threat, attack, load
from rankproof.cli import app
from rankproof.errors import RankproofError
from rankproof.evaluation import SeparateQueries, accuracy

ENCODER = """
import torch
from torch import nn

def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
"""


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def told(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def photos(top, names):
    """Random photos of these names."""
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(list(name.encode()))
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(top / name)
    return top


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("place")
    (top / "own.py").write_text(ENCODER)
    photos(top / "shop", [f"{name}/{item}.png" for name in ("cup", "jar", "pot") for item in range(4)])
    photos(top / "uploads", ["pot/9.png", "cup/8.png", "cup/9.png", "can/9.png"])
    photos(top / "plain", ["8.png", "9.png"])
    return top


def words(place, queries):
    return (
        *("--model", f"{place / 'own.py'}:encoder", "--data", place / "shop", "--divide", "none"),
        *("--queries", place / queries),
    )


def system(place):
    """The gallery and the queries, by hand: labels by the names of the gallery's classes."""
    spaces = {}
    exec(ENCODER, spaces)
    data = load(place / "shop", split_by="none")
    ranker = Ranker(spaces["encoder"]())
    files = ["can/9.png", "cup/8.png", "cup/9.png", "pot/9.png"]
    pixels = [np.asarray(Image.open(place / "uploads" / file)).transpose(2, 0, 1) for file in files]
    images = torch.from_numpy(np.stack(pixels))
    return Gallery.build(ranker, data.images, data.labels), images, torch.tensor([3, 0, 0, 2])


def test_evaluate_searches_for_the_queries(place):
    found = told(call("evaluate", *words(place, "uploads"), "--no-robustness", "--json"))
    gallery, images, labels = system(place)
    queries = SeparateQueries(embeddings=gallery.ranker.embed_all(images), labels=labels)
    expected = accuracy(gallery, queries=queries)
    assert found["queries"] == 4
    assert found["gallery_size"] == 12
    for name in ("recall_at_1", "recall_at_4", "map"):
        assert found[name] == pytest.approx(expected.mean(name).mean)
    assert "1 queries have no match in the gallery and are left out" in found["notes"]
    assert any("the gallery has no images of can" in note for note in found["notes"])


def test_the_score_attacks_gallery_items_and_says_so(place):
    found = told(call("evaluate", *words(place, "uploads"), "--eps", "4/255", "--trials", 2, "--json"))
    assert any("ERS attacks gallery items" in note for note in found["notes"])


def test_queries_without_classes_measure_no_retrieval(place):
    result = call("evaluate", *words(place, "plain"), "--no-robustness")
    assert result.exit_code == 2
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "they have no classes" in error


@pytest.mark.parametrize("goal", ["qa+", "ca+"])
def test_attacks_start_from_the_queries(place, tmp_path, goal):
    found = told(
        call(
            "attack", *words(place, "uploads"), "--goal", goal, "--eps", "8/255", "--json", "--save", tmp_path
        )
    )
    gallery, images, _ = system(place)
    with np.load(tmp_path / "attack.npz") as stored:
        assert np.allclose(stored["original"], images.numpy() / 255)
        assert "index" not in stored
    assert found["trials"] == 4
    assert any(note.startswith("queries: folder of classes: 4 images of 8x8") for note in found["notes"])
    if goal == "qa+":
        expected = attack(gallery, images, QueryRaise(m=1), Threat(8 / 255))
        assert found["rank_after"] == pytest.approx(float(expected.rank_after.mean()))


def test_one_photo_can_be_attacked(place):
    found = told(call("attack", *words(place, "plain/8.png"), "--goal", "qa+", "--eps", "8/255", "--json"))
    assert found["trials"] == 1


@pytest.mark.parametrize(("queries", "expected"), [("uploads", True), ("plain", False)])
def test_an_audit_attacks_the_queries(place, tmp_path, monkeypatch, queries, expected):
    kept = {}

    def stop(gallery, images, threat, **options):
        kept.update(options, images=images)
        raise RankproofError("stopped")

    package = sys.modules["rankproof.audit"]
    monkeypatch.setattr(package, "audit", stop)
    result = call(
        "audit", *words(place, queries), "--eps", "4/255", "--trials", 2, "--out", tmp_path / "report"
    )
    assert "error: stopped" in result.stderr, (result.stderr, result.exception)
    gallery, images, labels = system(place)
    assert kept["gallery_ids"] is None
    options = kept["options"]
    if expected:
        assert torch.equal(kept["images"], images)
        known = SeparateQueries(embeddings=gallery.ranker.embed_all(images[1:]), labels=labels[1:])
        assert options.recall_at_1 == pytest.approx(accuracy(gallery, queries=known).mean("recall_at_1").mean)
        assert "the gallery has no images of can" in options.data_note
    else:
        assert options.recall_at_1 is None
        assert "R@1 is that of gallery items" in options.data_note


def test_what_is_in_the_gallery_already_is_told(place):
    result = call("attack", *words(place, "shop/cup"), "--goal", "qa+", "--eps", "0", "--json")
    assert any(
        "4 of the 4 queries are in the gallery, pixel for pixel" in note for note in told(result)["notes"]
    )


@pytest.mark.parametrize(
    ("queries", "error"),
    [
        ("nowhere", "--queries {place}/nowhere: no such file or folder"),
        ("empty", "--queries {place}/empty: no images found"),
        ("own.py", "--queries {place}/own.py: neither an image file nor a zip"),
        ("bad.png", "--queries bad.png: not an image"),
    ],
)
def test_bad_queries_are_refused_in_one_line(place, queries, error):
    (place / "empty").mkdir(exist_ok=True)
    (place / "bad.png").write_bytes(b"none")
    result = call("attack", *words(place, queries), "--goal", "qa+", "--eps", "1/255")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: " + error.format(place=place))


@pytest.mark.parametrize("option", ["--queries", "--data"])
def test_an_empty_name_is_not_the_folder_of_the_command(place, monkeypatch, option):
    monkeypatch.chdir(place)
    more = ("--goal", "qa+", "--eps", "1/255")
    result = call("attack", *words(place, "uploads"), *more, option, "")
    assert result.exit_code == 2
    assert "'': no name of a data set" in result.stderr.splitlines()[-1]


def test_an_evaluation_tells_what_images_pass_and_that_queries_are_not_attacked(place):
    shown = call("evaluate", *words(place, "uploads"), "--no-robustness", "--jpeg", "80", "--bgr", "--json")
    notes = told(shown)["notes"]
    assert "every image passes jpeg=80 before the encoder" in notes
    assert any(note.startswith("the encoder takes blue, green, red") for note in notes)
    assert "attacks start from" not in shown.output
