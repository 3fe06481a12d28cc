"""Records of black-box figures grow, and are never mixed from two models."""

import json
from dataclasses import replace

import pytest
import torch
from rankproof.target import Target

from rankproof import Gallery, Ranker, load
from rankproof.experiments import ordering
from rankproof.experiments.ordering import Cell, complete

CELL = Cell(method="rand", k=5, visible=10, level=8, budget=50)


@pytest.fixture
def target(make):
    """Digits under random projections, as a target whose record names its weights."""
    dataset = load(None, "test").head(60)
    encoder = make.flat(torch.randn(5, 64, generator=make.random(0)))
    gallery = Gallery.build(Ranker(encoder, "cosine"), dataset.pictures)
    return Target(gallery=gallery, dataset=dataset, record={"sha256": "one"})


def test_a_record_grows_by_what_is_missing(target, tmp_path, monkeypatch):
    monkeypatch.setattr(ordering, "PIECE", 2)
    path = tmp_path / "cell.json"
    whole = complete(tmp_path / "whole.json", target, CELL, 5, 0, "typed")["tau"]
    assert complete(path, target, CELL, 3, 0, "typed")["tau"] == whole[:3]
    assert complete(path, target, CELL, 5, 0, "typed")["tau"] == whole
    assert json.loads(path.read_text())["model_sha256"] == "one"


def test_a_record_of_another_model_is_measured_anew(target, tmp_path):
    path = tmp_path / "cell.json"
    complete(path, target, CELL, 2, 0, "typed")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "tau": [9.0, 9.0]}))
    other = replace(target, record={"sha256": "two"})
    found = complete(path, other, CELL, 3, 0, "typed")
    assert len(found["tau"]) == 3
    assert 9.0 not in found["tau"]
    assert found["model_sha256"] == "two"
