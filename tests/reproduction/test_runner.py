"""A whole small table on the digits: models, cells, records, the table, and what happens the second time."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from rankproof import (
    SPSA,
    AttackResult,
    CandidateRaise,
    LocalOracle,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    Threat,
    Universal,
    attack,
    choose,
    load,
    transfer,
)
from rankproof.cli import app
from rankproof.io import read_json_lines
from rankproof.methods.defaults import published, strong
from rankproof.ranking.metrics import mean_interval
from rankproof.reproduction import models
from rankproof.reproduction.measure import Bench
from rankproof.reproduction.records import CompletedCells
from rankproof.reproduction.runner import Reproduction, ReproductionRequest
from rankproof.system import open_system
from rankproof.training.divergence import TrainingFailedError

HEAD = """
paper = "tiny"
table = "{table}"
title = "A little of everything"
figure = "{figure}"
tolerance = {tolerance}
trials = 6
trials_single = 8
published_trials = 10000
"""
MODEL = """
[[models]]
name = "{name}"
data = "{data}"
arch = "digits"
distance = "{distance}"
loss = "{loss}"
defense = "{defense}"
epochs = 1
batch = 200
"""
CT = {"name": "ct", "data": "digits", "distance": "cosine", "loss": "triplet", "defense": "none"}
EC = {"name": "ec", "data": "digits", "distance": "euclidean", "loss": "contrastive", "defense": "none"}
FAR = {**CT, "name": "far", "data": "nowhere"}
EPS = """
[[blocks]]
model = "{model}"
goal = "ca+"
knob = "w"
knobs = [1, 2]
eps = [0.1]
published = [[20.0, "?"]]
"""
RANKS = """
[[blocks]]
kind = "xi"
model = "ct"
goal = "sp-qa+"
knob = "m"
knobs = [1]
eps = 0.1
xi = [0.0, 100.0]
published = [[5.0], [20.0]]
kept = [[20.0], [0.1]]

[[blocks]]
kind = "transfer"
goal = "sp-qa-"
eps = 0.1
xi = 100.0
from = ["ct", "ec"]
to = ["ct", "ec"]
before = [[0.5, ""], ["", 0.5]]
published = [[5.0, 1.0], [1.0, 5.0]]

[[blocks]]
kind = "transfer"
goal = "sp-qa+"
eps = 0.1
xi = 1.0
from = ["ct"]
to = ["ct", "ec"]
before = [[50, 50]]
published = [[5.0, 30.0]]

[[blocks]]
kind = "universal"
model = "ct"
goal = "qa-"
eps = 0.3
seen_before = 2.1
seen = 50.0
unseen_before = 2.2
unseen = 40.0
"""
ORDERS = """
[[blocks]]
kind = "order"
model = "ct"
k = 5
eps = ["0", "4/255"]
xi = 10.0
tau = [0.0, 0.4]
mean_rank = [2.0, 9.1]

[[blocks]]
kind = "black-box"
model = "ct"
method = "none"
visible = "inf"
budget = 0
k = 5
eps = ["4/255"]
tau = [0.0]
mean_rank = [2.0]

[[blocks]]
kind = "black-box"
model = "ct"
method = "spsa"
visible = "k"
budget = 60
k = 5
eps = ["16/255"]
tau = [0.4]

