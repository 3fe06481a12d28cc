import json
import math
from dataclasses import dataclass
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import torch

from rankproof import (
    BudgetSummary,
    CandidateRaise,
    Gallery,
    MaxShift,
    MomentumPGD,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    WrongFirst,
    attack,
    smallest_budget,
)
from rankproof.attacks.budget_summary import median_interval
from rankproof.attacks.saved_images import read_again, saved_images
from rankproof.methods.defaults import smallest
from rankproof.methods.white_box.budget_search import BudgetOutput
from rankproof.methods.white_box.shrinking_budget import ShrinkingBudget

ROOT = Path(__file__).parents[2]
OWN, OTHERS = 0, (1.0, -1.5, 4.0, -6.0)


@pytest.fixture
def line(make):
    """An encoder of one matrix onto a line; a grey query at 0 among items at OTHERS, and the slope |w|_1."""
    weight = torch.randn(1, 16, generator=make.random(3)).double()
    ranker = Ranker(make.flat(weight, -weight.sum(1) / 2), "euclidean")
    gallery = Gallery(ranker, torch.tensor([[0.0], *([other] for other in OTHERS)]).double())
    return gallery, torch.full((1, 1, 4, 4), 0.5).double(), float(weight.abs().sum())


@pytest.mark.parametrize(
    ("goal", "first", "targets", "moved"),
    [
        (WrongFirst(), 10, None, 0.25),  # halfway between 1 and -1.5
        (QueryRaise(m=1), 1, [[3]], 2.5),  # halfway between 1 and 4
        (QueryRaise(m=1), 2, [[3]], 1.25),  # halfway between -1.5 and 4
        (CandidateRaise(w=1), 2, [[3]], 1.0),  # no farther from 4 than the item at 1
    ],
)
def test_the_smallest_budget_of_straight_lines_is_found(line, goal, first, targets, moved):
    gallery, image, slope = line
    result = smallest_budget(gallery, image, goal, first=first, gallery_ids=[OWN], targets=targets)
    optimum = moved / slope
    assert optimum * (1 - 1e-9) <= result.eps_star.item() <= optimum * 1.02
    change = (result.adversarial - image).abs().max().item()
    assert change == result.eps_star.item()
    assert result.reached.tolist() == [True]
    assert result.evaluations.item() <= (130 if isinstance(goal, CandidateRaise) else 60)


def test_what_holds_already_is_free_and_counted_apart(line):
    gallery, image, _ = line
    result = smallest_budget(gallery, image, QueryRaise(m=1), gallery_ids=[OWN], targets=[[3]])
    assert result.eps_star.tolist() == [0.0]
    assert torch.equal(result.adversarial, image)
    assert result.evaluations.tolist() == [0]
    summary = result.summary
    assert (summary.trials, summary.free, summary.reached, summary.eps_star) == (1, 1, 0, None)
    assert summary.success(0.5) is None


def test_what_cannot_be_reached_has_no_budget(make):
    gallery = Gallery(
        Ranker(make.flat(torch.full((1, 16), 1e-6).double()), "euclidean"),
        torch.tensor([[0.0], [1.0], [-1.5], [4.0]]).double(),
    )
    told = []
    result = smallest_budget(
        gallery,
        make.images(2),
        WrongFirst(),
        gallery_ids=[0, 0],
        search=ShrinkingBudget(evaluations=9),
        progress=lambda done, total: told.append((done, total)),
    )
    assert result.eps_star.isnan().all()
    assert not result.reached.any()
    assert torch.equal(result.adversarial, result.original)
    assert result.saved_eps.isnan().all()
    summary = result.summary
    assert (summary.eps_star, summary.reached, summary.free, summary.curve) == (None, 0, 0, ())
    assert summary.success(1.0) == 0.0
    assert told[-1] == (18, 18)
    assert told == sorted(told)
    json.dumps(summary.to_json(), allow_nan=False)


