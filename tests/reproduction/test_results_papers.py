"""The summary of the papers' tables from records, and the tables themselves."""

from dataclasses import replace

import pytest

from rankproof.reproduction.cells import by_published_schedule, cells_of, strong_cells
from rankproof.reproduction.records import ModelFacts
from rankproof.reproduction.results_page import paper_recipes, paper_speed, paper_summary, paper_tables

HEAD = ("table", "figures", "agrees", "stronger", "weaker", "too few attacks", "unreadable in print")
FACTS = {"schedule": "fast", "epochs": 12, "recall_at_1": 79.0}


def cells(paper, table):
    (recipe,) = [each for each in paper_recipes(paper) if each.table == table]
    return recipe, {each.name.removeprefix(f"{recipe.name}-"): each for each in cells_of(recipe)}


@pytest.fixture
def measured(put):
    """A function that puts the record of a cell: its mean, half its interval and its schedule."""

    def write(cell, mean, half=0.5, schedule="fast", values=(), sha256="a"):
        (figure, *_) = cell.figures
        paper, table = cell.name.split("-")[:2]
        put(
            f"{paper}/{table}",
            cell.name,
            identity="-",
            trials_asked=300,
            trials=len(values) or 300,
            figures={figure.name: (mean, mean - half, mean + half)},
            values={figure.name: list(values)},
            models=[ModelFacts(name=cell.model, **{**FACTS, "schedule": schedule}, sha256=sha256)],
        )

    return write


def line(rows, name, text):
    (found,) = rows(text, name)
    return dict(
        zip((*HEAD, "not compared", "not run", "no data", "training failed", "share"), found, strict=True)
    )


def test_every_table_has_a_line_without_any_record(records, put, rows):
    text = paper_summary(records)
    assert len(text.splitlines()) == 2 + 24 + 1
    assert line(rows, "ECCV 2020, 3", text)["not run"] == line(rows, "ECCV 2020, 3", text)["figures"] == "160"
    assert (
        line(rows, "ICCV 2021, 5", text)["no data"] == "192"
    )  # Stanford Online Products have to be asked for


def test_every_printed_figure_counts_once_under_its_mark(records, measured, rows):
    _, found = cells("eccv20", "3")
    measured(found["ct-ca+-w1-eps0.01"], 36.0)  # printed 36.6
    measured(found["ct-ca+-w1-eps0.03"], 10.0)  # 19.7
    measured(found["ct-ca--w1-eps0.1"], 70.0)  # 87.2
    measured(found["ct-ca+-w1-eps0.1"], 3.7, half=5.0)
    text = paper_summary(records)
    told = line(rows, "ECCV 2020, 3", text)
    marks = ("agrees", "stronger", "weaker", "too few attacks", "not run", "share")
    assert [told[mark] for mark in marks] == ["1", "1", "1", "1", "156", "25 %"]
    assert line(rows, "**all**", text)["agrees"] == "1"


def test_what_was_trained_as_published_goes_before_the_fast_schedule(records, measured, rows):
    recipe, found = cells("eccv20", "3")
    cell = found["ctd-ca+-w1-eps0.3"]
    measured(cell, 0.0)
    assert line(rows, "ECCV 2020, 3", paper_summary(records))["stronger"] == "1"
    (slow,) = by_published_schedule(recipe, [cell])
    assert slow.name != cell.name
    measured(replace(slow), cell.figures[0].printed, schedule="published")
    told = line(rows, "ECCV 2020, 3", paper_summary(records))
    assert (told["agrees"], told["stronger"]) == ("1", "")
    assert "published schedule" in paper_tables(records)


def test_our_own_search_is_told_apart(records, measured):
    _, found = cells("eccv20", "3")
    names = ("ct-ca+-w1-eps0.1", "ct-ca--w1-eps0.1", "ct-ca+-w1-eps0.3", "ctd-ca+-w1-eps0.3")
    for cell, mean in zip(strong_cells([found[name] for name in names]), (3.74, 87.1, 2.0, 1.0), strict=True):
        measured(cell, mean)
    text = paper_summary(records)  # printed: 3.7, 87.2, 1.3 and 28.5
    assert "at least as strong as printed for 1 of 3 figures of undefended models and 1 of 1 figures" in text


