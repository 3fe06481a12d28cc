"""`rankproof evaluate`: its keys, its table, its errors."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from rankproof import Gallery, Ranker, load
from rankproof.cli import app
from rankproof.evaluation import SeparateQueries, accuracy, robustness_score
from rankproof.evaluation.report import RETRIEVAL, TERMS
from rankproof.evaluation.robustness import TERMS as SCORED
from rankproof.models import load_checkpoint, new_encoder, save_checkpoint

KEYS = {
    *("examination", "unchanged"),
    *("model", "data", "gallery_size", "device", "recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8"),
    *(
        "map",
        "map_at_r",
        "nmi",
        "queries",
        "shift",
        "ers",
        "ers_terms",
        "eps",
        "method",
        "steps",
        "trials",
        "collapsed",
    ),
    *("ci95", "seed", "seconds", "flags", "notes", "versions"),
}


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    record = {"arch": "digits", "distance": "cosine", "input": [1, 8, 8]}
    save_checkpoint(folder, new_encoder("digits", 3), record)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data sets but the embedded digits."""
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def told(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def test_help_reads_like_documentation():
    result = call("evaluate", "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "rankproof evaluate --model" in result.stdout


def test_the_object_holds_what_the_library_measures(model):
    found = told(call("evaluate", "--model", model, "--eps", "16/255", "--trials", 8, "--seed", 4, "--json"))
    assert set(found) == KEYS
    data = load("digits")
    gallery = Gallery.build(Ranker(load_checkpoint(model).encoder, "cosine"), data.images, data.labels)
    plain = accuracy(gallery, 4).as_dict()
    for name in RETRIEVAL:
        assert found[name] == pytest.approx(plain[name], abs=0.2), name
    scored = robustness_score(gallery, data.images, eps=16 / 255, trials=8, seed=4).as_dict()
    assert found["ers"] == pytest.approx(scored["ers"], abs=0.5)
    assert found["shift"] == pytest.approx(scored["shift"], rel=0.01)
    assert list(found["ers_terms"]) == list(scored["ers_terms"])
    assert set(found["ci95"]) == {*RETRIEVAL, "shift", "ers", "ers_terms"} - {"nmi"}
    assert (found["model"], found["data"], found["gallery_size"]) == (str(model), "digits", 797)
    assert (found["eps"], found["trials"], found["seed"], found["steps"]) == (16 / 255, 8, 4, 32)
    assert found["seconds"] > 0
    assert "torch" in found["versions"]


def test_the_table_names_every_figure(model):
    result = call("evaluate", "--model", model, "--trials", 3)
    assert result.exit_code == 0, result.stderr
    for label in (*RETRIEVAL.values(), *TERMS.values(), "ERS"):
        assert label in result.stdout
    assert "attacked within 77/255: pgd, 32 steps, 3 trials, seed 0" in result.stdout
    assert "note: shift: random start" in result.stdout
    assert tuple(TERMS) == SCORED


def test_without_robustness_nothing_is_attacked(model, monkeypatch):
    monkeypatch.setattr("rankproof.evaluation.robustness_score", None)
    found = told(call("evaluate", "--model", model, "--no-robustness", "--json"))
    assert set(found) == KEYS
    assert [found[name] for name in ("ers", "ers_terms", "shift", "eps", "trials")] == [None] * 5
    assert found["recall_at_1"] > 90
    table = call("evaluate", "--model", model, "--no-robustness")
    assert "mAP@R" in table.stdout
    assert "ERS" not in table.stdout


def test_more_trials_than_pictures_are_all_of_them(model):
    result = call("evaluate", "--model", model, "--trials", 5000, "--eps", 0, "--json")
    assert told(result)["trials"] == 797
    assert "5000 trials were asked for: all 797 images that fit are attacked" in result.stderr


def test_a_collapsed_model_is_flagged(tmp_path):
    encoder = new_encoder("digits")
    last = [module for module in encoder.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1.0)
    save_checkpoint(tmp_path / "dead", encoder, {"arch": "digits", "distance": "cosine"})
    words = ("evaluate", "--model", tmp_path / "dead", "--trials", 5)
    assert told(call(*words, "--json"))["collapsed"] is True
    assert "flag: the model: nearly all images have the same embedding" in call(*words).stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--eps", "nine"], "'nine' is no number"),
        (["--eps", "2"], "eps must be between 0 and 1"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--no-robustness", "--eps", "8/255"], "--eps is about attacks"),
        (["--no-robustness", "--trials", "9"], "--trials is about attacks"),
        (["--device", "abacus"], "--device must be"),
        (["--size", "28"], "wants images of 1x8x8"),
    ],
)
def test_bad_words_are_refused_in_one_line(model, words, reason):
    result = call("evaluate", "--model", model, *words)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert len(errors) == 1
    assert reason in errors[0]
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_ctrl_c_says_what_is_left(model, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rankproof.evaluation.robustness_score", stopped)
    result = call("evaluate", "--model", model)
    assert result.exit_code == 130
    assert "stopped: nothing was written; the same command starts the evaluation again" in result.stderr


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def folder(top, names):
    """Random 8x8 images of these names."""
    random = np.random.default_rng(0)
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(encoded(random.integers(0, 256, (8, 8), dtype=np.uint8)))
    return top


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    people = [
        f"bounding_box_test/{person:04}_c{camera}s1_{shot}.png"
        for person in (0, 1, 2, 3)
        for camera in (1, 2)
        for shot in (1, 2)
    ]
    queries = [f"query/{person:04}_c{camera}s1_0.png" for person in (1, 2, 3) for camera in (1, 2)]
    return folder(tmp_path_factory.mktemp("market"), [*people, *queries, "bounding_box_test/-1_c1s1_1.png"])


def test_a_data_set_with_queries_is_measured_by_them(model, market):
    found = told(
        call("evaluate", "--model", model, "--data", market, "--eps", "8/255", "--trials", 4, "--json")
    )
    data = load(market)
    ranker = Ranker(load_checkpoint(model).encoder, "cosine")
    gallery = Gallery.build(ranker, data.images, data.labels)
    queries = SeparateQueries(
        embeddings=ranker.embed_all(data.queries.images),
        labels=data.queries.labels,
        cameras=data.queries.cameras,
        gallery_cameras=data.cameras,
    )
    plain = accuracy(gallery, queries=queries).as_dict()
    assert (found["queries"], found["gallery_size"], found["nmi"]) == (6, 16, None)
    assert {name: found[name] for name in RETRIEVAL} == {name: plain[name] for name in RETRIEVAL}
    assert any("ERS attacks gallery items" in note for note in found["notes"])
    table = call("evaluate", "--model", model, "--data", market, "--no-robustness")
    assert table.exit_code == 0
    assert "NMI" not in table.stdout
    assert "own class and camera do not count" in table.stdout


def test_attacks_start_from_the_queries(model, market):
    found = told(
        call("attack", "--goal", "qa+", "--eps", "8/255", "--model", model, "--data", market, "--json")
    )
    assert (found["trials"], found["gallery_size"]) == (6, 16)
    assert any("attacks start from its queries" in note for note in found["notes"])


def test_queries_have_no_own_copy_to_drop(model, market):
    refused = call(
        "attack", "--goal", "qa+", "--eps", "8/255", "--model", model, "--data", market, "--own-copy", "drop"
    )
    assert refused.exit_code == 2
    assert "--own-copy drop: the images attacked are no gallery items" in refused.stderr


@pytest.mark.slow
def test_audits_start_from_the_queries(model, market, tmp_path):
    few = "1,at-eps=0,controls=0,black-box=0"
    settings = ("--eps", "8/255", "--trials", few, "--out", tmp_path / "a", "--json")
    result = told(call("audit", "--model", model, "--data", market, *settings))
    plain = told(call("evaluate", "--model", model, "--data", market, "--no-robustness", "--json"))
    assert result["recall_at_1"] == plain["recall_at_1"]
    assert "images of the query's own identity and camera do not count" in result["data_note"]
    assert "attacks start from its queries, and their ranks count all gallery images" in result["data_note"]


def test_images_without_classes_can_be_attacked_but_not_evaluated(model, tmp_path):
    flat = folder(tmp_path / "flat", [f"{number}.png" for number in range(6)])
    refused = call("evaluate", "--model", model, "--data", flat)
    assert refused.exit_code == 2
    assert (
        "its images have no classes, which are needed here; put them into one sub-folder per class"
        in refused.stderr
    )
    assert len(refused.stderr.strip().splitlines()) == 1
    found = told(
        call("attack", "--goal", "qa+", "--eps", "8/255", "--model", model, "--data", flat, "--json")
    )
    assert found["gallery_size"] == 6
    refused = call("train", "--data", flat, "--out", tmp_path / "x", "--epochs", 1)
    assert refused.exit_code == 2
    assert "its images have no classes" in refused.stderr
