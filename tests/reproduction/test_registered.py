"""A goal and a black-box method that somebody registers stand in recipes and on the results page."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankproof import QueryRaise, Rand
from rankproof.cli import app
from rankproof.goals import GoalSpec
from rankproof.goals import registry as goals
from rankproof.methods import registry as methods
from rankproof.reproduction.compare import recorded_rows
from rankproof.reproduction.recipe import read_recipe
from rankproof.reproduction.records import CompletedCells
from rankproof.reproduction.render import grid

RECIPE = """
paper = "tiny"
table = "1"
title = "What was registered"
figure = "{figure}"
tolerance = 0.001
trials = 4
published_trials = 4

[[models]]
name = "ct"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "none"
epochs = 1
batch = 400

[[blocks]]
"""
GOAL = """
model = "ct"
goal = "pair"
knob = "m"
knobs = [2]
eps = [0.1]
published = [[{printed}]]
"""
METHOD = """
kind = "black-box"
model = "ct"
method = "guess"
visible = 20
budget = 15
k = 3
eps = ["16/255"]
tau = [-1.0]
"""


@dataclass(frozen=True, kw_only=True)
class Pair(QueryRaise):
    """Two items rise: a goal of one's own, whose stronger attack has the larger figure for once."""

    m: int = 2
    SPEC = GoalSpec(
        name="pair",
        title="Pair",
        family="query",
        direction="raise",
        larger_is_stronger=True,
        parameters=("m",),
        describe=lambda values: "Two items rise.",
    )


@dataclass(frozen=True, kw_only=True)
class Guess(Rand):
    """Random search by another name."""

    name = "guess"


@pytest.fixture
def registered():
    """The goal "pair" and the method "guess", until the test ends."""
    goals.register(Pair)
    methods.register("guess", "black-box", lambda metric, steps: Guess(population=5))
    yield
    goals.unregister("pair")
    methods.unregister("guess")


def reproduced(block, figure):
    """The row of the only figure of a recipe with one block, as the results page shows it."""
    file = Path("recipes/tiny/table1.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(RECIPE.format(figure=figure) + block)
    outcome = CliRunner().invoke(app, ["reproduce", "tiny/table1", "--recipes", "recipes"])
    assert outcome.exit_code == 0, (outcome.stderr, outcome.exception)
    (row,) = recorded_rows(read_recipe(file), CompletedCells(Path("records")))
    return row, grid([row], figure)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("printed", "mark"), [(0.0, "stronger"), (100.0, "weaker")])
def test_a_goal_is_measured_and_compared_by_its_own_direction(tmp_path, monkeypatch, printed, mark):
    monkeypatch.chdir(tmp_path)
    row, page = reproduced(GOAL.format(printed=printed), "rank")
    assert row.record.trials == 4
    assert row.cell.goal == "pair"
    assert row.mark == mark
    assert "| ct | pair |" in page


@pytest.mark.usefixtures("registered")
def test_a_black_box_method_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row, page = reproduced(METHOD, "tau")
    assert row.record.steps <= 15
    assert row.record.figures["tau"][0] > -1
    assert row.mark == "stronger"
    assert "guess" in page


def test_what_is_not_registered_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block, figure, word in ((GOAL.format(printed=1.0), "rank", "pair"), (METHOD, "tau", "guess")):
        with pytest.raises(AssertionError, match=word):
            reproduced(block, figure)
