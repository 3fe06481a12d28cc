"""The published choice of targets (paper-facts: ECCV and ICCV, white box)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import RankproofError
from rankproof.goals import (
    AttackContext,
    CandidateLower,
    CandidateRaise,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
)
from rankproof.goals.selection import pool_note, pool_size

SIZE, PERCENT = 2700, 27  # enough for m = 3 and 5 others to come from the nearest percent
OTHERS = PERCENT - 1  # the own copy is one of the nearest 1 %, and is left out


@pytest.fixture(scope="module")
def context(make):
    return everybody(make, SIZE)


def everybody(make, size, distance="euclidean", **options):
    """Every item of a random gallery as an attacked image."""
    gallery = make.gallery(distance, size, 4, seed=5)
    everyone = torch.arange(size)
    return AttackContext(
        gallery=gallery,
        clean=gallery.embeddings,
        rng_keys=everyone.tolist(),
        seed=options.pop("seed", 0),
        gallery_ids=everyone,
        **options,
    )


@pytest.fixture(scope="module")
def ranked(context):
    """(n, n - 1) for each item all others, nearest first."""
    distances = torch.cdist(context.clean, context.clean).fill_diagonal_(torch.inf)
    return distances.argsort(dim=1, stable=True)[:, :-1]


def places(ranked, ids):
    """The places of items among the others of their query, from 0."""
    return torch.stack([(ranked == column[:, None]).int().argmax(1) for column in ids.T], dim=1)


@pytest.mark.parametrize("goal", [CandidateRaise(w=3), QueryRaise(m=3)], ids=["ca+", "qa+"])
def test_raised_items_are_uniform_with_replacement_over_the_whole_gallery(context, goal):
    chosen = goal.bind(context).targets
    counts = torch.bincount(chosen.flatten(), minlength=SIZE).double()
    assert len(counts) == SIZE
    # 3 SIZE draws: each item 3 times on average, and as many items never drawn as independence leaves out.
    assert counts.var().item() == pytest.approx(3, abs=4 * 3 * (2 / SIZE) ** 0.5)
    missed = SIZE * (1 - 1 / SIZE) ** (3 * SIZE)
    assert (counts == 0).sum().item() == pytest.approx(missed, abs=4 * missed**0.5)
    half = chosen[:, 0].double().mean().item()
    assert half == pytest.approx((SIZE - 1) / 2, abs=4 * SIZE / 12**0.5 / SIZE**0.5)


def test_raised_items_may_repeat_and_may_be_the_attacked_item_itself(make):
    context = everybody(make, 12)
    chosen = QueryRaise(m=12).bind(context).targets
    assert bool((chosen == context.gallery_ids[:, None]).any())
    assert any(len(set(row)) < 12 for row in chosen.tolist())


def test_lowering_a_candidate_draws_from_the_nearest_percent_with_replacement(context, ranked):
    chosen = CandidateLower(w=4).bind(context).targets
    where = places(ranked, chosen)
    assert bool((ranked.gather(1, where) == chosen).all())  # never the own copy: it has no place
    assert where.max().item() == OTHERS - 1
    counts = torch.bincount(where.flatten(), minlength=OTHERS).double()
    expected = 4 * SIZE / OTHERS
    assert bool(((counts - expected).abs() < 4.5 * expected**0.5).all())
    assert any(len(set(row)) < 4 for row in chosen.tolist())


def test_lowered_results_are_a_permutation_of_the_nearest_percent(context, ranked):
    chosen = QueryLower(m=3).bind(context).targets
    where = places(ranked, chosen)
    assert bool((ranked.gather(1, where) == chosen).all())
    assert where.max().item() == OTHERS - 1
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    counts = torch.bincount(where.flatten(), minlength=OTHERS).double()
    expected = 3 * SIZE / OTHERS
    assert bool(((counts - expected).abs() < 4.5 * expected**0.5).all())
    assert bool((where[:, 1:] < where[:, :-1]).any())  # shuffled, not by rank


def test_beside_lowered_results_the_best_ranked_of_the_rest_are_kept(context, ranked):
    bound = (QueryLower(m=3) + 100.0 * Preserve(g=5)).bind(context)
    for row in range(0, SIZE, 50):
        taken = set(bound.targets[row].tolist())
        rest = [item for item in ranked[row].tolist() if item not in taken]
        assert bound.preserved[row].tolist() == rest[:5]


def test_beside_raised_results_the_nearest_others_are_kept_even_where_they_are_chosen(make):
    context = everybody(make, 12)
    bound = (QueryRaise(m=6) + 1.0 * Preserve(g=5)).bind(context)
    distances = torch.cdist(context.clean, context.clean).fill_diagonal_(torch.inf)
    assert torch.equal(bound.preserved, distances.argsort(dim=1)[:, :5])
    shared = [set(a) & set(b) for a, b in zip(bound.targets.tolist(), bound.preserved.tolist(), strict=True)]
    assert any(shared)


def test_the_reordered_are_the_nearest_with_the_own_copy(context, ranked):
    chosen = Reorder(k=5).bind(context).targets
    for row in range(0, SIZE, 50):
        assert sorted(chosen[row].tolist()) == sorted([row, *ranked[row, :4].tolist()])
    first = torch.bincount((chosen == context.gallery_ids[:, None]).int().argmax(1), minlength=5).double()
    assert bool(((first - SIZE / 5).abs() < 4 * (SIZE * 0.16) ** 0.5).all())  # the own copy wanted anywhere


def test_the_reordered_leave_a_dropped_own_copy_out(make):
    context = everybody(make, 30, exclude_self=True)
    bound = Reorder(k=4).bind(context)
    assert not bool((bound.targets == context.gallery_ids[:, None]).any())
    assert bound.metrics(context.clean)["mean_rank"].tolist() == [1.5] * 30


def test_a_given_order_is_by_present_places(make):
    context = everybody(make, 30)
    nearest = context.gallery.search(context.clean, 4)
    chosen = Reorder(k=4, order=(3, 0, 2, 1)).bind(context).targets
    assert torch.equal(chosen, nearest[:, [3, 0, 2, 1]])


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3)])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(RankproofError, match=r"permutation of 0 \.\. 2"):
        Reorder(k=3, order=order)


def test_without_an_own_copy_nothing_is_left_out(make):
    gallery = make.gallery("euclidean", 40, 4)
    strangers = make.embeddings("euclidean", 6, 4, seed=9)
    context = AttackContext(gallery=gallery, clean=strangers, rng_keys=range(6), seed=0)
    bound = (QueryRaise() + 1.0 * Preserve(g=3)).bind(context)
    assert torch.equal(bound.preserved, torch.cdist(strangers, gallery.embeddings).argsort(dim=1)[:, :3])


def test_an_own_copy_behind_its_duplicates_is_still_the_one_left_out(make):
    gallery = make.raw("euclidean", torch.tensor([[0.0]] * 4 + [[1.0]] * 4, dtype=torch.float64))
    index = torch.tensor([3])
    context = AttackContext(
        gallery=gallery, clean=gallery.embeddings[index], rng_keys=[3], seed=0, gallery_ids=index
    )
    assert (QueryRaise() + 1.0 * Preserve(g=2)).bind(context).preserved.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("size", "needed", "pool"), [(10_000, 6, 100), (2000, 9, 27), (2000, 6, 20), (797, 6, 18), (10, 6, 10)]
)
def test_the_pool_is_one_percent_or_three_times_what_is_needed(size, needed, pool):
    assert pool_size(size, needed, own=False) == pool


def test_the_own_copy_is_one_of_the_nearest_percent():
    assert pool_size(10_000, 6, own=True) == 99
    assert pool_size(797, 6, own=True) == 18
    assert pool_size(10, 6, own=True) == 9


def test_the_note_tells_of_a_larger_pool_and_only_then():
    assert pool_note(10_000, 6) == ""
    assert "18 nearest (2.3 %)" in pool_note(797, 6)
    assert "1 % of 797 items" in QueryLower(m=1).choice_note(797)
    assert "18 nearest" in (QueryLower(m=1) + 100.0 * Preserve()).choice_note(797)
    assert "12 nearest" in CandidateLower(w=4).choice_note(797)
    assert (QueryRaise(m=4) + 1.0 * Preserve()).choice_note(797) == ""


def test_a_small_gallery_chooses_from_the_larger_pool(make):
    context = everybody(make, 100)
    distances = torch.cdist(context.clean, context.clean).fill_diagonal_(torch.inf)
    ranked = distances.argsort(dim=1)[:, :-1]
    assert places(ranked, QueryLower(m=2).bind(context).targets).max().item() == 20  # 3 (2 + 5) of them
    assert places(ranked, CandidateLower(w=4).bind(context).targets).max().item() == 11


GOALS = [
    CandidateRaise(w=3),
    CandidateLower(w=3),
    QueryRaise(m=3) + 1.0 * Preserve(),
    QueryLower(m=3) + 100.0 * Preserve(),
    Reorder(k=5),
]


@pytest.mark.parametrize("goal", GOALS, ids=["ca+", "ca-", "qa+", "qa-", "oa"])
@given(rows=st.lists(st.integers(0, 49), min_size=1, max_size=6, unique=True), seed=st.integers(0, 99))
def test_choices_depend_on_the_item_and_the_seed_and_not_on_the_batch(make, goal, rows, seed):
    whole = everybody(make, 50, seed=seed)
    index = torch.tensor(rows)
    part = AttackContext(
        gallery=whole.gallery, clean=whole.clean[index], rng_keys=rows, seed=seed, gallery_ids=index
    )
    alone, together = goal.bind(part), goal.bind(whole)
    assert torch.equal(alone.targets, together.targets[index])
    assert torch.equal(alone.preserved, together.preserved[index])


@pytest.mark.parametrize("goal", GOALS, ids=["ca+", "ca-", "qa+", "qa-", "oa"])
def test_another_seed_chooses_otherwise(make, goal):
    first, second = (goal.bind(everybody(make, 50, seed=seed)).targets for seed in (0, 1))
    assert not torch.equal(first, second)


def test_goals_do_not_share_their_draws(make):
    context = everybody(make, 50)
    assert not torch.equal(CandidateRaise(w=3).bind(context).targets, QueryRaise(m=3).bind(context).targets)
