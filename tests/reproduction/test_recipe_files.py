"""Recipes as values, and the cells they stand for."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rankproof.errors import RankproofError
from rankproof.reproduction.cells import (
    TARGETS,
    Figure,
    cells_of,
    descent_of,
    goal_of,
    model_specs,
    search_of,
    selected,
    strong_cells,
)
from rankproof.reproduction.recipe import find_recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
TABLES = sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/table*.toml"))
every_table = pytest.mark.parametrize("table", TABLES)

GOOD = """
paper = "eccv20"
table = "99"
title = "A table"
figure = "rank"
tolerance = 2.0
trials = 8
trials_single = 10
published_trials = 10000

[[models]]
name = "ct"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "none"

[[blocks]]
model = "ct"
goal = "sp-qa+"
knob = "m"
knobs = [1, 2]
xi = 1.0
eps = [0.0, 0.1]
published = [[50, 50], [20.0, "?"]]
kept = [["", ""], [1.0, "?"]]

[[blocks]]
kind = "order"
model = "ct"
k = 5
eps = "4/255"
xi = [0.0, 10.0]
tau = [0.5, 0.4]
mean_rank = [20.0, 9.0]
"""


def recipe(paper, table):
    return read_recipe(RECIPES / paper / f"table{table}.toml")


def cell(paper, table, name):
    (found,) = [
        each for each in cells_of(recipe(paper, table)) if each.name == f"{paper}-table{table}-{name}"
    ]
    return found


@every_table
def test_every_recipe_gives_cells_with_names_of_their_own(table):
    found = read_recipe(RECIPES / f"{table}.toml")
    cells = cells_of(found)
    names = [each.name for each in (*cells, *strong_cells(cells))]
    assert len(set(names)) == len(names) > 0
    assert all(re.fullmatch(r"(eccv20|iccv21)-table\d+-[\w.+-]+", name) for name in names)
    known = {spec.name for spec in model_specs(found)}
    assert {name for each in cells for name in each.models} == known


@every_table
def test_every_cell_can_be_made_into_goals_and_methods(table):
    for each in cells_of(read_recipe(RECIPES / f"{table}.toml")):
        goal = goal_of(each)
        assert goal.spec.name == each.goal
        assert goal.parameters[each.letter] == each.count
        if each.run in ("white-box", "transfer"):
            assert goal.parameters["xi"] == each.xi
            assert descent_of(each).name == "pgd"
        elif each.run in ("black-box", "service", "seconds"):
            assert search_of(each.method)[0].name == ("rand" if each.method == "none" else each.method)


def test_a_cell_is_named_by_what_it_measures_and_knows_what_is_printed():
    found = cell("eccv20", "3", "ct-ca+-w1-eps0.03")
    assert found.figures == (Figure(name="rank", printed=19.7),)
    assert (found.trials, found.published_trials) == (1000, 10_000)
    assert cell("eccv20", "3", "ctd-sp-qa--m10-eps0.3").trials == 300
    lost = cell("eccv20", "7", "ct-sp-qa+-m1-eps0.3-xi1")
    assert lost.figures == (Figure(name="rank", printed=None, beside="sp_rank", beside_printed=None),)
    started = cell("eccv20", "5", "ct-to-ct-ca+-eps0.3")
    assert started.figures == (Figure(name="rank", printed=2.1, beside="before", beside_printed=50.0),)
    # The start rank of a pair is not printed beside the diagonal.
    assert cell("eccv20", "5", "lenet-ct-to-ct-ca+-eps0.3").figures == (Figure(name="rank", printed=35.1),)


def test_a_universal_cell_prints_seen_and_unseen_images():
    found = cell("eccv20", "13", "ec-qa--universal-eps0.3")
    assert [(each.name, each.printed, each.beside_printed) for each in found.figures] == [
        ("seen", 87.1, 3.3),
        ("unseen", 74.4, 3.5),
    ]
    assert found.trials == TARGETS


def test_first_rows_of_table_6_have_another_number_of_attacks():
    found = {each.run: each.published_trials for each in cells_of(recipe("eccv20", "6"))}
    assert found == {"white-box": 10_000, "universal": 500}


def test_order_attacks_run_over_eps_or_over_xi():
    assert cell("iccv21", "1", "ct-oa-k25-eps16of255").xi == 10.0
    found = cell("iccv21", "2", "sop-ct-oa-k5-eps4of255-xi10000")
    assert (found.eps, found.xi) == (4 / 255, 1e4)
    assert found.figures[0].printed == 0.165


def test_services_are_asked_through_a_stand_in_that_is_not_compared():
    found = cell("iccv21", "7", "service-oa-spsa-k10-eps8of255")
    assert (found.visible, found.budget, found.grid, found.trials) == (50, 100, True, 95)
    assert [each.name for each in found.figures] == ["mean", "stdev", "max", "min", "median"]
    assert not found.comparable


def test_t_can_be_set_for_all_but_targets_are_few():
    small = cells_of(recipe("eccv20", "6"), trials=100)
    assert {each.run: each.trials for each in small} == {"white-box": 100, "universal": TARGETS}
    assert {each.trials for each in cells_of(recipe("eccv20", "6"), trials=3)} == {3}


def test_cells_are_chosen_by_the_parts_of_their_names():
    cells = cells_of(recipe("eccv20", "3"))
    assert len(selected(cells, [])) == 160
    assert len(selected(cells, ["ct"])) == 80  # and not those of ctd
    assert [each.name for each in selected(cells, ["ct", "ca-,ca+", "w1", "eps0.3"])] == [
        "eccv20-table3-ct-ca+-w1-eps0.3",
        "eccv20-table3-ct-ca--w1-eps0.3",
    ]
    assert len(selected(cells, [cells[7].name])) == 1
    with pytest.raises(RankproofError, match="no cell has such a name"):
        selected(cells, ["ce"])


def test_only_attacks_with_gradients_have_a_stronger_search():
    assert {each.run for each in strong_cells(cells_of(recipe("eccv20", "6")))} == {"white-box"}
    (one, *_) = strong_cells(cells_of(recipe("iccv21", "1")))
    assert one.name.endswith("-strong")
    assert descent_of(one).name == "strong"
    with pytest.raises(RankproofError, match="no cell of this table has a stronger search"):
        selected(strong_cells(cells_of(recipe("iccv21", "3"))), [])


def test_two_cells_of_one_name_are_an_error():
    found = recipe("eccv20", "1")
    with pytest.raises(RankproofError, match="two blocks print the same cell"):
        cells_of(replace(found, blocks=(*found.blocks, found.blocks[0])))


def test_tables_are_found_beside_the_source_and_in_a_folder_of_ones_own(tmp_path):
    assert find_recipe("iccv21/table4", None) == RECIPES / "iccv21" / "table4.toml"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table1.toml").write_text(GOOD)
    assert find_recipe("mine/table1", tmp_path).is_file()
    with pytest.raises(RankproofError, match="known: mine/table1"):
        find_recipe("eccv20/table1", tmp_path)
    with pytest.raises(RankproofError, match="--recipes"):
        find_recipe("eccv20/table1", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("tolerance = 2.0", "tolerance = 2.0\ncolour = 1", "'colour' is unknown; known: paper"),
        ("tolerance = 2.0\n", "", "'tolerance' is missing"),
        ("trials = 8", "trials = 0", "trials: must be at least 1"),
        ('figure = "rank"', 'figure = "rnak"', "figure: 'rnak' is unknown; known: rank"),
        ('arch = "digits"', 'arch = "digits"\nlayers = 3', "model 1: 'layers' is unknown"),
        ('loss = "triplet"\n', "", "model 1: 'loss' is missing"),
        ('model = "ct"\ngoal', 'model = "cc"\ngoal', "block 1: model 'cc' is not among"),
        ("knobs = [1, 2]", "knobs = [1, 2, 5]", r"block 1 \(eps\): published: expected 2 rows of 3"),
        ('[20.0, "?"]', '[20.0, "!"]', r"block 1 \(eps\): published: expected a number, got '!'"),
        ('[20.0, "?"]', "[20.0]", r"block 1 \(eps\): published: expected 2 rows of 2 figures, got"),
        ("xi = 1.0", "weight = 1.0", r"block 1 \(eps\): 'weight' is unknown; known: model"),
        ('goal = "sp-qa+"', 'goal = "sp-qa"', r"block 1 \(eps\): goal: 'sp-qa' is unknown"),
        ("eps = [0.0, 0.1]", "eps = [0.0, 1.5]", r"block 1 \(eps\): eps: eps must be between 0 and 1"),
        ('kind = "order"', 'kind = "odder"', "block 2: kind 'odder' is unknown; known: eps"),
        ("tau = [0.5, 0.4]", "tau = [0.5]", r"block 2 \(order\): tau: expected 1 rows of 2"),
        ("k = 5", "k = true", r"block 2 \(order\): k: expected a whole number"),
        ('eps = "4/255"', 'eps = ["1/255", "2/255"]', r"block 2 \(order\): eps and xi: one of them"),
        ("[[blocks]]", "[[blocks", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_named(tmp_path, old, new, fragment):
    assert old in GOOD
    file = tmp_path / "table99.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(RankproofError, match=f"table99.toml.*{fragment}"):
        read_recipe(file)


def test_the_good_recipe_is_one(tmp_path):
    file = tmp_path / "table99.toml"
    file.write_text(GOOD)
    cells = cells_of(read_recipe(file))
    assert [each.trials for each in cells] == [10, 8, 10, 8, 8, 8]
    assert cells[0].figures == (Figure(name="rank", printed=50.0),)


def test_a_missing_weight_is_an_error():
    found = replace(cell("eccv20", "3", "ct-sp-qa+-m1-eps0.03"), xi=None)
    with pytest.raises(RankproofError, match="needs xi"):
        goal_of(found)