@dataclass(frozen=True)
class Claimed:
    """A search that returns a share of the right answer, as one does whose encoder rounds otherwise."""

    change: torch.Tensor
    evaluations: int = 1

    def run(self, problem):
        return BudgetOutput(problem.original + self.change, torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize(("share", "holds"), [(0.9, False), (1 - 5e-4, True), (1.0, True)])
def test_what_a_search_returns_is_no_budget_unless_the_encoder_agrees(line, share, holds):
    gallery, image, _ = line
    right = smallest_budget(gallery, image, WrongFirst(), gallery_ids=[OWN])
    change = right.adversarial - image
    found = smallest_budget(gallery, image, WrongFirst(), gallery_ids=[OWN], search=Claimed(share * change))
    assert found.reached.tolist() == [holds]
    if holds:  # the change was enlarged until the wish came true
        assert right.eps_star.item() * 0.99 <= found.eps_star.item() <= right.eps_star.item() * 1.01
    else:
        assert found.eps_star.isnan().all()
        assert torch.equal(found.adversarial, image)


def test_an_attack_depends_on_nothing_else_and_comes_out_again(gallery, pictures):
    ids = torch.arange(4)
    whole = smallest_budget(gallery, pictures[:4], QueryRaise(), gallery_ids=ids)
    again = smallest_budget(gallery, pictures[:4], QueryRaise(), gallery_ids=ids)
    part = smallest_budget(gallery, pictures[2:4], QueryRaise(), gallery_ids=ids[2:])
    assert torch.equal(whole.adversarial, again.adversarial)
    torch.testing.assert_close(whole.eps_star[2:], part.eps_star, rtol=1e-6, atol=0)
    assert torch.equal(whole.targets[2:], part.targets)


@pytest.mark.parametrize("goal", [QueryRaise(), WrongFirst()])
def test_no_attack_at_a_lower_budget_gets_what_it_wants(gallery, pictures, goal):
    ids = torch.arange(2)
    result = smallest_budget(gallery, pictures[:2], goal, gallery_ids=ids)
    for i in result.reached.nonzero()[:, 0].tolist():
        found = attack(
            gallery,
            pictures[i : i + 1],
            goal,
            Threat(0.8 * result.eps_star[i].item()),
            method=MomentumPGD(steps=30),
            gallery_ids=ids[i : i + 1],
            exclude_self=True,
            targets=result.targets[i : i + 1],
        )
        if isinstance(goal, WrongFirst):
            assert found.after["hit"].tolist() == [1.0]
        else:
            z = gallery.ranker.embed(found.adversarial)
            ranks = gallery.rank_of(z, found.targets, ties="order", excluded=ids[i : i + 1])
            assert ranks.min() >= 10


def test_the_saved_image_holds_when_it_is_read_again(line):
    gallery, image, _ = line
    image = (image * 255).round() / 255
    result = smallest_budget(gallery, image, QueryRaise(m=1), first=1, gallery_ids=[OWN], targets=[[3]])
    levels = result.saved_eps.item() * 255
    assert levels == pytest.approx(round(levels), abs=1e-6)
    assert (
        math.ceil(result.eps_star.item() * 255)
        <= round(levels)
        <= math.ceil(result.eps_star.item() * 255) + 1
    )
    assert torch.equal(read_again(result.saved), result.saved)
    z = gallery.ranker.embed(result.saved)
    assert gallery.rank_of(z, result.targets, excluded=torch.tensor([OWN])).item() == 0
    assert result.summary.saved == 1


def test_a_saved_image_takes_one_more_level_where_the_first_does_not_hold():
    original = torch.full((3, 1, 2, 2), 100 / 255).double()
    images = original + torch.tensor([0.3, 1.2, 1.2]).double()[:, None, None, None] / 255
    asked = []

    def holds(candidates, rows):
        asked.append(rows.tolist())
        return (candidates - original[rows]).amax((1, 2, 3)) > torch.tensor([0.5, 2.5, 9.0])[rows] / 255

    saved, kept = saved_images(original, images, torch.arange(3), holds)
    assert kept.tolist() == [True, True, False]
    levels = ((saved - original) * 255).amax((1, 2, 3))
    torch.testing.assert_close(levels, torch.tensor([1.0, 3.0, 0.0]).double(), atol=1e-5, rtol=0)
    assert asked == [[0, 1, 2], [1, 2]]


def test_a_goal_without_yes_or_no_is_refused(line):
    gallery, image, _ = line
    with pytest.raises(RankproofError, match="shift has no yes or no, so no smallest budget"):
        smallest_budget(gallery, image, MaxShift())


@pytest.mark.parametrize(
    ("count", "low", "high"), [(5, None, None), (6, 1, 6), (20, 6, 15), (25, 8, 18), (100, 40, 61)]
)
def test_the_median_has_the_interval_of_order_statistics(count, low, high):
    values = [float(value) for value in range(count, 0, -1)]
    assert median_interval(values) == ((count + 1) / 2, (low, high))


def test_a_median_beyond_reach_is_none_and_its_interval_half_open():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, *([math.inf] * 5)]
    assert median_interval(values) == (None, (2.0, None))
    assert median_interval([]) == (None, (None, None))


