import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rankproof
from rankproof.cli import app
from rankproof.cli.audit import without_counts
from rankproof.cli.options import BlackBoxArguments, GoalArguments, parse_order, parse_visible
from rankproof.data import load
from rankproof.errors import RankproofError
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
)
from rankproof.goals import registry as goals
from rankproof.methods import NES, PGD, PSO, SPSA, Beta, Rand
from rankproof.methods import registry as methods
from rankproof.methods.black_box.subspace import Subspace
from rankproof.methods.defaults import automatic
from rankproof.methods.registry import parse as parse_method
from rankproof.models import load_checkpoint, new_encoder, save_checkpoint

CONTRACT = {
    *(
        "schema",
        "goal",
        "method",
        "eps",
        "w",
        "m",
        "k",
        "g",
        "xi",
        "steps",
        "evaluations",
        "evaluations_max",
        "visible",
        "budget",
        "trials",
        "seed",
    ),
    *(
        "device",
        "model",
        "data",
        "metric",
        "before",
        "after",
        "ci95",
        "unchanged",
        "rank_before",
        "rank_after",
    ),
    *("sp_rank", "examination"),
    *("tau_before", "tau", "mean_rank_before", "mean_rank", "shift", "seconds", "model_seconds", "peak_mb"),
    *("schema", "versions", "gallery_size", "notes", "queries_spent", "queries_max", "curve"),
    *("checks", "checks_differing", "tau_again"),
}
COMMANDS = ("train", "attack", "attack-service", "audit", "evaluate", "reproduce", "serve", "data", "zoo")


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def attack(*words, model, trials=4, goal="qa+", eps="8/255"):
    return call("attack", "--goal", goal, "--eps", eps, "--model", model, "--trials", trials, *words)


