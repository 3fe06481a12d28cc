"""Records recomputed from what `--save` keeps, by double loops that share no code with the library's ranking.

Of the library only the pictures are taken; the encoder is written out once more, in double precision.
"""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from typer.testing import CliRunner

from rankproof import load
from rankproof.cli import app

MODEL = """
[[models]]
name = "{name}"
data = "digits"
arch = "digits"
distance = "{distance}"
loss = "triplet"
defense = "none"
epochs = 1
batch = 200
"""
ATTACK = """
[[blocks]]
model = "{model}"
goal = "{goal}"
knob = "{knob}"
knobs = [{count}]
eps = [{eps}]
published = [[50]]
{xi}
"""
ORDER = """
[[blocks]]
kind = "order"
model = "{model}"
k = {k}
eps = "16/255"
xi = 10.0
tau = [0.5]
mean_rank = [5.0]
"""
BLACK_BOX = """
[[blocks]]
kind = "black-box"
model = "ct"
method = "spsa"
visible = "k"
budget = 60
k = 5
eps = ["16/255"]
tau = [0.4]
"""
TRANSFER = """
[[blocks]]
kind = "transfer"
goal = "{goal}"
eps = 0.2
from = ["{source}"]
to = ["{target}"]
before = [[""]]
published = [[30.0]]
{xi}
"""
HEAD = (
    'paper = "own"\ntable = "1"\ntitle = "To be recomputed"\nfigure = "rank"\ntolerance = 2.0\ntrials = 7\n'
)


