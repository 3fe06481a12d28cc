"""`rankproof evaluate`: its keys, its table, its errors."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rankproof import Gallery, Ranker, load
from rankproof.cli import app
from rankproof.evaluation import accuracy, robustness_score
from rankproof.evaluation.report import RETRIEVAL, TERMS
from rankproof.evaluation.robustness import TERMS as SCORED
from rankproof.models import load_checkpoint, new_encoder, save_checkpoint

KEYS = {
    *("examination", "unchanged"),
    *("model", "data", "gallery_size", "device", "recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8"),
    *("map", "map_at_r", "nmi", "shift", "ers", "ers_terms", "eps", "method", "steps", "trials", "collapsed"),
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
