import json
import math
from dataclasses import replace

import pytest
import torch

from rankproof import (
    SPSA,
    AttackResult,
    CandidateRaise,
    Gallery,
    LocalOracle,
    MaxShift,
    Preserve,
    QueryRaise,
    RankproofError,
    Reorder,
    Threat,
    attack,
)

KEYS = [
    *("schema", "goal", "method", "eps", "w", "m", "k", "g", "xi", "steps"),
    *("evaluations", "evaluations_max", "visible", "budget"),
    *("queries_spent", "queries_max", "checks", "checks_differing", "tau_again", "trials", "seed"),
    *("device", "model", "data", "metric", "before", "after", "ci95", "unchanged"),
    *("rank_before", "rank_after", "sp_rank"),
    *("tau_before", "tau", "mean_rank_before", "mean_rank", "curve", "shift"),
    *("seconds", "model_seconds", "peak_mb", "versions", "gallery_size", "examination", "notes"),
]
GOALS = {
    "ca+": CandidateRaise(w=2),
    "sp-qa+": QueryRaise(m=2) + 1.5 * Preserve(g=3),
    "oa": Reorder(k=4, xi=7.0),
    "shift": MaxShift(),
}


@pytest.fixture(scope="module")
def gallery(make, pictures):
    """In single precision, as results are stored."""
    ranker = make.ranker()
    ranker.encoder.float()
    return Gallery.build(type(ranker)(ranker.encoder, "euclidean"), pictures)


@pytest.fixture(scope="module", params=GOALS)
def result(request, gallery, pictures):
    goal = GOALS[request.param]
    return attack(gallery, pictures[:6], goal, Threat(0.05), gallery_ids=torch.arange(6), seed=4)


def test_a_saved_result_is_loaded_as_it_was(result, tmp_path):
    assert result.save(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    loaded = AttackResult.load(tmp_path / "new" / "folder")
    for name, value in vars(result).items():
        other = getattr(loaded, name)
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype, name
            assert torch.equal(value, other), name
        elif name in ("before", "after"):
            assert value.keys() == other.keys(), name
            assert all(torch.equal(value[figure], other[figure]) for figure in value), name
        else:
            assert value == other, name
    assert loaded.summary == result.summary


def test_a_result_of_images_outside_the_gallery_keeps_no_gallery_ids(gallery, pictures, tmp_path):
    attack(gallery, 1 - pictures[:2], QueryRaise(), Threat(0.05)).save(tmp_path)
    assert AttackResult.load(tmp_path).gallery_ids is None


def test_the_summary_has_the_agreed_names_and_is_json(result, tmp_path):
    summary = replace(result.summary, model="m.pt", data="digits", model_seconds=1.5, peak_mb=12.0)
    written = summary.to_json()
    assert list(written) == KEYS
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert (written["model"], written["data"], written["model_seconds"], written["peak_mb"]) == (
        "m.pt",
        "digits",
        1.5,
        12.0,
    )
    result.save(tmp_path, summary)
    assert json.loads((tmp_path / "result.json").read_text()) == written


def test_the_summary_says_how_the_attack_was_made(result):
    summary = result.summary.to_json()
    parameters = {
        "ca+": {"w": 2},
        "sp-qa+": {"m": 2, "g": 3, "xi": 1.5},
        "oa": {"k": 4, "xi": 7.0},
        "shift": {},
    }[summary["goal"]]
    for letter in ("w", "m", "k", "g", "xi"):
        assert summary[letter] == parameters.get(letter)
    assert (summary["method"], summary["eps"], summary["seed"], summary["trials"]) == ("pgd", 0.05, 4, 6)
    assert (summary["device"], summary["gallery_size"]) == ("cpu", 60)
    assert summary["steps"] == (24 if summary["goal"] == "oa" else 20)
    assert (
        summary["visible"] is summary["budget"] is summary["queries_spent"] is summary["queries_max"] is None
    )
    assert summary["curve"] is summary["model"] is summary["peak_mb"] is None
    assert summary["seconds"] > 0
    assert {"python", "torch", "numpy", "rankproof"} <= set(summary["versions"])


def test_the_figures_of_a_summary_are_means_over_attacks(result):
    summary = result.summary.to_json()
    headline = {"ca+": "rank", "sp-qa+": "rank", "oa": "tau", "shift": "shift"}[result.goal]
    assert summary["metric"] == headline
    assert summary["before"] == pytest.approx(result.before[headline].mean().item())
    assert summary["after"] == pytest.approx(result.after[headline].mean().item())
    names = {"rank": "rank_after"}
    for name in ("rank", "sp_rank", "tau", "mean_rank", "shift"):
        expected = result.after[name].mean().item() if name in result.after else None
        assert summary[names.get(name, name)] == (None if expected is None else pytest.approx(expected))
    for name in ("rank", "tau", "mean_rank"):
        expected = result.before[name].mean().item() if name in result.before else None
        assert summary[f"{name}_before"] == (None if expected is None else pytest.approx(expected))


def expected_ends(metric, mean, half):
    """Ends on the scale of the metric."""
    low, high = {"rank": (0, 100), "tau": (-1, 1)}.get(metric, (0, math.inf))
    return max(low, mean - half), min(high, mean + half)


def test_the_interval_is_over_attacks_and_not_over_chosen_items(result):
    values = result.after[result.metric]
    values = values.mean(1) if values.dim() == 2 else values
    error = values.double().std().item() / math.sqrt(6)
    mean = values.double().mean().item()
    assert result.summary.ci95 == pytest.approx(expected_ends(result.metric, mean, 2.570582 * error))
    assert result.mean.ends == list(result.summary.ci95)
    assert result.mean.mean == result.summary.after


def test_figures_are_found_by_name_and_a_missing_one_names_the_goal(gallery, pictures):
    order = attack(gallery, pictures[:3], Reorder(k=3), Threat(0.05))
    assert order.tau is order.after["tau"]
    assert order.tau_before is order.before["tau"]
    assert order.mean_rank is order.after["mean_rank"]
    assert order.rank_before is order.before["rank"]
    assert order.rank_after is order.after["rank"]
    assert order.rank_after.dtype == torch.float64
    with pytest.raises(RankproofError, match="oa has no shift; it has rank, tau, mean_rank"):
        _ = order.shift


def test_one_attack_alone_can_be_saved_although_it_has_no_interval(gallery, pictures, tmp_path):
    single = attack(gallery, pictures[:1], QueryRaise(), Threat(0.05))
    single.save(tmp_path)
    assert AttackResult.load(tmp_path).summary.to_json()["ci95"] == [None, None]


def test_saving_leaves_nothing_but_the_two_files(result, tmp_path):
    result.save(tmp_path)
    result.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attack.npz", "result.json"]


def test_a_folder_without_a_result_is_named(tmp_path):
    with pytest.raises(RankproofError, match=f"{tmp_path.name}.*no saved attack"):
        AttackResult.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("attack.npz", b""),
        ("attack.npz", b"PK broken"),
        ("result.json", b"{}"),
        ("result.json", b"{"),
        ("result.json", b"[]"),
    ],
)
def test_a_broken_result_is_named(result, tmp_path, name, content):
    result.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RankproofError, match="no saved attack"):
        AttackResult.load(tmp_path)