def test_a_summary_comes_back_from_its_json_and_reads_its_curve(gallery, pictures):
    result = smallest_budget(gallery, pictures[:3], QueryRaise(), gallery_ids=torch.arange(3))
    summary = result.summary
    assert BudgetSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    assert summary.success(1.0) == summary.reached / (summary.trials - summary.free)
    assert summary.sentence == "a random item is among the first 10 results"


def test_an_order_comes_true_at_a_verified_budget(gallery, pictures):
    result = smallest_budget(gallery, pictures[:2], Reorder(k=3, sight=30), gallery_ids=torch.arange(2))
    z = gallery.ranker.embed(result.adversarial)
    places = gallery.rank_of(z, result.targets, ties="order", excluded=torch.arange(2))
    held = (places.diff(dim=1) > 0).all(1) & (places < 30).all(1)
    assert torch.equal(held, ~result.eps_star.isnan())
    assert result.evaluations.max() <= 190


def test_what_is_saved_comes_back(gallery, pictures, tmp_path):
    result = smallest_budget(
        gallery,
        pictures[:2],
        WrongFirst(),
        gallery_ids=torch.arange(2),
        search=ShrinkingBudget(evaluations=5),
    )
    result.save(tmp_path)
    with np.load(tmp_path / "attack.npz") as arrays:
        np.testing.assert_array_equal(arrays["eps_star"], result.eps_star)
        np.testing.assert_array_equal(arrays["index"], [0, 1])
        assert arrays["saved"].dtype == np.float32
    found = json.loads((tmp_path / "result.json").read_text())
    assert BudgetSummary.from_json(found) == result.summary
    schema = json.loads((ROOT / "docs/schema/smallest-budget.json").read_text())
    jsonschema_rs.validate(schema, found)
    assert set(schema["properties"]) == set(found)


def test_an_order_of_a_gallery_that_is_all_in_sight_has_a_smallest_budget(make):
    gallery = Gallery.build(make.ranker(), images := make.images(12))
    found = smallest_budget(gallery, images[:2], Reorder(k=3), gallery_ids=[0, 1])
    assert (found.reached | found.free).all()


@pytest.mark.parametrize(("count", "said"), [(21, True), (22, False)])
def test_it_is_said_where_no_item_can_sink_out_of_sight(make, count, said):
    gallery = Gallery.build(make.ranker(), images := make.images(count))
    search = ShrinkingBudget(evaluations=2)
    found = smallest_budget(gallery, images[:1], QueryLower(m=1), search=search, gallery_ids=[0])
    assert found.places == 20
    assert any("no attack can succeed" in note for note in found.notes) == said


def test_a_raise_that_keeps_results_begins_with_a_small_budget(make):
    """A large first budget loses what is to be kept, and the search ends at many times what is needed."""
    gallery = Gallery.build(make.ranker(), images := make.images(40))
    goal = QueryRaise(m=1) + 1.0 * Preserve(g=5)
    found = smallest_budget(gallery, images[:8], goal, gallery_ids=range(8))
    far = smallest("rank", "raise", "query")
    large = smallest_budget(gallery, images[:8], goal, search=far, gallery_ids=range(8)).eps_star
    assert found.reached.sum() > (large > 0).sum()
    assert found.eps_star[2] < large[2] / 2