def recipe():
    """Three cells of each kind."""
    parts = [HEAD, "published_trials = 10\n"]
    parts += [MODEL.format(name=n, distance=d) for n, d in (("ct", "cosine"), ("et", "euclidean"))]
    for model, goal, knob, count, eps in (
        ("ct", "ca+", "w", 1, 0.1),
        ("ct", "ca-", "w", 2, 0.1),
        ("et", "ca+", "w", 5, 0.05),
        ("ct", "qa+", "m", 1, 0.1),
        ("ct", "qa-", "m", 2, 0.1),
        ("et", "qa+", "m", 2, 0.05),
        ("ct", "sp-qa+", "m", 1, 0.1),
        ("ct", "sp-qa-", "m", 2, 0.1),
        ("et", "sp-qa+", "m", 5, 0.05),
    ):
        xi = {"sp-qa+": "xi = 1.0", "sp-qa-": "xi = 100.0"}.get(goal, "")
        parts.append(ATTACK.format(model=model, goal=goal, knob=knob, count=count, eps=eps, xi=xi))
    parts += [ORDER.format(model="ct", k=5), ORDER.format(model="et", k=10), BLACK_BOX]
    for source, target, goal in (("ct", "et", "ca+"), ("et", "ct", "sp-qa-"), ("ct", "et", "qa+")):
        xi = "xi = 100.0" if goal == "sp-qa-" else ""
        parts.append(TRANSFER.format(source=source, target=target, goal=goal, xi=xi))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every record, with the attack that was saved beside it and the weights of the model that ranks."""
    folder = tmp_path_factory.mktemp("recomputed")
    (folder / "recipes" / "own").mkdir(parents=True)
    (folder / "recipes" / "own" / "table1.toml").write_text(recipe())
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    words = ["reproduce", "own/table1", "--recipes", "recipes", "--save"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    patch.undo()
    assert result.exit_code == 0, result.stderr
    found = {}
    for path in sorted((folder / "records" / "own" / "table1").glob("*.json")):
        record = json.loads(path.read_text())
        with np.load(folder / "runs/reproduce/own-table1/attacks" / record["cell"] / "attack.npz") as arrays:
            attack = dict(arrays)
        (key,) = [model["key"] for model in record["models"] if model["name"] == record["model"]]
        weights = load_file(folder / "runs" / "models" / key / "model.safetensors")
        found[record["cell"]] = record, attack, weights
    return found


def embedding(pictures, weights, distance):
    """The encoder of the digits, written out: two convolutions, pooling, one linear layer."""
    z = torch.as_tensor(pictures).double()
    for layer in (0, 2):
        kernel, bias = (weights[f"features.{layer}.{part}"].double() for part in ("weight", "bias"))
        z = functional.conv2d(z, kernel, bias, padding=1).clamp(min=0)
    z = functional.max_pool2d(z, 2).flatten(1)
    z = (z @ weights["embedding.weight"].double().T + weights["embedding.bias"].double()).numpy()
    return z / np.sqrt((z**2).sum(1, keepdims=True)) if distance == "cosine" else z


def apart(a, b, distance):
    return 1 - a @ b if distance == "cosine" else np.sqrt(((a - b) ** 2).sum())


def place(own, others):
    """How many distances are smaller."""
    nearer = 0
    for other in others:
        if other < own:
            nearer += 1
    return nearer


def recomputed(record, attack, weights):
    """The figures of each attack of a cell."""
    distance = "cosine" if record["model"] == "ct" else "euclidean"
    database = embedding(load(None, "test").pictures / 255, weights, distance)
    moved = embedding(attack["adversarial"], weights, distance)
    figures = {"rank": [], "sp_rank": [], "tau": [], "mean_rank": []}
    for number in range(len(moved)):
        ranks, kept, places = [], [], []
        own = [apart(moved[number], x, distance) for x in database]
        for chosen in attack["targets"][number]:
            if record["goal"].startswith("ca"):  # the chosen is the query, the picture itself is ranked
                query = database[chosen]
                others = [apart(query, x, distance) for x in database]
                ranks.append(place(apart(query, moved[number], distance), others))
            else:
                ranks.append(place(own[chosen], own))
                places.append(ranks[-1])
        for item in attack["preserved"][number]:
            kept.append(place(own[item], own))
        figures["rank"].append(100 * np.mean(ranks) / len(database))
        figures["sp_rank"].append(100 * np.mean(kept) / len(database) if kept else None)
        figures["tau"].append(agreement(places, record) if record["goal"] == "oa" else None)
        figures["mean_rank"].append(np.mean(places) if record["goal"] == "oa" else None)
    return figures


def agreement(places, record):
    """tau_S: a pair counts if both are in sight and in the wanted order, else against."""
    seen = record["count"] if record["visible"] == "k" else np.inf
    total, pairs = 0, 0
    for first in range(len(places)):
        for second in range(first + 1, len(places)):
            right = places[first] < places[second] < seen
            total, pairs = total + (1 if right else -1), pairs + 1
    return total / pairs


def test_three_cells_of_each_kind_are_there(saved):
    kinds = Counter()
    for record, _, _ in saved.values():
        kinds["transfer" if record["run"] == "transfer" else record["goal"].rstrip("+-")] += 1
    assert kinds == {"ca": 3, "qa": 3, "sp-qa": 3, "oa": 3, "transfer": 3}


def test_records_are_what_the_saved_attacks_come_to(saved):
    step = 100 / 797  # one place; single precision may see two items the other way round
    for name, (record, attack, weights) in saved.items():
        found = recomputed(record, attack, weights)
        compared = ["tau", "mean_rank"] if record["goal"] == "oa" else ["rank", "sp_rank"]
        for figure in compared:
            if figure not in record["values"]:
                continue
            ours, recorded = np.array(found[figure], dtype=float), np.array(record["values"][figure])
            assert len(recorded) == record["trials"] == 7
            assert np.abs(ours - recorded).max() <= 1.01 * step, name
            assert np.abs(ours - recorded).mean() <= 0.2 * step, name
        mean, low, high = record["figures"][compared[0]]
        assert mean == pytest.approx(np.mean(found[compared[0]]), abs=0.2 * step)
        spread = 1.96 * np.std(found[compared[0]], ddof=1) / np.sqrt(7)
        assert high - low >= 2 * spread - 2 * step, name  # no narrower than the normal interval


def test_saved_attacks_keep_to_their_budgets(saved):
    for name, (record, attack, _) in saved.items():
        moved = np.abs(attack["adversarial"] - attack["original"]).max()
        assert 0 < moved <= record["eps"] + 1e-6, name
        assert attack["adversarial"].min() >= 0, name
        assert attack["adversarial"].max() <= 1, name
        pictures = (load(None, "test").pictures[attack["index"]] / 255).numpy()
        assert np.abs(attack["original"] - pictures).max() < 1e-6, name
