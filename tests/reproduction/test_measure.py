"""Black-box cells of our own grow by what is missing, and are never mixed from two models."""

import json

import pytest

from rankproof.reproduction.measure import Bench
from rankproof.reproduction.records import Measurement
from rankproof.reproduction.runner import Reproduction, ReproductionRequest
from rankproof.system import no_display

RECIPE = """
paper = "own"
part = "grows"
title = "To be enlarged"
trials = {trials}

[[models]]
name = "ct"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "{loss}"
defense = "none"
epochs = 1
batch = 200

[[blocks]]
kind = "search"
model = "ct"
methods = ["rand"]
k = [5]
visible = [10]
eps = ["8/255"]
budget = [50]

[[blocks]]
kind = "attack"
model = "ct"
goals = ["ca+"]
counts = [1]
eps = [0.1]
methods = ["published", "strong"]

[[sections]]
title = "What a budget buys"
text = "Of random search."
view = "variants"
blocks = [1]
"""
NAME = "own-grows-ct-oa-rand-k5-N10-eps8of255-Q50"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that runs the recipe in a folder of its own, and gives what came of it."""
    monkeypatch.chdir(tmp_path)

    def run(trials, loss="triplet"):
        file = tmp_path / "recipes" / "own" / "grows.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECIPE.format(trials=trials, loss=loss))
        request = ReproductionRequest(
            word="own/grows", recipes=tmp_path / "recipes", log=lambda line: None, command="typed"
        )
        work = Reproduction(request, stage=no_display)
        return work.run(work.estimate())

    return run


def test_a_record_grows_by_what_is_missing(place, monkeypatch, tmp_path):
    asked, measure = [], Bench.measure

    def watched(self, cell, target, source, progress, first=0):
        asked.append((cell.name, first))
        return measure(self, cell, target, source, progress, first)

    monkeypatch.setattr(Bench, "measure", watched)
    few = place(3).measured[NAME]
    more = place(5).measured[NAME]
    assert more.values["tau"][:3] == few.values["tau"]
    assert [first for name, first in asked if name == NAME] == [0, 3]
    place(4)
    assert len([name for name, _ in asked if name == NAME]) == 2  # fewer attacks take what is there
    (tmp_path / "records" / "own" / "grows.jsonl").unlink()
    whole = place(5).measured[NAME]
    assert (whole.values, whole.trials) == (more.values, 5)
    assert more.figures == whole.figures
    for (queries, mine), (others, theirs) in zip(more.curve, whole.curve, strict=True):
        assert queries == others
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_record_of_another_model_is_measured_anew(place):
    place(2)
    found = place(3, loss="contrastive").measured[NAME]
    assert len(found.values["tau"]) == 3
    assert found.models[0].key != place(3).measured[NAME].models[0].key


def test_both_searches_attack_the_same_and_are_shown(place, tmp_path):
    made = place(4)
    names = [f"own-grows-ct-ca+-w1-eps0.1{end}" for end in ("", "-strong")]
    weak, best = (made.measured[name] for name in names)
    assert weak.values["before"] == best.values["before"]
    assert weak.values["rank"] != best.values["rank"]
    assert (weak.command, weak.trials) == ("typed", 4)
    page = (tmp_path / "runs" / "reproduce" / "own-grows" / "results.md").read_text()
    assert page.startswith("# To be enlarged\n\n## What a budget buys\n\nOf random search.")
    assert page.endswith("3 of 3 measured.\n")
    told = json.loads((tmp_path / "runs" / "reproduce" / "own-grows" / "results.json").read_text())
    assert Measurement.from_json(told["measured"][names[0]]).values == weak.values
