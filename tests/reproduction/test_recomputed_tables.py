"""Three cells of each printed table, run on the shipped models and recomputed from what `--save` keeps.

Few attacks, whose means say nothing; that a record is what its attacks come to does not depend on T.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import recompute
from safetensors.torch import load_file
from typer.testing import CliRunner

import rankproof
from rankproof import load
from rankproof.cli import app
from rankproof.reproduction.cells import cells_of, model_specs
from rankproof.reproduction.records import CompletedCells
from rankproof.reproduction.results_page import PAPERS, paper_recipes

DATA = os.environ.get("RANKPROOF_DATA")
ZOO = Path(rankproof.__file__).parent / "zoo"
NOT_SAVED = ("seconds", "src")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="RANKPROOF_DATA does not say where Fashion-MNIST and MNIST are"),
]


def shipped(recipe):
    """The models of a recipe that one of the zoo can stand for."""
    return {
        spec.name: f"{spec.data}/c2f1-ct{'' if spec.defense == 'none' else 'd'}"
        for spec in model_specs(recipe)
        if (spec.arch, spec.distance, spec.loss) == ("c2f1", "cosine", "triplet")
    }


def model_count(cell, recipe):
    """How many shipped models a cell needs."""
    return len({shipped(recipe)[name] for name in cell.models})


def three_cells(recipe):
    """The first, the last and one between, of those with shipped models that are attacked at all."""
    names = shipped(recipe).keys()
    fit = [cell for cell in cells_of(recipe) if set(cell.models) <= names and cell.eps]
    fit = [cell for cell in fit if cell.run not in NOT_SAVED]
    fit = [cell for cell in fit if model_count(cell, recipe) > 1] or fit  # transfers between two models
    return [fit[0], fit[len(fit) // 2], fit[-1]] if len(fit) > 2 else []


EVERY = {f"{each.paper}/{each.part}": each for paper in PAPERS for each in paper_recipes(paper)}
TABLES = {word: recipe for word, recipe in EVERY.items() if three_cells(recipe)}


def test_only_tables_of_other_data_and_of_seconds_are_left_out():
    assert EVERY.keys() - TABLES.keys() == {
        *("eccv20/table4", "eccv20/table8", "iccv21/table5"),  # Stanford Online Products
        "iccv21/table4",
    }


@cache
def model(name):
    """Weights of a shipped model, and the embeddings of its X."""
    weights = load_file(ZOO / name / "model.safetensors")
    pictures = load(Path(DATA) / name.split("/")[0], "test").images / 255
    return weights, recompute.embedding(pictures, weights, "c2f1", "cosine")


@pytest.mark.parametrize("word", TABLES)
def test_records_are_what_the_saved_attacks_come_to(word, tmp_path, monkeypatch):
    recipe, cells = TABLES[word], three_cells(TABLES[word])
    models = shipped(recipe)
    trials = 1 if any(cell.run == "universal" for cell in cells) else 3
    words = ["reproduce", word, "--save", "--cells", ",".join(cell.name for cell in cells)]
    for name in {name for cell in cells for name in cell.models}:
        words += ["--model", f"{name}=zoo:{models[name]}"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, "--trials", str(trials)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    for cell in cells:
        record = CompletedCells(tmp_path / "records").recorded(word, cell.name).to_json()
        folder = tmp_path / "runs/reproduce" / word.replace("/", "-") / "attacks" / cell.name
        attacks = recompute.saved_attacks(folder)
        weights, database = model(models[cell.model])
        found = recompute.both(record, attacks, weights, "c2f1", "cosine", database)
        assert found.keys() & {"rank", "tau", "seen", "mean"}, cell.name
        for figure, (ours, recorded) in found.items():
            assert len(recorded) == trials
            # Ranks in %: single precision may see a few of 10,000 items the other way round.
            near = 0.03 if "rank" in figure or "seen" in figure else 0.05
            assert np.abs(ours - recorded).max() <= near, (cell.name, figure)