def assert_refused(result, *fragments):
    """Exit code 2 and one line on stderr that says what is wrong, after notes about the data at most."""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("the embedded digits, ")]
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for fragment in fragments:
        assert fragment in errors[0]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    result = call("train", "--epochs", 2, "--batch", 100, "--out", folder)
    assert result.exit_code == 0, result.stderr
    assert len([line for line in result.stdout.splitlines() if line.startswith("epoch ")]) == 2
    assert "R@1" in result.stdout.splitlines()[0]
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data sets but the ones a test makes, and an empty working folder."""
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# -- help and imports


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_reads_like_documentation(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"rankproof {command[0] if command else 'train'}" in result.stdout


def test_help_does_not_wait_for_torch():
    heavy = "{'torch', 'sklearn', 'matplotlib', 'numpy', 'PIL'}"
    code = f"import sys, rankproof, rankproof.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_python_dash_m_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "rankproof", "attack", "--nonsense"], capture_output=True)
    assert done.returncode == 2
    assert b"--nonsense" in done.stderr
    assert b"Traceback" not in done.stderr


def test_public_names():
    listed = [name for names in rankproof._PUBLIC.values() for name in names]
    assert sorted(listed) == sorted(rankproof.__all__)
    assert all(hasattr(rankproof, name) for name in rankproof.__all__)
    assert callable(rankproof.attack)  # the function, though the module has the same name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rankproof.nonsense  # noqa: B018


# -- what the words mean


def subspace_of(text):
    return BlackBoxArguments(space=text).subspace


def goal_of(word, **parameters):
    return GoalArguments(goal=word, **parameters).parse()


def test_words_to_goals():
    assert goal_of("ca+", w=3) == CandidateRaise(w=3)
    assert goal_of("ca-") == CandidateLower(w=1)
    assert goal_of("qa+") == QueryRaise(m=1)
    assert goal_of("qa-", m=5) == QueryLower(m=5)
    assert goal_of("sp-qa+", m=2) == QueryRaise(m=2) + 1.0 * Preserve(g=5)
    assert goal_of("sp-qa-", g=3) == QueryLower(m=1) + 100.0 * Preserve(g=3)
    assert goal_of("sp-qa-", xi=0.0) == QueryLower(m=1) + 0.0 * Preserve(g=5)
    assert goal_of("oa", k=10) == Reorder(k=10, xi=10.0)
    assert goal_of("oa", order="2, 0,1") == Reorder(k=3, order=(2, 0, 1))  # an order tells its length
    assert goal_of("shift") == MaxShift()


@pytest.mark.parametrize(
    ("word", "parameters", "message"),
    [
        ("ca", {}, "known: ca\\+, ca-, qa\\+"),
        ("qa+-distance", {}, "--goal 'qa\\+-distance' is unknown; known: ca\\+, ca-, qa\\+"),
        ("qa+", {"w": 1}, "--w is no parameter of goal qa\\+; it has: --m"),
        ("shift", {"g": 5}, "it has: none"),
        ("oa", {"m": 5}, "it has: --k, --xi"),
        ("qa+", {"m": 0}, "--m must be at least 1"),
        ("oa", {"xi": float("nan")}, "--xi must be a number of at least 0"),
        ("qa+", {"order": "1,0"}, "--order is no parameter of goal qa\\+; it has: --m"),
        ("oa", {"order": "1,1,0"}, "order must be a permutation of 0 .. 2"),
        ("oa", {"order": "1,0", "k": 5}, "order must be a permutation of 0 .. 4"),
        ("oa", {"order": "1,2"}, "order must be a permutation of 0 .. 1"),
        ("oa", {"order": "1,,0"}, "--order '1,,0' is no order; write places from 0"),
        ("oa", {"order": "first"}, "--order 'first' is no order"),
        ("oa", {"order": ""}, "--order '' is no order"),
    ],
)
def test_words_that_are_no_goals(word, parameters, message):
    with pytest.raises(RankproofError, match=message):
        goal_of(word, **parameters)


def test_words_to_methods():
    assert parse_method("pgd", "rank") == PGD(rule="eccv20")
    assert parse_method("pgd", "tau", 7) == PGD(rule="iccv21", steps=7)
    assert parse_method("auto", "tau") == automatic()
    words = {"rand": Rand(), "beta": Beta(), "pso": PSO(), "nes": NES(), "spsa": SPSA()}
    assert {word: parse_method(word, "tau") for word in words} == words
    with pytest.raises(
        RankproofError, match=r"known: pgd, strong, converged, auto, thompson, rand, beta, pso, nes, spsa$"
    ):
        parse_method("best", "tau")


def test_words_to_what_is_seen_and_searched():
    assert [parse_visible(text, 5) for text in (None, "k", "inf", "797")] == [50, 5, None, 797]
    assert [subspace_of(text) for text in (None, "auto", "full")] == [None, None, Subspace("full")]
    assert subspace_of("cosine:16") == Subspace("cosine", 16)
    assert parse_order(None) is None
    for text in ("", "all", "-1", "5.0", "1_000", " 50", "９", "9" * 30):
        with pytest.raises(RankproofError, match="is no number of results; write 50, k or inf"):
            parse_visible(text, 5)
    for text, k in (("4", 5), ("0", 2), (None, 51)):
        with pytest.raises(RankproofError, match=f"k = {k} .* are visible; try --visible {k}$"):
            parse_visible(text, k)


@dataclass(frozen=True, kw_only=True)
class Nudge(MaxShift):
    """A goal of a user."""

    SPEC = replace(
        MaxShift.SPEC,
        name="nudge",
        title="Nudge",
        standard_audit=0,
        describe=lambda values: "An image is nudged a little.",
    )


@pytest.fixture
def registered():
    """A goal "nudge" and a black-box method "guess" that a user registered."""
    goals.register(Nudge)
    methods.register("guess", "black-box", lambda metric, steps: Rand())
    yield
    goals.unregister("nudge")
    methods.unregister("guess")


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_is_on_the_help_page(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # no line is broken
    text = call("attack", "--help").stdout
    assert "nudge: An image is nudged a little." in text
    assert "What the attacker wants: ca+, ca-, qa+, qa-, sp-qa+, sp-qa-, oa, " in text
    assert ", top4, nudge." in text
    assert "With gradients: strong, converged; as published pgd. " in text
    assert "As a black box: auto, thompson, guess; as published rand, beta, pso, nes, spsa. " in text
    assert "{" not in text


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_can_be_run(model):
    summary = json.loads(attack("--json", "--steps", 2, model=model, goal="nudge").stdout)
    assert (summary["goal"], summary["metric"]) == ("nudge", "shift")
    assert summary["shift"] > 0
    assert_refused(attack("--m", 1, model=model, goal="nudge"), "--m is no parameter of goal nudge")
    assert seen("--method", "guess", "--budget", 9, model=model)["method"] == "rand"


def test_strong_is_offered(model):
    pytest.importorskip("rankproof.methods.white_box.momentum_pgd")
    cell = json.loads(attack("--method", "strong", "--steps", 5, "--json", model=model).stdout)
    assert (cell["method"], cell["steps"]) == ("strong", 5)


# -- one attack


@pytest.mark.parametrize(
    ("goal", "figures"),
    [
        ("ca+", {"rank_before", "rank_after"}),
        ("ca-", {"rank_before", "rank_after"}),
        ("qa+", {"rank_before", "rank_after"}),
        ("qa-", {"rank_before", "rank_after"}),
        ("sp-qa+", {"rank_before", "rank_after", "sp_rank"}),
        ("sp-qa-", {"rank_before", "rank_after", "sp_rank"}),
        ("oa", {"rank_before", "rank_after", "tau_before", "tau", "mean_rank_before", "mean_rank"}),
        ("shift", {"shift"}),
    ],
)
def test_json_is_the_contract_and_alone_on_stdout(model, goal, figures):
    result = attack("--json", "--steps", 3, model=model, goal=goal)
    assert result.exit_code == 0, result.stderr
    cell = json.loads(result.stdout)
    assert set(cell) == CONTRACT
    possible = {"rank_before", "rank_after", "sp_rank", "tau_before", "tau", "mean_rank_before", "mean_rank"}
    assert {name for name in possible | {"shift"} if cell[name] is not None} == figures
    assert (cell["goal"], cell["steps"], cell["trials"], cell["data"]) == (goal, 3, 4, "digits")
    assert cell["eps"] == 8 / 255
    assert cell["model"] == str(model)
    assert cell["ci95"][0] <= cell["after"] <= cell["ci95"][1]
    assert cell["model_seconds"] > 0
    assert cell["peak_mb"] > 50
    assert cell["visible"] is cell["budget"] is cell["queries_spent"] is cell["queries_max"] is None
    assert cell["curve"] is None


def test_table_for_people(model):
    result = attack(model=model, goal="sp-qa+")
    assert "SP-QA+ m = 1, g = 5" in result.stdout
    assert "rank of those to keep" in result.stdout
    assert "times the bare work" in result.stdout
    assert "the embedded digits, test split" in result.stderr


def test_eps_zero_changes_nothing(model):
    cell = json.loads(attack("--json", model=model, goal="oa", eps="0", trials=50).stdout)
    assert (cell["eps"], cell["steps"], cell["model_seconds"]) == (0, 0, 0)
    assert cell["tau"] == cell["tau_before"]
    assert cell["mean_rank"] == 2


def test_attacks_without_a_gradient_are_told(tmp_path):
    encoder = new_encoder("digits")
    with torch.no_grad():
        for parameter in encoder.features.parameters():
            parameter.fill_(-1.0)  # the first bend cuts everything off
    save_checkpoint(tmp_path / "dead", encoder, {"arch": "digits", "distance": "cosine"})
    cell = json.loads(attack("--json", "--save", tmp_path / "out", model=tmp_path / "dead").stdout)
    assert "4 of 4 attacks never saw a usable gradient: this figure may be false" in cell["notes"]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == cell


def test_one_trial_has_no_interval(model, tmp_path):
    result = attack("--json", "--save", tmp_path / "one", model=model, trials=1)
    assert json.loads(result.stdout)["ci95"] in (None, [None, None])
    assert (tmp_path / "one" / "result.json").exists()


def test_all_items_where_more_trials_are_asked_for(model):
    result = attack("--json", "--steps", 1, model=model, trials=5000)
    assert json.loads(result.stdout)["trials"] == 797
    assert "5000 trials were asked for: all 797 items" in result.stderr


def test_a_figure_can_be_checked_from_what_is_saved(model, tmp_path):
    folder = tmp_path / "saved"
    result = attack("--json", "--save", folder, "--m", 2, "--seed", 3, model=model, trials=20)
    cell = json.loads(result.stdout)
    assert json.loads((folder / "result.json").read_text()) == cell
    with np.load(folder / "attack.npz") as file:
        stored, pictures = dict(file), load("digits", "test").as_float()
    assert stored["original"].dtype == stored["adversarial"].dtype == np.float32
    np.testing.assert_array_equal(stored["original"], pictures[stored["index"]].numpy())
    assert np.abs(stored["adversarial"] - stored["original"]).max() <= 8 / 255 + 1e-6
    assert stored["index"].shape == (20,) == np.unique(stored["index"]).shape
    encoder = load_checkpoint(model).encoder
    for name, images in (("rank_before", stored["original"]), ("rank_after", stored["adversarial"])):
        with torch.no_grad():
            z, database = (encoder(part).double().numpy() for part in (torch.from_numpy(images), pictures))
        z, database = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (z, database))
        distances = 1 - z @ database.T
        own = np.take_along_axis(distances, stored["targets"], 1)
        ranks = (distances[:, None] < own[:, :, None] - 1e-12).sum(2) / len(pictures) * 100
        assert ranks.mean() == pytest.approx(cell[name], abs=0.02)


def test_trials_are_a_seeded_sample(model, tmp_path):
    def index(trials, seed):
        attack("--steps", 1, "--seed", seed, "--save", tmp_path / "s", model=model, trials=trials)
        with np.load(tmp_path / "s" / "attack.npz") as stored:
            return stored["index"].tolist()

    ten = index(10, 0)
    assert ten[:5] == index(5, 0)  # fewer trials are the first of more
    assert ten != index(10, 1)


# -- a black box


def seen(*words, model, **more):
    """One black-box attack as its JSON object."""
    result = attack("--json", *words, model=model, **{"goal": "oa", **more})
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def searched(cell):
    """Where, and on which grid, as the notes tell."""
    return cell["notes"][0].removeprefix("searched in ").split(",")[0]


@pytest.mark.parametrize("method", ["rand", "beta", "pso", "nes", "spsa", "auto"])
def test_every_black_box_method_gives_the_same_json(model, method):
    cell = seen("--method", method, "--budget", 60, model=model)
    assert set(cell) == CONTRACT
    name = automatic().name if method == "auto" else method
    assert (cell["goal"], cell["method"], cell["k"], cell["xi"]) == ("oa", name, 5, None)
    assert (cell["visible"], cell["budget"], cell["trials"], cell["metric"]) == (50, 60, 4, "tau")
    assert 1 <= cell["queries_spent"] <= cell["queries_max"] <= 60
    assert -1 <= cell["tau_before"] <= cell["tau"] == cell["after"] <= 1
    assert cell["ci95"][0] <= cell["tau"] <= cell["ci95"][1]
    assert [queries for queries, _ in cell["curve"]] == [1, 2, 5, 10, 20, 50, 60]
    assert cell["curve"][0][1] == pytest.approx(cell["tau_before"])
    assert cell["curve"][-1][1] == pytest.approx(cell["tau"])
    assert cell["mean_rank_before"] == 2
    assert cell["model_seconds"] > 0
    assert cell["peak_mb"] > 50


def test_what_makes_a_black_box(model):
    """--visible, --budget or a method without gradients; the rest is at its default."""
    own = automatic().name
    few = "--trials", 1
    for words in (["--visible", "50"], ["--budget", "1000"], ["--method", "auto"]):
        cell = seen(*words, *few, model=model)
        assert (cell["method"], cell["visible"], cell["budget"]) == (own, 50, 1000)
    cell = seen("--method", "rand", *few, model=model)
    assert (cell["method"], cell["visible"], cell["budget"]) == ("rand", 50, 1000)
    assert seen("--steps", 2, *few, model=model)["method"] == "pgd"


def test_how_much_is_seen(model):
    def visible(text, *words):
        return seen("--method", "rand", "--budget", 9, "--visible", text, *words, model=model)["visible"]

    assert [visible(text) for text in ("5", "k", "inf", "797")] == [5, 5, "inf", 797]
    assert visible("k", "--k", 7) == 7


def test_a_gallery_smaller_than_the_default_is_seen_whole(model, tmp_path):
    cell = seen(
        "--data", two_classes(tmp_path / "mine"), "--k", 3, "--method", "rand", "--budget", 9, model=model
    )
    assert cell["visible"] == cell["gallery_size"] == 4


def test_published_methods_are_off_the_grid_where_nothing_else_is_asked_for(model):
    few = "--trials", 1, "--budget", 9
    on, off = "8-bit images", "images off the 8-bit grid"
    for words, grid in (
        (["--method", "spsa"], off),
        (["--method", "spsa", "--grid"], on),
        (["--method", "auto"], on if automatic().grid else off),
        (["--method", "auto", "--grid"], on),
        (["--method", "auto", "--no-grid"], off),
    ):
        assert searched(seen(*words, *few, model=model)).endswith(f" among {grid}")


def test_the_grid_is_kept(model, tmp_path):
    for words in (["--method", "rand", "--budget", 30], ["--method", "pgd", "--steps", 3]):
        cell = seen(*words, "--grid", "--save", tmp_path / words[1], model=model)
        with np.load(tmp_path / words[1] / "attack.npz") as stored:
            levels = stored["adversarial"] * 255
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert "8-bit images" in cell["notes"][0]


def test_the_space_can_be_chosen(model):
    few = "--method", "nes", "--trials", 1, "--budget", 60
    for text in ("full", "blocks:4", "bilinear:4", "cosine:4"):
        assert searched(seen("--space", text, *few, model=model)).startswith(f"{text} among")
    assert searched(seen("--space", "auto", *few, model=model)).startswith("full among")  # 64 pixels


@pytest.mark.parametrize("words", [["--method", "rand", "--budget", "2"], ["--steps", "1"]])
def test_the_order_can_be_chosen(model, words):
    cell = seen("--order", "4,3,2,1,0", *words, model=model)
    assert cell["tau_before"] == -1
    assert "the wanted order is 4,3,2,1,0 for every query, by present places from 0" in cell["notes"]
    assert seen("--order", "0,1,2", *words, model=model)["tau_before"] == 1
    assert seen("--order", "0,1,2", *words, model=model)["k"] == 3


@pytest.mark.parametrize("words", [["--method", "rand", "--budget", "2"], ["--steps", "1"]])
def test_own_copies_can_be_left_out(model, tmp_path, words):
    def targets(*more):
        seen(*words, *more, "--order", "0,1,2,3,4", "--save", tmp_path / "s", model=model, trials=20)
        with np.load(tmp_path / "s" / "attack.npz") as stored:
            return stored["targets"], stored["index"]

    kept, index = targets()
    assert (kept[:, 0] == index).all()  # nothing is nearer to a picture than its own copy
    dropped, index = targets("--own-copy", "drop")
    assert not (dropped == index[:, None]).any()
    np.testing.assert_array_equal(dropped[:, :4], kept[:, 1:])
    notes = seen(*words, "--own-copy", "drop", model=model)["notes"]
    assert "the clean copies of the attacked images do not count in any ranking" in notes


def test_nothing_is_sent_where_nothing_may_be_changed(model):
    cell = seen("--visible", "k", model=model, eps="0")
    assert cell["queries_max"] == 1
    assert cell["tau"] == cell["tau_before"]


def test_a_black_box_is_saved_with_every_score(model, tmp_path):
    cell = seen("--method", "pso", "--budget", 50, "--save", tmp_path / "out", model=model)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == cell
    with np.load(tmp_path / "out" / "attack.npz") as stored:
        assert stored["scores"].shape == (4, 50)
        assert stored["queries"].mean() == cell["queries_spent"]
        assert np.nanmax(stored["scores"], axis=1).mean() == pytest.approx(cell["tau"])
        assert np.abs(stored["adversarial"] - stored["original"]).max() <= 8 / 255 + 1e-6


def test_table_of_a_black_box(model):
    words = "--method", "spsa", "--budget", 1200, "--seed", 7
    result = attack(*words, model=model, goal="oa")
    lines = result.stdout.splitlines()
    assert lines[0] == "OA k = 5, N = 50 at 8/255: spsa, 1,200 queries each, 4 trials, seed 7"
    assert lines[1].startswith("The query is changed so that its 5 top results come in a chosen order")
    assert any("tau_S of what is seen" in line and "[" in line for line in lines)
    assert any("mean rank mR" in line for line in lines)
    assert any(re.fullmatch(r"[\d,.]+ queries on average, [\d,]+ at most", line) for line in lines)
    curve = next(line for line in lines if line.startswith("best tau_S by queries: "))
    assert re.findall(r"after ([\d,]*\d)", curve) == ["10", "50", "100", "200", "500", "1,000", "1,200"]
    assert "times the bare work" in result.stdout
    assert "note: searched in full among images off the 8-bit grid" in result.stdout
    first = attack("--visible", "inf", "--budget", 1, model=model, goal="oa", trials=1).stdout.splitlines()
    assert first[0].startswith("OA k = 5, N = ∞ at 8/255: ")
    assert ", 1 query each, 1 trials" in first[0]


def test_a_search_goes_on_from_its_journal(model, tmp_path, monkeypatch):
    def stable(cell):
        return {name: cell[name] for name in set(cell) - {"seconds", "model_seconds", "peak_mb"}}

    words = "--method", "nes", "--budget", 400, "--seed", 2
    whole = stable(seen(*words, model=model))
    oracle, calls = sys.modules["rankproof.oracles"].LocalOracle, []
    look = oracle.__call__

    def third_time_stops(*args):
        if calls.append(args) or len(calls) == 3:
            raise KeyboardInterrupt
        return look(*args)

    monkeypatch.setattr(oracle, "__call__", third_time_stops)
    stopped = attack(*words, "--json", "--journal", tmp_path / "kept", model=model, goal="oa")
    assert stopped.exit_code == 130
    assert stopped.stdout == ""
    told = f"stopped: the search is kept in {tmp_path / 'kept'}; the same command goes on from there"
    assert stopped.stderr.splitlines()[-1] == told
    calls.clear()
    monkeypatch.setattr(oracle, "__call__", lambda *args: calls.append(args) or look(*args))
    assert stable(seen(*words, "--journal", tmp_path / "kept", model=model)) == whole
    assert len(calls) == 6  # of the 8 rounds of 50 two were kept
    other = attack(*words, "--journal", tmp_path / "kept", "--visible", "k", "--json", model=model, goal="oa")
    assert_refused(other, "belongs to another attack; choose another folder or delete it")


def test_ctrl_c_without_a_journal_tells_of_it(model, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["rankproof.attacks"], "attack", stop)
    for words in (["--budget", 10], ["--method", "rand"]):
        result = attack(*words, model=model, goal="oa")
        assert result.exit_code == 130
        assert result.stderr.splitlines()[-1] == (
            "stopped: nothing was kept; with --journal DIR the same command would go on where it stopped"
        )


def test_a_search_system_that_fails_is_one_line(model, monkeypatch):
    def fail(*args):
        raise ConnectionError("no answer")

    monkeypatch.setattr(sys.modules["rankproof.oracles"].LocalOracle, "__call__", fail)
    result = attack("--budget", 10, model=model, goal="oa")
    assert_refused(result, "the search system failed after 1 of 10 queries: no answer")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (
            ["--goal", "qa+", "--visible", "50"],
            "--visible 50 makes a black-box attack, which there is for oa",
        ),
        (["--goal", "shift", "--budget", "9"], "--budget 9 makes a black-box attack, which there is for oa"),
        (["--goal", "ca-", "--method", "auto"], "leave it out or choose --goal oa"),
        (["--goal", "sp-qa+", "--method", "rand"], "--method rand makes a black-box attack"),
        (
            ["--method", "pgd", "--visible", "50"],
            "--visible is for black-box attacks and pgd needs gradients",
        ),
        (["--method", "strong", "--visible", "k"], "--visible is for black-box attacks and strong needs"),
        (["--method", "pgd", "--budget", "9"], "--budget is for black-box attacks"),
        (["--space", "full"], "--space is for black-box attacks and pgd needs gradients; leave it out or"),
        (["--journal", "kept"], "choose --goal oa --method auto"),
        (["--method", "rand", "--steps", "9"], "--steps counts gradients, which a black box does not give"),
        (["--visible", "k", "--xi", "1"], "--xi weighs nothing in a black box"),
        (["--visible", "some"], "--visible 'some' is no number of results; write 50, k or inf"),
        (["--visible", ""], "--visible '' is no number of results"),
        (["--visible", "0"], "k = 5 results cannot be ordered where only N = 0 are visible"),
        (["--visible", "4"], "k = 5 results cannot be ordered where only N = 4 are visible; try --visible 5"),
        (["--visible", "798"], "visible must be between 1 and the gallery's 797 items, got 798"),
        (["--budget", "100", "--k", "51"], "where only N = 50 are visible; try --visible 51"),
        (["--budget", "0"], "--budget must be at least 1, got 0"),
        (["--budget", "-9"], "--budget must be at least 1, got -9"),
        (["--budget", "1000000000000"], "--budget must be at most 1,000,000"),
        (["--visible", "k", "--k", "1"], "k must be at least 2, got 1: one item has no order"),
        (["--visible", "k", "--k", "0"], "--k must be at least 1"),
        (["--visible", "inf", "--k", "798"], "k = 798 is larger than the gallery of 797 items"),
        (["--visible", "k", "--k", "797", "--own-copy", "drop"], "k = 797 is larger than the gallery of 796"),
        (["--visible", "k", "--m", "2"], "--m is no parameter of goal oa; it has: --k, --xi, --order"),
        (["--budget", "9", "--space", "cube:3"], "--space: 'cube:3' is unknown; write full, blocks:32"),
        (["--budget", "9", "--space", "blocks:0"], "--space: the side must be at least 1, got 0"),
        (["--budget", "9", "--order", "0,1,2,3,5"], "order must be a permutation of 0 .. 4"),
        (["--budget", "9", "--order", "down"], "--order 'down' is no order; write places from 0"),
        (["--own-copy", "burn"], "--own-copy must be keep or drop, got 'burn'"),
        (["--budget", "9", "--own-copy", "burn"], "--own-copy must be keep or drop, got 'burn'"),
    ],
)
def test_what_does_not_fit_a_black_box(model, tmp_path, words, fragment):
    assert_refused(attack("--save", tmp_path / "out", *words, model=model, goal="oa"), fragment)
    assert not (tmp_path / "out").exists()


def test_a_journal_that_cannot_be_written_or_read(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = attack("--budget", 9, "--journal", tmp_path / "file", model=model, goal="oa")
    assert_refused(result, "file: cannot be written")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "search-000000.npz").write_text("nonsense")
    result = attack("--budget", 9, "--journal", tmp_path / "kept", model=model, goal="oa")
    assert_refused(result, "search-000000.npz: cannot be continued", "delete it")


# -- bad input


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--eps", "-0.1"], "eps must be between 0 and 1"),
        (["--eps", "1.5"], "eps must be between 0 and 1"),
        (["--eps", "nan"], "eps must be between 0 and 1"),
        (["--eps", "8/0"], "eps: '8/0' is no number"),
        (["--eps", "much"], "eps: 'much' is no number"),
        (["--goal", "qa"], "--goal 'qa' is unknown"),
        (["--method", "best"], "--method 'best' is unknown"),
        (["--device", "abacus"], "--device must be auto, cpu or cuda"),
        (["--divide", "half"], "--divide must be one of"),
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--trials", "-5"], "--trials must be at least 1, got -5"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--m", "0"], "--m must be at least 1"),
        (["--m", "800"], "m = 800 is larger than the gallery of 797 items"),
        (["--goal", "ca-", "--w", "0"], "--w must be at least 1"),
        (["--goal", "ca+", "--w", "798"], "w = 798 is larger than the gallery"),
        (["--goal", "oa", "--k", "0"], "--k must be at least 1"),
        (["--goal", "oa", "--k", "1"], "k must be at least 2"),
        (["--goal", "oa", "--k", "798"], "k = 798 is larger than the gallery"),
        (["--goal", "sp-qa+", "--g", "0"], "--g must be at least 1"),
        (["--goal", "sp-qa+", "--g", "800"], "g = 800 is larger"),
        (["--goal", "sp-qa+", "--xi", "-1"], "--xi must be a number of at least 0"),
        (["--k", "5"], "--k is no parameter of goal qa+; it has: --m"),
        (["--model", "nowhere"], "nowhere: not found"),
        (["--model", "zoo:nowhere"], "zoo:nowhere: not in the zoo"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--data", "fashion-mnist"], "`rankproof data fashion-mnist` downloads it"),
        (["--size", "0"], "size 0x0"),
        (["--size", "28"], "wants images of 1x8x8, digits has 1x28x28; try --size 8"),
    ],
)
def test_bad_options_of_attack(model, tmp_path, words, fragment):
    assert_refused(attack("--save", tmp_path / "out", *words, model=model), fragment)
    assert not (tmp_path / "out").exists()


def test_cuda_where_there_is_none(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(attack("--device", "cuda", model=model), "--device cuda: no CUDA device")


def picture(path, value=0, mode="L", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def two_classes(folder):
    for name in ("cat", "dog"):
        for number in range(4):
            picture(folder / name / f"{number}.png", 40 * number)
    return folder


def empty(folder):
    folder.mkdir()


def one_class(folder):
    for number in range(3):
        picture(folder / "cat" / f"{number}.png")


def not_a_picture(folder):
    (two_classes(folder) / "cat" / "0.png").write_text("hello")


def truncated(folder):
    rng = np.random.default_rng(0)
    two_classes(folder)
    for number in range(4):
        path = folder / "cat" / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-50])


def stray_file(folder):
    (two_classes(folder) / "cat" / "notes.doc").write_text("hello")


def huge(folder):
    Image.new("1", (10_000, 6_000)).save(two_classes(folder) / "cat" / "0.png")


def damaged_idx(folder):
    folder.mkdir()
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (folder / name).write_bytes(b"\0\0\x08\x09 nonsense")


def colour(folder):
    two_classes(folder)
    picture(folder / "cat" / "0.png", (1, 2, 3), "RGB")


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (empty, "bad"),
        (one_class, "one class only"),
        (not_a_picture, "0.png: not an image"),
        (truncated, ".png: damaged image"),
        (stray_file, "notes.doc: not an image"),
        (huge, "0.png: claims more than 50 megapixels"),
        (damaged_idx, "t10k-images-idx3-ubyte"),
        (colour, "wants images of 1x8x8, bad has 3x8x8"),
    ],
)
def test_bad_data(model, tmp_path, make, fragment):
    make(tmp_path / "bad")
    result = attack("--data", tmp_path / "bad", "--divide", "auto", model=model)
    assert_refused(result, fragment)


def test_a_folder_of_pictures_can_be_attacked(model, tmp_path):
    result = attack("--data", two_classes(tmp_path / "mine"), "--json", "--steps", 2, model=model, goal="ca+")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["trials"] == 4
    assert "folder of classes" in result.stderr


def test_data_sets_are_found_by_name(model, tmp_path, monkeypatch):
    two_classes(tmp_path / "mine")
    monkeypatch.setenv("RANKPROOF_DATA", str(tmp_path))
    assert attack("--data", "mine", "--steps", 1, model=model, goal="ca+").exit_code == 0


def flipped(folder):
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)


def no_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"nonsense")
    record = json.loads((folder / "model.json").read_text())
    del record["sha256"]
    (folder / "model.json").write_text(json.dumps(record))


def changed_record(**changes):
    def change(folder):
        record = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**record, **changes}))

    return change


def no_json(folder):
    (folder / "model.json").write_text("{")


def overflowing(folder):
    encoder = new_encoder("digits")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(1e30)
    save_checkpoint(folder, encoder, {"arch": "digits", "distance": "cosine"})


def not_finite(folder):
    encoder = new_encoder("digits")
    with torch.no_grad():
        encoder.embedding.weight[0, 0] = torch.nan
    save_checkpoint(folder, encoder, {"arch": "digits", "distance": "cosine"})


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (flipped, "model.safetensors: damaged"),
        (no_safetensors, "model.safetensors: not a safetensors file"),
        (changed_record(arch="c2f1"), "these are not the weights of c2f1"),
        (changed_record(arch="resnet"), "arch 'resnet' is unknown"),
        (changed_record(arch=["digits"]), "is unknown; known: c2f1, digits"),
        (changed_record(distance="manhattan"), "unknown distance 'manhattan'; known: cosine, euclidean"),
        (no_json, "model.json: not a model record"),
        (overflowing, "the encoder returns NaN or infinite embeddings"),
        (not_finite, "contain NaN"),
    ],
)
def test_bad_models(tmp_path, damage, fragment):
    folder = tmp_path / "model"
    save_checkpoint(folder, new_encoder("digits"), {"arch": "digits", "distance": "cosine"})
    damage(folder)
    assert_refused(attack(model=folder), fragment)


# -- an audit


def audit(*words, model, out, eps="8/255"):
    return call("audit", "--model", model, "--eps", eps, "--out", out, *words)


FEW = "1,at-eps=0,qa+@eps=2,qa+@converged=1,controls=0,qa+@controls=1,black-box=1x9,rows=1"


def test_dry_run_tells_and_writes_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("rankproof.audit.run"), "run_unit", None)  # nothing is attacked either
    result = audit("--dry-run", "--trials", 20, model=model, out=tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    first, *lines = [line for line in result.stderr.splitlines() if "embedded" not in line]
    assert re.fullmatch(r"46 measurements, at most 20 attacks each: about \d+ (s|min) on \w+", first)
    assert re.fullmatch(r"ca\+: 20 attacks, about \d+ (s|min)", lines[0])
    assert len(lines) == 46
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]
    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture(scope="module")
def audited(model, tmp_path_factory):
    """An audit with --json and the folder it wrote."""
    folder = tmp_path_factory.mktemp("audited")
    result = audit("--json", "--trials", FEW, model=model, out=folder)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout), folder


def test_audit_json_is_one_object_and_alone_on_stdout(audited, model):
    told, folder = audited
    assert json.loads((folder / "report.json").read_text()) == told
    assert (told["model"], told["data"], told["seed"], told["trials"]) == (str(model), "digits", 0, 2)
    assert told["recall_at_1"] == pytest.approx(load_checkpoint(model).record["recall_at_1"], abs=0.01)
    assert [(cell["goal"], cell["method"]) for cell in told["cells"][:4]] == [
        ("qa+", "pgd"),
        ("qa+", "strong"),
        ("qa+", "converged"),
        ("qa+", "worst-case"),
    ]
    assert len(told["cells"]) == 4 + 4
    assert all(set(cell) == CONTRACT for cell in told["cells"])
    assert {cell["eps"] for cell in told["cells"]} == {8 / 255}
    assert len(told["smallest"]) == 8
    assert {control["goal"] for control in told["controls"]} == {"qa+"}
    assert told["protocol"]["name"].startswith("rankproof-1")
    assert all(set(flag) == {"kind", "text", "cell"} for flag in told["flags"])


def test_audit_leaves_a_report_and_pictures(audited):
    _, folder = audited
    names = {path.stem for path in (folder / "pictures").iterdir()}
    assert {"oa-black-box", "oa-black-box-2"} <= names
    for path in (folder / "pictures").iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 8
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= len(names)
    assert len((folder / "audit.jsonl").read_text().splitlines()) == 8 + 2 + 1 + 1 + 2


def test_the_same_audit_goes_on_from_its_journal_and_prints_for_people(audited, model, monkeypatch):
    told, folder = audited
    monkeypatch.setattr(import_module("rankproof.audit.run"), "run_unit", None)  # nothing is attacked again
    result = audit("--trials", FEW, model=model, out=folder)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert f"report: {folder / 'report.html'}" in result.stdout
    assert f"--trials {FEW}" in result.stdout
    assert result.stdout.count("\nflag: ") > 0
    assert json.loads((folder / "report.json").read_text())["smallest"] == told["smallest"]


def test_ctrl_c_during_an_audit_leaves_a_report_of_what_is_finished(model, tmp_path, monkeypatch):
    suite, calls = import_module("rankproof.audit.run"), []
    real = suite.run_unit

    def third_time_stops(*args):
        if calls.append(args) or len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(suite, "run_unit", third_time_stops)
    out = tmp_path / "out"
    result = audit("--trials", FEW, model=model, out=out)
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"stopped: the report of what is there is {out / 'report.html'}")
    assert "the same command goes on" in last
    report = json.loads((out / "report.json").read_text())
    assert [each["goal"] for each in report["smallest"]] == ["ca+", "ca-"]
    assert any("before it was stopped" in text for text in report["missing"])
    assert len((out / "audit.jsonl").read_text().splitlines()) == 2


def test_ctrl_c_before_anything_is_finished(model, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("rankproof.audit.run"), "run_unit", stop)
    result = audit("--trials", FEW, model=model, out=tmp_path / "out")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "stopped: nothing was finished")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rankproof audit --time 3m --out 'my runs'", "rankproof audit --out 'my runs'"),
        ("rankproof audit --trials=24,oa=3 --eps 1/255 --time=1h", "rankproof audit --eps 1/255"),
    ],
)
def test_the_command_of_a_report_has_its_own_trials(command, expected):
    assert without_counts(command) == expected


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--eps", "2"], "eps must be between 0 and 1"),
        (["--eps", "much"], "eps: 'much' is no number"),
        (["--first", "0"], "--first must be at least 1, got 0"),
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--trials", "-5"], "--trials must be at least 1, got -5"),
        (["--trials", "20,qa=3"], "trials: 'qa' is unknown; known: at-eps, black-box, "),
        (["--trials", "many"], "trials: 'many' is no whole number"),
        (["--trials", "20", "--time", "1m"], "give --trials or --time, not both"),
        (["--time", "soon"], "--time 'soon' is no length of time"),
        (["--model", "nowhere"], "nowhere: not found"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--device", "abacus"], "--device must be auto, cpu or cuda"),
        (["--divide", "half"], "--divide must be one of"),
        (["--size", "28"], "wants images of 1x8x8, digits has 1x28x28"),
    ],
)
def test_bad_options_of_audit(model, tmp_path, words, fragment):
    assert_refused(audit(*words, model=model, out=tmp_path / "out"), fragment)
    assert not (tmp_path / "out").exists()


# -- where the machine says no


def test_output_folder_that_is_a_file(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_refused(attack("--save", out, model=model), "cannot be written")
        assert_refused(call("train", "--out", out), "cannot be written")
        assert_refused(audit(model=model, out=out), "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a place where nobody may write")
def test_output_folder_without_permission(model):
    assert_refused(attack("--save", "/proc/self/out", model=model), "/proc/self/out: cannot be written")


def test_full_disk(model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert_refused(attack("--save", tmp_path / "out", "--json", model=model), "No space left on device")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_of_the_system_is_one_line(model, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr("rankproof.models.open.load_checkpoint", fail)
    assert_refused(attack(model=model), "secret: Permission denied")


def test_ctrl_c_during_an_attack(model, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["rankproof.attacks"], "attack", stop)
    result = attack("--save", tmp_path / "out", model=model)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("stopped: nothing was written")
    assert not (tmp_path / "out").exists()


# -- train, data, zoo


def test_ctrl_c_keeps_the_last_finished_epoch(tmp_path, monkeypatch):
    from rankproof.training import loop

    measure, calls = loop.measure, []

    def second_time_stops(*args):
        if calls.append(args) or len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(loop, "measure", second_time_stops)
    result = call("train", "--batch", 200, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "out holds the model after epoch 1;" in result.stderr
    assert load_checkpoint(tmp_path / "out").record["epochs_done"] == 1


def test_a_stopped_training_goes_on(tmp_path):
    words = ("train", "--batch", 500, "--out", tmp_path / "out")
    call(*words, "--epochs", 1)
    result = call(*words, "--epochs", 2, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "resuming after epoch 1" in result.stderr
    assert "after 2 epochs" in result.stdout
    assert [epoch["number"] for epoch in load_checkpoint(tmp_path / "out").record["history"]] == [1, 2]


def test_a_defended_model_can_be_trained_and_says_how(tmp_path):
    result = call(
        "train", "--defense", "hm", "--fast", "--epochs", 1, "--batch", 200, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.stderr
    assert "defense hm, fast schedule" in result.stderr
    record = load_checkpoint(tmp_path / "out").record
    assert (record["distance"], record["settings"]["defense"]["name"]) == ("sphere", "hm")


def test_training_stops_in_time_and_in_half_precision(tmp_path):
    result = call("train", "--batch", 500, "--time", "0.001s", "--half", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    record = load_checkpoint(tmp_path / "out").record
    assert (record["epochs_done"], record["precision"]) == (1, "half")
    assert record["arch"] == "digits"  # found from the pictures


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch", "-1"], "--batch must be at least 1"),
        (["--margin", "nan"], "--margin must be a number"),
        (["--learning-rate", "-1"], "--learning-rate must be a number"),
        (["--time", "soon"], "--time 'soon' is no length of time"),
        (["--time", "10"], "write 90s, 10m or 1h"),
        (["--time", "0m"], "is no length of time"),
        (["--loss", "magic"], "loss 'magic' is unknown"),
        (["--distance", "far"], "--distance must be cosine, euclidean, sphere, got 'far'"),
        (["--arch", "magic"], "arch 'magic' is unknown"),
        (["--loss", "pml:Magic"], "pytorch-metric-learning has no such class"),
        (["--loss", "pml:TripletMarginLoss", "--loss-option", "margin"], "expected NAME=VALUE"),
        (["--loss", "pml:TripletMarginLoss", "--margin", "1"], "has options of its own"),
        (["--loss-option", "alpha=2"], "is for losses of pytorch-metric-learning"),
        (["--sampler", "magic"], "sampler 'magic' is unknown"),
        (["--per-class", "4"], "is of the balanced sampler"),
        (["--sampler", "balanced", "--batch", "100", "--per-class", "3"], "do not fill a batch"),
        (["--batch", "3"], "cannot hold two images of two classes"),
        (["--defense", "magic"], "defense 'magic' is unknown"),
        (["--defense", "est", "--eps", "9"], "between 0 and 1"),
        (["--defense", "act", "--loss", "contrastive"], "is made of triplets"),
        (["--eps", "0.1"], "--eps is of a defense"),
        (["--inner-steps", "0", "--defense", "est"], "--inner-steps must be at least 1"),
        (["--precision", "half"], "--precision must be single or bf16"),
        (["--decay", "steep"], "--decay must be constant or cosine"),
        (["--weights", "nowhere.safetensors"], "no such file of weights"),
        (["--loss", "pml:TripletMarginLoss", "--miner-option", "epsilon=1"], "choose a miner first"),
        (["--sampler", "balanced", "--per-class", "0"], "--per-class must be at least 2"),
        (["--sampler", "balanced", "--per-class", "100", "--batch", "100"], "holds one class"),
        (["--shift", "8"], "--shift must be 0 to 7"),
        (["--shift", "-1"], "--shift must be 0 to 7"),
        (["--arch", "c2f1", "--loss", "pml:ProxyAnchorLoss"], "arch c2f1 wants images of 1x28x28"),
        (["--defense", "hm", "--sampler", "from-set"], "makes pairs"),
        (["--arch", "c2f1"], "arch c2f1 wants images of 1x28x28, digits has 1x8x8; try --size 28"),
        (["--size", "9"], "no encoder is made for the 1x9x9 images of digits"),
        (["--data", "nowhere"], "nowhere: no such file"),
        (["--divide", "half"], "--divide must be one of"),
    ],
)
def test_bad_options_of_train(tmp_path, words, fragment):
    assert_refused(call("train", "--out", tmp_path / "out", *words), fragment)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_fetched(tmp_path, monkeypatch):
    assert_refused(call("data", "imagenet"), "imagenet: cannot be downloaded; known are fashion-mnist, mnist")

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(sys.modules["rankproof.data.download"], "urlopen", offline)
    result = call("data", "mnist", "--root", tmp_path / "sets")
    assert_refused(result, "cannot be fetched", "put train-images-idx3-ubyte.gz", str(tmp_path / "sets"))


def test_zoo_lists_what_is_shipped():
    from rankproof.models import zoo_names

    result = call("zoo")
    assert result.exit_code == 0, result.stderr
    assert all(f"zoo:{name}  " in result.stdout for name in zoo_names())


@pytest.mark.parametrize("option", [["--visible", "5"], ["--method", "strong"], ["--steps", "3"], ["--grid"]])
def test_the_smallest_budget_has_a_search_of_its_own(option):
    result = CliRunner().invoke(app, ["attack", "--goal", "qa+", "--eps", "smallest", *option])
    assert result.exit_code != 0
    assert f"{option[0]} does not go with --eps smallest" in " ".join(result.output.split())