[[blocks]]
kind = "seconds"
model = "ct"
data = "digits"
visible = 50
eps = "4/255"
budget = 55
k = 5
rand = 0.195
beta = 0.386
pso = 0.208
nes = 0.208
spsa = 0.202
src = 0.080
"""


class Place:
    """A folder to work in, with recipes."""

    def __init__(self, folder):
        self.folder = folder

    def recipe(self, table, models, blocks, figure="rank", tolerance=2.0):
        file = self.folder / "recipes" / "tiny" / f"table{table}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        head = HEAD.format(table=table, figure=figure, tolerance=tolerance)
        file.write_text("".join([head, *(MODEL.format(**model) for model in models), *blocks]))

    def run(self, table, *words):
        command = ["reproduce", f"tiny/table{table}", "--recipes", "recipes", *words]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, (result.stderr, result.exception)
        return result

    def record(self, table, name):
        return CompletedCells(self.folder / "records").recorded(
            f"tiny/table{table}", f"tiny-table{table}-{name}"
        )

    def lines(self, table):
        return list(read_json_lines(self.folder / "records" / "tiny" / f"table{table}.jsonl"))

    def table(self, table):
        return json.loads(
            (self.folder / "runs" / "reproduce" / f"tiny-table{table}" / "table.json").read_text()
        )

    def models(self):
        return sorted(path.name for path in (self.folder / "runs" / "models").iterdir())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Both tables after one run; nothing here changes them."""
    place = Place(tmp_path_factory.mktemp("reproduced"))
    place.recipe(1, [CT, EC, FAR], [EPS.format(model="ct"), RANKS, EPS.format(model="far")])
    place.recipe(2, [CT], [ORDERS], "tau", 0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.folder)
        patch.delenv("RANKPROOF_DATA", raising=False)
        place.output = [place.run(table) for table in (1, 2)]
    return place