# -- a black-box result ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[8, None], ids=["N = 8", "N = inf"])
def searched(request, gallery, pictures):
    return attack(
        LocalOracle(gallery, request.param),
        pictures[:6].float(),
        Reorder(k=3),
        Threat(0.1),
        method=SPSA(pairs=3),
        budget=25,
        gallery_ids=torch.arange(6),
        seed=4,
    )


def test_a_saved_black_box_result_is_loaded_as_it_was(searched, tmp_path):
    loaded = AttackResult.load(searched.save(tmp_path))
    assert (loaded.log.visible, loaded.log.budget) == (searched.log.visible, 25)
    assert searched.log.visible in (8, "inf")
    assert loaded.log.spent.dtype == searched.log.spent.dtype
    assert torch.equal(loaded.log.spent, searched.log.spent)
    assert loaded.log.scores.dtype == searched.log.scores.dtype
    assert torch.equal(loaded.log.scores.isnan(), searched.log.scores.isnan())
    assert torch.equal(loaded.log.scores.nan_to_num(9), searched.log.scores.nan_to_num(9))
    assert torch.equal(loaded.adversarial, searched.adversarial)
    assert loaded.summary == searched.summary
    assert loaded.notes == searched.notes


def test_the_summary_of_a_black_box_attack_says_what_it_spent(searched):
    summary = searched.summary.to_json()
    assert list(summary) == KEYS
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["visible"], summary["budget"], summary["method"]) == (searched.log.visible, 25, "spsa")
    assert summary["queries_spent"] == pytest.approx(searched.log.spent.double().mean().item())
    assert summary["queries_max"] == searched.log.spent.max().item() == summary["steps"]
    assert summary["curve"] == [list(point) for point in searched.log.curve()]


def test_a_white_box_result_has_no_curve_over_queries(result):
    assert result.log is None
    assert result.summary.curve is None


@pytest.mark.parametrize(
    ("budget", "marks"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (12, [1, 2, 5, 10, 12]), (20, [1, 2, 5, 10, 20])],
)
def test_a_curve_ends_with_the_budget_and_shows_the_mean_best_so_far(searched, budget, marks):
    scores = torch.full((2, budget), math.nan)
    scores[0] = -torch.linspace(0, 1, budget)  # never better than the clean image
    scores[1, : min(budget, 4)] = torch.tensor([-1.0, 0.5, 0.0, 1.0])[:budget]  # then it is perfect
    best = [-1.0, 0.5, 0.5] + [1.0] * budget
    curve = replace(searched.log, scores=scores).curve()
    assert curve == tuple((mark, pytest.approx(best[mark - 1] / 2)) for mark in marks)


