"""Records recomputed from what `--save` keeps; of the library only the pictures are taken."""

from collections import Counter

import numpy as np
import pytest
import recompute
from safetensors.torch import load_file
from typer.testing import CliRunner

from rankproof import load
from rankproof.cli import app
from rankproof.io import read_json_lines

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
UNIVERSAL = """
[[blocks]]
kind = "universal"
model = "{model}"
goal = "{goal}"
eps = 0.2
seen_before = 50
seen = 30.0
unseen_before = 50
unseen = 30.0
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
    for model, goal in (("ct", "ca+"), ("et", "ca-"), ("ct", "qa-")):
        parts.append(UNIVERSAL.format(model=model, goal=goal))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run that saved its attacks."""
    folder = tmp_path_factory.mktemp("recomputed")
    (folder / "recipes" / "own").mkdir(parents=True)
    (folder / "recipes" / "own" / "table1.toml").write_text(recipe())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["reproduce", "own/table1", "--recipes", "recipes", "--save"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def saved(made):
    """Every record, with the attacks that were saved and the weights of the model that ranks."""
    found = {}
    for record in read_json_lines(made / "records" / "own" / "table1.jsonl"):
        attacks = recompute.saved_attacks(made / "runs/reproduce/own-table1/attacks" / record["cell"])
        (key,) = [model["key"] for model in record["models"] if model["name"] == record["model"]]
        weights = load_file(made / "runs" / "models" / key / "model.safetensors")
        found[record["cell"]] = record, attacks, weights
    return found


def test_three_cells_of_each_kind_are_there(saved):
    kinds = Counter()
    for record, _, _ in saved.values():
        own_kind = record["run"] in ("transfer", "universal")
        kinds[record["run"] if own_kind else record["goal"].rstrip("+-")] += 1
    assert kinds == {"ca": 3, "qa": 3, "sp-qa": 3, "oa": 3, "transfer": 3, "universal": 3}


def test_records_are_what_the_saved_attacks_come_to(saved):
    pictures = load("digits", "test").images / 255
    step = 100 / len(pictures)  # one place; single precision may see two items the other way round
    for name, (record, attacks, weights) in saved.items():
        distance = "cosine" if record["model"] == "ct" else "euclidean"
        database = recompute.embedding(pictures, weights, "digits", distance)
        found = recompute.both(record, attacks, weights, "digits", distance, database)
        assert found.keys() & {"rank", "tau", "seen"}, name
        for figure, (ours, recorded) in found.items():
            assert len(recorded) == record["trials"] == 7
            assert np.abs(ours - recorded).max() <= 1.01 * step, name
            assert np.abs(ours - recorded).mean() <= 0.2 * step, name
            mean, low, high = record["figures"][figure]
            assert mean == pytest.approx(ours.mean(), abs=0.2 * step)
            spread = 1.96 * np.std(ours, ddof=1) / np.sqrt(len(ours))
            assert high - low >= 2 * spread - 2 * step, name  # no narrower than the normal interval


def test_saved_attacks_keep_to_their_budgets(saved):
    pictures = (load("digits", "test").images / 255).numpy()
    for name, (record, attacks, _) in saved.items():
        for attack in attacks.values():
            moved = np.abs(attack["adversarial"] - attack["original"]).max()
            assert 0 < moved <= record["eps"] + 1e-6, name
            assert attack["adversarial"].min() >= 0, name
            assert attack["adversarial"].max() <= 1, name
            assert np.abs(attack["original"] - pictures[attack["index"]]).max() < 1e-6, name


def test_one_perturbation_moves_all_pictures(saved):
    shared = [each for each in saved.values() if each[0]["run"] == "universal"]
    for record, attacks, _ in shared:
        assert [name.split("-")[-1] for name in attacks] == ["seen", "unseen"] * 7
        for number in range(7):
            seen, unseen = attacks[f"{number}-seen"], attacks[f"{number}-unseen"]
            assert not set(seen["index"]) & set(unseen["index"])
            before, after = (np.concatenate([seen[key], unseen[key]]) for key in ("original", "adversarial"))
            # Where clipping to [0, 1] took nothing away, all pictures were moved alike.
            free = (after > 1e-6) & (after < 1 - 1e-6)
            most, least = (np.where(free, after - before, end) for end in (-np.inf, np.inf))
            assert (most.max(0) - least.min(0)).max() < 1e-6, record["cell"]
