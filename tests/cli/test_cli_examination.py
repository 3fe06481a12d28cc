"""What the command line says of encoders that are not what they seem."""

import json

import pytest
from typer.testing import CliRunner

from rankproof.cli import app

OWN = """
import torch
from torch import nn
from torch.nn import functional


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 12))


def sound():
    return network()


def dropping():
    net = network()
    return lambda images: functional.dropout(net(images), 0.2, training=True)


def following():
    net = network()
    return lambda images: net(functional.batch_norm(images, None, None, training=True))


def half():
    return network().half()


def bfloat16():
    return network().bfloat16()


def cut():
    return torch.no_grad()(network().forward)


def integers():
    net = network()
    return lambda images: net(images).long()


NET = network()


def itself(images):
    return NET(images)
"""


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def attack(function, *words, goal="qa+"):
    return call(
        *("attack", "--goal", goal, "--eps", "8/255", "--model", f"own.py:{function}", "--data", "digits"),
        *("--trials", 3, *words),
    )


def evaluate(function, *words):
    return call("evaluate", "--model", f"own.py:{function}", "--data", "digits", *words)


def values(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def refused(result, *fragments):
    assert result.exit_code == 2, (result.stdout, result.exception)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.output
    for fragment in fragments:
        assert fragment in line


def test_a_sound_encoder_gets_one_line():
    result = attack("sound")
    (line,) = [line for line in result.stdout.splitlines() if "examined on" in line]
    assert line.startswith("the encoder: examined on 8 images: a function of its image (")
    assert "untouched, drawn again" not in result.stdout


def test_a_random_encoder_is_named_and_its_unchanged_figure_told():
    result = attack("dropping")
    assert result.exit_code == 0, (result.stderr, result.exception)
    for words in ("random", "mean of 8 draws", "untouched, drawn again", "note: the encoder is random"):
        assert words in result.stdout
    told = values(attack("dropping", "--draws", 3, "--json"))
    assert (told["examination"]["kind"], told["examination"]["draws"]) == ("random", 3)
    assert told["unchanged"] is not None
    again = values(attack("dropping", "--draws", 3, "--json"))
    assert (again["after"], again["unchanged"]) == (told["after"], told["unchanged"])


def test_a_batch_of_one_is_the_way_out_that_is_offered():
    refused(attack("following"), "own.py:following: ", "others of its batch", "--embed-batch 1")
    told = values(attack("following", "--embed-batch", 1, "--json"))
    assert (told["examination"]["kind"], told["examination"]["alone"]) == ("function", None)


@pytest.mark.parametrize("function", ["half", "bfloat16", "itself"])
def test_other_kinds_of_encoders_work_in_attack_and_evaluate(function):
    told = values(attack(function, "--json"))
    assert told["after"] < told["before"]
    dtype = {"half": "float16", "bfloat16": "bfloat16"}.get(function, "float32")
    report = values(evaluate(function, "--trials", 2, "--json"))
    assert told["examination"]["dtype"] == report["examination"]["dtype"] == dtype
    shown = evaluate(function, "--no-robustness")
    assert "the encoder: examined on 8 images" in shown.stdout


def test_no_gradient_and_no_embedding_are_one_line():
    refused(attack("cut"), "no gradient flows through the encoder", "--goal oa --visible 50")
    told = values(attack("cut", "--visible", 50, "--budget", 20, "--json", goal="oa"))
    assert told["examination"]["gradient"] == "none"
    refused(attack("integers"), "floating numbers, not of int64")


@pytest.mark.parametrize("option", ["draws", "embed-batch"])
def test_counts_below_one_are_refused(option):
    refused(attack("sound", f"--{option}", 0), f"--{option} must be at least 1, got 0")


def test_the_score_of_a_random_encoder_stands_beside_that_of_unchanged_images():
    report = values(evaluate("dropping", "--trials", 3, "--draws", 2, "--json"))
    assert report["unchanged"].keys() == report["ers_terms"].keys()
    assert 0 < report["unchanged"]["shift"] < 100  # the embedding of an untouched image moves as well
    assert sum("the encoder is random" in note for note in report["notes"]) == 1
    shown = evaluate("dropping", "--trials", 3, "--draws", 2)
    assert "untouched images, drawn again: 2 CA+ " in shown.stdout
    assert values(evaluate("sound", "--trials", 3, "--json"))["unchanged"] is None