# -- cut and joined --------------------------------------------------------------------------------


def assert_equal(one, other):
    """Whether two results are equal in everything but time."""
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        if name in ("before", "after"):
            assert value.keys() == theirs.keys(), name
            assert all(torch.equal(value[figure], theirs[figure]) for figure in value), name
        elif name == "log" and value is not None:
            assert (value.visible, value.budget) == (theirs.visible, theirs.budget)
            assert torch.equal(value.spent, theirs.spent)
            assert torch.equal(value.scores.nan_to_num(9), theirs.scores.nan_to_num(9))
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs), name
        elif name != "seconds":
            assert value == theirs, name


def cut_by_hand(result, rows):
    log = result.log and replace(result.log, spent=result.log.spent[rows], scores=result.log.scores[rows])
    return replace(
        result,
        original=result.original[rows],
        adversarial=result.adversarial[rows],
        gallery_ids=None if result.gallery_ids is None else result.gallery_ids[rows],
        evaluations=None if result.evaluations is None else result.evaluations[rows],
        targets=result.targets[rows],
        preserved=result.preserved[rows],
        before={name: values[rows] for name, values in result.before.items()},
        after={name: values[rows] for name, values in result.after.items()},
        zero_gradient=result.zero_gradient[rows],
        log=log,
    )


every_rows = pytest.mark.parametrize(
    ("rows", "ids"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, 2), [0, 2, 4]),
        ([5, 0], [5, 0]),
        (torch.tensor([2]), [2]),
        (torch.tensor([True, False, False, True, True, False]), [0, 3, 4]),
        (slice(0, 0), []),
    ],
    ids=["slice", "steps", "list", "tensor", "mask", "nothing"],
)


@every_rows
def test_a_cut_of_a_white_box_result_is_that_of_each_of_its_values(result, rows, ids):
    part = result[rows]
    assert len(part) == len(ids)
    assert_equal(part, cut_by_hand(result, ids))


@every_rows
def test_a_cut_of_a_black_box_result_is_that_of_each_of_its_values(searched, rows, ids):
    part = searched[rows]
    assert part.log.spent.tolist() == searched.log.spent[ids].tolist()
    assert_equal(part, cut_by_hand(searched, ids))


def test_what_is_cut_and_joined_again_is_the_whole(result, searched):
    for whole in (result, searched):
        parts = [whole[:1], whole[[1, 2, 3]], whole[4:]]
        assert_equal(AttackResult.concat(parts), whole)
        assert AttackResult.concat(parts).seconds == pytest.approx(3 * whole.seconds)
        assert_equal(AttackResult.concat([whole]), whole)
        assert_equal(AttackResult.concat(parts[::-1]), whole[[4, 5, 1, 2, 3, 0]])


def test_a_result_of_images_outside_the_gallery_is_cut_and_joined(gallery, pictures):
    whole = attack(gallery, 1 - pictures[:3], QueryRaise(), Threat(0.05))
    assert whole[1:].gallery_ids is None
    assert_equal(AttackResult.concat([whole[:1], whole[1:]]), whole)


def test_notes_are_joined_without_repeating_any(result):
    first, second = replace(result, notes=("a", "b")), replace(result, notes=("b", "c"), steps=99)
    joined = AttackResult.concat([first, second])
    assert joined.notes == ("a", "b", "c")
    assert joined.steps == 99


@pytest.mark.parametrize(
    "change",
    [
        {"goal": "qa-"},
        {"metric": "hit"},
        {"method": "strong"},
        {"eps": 0.06},
        {"seed": 5},
        {"gallery_size": 61},
        {"parameters": {"w": 9}},
        {"gallery_ids": None},
        {"perturbation": torch.zeros(1, 1, 4, 4)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_results_of_different_attacks_are_not_joined(result, change):
    with pytest.raises(RankproofError, match="different attacks: they cannot be joined"):
        AttackResult.concat([result, replace(result, **change)])


def test_a_white_box_and_a_black_box_and_searches_of_other_kinds_are_not_joined(searched):
    others = (None, replace(searched.log, visible=7), replace(searched.log, budget=26))
    for log in others:
        for pair in ([searched, replace(searched, log=log)], [replace(searched, log=log), searched]):
            with pytest.raises(RankproofError, match="different attacks"):
                AttackResult.concat(pair)


def test_nothing_at_all_is_not_joined():
    with pytest.raises(RankproofError, match="no results to join"):
        AttackResult.concat([])


def test_a_saved_result_of_a_later_schema_is_refused(result, tmp_path):
    result.save(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    with pytest.raises(
        RankproofError, match=r"no saved attack \(schema 2 is unknown; this version reads 1\)"
    ):
        AttackResult.load(tmp_path)


def test_no_rows_are_an_empty_result(result):
    assert len(result[[]]) == 0
