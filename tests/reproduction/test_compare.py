"""Whether figures agree, and how a table tells it."""

import csv
import io
import json
from pathlib import Path

import pytest

from rankproof.goals.registry import spec
from rankproof.reproduction.cells import cells_of
from rankproof.reproduction.compare import compare, row_of
from rankproof.reproduction.recipe import read_recipe
from rankproof.reproduction.records import Measurement, ModelFacts
from rankproof.reproduction.render import Table

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    ("gap", "half", "rises", "mark"),
    [
        (1.9, 0.5, True, "agrees"),
        (-2.0, 2.0, False, "agrees"),
        (0.1, 2.1, True, "too few attacks"),
        (0.1, None, True, "too few attacks"),
        (2.5, 0.5, True, "stronger"),
        (2.5, 0.5, False, "weaker"),
        (-2.5, 0.5, True, "weaker"),
        (-2.5, 0.5, False, "stronger"),
        (5.0, 4.0, True, "too few attacks"),  # the interval reaches into the tolerance
        (6.5, 4.0, True, "stronger"),
        (6.5, None, True, "too few attacks"),
    ],
)
def test_a_figure_agrees_only_with_an_interval_as_narrow(gap, half, rises, mark):
    assert compare(gap, half, 2.0, rises=rises) == mark


def printed(table, name):
    recipe = read_recipe(RECIPES / f"{table}.toml")
    (cell,) = [cell for cell in cells_of(recipe) if cell.name == f"{recipe.name}-{name}"]
    return recipe, cell


@pytest.mark.parametrize(
    ("table", "name", "rises"),
    [
        ("eccv20/table1", "ct-ca+-w1-eps0.1", False),
        ("eccv20/table1", "ct-sp-qa--m1-eps0.1", True),
        ("eccv20/table16", "ct-ca--distance-w1-eps0.3", True),
        ("eccv20/table16", "ct-sp-qa+-distance-m1-eps0.3", False),
        ("eccv20/table5", "lenet-ct-to-ct-ca--eps0.3", True),
        ("iccv21/table1", "ct-oa-k5-eps4of255", True),
    ],
)
def test_the_direction_is_that_of_the_goal(table, name, rises):
    assert spec(printed(table, name)[1].goal).larger_is_stronger == rises


def record(**figures):
    return Measurement(
        cell="measured",
        figures={name: tuple(ends) for name, ends in figures.items()},
        trials=300,
        seed=0,
        steps=20,
        seconds=3.0,
        model_seconds=2.5,
        notes=["50 % of what?"],
        versions={"torch": "2"},
    )


def test_a_row_says_why_there_is_no_verdict():
    recipe, lost = printed("eccv20/table7", "ct-sp-qa+-m1-eps0.3-xi1")
    found = record(rank=[6.0, 5.5, 6.5], sp_rank=[3.0, 2.9, 3.1])
    (figure,) = lost.figures
    assert row_of(lost, figure, found, recipe.tolerance).mark == "unreadable in print"
    assert row_of(lost, figure, None, recipe.tolerance).mark == "not run"
    assert row_of(lost, figure, None, recipe.tolerance, "no data").mark == "no data"
    recipe, timed = printed("iccv21/table4", "ct-oa-nes-k5-N50-eps4of255")
    (figure,) = timed.figures
    assert row_of(timed, figure, record(seconds=[1.0, 0.9, 1.1]), recipe.tolerance).mark == "not compared"


@pytest.fixture
def made():
    recipe, first = printed("eccv20/table7", "ct-sp-qa--m1-eps0.3-xi100")
    _, second = printed("eccv20/table7", "ct-sp-qa--m2-eps0.3-xi100")
    records = [record(rank=[9.0, 8.5, 9.5], sp_rank=[1.5, 1.4, 1.6]), None]
    rows = [
        row_of(cell, cell.figures[0], found, recipe.tolerance)
        for cell, found in zip((first, second), records, strict=True)
    ]
    facts = ModelFacts(
        data="mnist", schedule="published", epochs=30, seed=0, recall_at_1=99.14, source="trained"
    )
    return Table(
        recipe=recipe,
        rows=rows,
        models={"ct": facts},
        command="rankproof reproduce eccv20/table7",
    )


def test_markdown_has_ours_beside_the_printed(made, rows):
    text = made.markdown()
    assert text.startswith("# ECCV 2020, table 7: Search for xi, ct on MNIST")
    assert "## ct (published schedule)" in text
    (run,) = rows(text, "agrees")
    assert run[3:6] == ["8.6, 1.6", "9.00 [8.50, 9.50], 1.50 [1.40, 1.60]", "300"]
    (waiting,) = rows(text, "not run")
    assert waiting[3:6] == ["6.6, 1.6", "", ""]
    assert rows(text, "99.1")  # R@1 of ours
    assert "2 printed figures: 1 agrees, 1 not run." in text


def test_latex_escapes_what_it_must(made):
    text = made.latex()
    assert r"ours [95 \%]" in text
    assert r"C\_SP" in text
    assert text.count(r"\\") == 1 + 1 + 2  # heading, model, two rows
    assert text.count("{") == text.count("}")


def test_csv_and_json_hold_the_same_rows(made, tmp_path):
    made.save(tmp_path)
    told = json.loads((tmp_path / "table.json").read_text())
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert len(lines) == len(told["rows"]) == 2
    for line, row in zip(lines, told["rows"], strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}
    assert told["rows"][0]["published"] == 8.6
    assert (told["rows"][0]["ours"], told["rows"][0]["low"], told["rows"][0]["high"]) == (9.0, 8.5, 9.5)
    assert told["rows"][0]["beside_published"] == 1.6
    assert told["counts"] == {"agrees": 1, "not run": 1}
    assert told["versions"] == {"torch": "2"}
    assert {path.name for path in tmp_path.iterdir()} == {
        f"table.{end}" for end in ("md", "tex", "csv", "json")
    }
