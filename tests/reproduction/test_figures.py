"""Figures on the digits: what is drawn, the values behind it, and that it can be drawn again from them."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from rankproof import MaxShift, QueryLower, Reorder, Threat, attack
from rankproof.cli import app
from rankproof.io import read_json_lines
from rankproof.methods.defaults import published
from rankproof.reproduction.cells import cells_of, goal_of, model_specs
from rankproof.reproduction.figures import draw
from rankproof.reproduction.measure import Bench
from rankproof.reproduction.recipe import FigureRecipe, find_recipe, known_recipes, read_recipe
from rankproof.system import open_system

RECIPES = Path(__file__).parents[2] / "recipes"
FIGURES = [
    word for word in known_recipes(RECIPES) if isinstance(read_recipe(RECIPES / f"{word}.toml"), FigureRecipe)
]
HEAD = """
paper = "tiny"
part = "{part}"
title = "a figure"
drawing = "{drawing}"
trials = 4
note = "Of digits."

[[models]]
name = "ct"
data = "digits"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "none"
epochs = 1
batch = 200

[[models]]
name = "far"
data = "nowhere"
arch = "digits"
distance = "cosine"
loss = "triplet"
defense = "none"
"""
BLOCKS = {
    "curves": """
[[blocks]]
kind = "curve"
model = "ct"
goal = "qa-"
eps = [0.0, 0.1]

[[blocks]]
kind = "curve"
model = "ct"
goal = "shift"
eps = [0.0, 0.1]

[[blocks]]
kind = "curve"
model = "far"
goal = "shift"
eps = [0.1]
""",
    "strips": """
[[blocks]]
kind = "strip"
model = "ct"
goal = "ca+"
eps = 0.25

[[blocks]]
kind = "strip"
model = "ct"
goal = "sp-qa+"
eps = 0.25
count = 2
xi = 1.0
""",
    "order": """
[[blocks]]
kind = "order-strip"
model = "ct"
method = "spsa"
k = 5
eps = "16/255"
visible = 20
budget = 60
""",
    "losses": """
[[blocks]]
kind = "losses"
model = "ct"
k = 5
eps = "8/255"
xi = 10.0
""",
    "weights": """
[[blocks]]
kind = "weights"
model = "ct"
""",
}


class Drawn:
    """A folder in which every kind of figure was drawn."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, drawing):
        words = ["reproduce", f"tiny/{drawing}", "--recipes", "recipes"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result

    def out(self, drawing):
        return self.folder / "runs" / "reproduce" / f"tiny-{drawing}"

    def told(self, drawing):
        return json.loads((self.out(drawing) / "figure.json").read_text())

    def cell(self, drawing, name):
        (found,) = [each for each in self.told(drawing)["cells"] if each["cell"] == f"tiny-{drawing}-{name}"]
        return found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "recipes" / "tiny").mkdir(parents=True)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    made = Drawn(folder)
    made.said = {}
    for drawing, blocks in BLOCKS.items():
        text = HEAD.format(part=drawing, drawing=drawing) + blocks
        (folder / "recipes" / "tiny" / f"{drawing}.toml").write_text(text)
        made.said[drawing] = made.run(drawing)
    yield made
    patch.undo()


@pytest.fixture(scope="module")
def target(drawn):
    (place,) = (drawn.folder / "runs" / "models").iterdir()
    return open_system(str(place), "digits")


@pytest.mark.parametrize("word", FIGURES)
def test_every_figure_has_cells_that_can_be_run(word):
    recipe = read_recipe(find_recipe(word, RECIPES))
    cells = cells_of(recipe)
    assert recipe.part == word.split("/")[1]
    assert len({cell.name for cell in cells}) == len(cells) > 0
    assert {name for cell in cells for name in cell.models} == {spec.name for spec in model_specs(recipe)}
    assert all(cell.run == "weights" or goal_of(cell) for cell in cells)


def test_the_figures_of_both_papers_are_there():
    assert {"eccv20/figure2", "eccv20/strips", "eccv20/violins", "iccv21/figure1", "iccv21/figure3"} <= {
        *FIGURES
    }


def test_a_figure_is_drawn_again_from_its_values_alone(drawn):
    for drawing in BLOCKS:
        again = draw(drawn.told(drawing))
        assert {path.name for path in drawn.out(drawing).iterdir()} == {*again, "figure.md", "figure.json"}
        for name, content in again.items():
            # matplotlib writes formulas into a vector file in no fixed way.
            assert name.endswith(".svg") or (drawn.out(drawing) / name).read_bytes() == content, name


def test_pictures_are_pictures(drawn):
    for path in drawn.folder.glob("runs/reproduce/*/*.png"):
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels[::3, ::3].reshape(-1, 3), axis=0)) > 20, path
    vectors = list(drawn.folder.glob("runs/reproduce/*/*.svg"))
    assert [path.stem for path in sorted(vectors)] == ["curves", "losses", "weights"]
    for path in vectors:
        assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")