@pytest.fixture
def again(done, tmp_path, monkeypatch):
    """A copy of everything that was done, to go on in."""
    shutil.copytree(done.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    return Place(tmp_path / "copy")


@pytest.fixture
def nothing_is_measured(monkeypatch):
    def measure(self, cell, *rest):
        raise AssertionError(f"{cell.name} is measured a second time")

    monkeypatch.setattr(Bench, "measure", measure)


@pytest.fixture(scope="module")
def targets(done):
    """The trained models by name, and the pictures."""
    found = {}
    for folder in (done.folder / "runs" / "models").iterdir():
        distance = json.loads((folder / "model.json").read_text())["distance"]
        found["ct" if distance == "cosine" else "ec"] = open_system(str(folder), None)
    return found


def figures(record, name):
    return pytest.approx(record.values[name], abs=1e-5)


def companion(record, name):
    assert name not in record.values  # means alone: the records of a table stay small
    return pytest.approx(record.figures[name][0], abs=1e-5)


# -- what is measured


def test_a_cell_with_gradients_is_the_published_attack(done, targets):
    ct, record = targets["ct"], done.record(1, "ct-ca+-w2-eps0.1")
    index = ct.draw(6, 0)
    result = attack(ct.gallery, ct.dataset.take(index), CandidateRaise(w=2), Threat(0.1), gallery_ids=index)
    assert result.headline().tolist() == figures(record, "rank")
    assert result.headline(after=False).mean().item() == companion(record, "before")
    summary = mean_interval(result.headline())
    assert record.figures["rank"] == pytest.approx([summary.mean, *summary.ends], abs=1e-5)
    assert (record.steps, record.trials, record.seed) == (20, 6, 0)
    assert record.published == {"rank": None}


def test_cells_of_a_model_share_their_images(done, targets):
    ct, record = targets["ct"], done.record(1, "ct-sp-qa+-m1-eps0.1-xi100")
    index = ct.draw(8, 0)
    goal = QueryRaise(m=1) + 100.0 * Preserve()
    result = attack(ct.gallery, ct.dataset.take(index), goal, Threat(0.1), gallery_ids=index)
    assert result.headline().tolist() == figures(record, "rank")
    assert result.sp_rank.mean().item() == companion(record, "sp_rank")
    assert torch.equal(index[:6], ct.draw(6, 0))


@pytest.mark.parametrize(("source", "target"), [("ct", "ec"), ("ec", "ct"), ("ec", "ec")])
def test_a_transfer_that_lowers_is_about_the_items_of_the_attacked_model(done, targets, source, target):
    goal, record = QueryLower(m=1) + 100.0 * Preserve(), done.record(1, f"{source}-to-{target}-sp-qa--eps0.1")
    mine, theirs = targets[source], targets[target]
    index = mine.draw(8, 0)
    images = mine.dataset.take(index)
    chosen = choose(theirs.gallery, images, goal, gallery_ids=index)
    made = attack(
        mine.gallery,
        images,
        goal,
        Threat(0.1),
        gallery_ids=index,
        targets=chosen.targets,
        preserved=chosen.preserved,
    )
    found = transfer(made, theirs.gallery, goal)
    assert found.headline().tolist() == figures(record, "rank")
    assert found.headline(after=False).mean().item() == companion(record, "before")


def test_a_transfer_that_raises_keeps_the_items_of_the_model_it_was_made_on(done, targets):
    goal, record = QueryRaise(m=1) + 1.0 * Preserve(), done.record(1, "ct-to-ec-sp-qa+-eps0.1")
    mine, theirs = targets["ct"], targets["ec"]
    index = mine.draw(8, 0)
    made = attack(mine.gallery, mine.dataset.take(index), goal, Threat(0.1), gallery_ids=index)
    found = transfer(made, theirs.gallery, goal)
    assert found.headline().tolist() == figures(record, "rank")
    assert found.sp_rank.mean().item() == companion(record, "sp_rank")
    assert record.seconds > 0
    assert {model.name for model in record.models} == {"ct", "ec"}


def test_a_universal_cell_scores_the_images_nearest_to_its_target(done, targets):
    ct, record = targets["ct"], done.record(1, "ct-qa--universal-eps0.3")
    random = record.values
    assert {len(values) for values in random.values()} == {6}  # targets
    size, each = len(ct.gallery), 40
    drawn = torch.randperm(size, generator=model_generator("universal images"))
    item = int(torch.randperm(size, generator=model_generator("universal targets"))[0])
    seen, unseen = drawn[:each], drawn[each : 2 * each]
    assert not set(seen.tolist()) & set(unseen.tolist())
    result = attack(
        ct.gallery,
        ct.dataset.take(seen),
        QueryLower(m=1),
        Threat(0.3, shared=True),
        method=Universal(),
        gallery_ids=seen,
        targets=torch.full((each, 1), item),
    )
    unit = ct.gallery.ranker.distance.prepare
    z = unit(ct.gallery.embeddings.double())
    nearest = int((1 - z[seen] @ z[item]).argmin())  # 1 % of 40 images, at least one
    assert result.headline()[nearest].item() == pytest.approx(random["seen"][0], abs=1e-5)
    moved = (ct.dataset.take(unseen) + result.perturbation).clamp(0, 1)
    place = int((1 - z[unseen] @ z[item]).argmin())
    query = unit(ct.gallery.ranker.embed_all(moved).double())[place]
    rank = 100 / size * int((1 - z @ query < 1 - z[item] @ query).sum())
    assert random["unseen"][0] == pytest.approx(rank, abs=0.2)
    assert "published: one for every ten images" in record.notes[0]


def model_generator(purpose):
    from rankproof.rng import generator

    return generator(0, 0, purpose)


def test_order_cells_are_the_order_attack(done, targets):
    ct, record = targets["ct"], done.record(2, "ct-oa-k5-eps4of255")
    index = ct.draw(6, 0)
    images = ct.dataset.take(index)
    result = attack(
        ct.gallery, images, Reorder(k=5, xi=10.0), Threat(4 / 255), method=published("tau"), gallery_ids=index
    )
    assert result.tau.tolist() == figures(record, "tau")
    assert result.mean_rank.mean().item() == companion(record, "mean_rank")
    assert record.steps == 24
    none = done.record(2, "ct-oa-none-k5-Ninf-eps4of255")
    assert result.tau_before.tolist() == figures(none, "tau")
    assert none.steps == 1


def test_black_box_cells_see_places_only(done, targets):
    ct, record = targets["ct"], done.record(2, "ct-oa-spsa-k5-Nk-eps16of255")
    index = ct.draw(6, 0)
    oracle = LocalOracle(ct.gallery, 5)
    images = ct.dataset.take(index)
    result = attack(
        oracle, images, Reorder(k=5), Threat(16 / 255), method=SPSA(), budget=60, gallery_ids=index
    )
    assert result.tau.tolist() == figures(record, "tau")


def test_seconds_are_those_of_one_attack(done):
    for method in ("rand", "beta", "pso", "nes", "spsa", "src"):
        record = done.record(2, f"ct-oa-{method}-k5-N50-eps4of255")
        assert record.figures["seconds"][0] > 0
    assert {row["mark"] for row in done.table(2)["rows"] if row["figure"] == "seconds"} <= {
        "not compared",
        "stronger",
        "weaker",
        "too few attacks",
        "agrees",
    }


# -- what is told


def test_a_record_says_how_it_was_made(done):
    record = done.record(1, "ct-ca+-w1-eps0.1")
    (model,) = record.models
    assert model.schedule == "own"
    assert model.key in done.models()
    assert model.recall_at_1 > 50
    assert {"torch", "rankproof"} <= record.versions.keys()
    assert record.model_seconds > 0
    assert record.gallery_size == 797
    assert len(record.data_sha256) == 64


def test_the_table_stands_beside_the_print(done, rows):
    told = done.table(1)
    cells = {row["cell"]: row for row in told["rows"] if row["figure"] != "unseen"}
    assert cells["tiny-table1-ct-ca+-w2-eps0.1"]["mark"] == "unreadable in print"
    assert cells["tiny-table1-far-ca+-w1-eps0.1"]["mark"] == "no data"
    assert cells["tiny-table1-far-ca+-w1-eps0.1"]["ours"] is None
    assert cells["tiny-table1-ct-to-ec-sp-qa--eps0.1"]["model"] == "ct (own schedule) to ec (own schedule)"
    assert told["models"]["far"] is None
    assert sum(told["counts"].values()) == len(told["rows"]) == 14
    text = (done.folder / "runs" / "reproduce" / "tiny-table1" / "table.md").read_text()
    assert rows(text, "no data")
    assert "1 finished" not in done.output[0].stderr
    assert "2 without data" in done.output[0].stderr
    assert "min left" in done.output[0].stderr or "s left" in done.output[0].stderr
    assert f"{len(told['rows'])} printed figures:" in done.output[0].stdout


def test_json_is_one_object_on_stdout(again, nothing_is_measured):
    told = json.loads(again.run(2, "--json").stdout)
    assert told["rows"] == again.table(2)["rows"]


# -- the second time


def test_a_finished_cell_is_never_measured_again(again, nothing_is_measured):
    before = again.table(1)
    again.run(1)
    assert again.table(1)["rows"] == before["rows"]


def test_fewer_trials_take_what_is_there_and_more_are_measured(again, nothing_is_measured):
    again.run(2, "--trials", 3)
    words = ["reproduce", "tiny/table2", "--recipes", "recipes", "--trials", "9"]
    result = CliRunner().invoke(app, words)
    assert "measured a second time" in str(result.exception)


def test_a_model_that_is_gone_is_told_from_its_records(again, nothing_is_measured):
    before = again.table(1)["models"]["ct"]
    shutil.rmtree("runs/models")
    again.run(1)
    assert again.table(1)["models"]["ct"] == before
    assert before["recall_at_1"] > 50


def test_a_cell_that_another_table_measured_is_named_and_not_copied(again, nothing_is_measured):
    again.recipe(3, [{**CT, "name": "the-same"}], [EPS.format(model="the-same")])
    again.run(3)
    record = again.record(3, "the-same-ca+-w1-eps0.1")
    assert [line["measured_as"] for line in again.lines(3)] == [
        f"tiny-table1-ct-ca+-w{w}-eps0.1" for w in (1, 2)
    ]
    assert "values" not in again.lines(3)[0]
    assert record.values == again.record(1, "ct-ca+-w1-eps0.1").values
    assert again.table(3)["rows"][0]["ours"] is not None


def test_a_damaged_record_is_made_again(again):
    file = again.folder / "records" / "tiny" / "table1.jsonl"
    (number,) = [n for n, line in enumerate(again.lines(1)) if line["key"] == "tiny-table1-ct-ca+-w1-eps0.1"]
    lines = file.read_text().splitlines(keepends=True)
    torn = lines.pop(number)
    file.write_text("".join([*lines, torn[:100]]))
    assert again.record(1, "ct-ca+-w1-eps0.1") is None
    again.run(1, "--cells", "ca+", "--cells", "ct")
    assert again.record(1, "ct-ca+-w1-eps0.1").values == json.loads(torn)["values"]
    assert len(again.lines(1)) == len(lines) + 1


def test_a_model_of_other_settings_is_another_model(again):
    before = again.models()
    again.recipe(4, [{**CT, "loss": "contrastive"}], [EPS.format(model="ct")])
    again.run(4, "--cells", "w1")
    (new,) = set(again.models()) - set(before)
    assert again.record(4, "ct-ca+-w1-eps0.1").models[0].key == new
    ingredients = json.loads((again.folder / "runs" / "models" / new / "ingredients.json").read_text())
    assert ingredients["settings"]["loss"]["name"] == "contrastive"
    marks = {row["cell"]: row["mark"] for row in again.table(4)["rows"]}
    assert marks["tiny-table4-ct-ca+-w2-eps0.1"] == "not run"


def test_another_precision_is_another_model(again):
    before = again.models()
    again.run(1, "--cells", "ca+", "--cells", "ct", "--precision", "bf16")
    (new,) = set(again.models()) - set(before)
    record = json.loads((again.folder / "runs" / "models" / new / "model.json").read_text())
    assert record["settings"]["precision"] == "bf16"
    assert again.record(1, "ct-ca+-w1-eps0.1").models[0].key == new


def test_other_pictures_are_another_model(again, monkeypatch):
    found = models.Models(specs=(), folder=again.folder)
    first = models._digest(load("digits", "train"), load("digits", "test"))
    assert first == models._digest(load("digits", "train"), load("digits", "test"))
    assert first != models._digest(load("digits", "train"), load("digits", "test").head(700))
    assert found.checkpoints == {}


def test_a_model_of_the_zoo_is_taken_where_it_is_the_same(again, monkeypatch):
    (folder,) = [
        path
        for path in (again.folder / "runs" / "models").iterdir()
        if json.loads((path / "model.json").read_text())["distance"] == "cosine"
    ]
    moved = folder.rename(again.folder / "shipped")
    original = models.load_checkpoint
    monkeypatch.setattr(models, "zoo_names", lambda: ["digits/ct"])
    monkeypatch.setattr(
        models, "load_checkpoint", lambda place: original(moved if place == "zoo:digits/ct" else place)
    )
    monkeypatch.setattr(
        models,
        "open_system",
        lambda place, *rest, **more: open_system(str(moved), *rest, **more),
    )
    again.run(2, "--cells", "eps4of255,eps0", "--cells", "k5", "--trials", 7)
    assert again.record(2, "ct-oa-k5-eps4of255").models[0].source == "zoo"
    assert folder.name not in again.models()


def test_a_checkpoint_can_be_given(again):
    (place,) = [
        f"runs/models/{name}"
        for name in again.models()
        if json.loads((again.folder / "runs" / "models" / name / "model.json").read_text())["distance"]
        == "cosine"
    ]
    again.recipe(5, [{**CT, "name": "mine"}], [EPS.format(model="mine")])
    again.run(5, "--cells", "w1", "--model", f"mine={place}")
    record = again.record(5, "mine-ca+-w1-eps0.1")
    assert record.models[0].source == "given"
    assert record.values == again.record(1, "ct-ca+-w1-eps0.1").values
    for words, fragment in (
        (["--model", f"yours={place}"], "the table has no such model; it has mine"),
        (["--data", "photos=x", "--dry-run"], "--data photos: the table has no such data set; it has "),
        (["--model", "mine"], "expected NAME=PATH"),
    ):
        result = CliRunner().invoke(app, ["reproduce", "tiny/table5", "--recipes", "recipes", *words])
        assert result.exit_code == 2
        assert fragment in result.stderr
    again.recipe(6, [{**EC, "name": "mine"}], [EPS.format(model="mine")])
    command = ["reproduce", "tiny/table6", "--recipes", "recipes", "--model", f"mine={place}"]
    assert "its distance is cosine, not euclidean" in CliRunner().invoke(app, command).stderr


def test_the_stronger_search_stands_beside_the_published_one(again, targets):
    again.run(2, "--method", "strong", "--cells", "eps4of255")
    table = {row["cell"]: row for row in again.table(2)["rows"]}
    assert table["tiny-table2-ct-oa-k5-eps4of255"]["ours"] is not None
    ours = table["tiny-table2-ct-oa-k5-eps4of255-strong"]
    assert ours["published"] == 0.4
    assert "tiny-table2-ct-oa-k5-eps0-strong" not in table
    ct = targets["ct"]
    index = ct.draw(6, 0)
    result = attack(
        ct.gallery,
        ct.dataset.take(index),
        Reorder(),
        Threat(4 / 255),
        method=strong("tau"),
        gallery_ids=index,
    )
    assert ours["ours"] == pytest.approx(result.mean.mean, abs=1e-5)


def test_one_display_is_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Place(tmp_path).recipe(1, [CT], [EPS.format(model="ct")])
    opened, most = [], []

    @contextmanager
    def stage(what):
        opened.append(what)
        most.append(len(opened))
        yield lambda done, total: None
        opened.pop()

    request = ReproductionRequest(
        word="tiny/table1", recipes=tmp_path / "recipes", trials=2, log=lambda line: None
    )
    work = Reproduction(request, stage=stage)
    assert work.run(work.estimate()).counts
    assert max(most) == 1


def test_the_attack_of_a_cell_can_be_kept(again):
    again.run(1, "--cells", "ca+,sp-qa-", "--cells", "ct,ct-to-ec", "--trials", 9, "--save", "--out", "kept")
    names = [f"tiny-table1-{name}-eps0.1" for name in ("ct-ca+-w2", "ct-to-ec-sp-qa-")]
    for name in names:
        saved = AttackResult.load(again.folder / "kept" / "attacks" / name)
        record = again.record(1, name.removeprefix("tiny-table1-"))
        assert record.trials == 9
        assert saved.headline().tolist() == figures(record, "rank")


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path)
    place.recipe(1, [CT], [EPS.format(model="ct")])
    result = place.run(1, "--dry-run")
    assert "train ct: roughly" in result.stderr
    assert "attack ct: 2 cells, roughly" in result.stderr
    told = json.loads(place.run(1, "--dry-run", "--json").stdout)
    assert told["cells"].keys() == {f"tiny-table1-ct-ca+-w{w}-eps0.1" for w in (1, 2)}
    assert told["seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]


def test_a_training_that_fails_is_told_and_not_tried_twice(again, monkeypatch):
    again.recipe(
        7, [CT, {**EC, "name": "lost", "distance": "cosine"}], [EPS.format(model=m) for m in ("lost", "ct")]
    )
    tried = []

    def diverge(run, **rest):
        tried.append(run.out)
        raise TrainingFailedError("the loss is not finite")

    monkeypatch.setattr(models, "train_checkpoint", diverge)
    for _ in range(2):
        again.run(7)
        marks = {row["cell"]: row["mark"] for row in again.table(7)["rows"]}
        assert marks["tiny-table7-lost-ca+-w1-eps0.1"] == "training failed"
        assert marks["tiny-table7-ct-ca+-w1-eps0.1"] not in ("not run", "training failed")
    assert len(tried) == 1


def test_defended_models_are_trained_fast_unless_asked_otherwise(again, monkeypatch):
    defended = {**CT, "name": "ctd", "defense": "est"}
    again.recipe(8, [defended], [EPS.format(model="ctd")])
    again.run(8, "--cells", "w1", "--trials", 2)
    assert again.record(8, "ctd-ca+-w1-eps0.1").models[0].schedule == "fast"
    assert "ctd (fast schedule)" in again.table(8)["rows"][0]["model"]
    told = again.run(8, "--published-schedule", "--dry-run", "--cells", "w1")
    assert "train ctd" in told.stderr


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--method", "weak"], "--method must be published or strong"),
        (["--cells", "nothing"], "no cell has such a name"),
        (["--data", "digits"], "--data digits: expected NAME=PATH"),
        (["--data", "nowhere=/not/there"], "no such file or folder"),
    ],
)
def test_bad_options_are_one_line(again, words, fragment):
    result = CliRunner().invoke(app, ["reproduce", "tiny/table1", "--recipes", "recipes", *words])
    assert result.exit_code == 2
    assert fragment in result.stderr
    assert result.stdout == ""