def test_our_own_search_is_found_where_the_model_was_trained_as_published(records, measured):
    recipe, found = cells("eccv20", "3")
    (slow,) = strong_cells(by_published_schedule(recipe, [found["ctd-ca+-w1-eps0.3"]]))
    measured(slow, 1.0, schedule="published")
    assert "for 1 of 1 figures of defended models" in paper_summary(records)


def test_our_own_search_is_compared_attack_by_attack(records, measured):
    _, found = cells("eccv20", "3")
    for name, theirs, ours in (
        ("ct-ca+-w1-eps0.01", (40.0, 20.0, 30.0, 90.0), (39.0, 19.5, 29.0)),  # lower is stronger
        ("ct-ca--w1-eps0.01", (5.0, 2.0, 3.0), (6.0, 3.1, 4.0)),
        ("ct-ca--w1-eps0.03", (5.0, 2.0, 3.0), (4.0, 1.1, 2.0)),
        ("ct-ca+-w1-eps0.1", (5.0, 2.0, 3.0), (9.0, 0.0, 3.0)),
    ):
        (strong,) = strong_cells([found[name]])
        measured(found[name], 1.0, values=theirs)
        measured(strong, 1.0, values=ours)
    told = "paired, it is stronger in {} of {} cells, weaker in {}; in the other {} the"
    assert told.format(2, 4, 1, 1) in paper_summary(records)
    measured(strong, 1.0, values=ours, sha256="another")
    assert told.format(2, 3, 1, 0) in paper_summary(records)


def test_our_own_search_stands_below_the_published_method(records, measured):
    _, found = cells("eccv20", "3")
    for name in ("ct-ca+-w1-eps0.01", "ct-ca+-w1-eps0.03"):
        measured(found[name], 30.0)
    (strong,) = strong_cells([found["ct-ca+-w1-eps0.01"]])
    measured(strong, 34.0)
    lines = [line.split("|")[1:5] for line in paper_tables(records).splitlines() if line.startswith("| ct |")]
    assert [[part.strip() for part in line[1:]] for line in lines] == [
        ["ca+", "0.01", "30.00 (36.6) +"],
        ["ca+, strong", "0.01", "34.00 (36.6) +"],
        ["ca+", "0.03", "30.00 (19.7) −"],
    ]


def test_tables_are_as_compact_as_in_print(records, measured, rows):
    _, found = cells("eccv20", "3")
    measured(found["ct-ca+-w1-eps0.01"], 36.0)
    measured(found["ct-ca+-w10-eps0.01"], 50.0)
    _, order = cells("iccv21", "1")
    measured(order["ct-oa-k10-eps4of255"], 0.3, half=0.01)
    text = paper_tables(records)
    (row,) = rows(text, "ct", "ca+")
    assert row == ["ct", "ca+", "0.01", "36.00 (36.6) =", "(39.9)", "(43.2)", "50.00 (44.8) −"]
    (row,) = rows(text, "OA, xi = 10")
    assert row[2:] == ["4/255", "(0.412)", "0.300 (0.282) =", "(0.108)"]
    assert "T = 300." in text
    assert "### ICCV 2021, table 2" not in text


def test_what_differs_is_told_in_its_own_words(records, measured):
    _, found = cells("eccv20", "3")
    measured(found["ct-ca+-w1-eps0.01"], 36.0)
    (records.root / "eccv20" / "differences.md").write_text("It was **T**.\n")
    assert paper_tables(records).endswith("### ECCV 2020: what differs, and why\n\nIt was **T**.")


def test_the_speed_of_a_reproduction_is_told_as_two_ratios(records, benchmark, rows):
    one = {"workers": 1, "cells": 20, "wall_seconds": 110.0, "seconds": 100.0, "model_seconds": 90.0}
    two = {"workers": 2, "cells": 20, "wall_seconds": 61.0, "seconds": 101.0, "model_seconds": 91.0}
    ratios = {"wall_over_cells": 1.1, "second_worker": 1.8}
    benchmark("reproduce", {"rows": [one, two], "ratios": ratios})
    text = paper_speed(records)
    assert rows(text, "2", "20") == [["2", "20", "61.0", "101.0", "91.0"]]
    assert "1.10 times that of its attacks; two workers are 1.80 times as fast" in text