def test_the_page_shows_every_picture_and_says_what_is_missing(drawn):
    page = (drawn.out("curves") / "figure.md").read_text()
    assert re.findall(r"!\[.*?\]\((.*?)\)", page) == ["curves.png"]
    assert "Of digits." in page
    assert "5 parts: 4 drawn, 1 no data" in page
    assert "far: no data" in page
    assert drawn.told("curves")["cells"][-1]["missing"] == "no data"
    assert str(Path("runs") / "reproduce" / "tiny-curves" / "figure.md") in drawn.said["curves"].stdout


def test_curves_are_of_the_published_attacks(drawn, target):
    index = target.draw(4, 0)
    for goal, name in ((QueryLower(m=1), "qa--m1"), (MaxShift(), "shift")):
        for eps in (0.0, 0.1):
            result = attack(target.gallery, target.dataset.take(index), goal, Threat(eps), gallery_ids=index)
            told = drawn.cell("curves", f"ct-{name}-eps{eps:g}")
            assert told["figures"][goal.metric][0] == pytest.approx(float(result.headline().mean()), abs=1e-5)


def test_strips_show_the_ranks_of_the_record(drawn):
    told = drawn.cell("strips", "ct-ca+-w1-eps0.25")
    strips = told["drawing"]["strips"]
    assert len(strips) == told["trials"] == 4
    places = [tile["rank"] for strip in strips for tile in strip["after"] if tile["attacked"]]
    assert 100 * np.mean(places) / 797 == pytest.approx(told["figures"]["rank"][0], abs=1e-5)
    two = drawn.cell("strips", "ct-sp-qa+-m2-eps0.25")["drawing"]["strips"][0]
    assert sum(tile["chosen"] for tile in two["before"]) == sum(tile["chosen"] for tile in two["after"]) == 2


def test_the_best_order_attack_is_shown_with_the_wanted_order_of_the_paper(drawn):
    told = drawn.cell("order", "ct-oa-spsa-k5-N20-eps16of255")
    (strip,) = told["drawing"]["strips"]
    assert "".join(tile["mark"] for tile in strip["before"]) == "AEDCB"  # wanted: 1, 5, 4, 3, 2
    assert [tile["rank"] for tile in strip["before"]] == list(range(5))
    (record,) = read_json_lines(drawn.folder / "records" / "tiny" / "order.jsonl")
    best = max(record["values"]["tau"])
    assert f"to {best:.2f}." in strip["wanted"].replace("−", "-")
    assert "the best of 4 attacks" in told["notes"][-1]


def test_losses_are_those_of_the_attack(drawn, target):
    told = drawn.cell("losses", "ct-oa-k5-eps8of255-xi10")
    index, goal = target.draw(4, 0), Reorder(k=5, xi=10.0)
    result = attack(
        target.gallery,
        target.dataset.take(index),
        goal,
        Threat(8 / 255),
        method=published("tau"),
        gallery_ids=index,
    )
    assert told["figures"]["tau"][0] == pytest.approx(float(result.tau.mean()), abs=1e-5)
    assert told["steps"] == 24
    unit = target.gallery.ranker.distance.prepare
    z = unit(target.gallery.embeddings.double())
    for end, pictures in ((0, result.original), (-1, result.adversarial)):
        order, keep = [], []
        for number, own in enumerate(unit(target.gallery.ranker.embed_all(pictures).double())):
            distances, chosen = 1 - z @ own, result.targets[number]
            pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
            order.append(
                sum(float((distances[chosen[i]] - distances[chosen[j]]).clamp(min=0)) for i, j in pairs) / 25
            )
            keep.append(np.mean([float((distances[c] - distances).clamp(min=0).mean()) for c in chosen]))
        assert told["drawing"]["keep"][end][0] == pytest.approx(np.mean(keep), rel=0.02)
        total = np.mean(order) + 10 * np.mean(keep)
        assert told["drawing"]["total"][end][0] == pytest.approx(total, rel=0.02)


def test_violins_are_of_the_weights(drawn):
    layers = drawn.cell("weights", "ct-weights")["drawing"]["layers"]
    assert [layer["layer"] for layer in layers] == ["conv1", "conv2", "fc1"]
    (place,) = (drawn.folder / "runs" / "models").iterdir()
    weights = load_file(place / "model.safetensors")
    for layer, name in zip(layers, ("features.0", "features.2", "embedding"), strict=True):
        for kind in ("weight", "bias"):
            own, told = weights[f"{name}.{kind}"].double().flatten(), layer[kind]
            assert told["count"] == len(own)
            assert told["mean"] == pytest.approx(float(own.mean()), abs=1e-7)
            assert told["quartiles"][1] == pytest.approx(float(own.quantile(0.5)), abs=1e-7)
            assert (told["points"][0], told["points"][-1]) == pytest.approx(
                (float(own.min()), float(own.max())), rel=1e-4
            )
            width = told["points"][1] - told["points"][0]
            assert 0.6 < width * sum(told["density"]) < 1.02  # the kernels reach beyond the ends


def test_nothing_is_run_a_second_time(drawn, monkeypatch):
    def fail(*_):
        raise AssertionError("measured a second time")

    monkeypatch.setattr(Bench, "measure", fail)
    before = drawn.told("losses")
    drawn.run("losses")
    assert drawn.told("losses") == before
    assert torch.is_grad_enabled()
