import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from rankproof import (
    NES,
    PGD,
    PSO,
    SPSA,
    AttackResult,
    Beta,
    BudgetedOracle,
    Cached,
    CandidateRaise,
    Gallery,
    ListOracle,
    LocalOracle,
    MaxShift,
    MomentumPGD,
    Preserve,
    QueryLower,
    QueryRaise,
    Rand,
    RankproofError,
    Reorder,
    Threat,
    attack,
)
from rankproof.methods.black_box.search import SearchInterruptedError
from rankproof.methods.black_box.subspace import Subspace
from rankproof.rng import permutations

GOAL, THREAT, SHOWN, BUDGET, COUNT = Reorder(k=4), Threat(0.1), 12, 25, 5
METHODS = {
    "rand": Rand(population=6),
    "beta": Beta(population=6),
    "pso": PSO(particles=6),
    "nes": NES(pairs=3),
    "spsa": SPSA(pairs=3),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
every_visible = pytest.mark.parametrize("visible", [4, SHOWN, None], ids=["N = k", "N = 12", "N = inf"])


@pytest.fixture(scope="module")
def cosine_gallery(make, pictures):
    return Gallery.build(make.ranker(), pictures)


def order_attack(oracle, pictures, goal=GOAL, threat=THREAT, count=COUNT, **options):
    settings = {"method": METHODS["spsa"], "budget": BUDGET, "gallery_ids": torch.arange(count), "seed": 2}
    return attack(oracle, pictures[:count], goal, threat, **(settings | options))


def lists(gallery, images, count, excluded=None):
    # The first results of every image, by sorting.
    prepare = gallery.ranker.distance.prepare
    z = prepare(gallery.ranker.embed_all(images).double())
    far = gallery.ranker.distance.pairwise(z, prepare(gallery.embeddings.double()))
    found = []
    for row, distances in enumerate(far.tolist()):
        order = sorted(range(len(gallery)), key=lambda item: (distances[item], item))
        found.append([item for item in order if excluded is None or item != int(excluded[row])][:count])
    return found


def taus(gallery, images, targets, visible, excluded=None):
    # tau_S of what a user would see, one attack and one pair at a time.
    found = []
    shown = lists(gallery, images, visible or len(gallery), excluded)
    for listed, wanted in zip(shown, targets.tolist(), strict=True):
        k, total = len(wanted), 0
        for i in range(k):
            for j in range(i + 1, k):
                seen = wanted[i] in listed and wanted[j] in listed
                total += 1 if seen and listed.index(wanted[i]) < listed.index(wanted[j]) else -1
        found.append(total / (k * (k - 1) / 2))
    return found


def same(one, other):
    # Whether two results are equal to the bit in all that is not a time.
    assert torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(one.targets, other.targets)
    assert torch.equal(one.log.spent, other.log.spent)
    assert torch.equal(one.log.scores.isnan(), other.log.scores.isnan())
    assert torch.equal(one.log.scores.nan_to_num(9), other.log.scores.nan_to_num(9))
    for when in ("before", "after"):
        ours, theirs = getattr(one, when), getattr(other, when)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return True


# -- what does not fit is refused by name ----------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "visible", "message"),
    [
        (5, 4, "k = 5 results cannot be ordered where only N = 4 are visible"),
        (2, 1, "k = 2 results cannot be ordered where only N = 1 are visible"),
        (61, None, "k = 61 is larger than the gallery of 60 items"),
        (61, 60, "k = 61 results cannot be ordered where only N = 60 are visible"),
        (1, 5, "k must be at least 2, got 1: one item has no order"),
        (0, None, "k must be at least 1, got 0"),
    ],
)
def test_a_k_that_does_not_fit_is_refused_before_anything_is_sent(
    cosine_gallery, pictures, k, visible, message
):
    oracle = BudgetedOracle(LocalOracle(cosine_gallery, visible), 99)
    with pytest.raises(RankproofError, match=message):
        order_attack(oracle, pictures, Reorder(k=k))
    assert oracle.spent == {}


@pytest.mark.parametrize("visible", [None, 60])
def test_an_excluded_copy_is_no_result_to_be_ordered(cosine_gallery, pictures, visible):
    oracle = LocalOracle(cosine_gallery, visible)
    with pytest.raises(RankproofError, match="k = 60 is larger than the gallery of 59 items"):
        order_attack(oracle, pictures, Reorder(k=60), exclude_self=True)
    assert order_attack(oracle, pictures, Reorder(k=59), exclude_self=True, budget=1).targets.shape == (5, 59)
    assert order_attack(oracle, pictures, Reorder(k=60), budget=1).targets.shape == (5, 60)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_below_one_is_refused(cosine_gallery, pictures, budget):
    with pytest.raises(RankproofError, match=f"budget must be at least 1, got {budget}"):
        order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, budget=budget)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 2, 3, 4), (0, 1, 1, 3), (1, 2, 3, 4), (-1, 0, 1, 2), ()])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(RankproofError, match=r"order must be a permutation of 0 \.\. 3"):
        Reorder(k=4, order=order)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.arange(20).view(4, 5), "targets: expected 5 rows of gallery positions"),
        (torch.arange(20), "targets: expected 5 rows of gallery positions"),
        (
            torch.arange(15).view(5, 3),
            r"targets: expected 5 x 4 gallery positions .*got \(5, 3\)",
        ),
        (
            torch.arange(25).view(5, 5),
            r"targets: expected 5 x 4 gallery positions .*got \(5, 5\)",
        ),
        (torch.tensor([[0, 1, 2, 3]] * 4 + [[4, 9, 7, 4]]), "targets: an item is named twice"),
        (torch.tensor([[0, 1, 2, 3]] * 4 + [[4, 9, 7, 60]]), r"in 0 \.\. 59, got 0 \.\. 60"),
        (torch.tensor([[0, 1, 2, 3]] * 4 + [[4, 9, 7, -1]]), r"in 0 \.\. 59, got -1 \.\. 9"),
    ],
)
def test_explicit_targets_that_do_not_fit_are_refused(cosine_gallery, pictures, targets, message):
    oracle = BudgetedOracle(LocalOracle(cosine_gallery, SHOWN), 99)
    with pytest.raises(RankproofError, match=message):
        order_attack(oracle, pictures, targets=targets)
    assert oracle.spent == {}


def test_an_excluded_copy_cannot_be_wanted(cosine_gallery, pictures):
    targets = torch.tensor([[10, 11, 12, 13]] * 4 + [[10, 11, 12, 4]])
    with pytest.raises(RankproofError, match="targets: an own copy is wanted where exclude_self=True"):
        order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, targets=targets, exclude_self=True)


@pytest.mark.parametrize(
    "goal",
    [CandidateRaise(), QueryRaise(), QueryLower() + 1.0 * Preserve(), MaxShift(), 2.0 * QueryRaise()],
    ids=["ca+", "qa+", "sp-qa-", "shift", "weighted qa+"],
)
def test_other_goals_are_refused(cosine_gallery, pictures, goal):
    with pytest.raises(RankproofError, match=r"only the order attack \(oa\) can be sought in a black box"):
        order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, goal)


@pytest.mark.parametrize("method", [PGD(), MomentumPGD()], ids=["pgd", "strong"])
def test_a_method_with_gradients_cannot_ask_an_oracle(cosine_gallery, pictures, method):
    with pytest.raises(RankproofError, match=f"{method.name} needs gradients, which an oracle does not give"):
        order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, method=method)


@every_method
def test_a_method_without_gradients_cannot_attack_a_gallery(cosine_gallery, pictures, method):
    with pytest.raises(RankproofError, match=f"{method.name} asks an oracle, such as LocalOracle"):
        order_attack(cosine_gallery, pictures, method=method)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 60], [-1, 0, 1, 2, 3], [0, 1]])
def test_gallery_ids_beyond_the_gallery_behind_an_oracle_are_refused(cosine_gallery, pictures, ids):
    for oracle in (
        LocalOracle(cosine_gallery, SHOWN),
        Cached(BudgetedOracle(LocalOracle(cosine_gallery, SHOWN), 99)),
    ):
        with pytest.raises(RankproofError, match=r"gallery_ids: expected 5 gallery positions in 0 \.\. 59"):
            order_attack(oracle, pictures, gallery_ids=torch.tensor(ids))


def test_a_shared_change_is_refused(cosine_gallery, pictures):
    with pytest.raises(RankproofError, match="a shared perturbation"):
        order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, threat=Threat(0.1, shared=True))


# -- what comes back -------------------------------------------------------------------------------


@every_method
@every_visible
def test_the_figures_are_those_of_the_returned_images(gallery, pictures, method, visible):
    result = order_attack(LocalOracle(gallery, visible), pictures, method=method)
    THREAT.check(result.adversarial, pictures[:COUNT])
    assert torch.equal(result.original, pictures[:COUNT])
    for images, figures in ((result.original, result.before), (result.adversarial, result.after)):
        assert figures["tau"].tolist() == pytest.approx(taus(gallery, images, result.targets, visible))
        ranks = [
            [listed.index(item) for item in wanted]
            for listed, wanted in zip(lists(gallery, images, 60), result.targets.tolist(), strict=True)
        ]
        assert figures["mean_rank"].tolist() == pytest.approx([sum(row) / 4 for row in ranks])
        assert (figures["rank"] * 60 / 100).round().long().tolist() == ranks
    assert (result.tau >= result.tau_before - 1e-12).all()


@every_method
@every_visible
def test_the_reported_tau_is_the_best_that_was_recorded(gallery, pictures, method, visible):
    result = order_attack(LocalOracle(gallery, visible), pictures, method=method)
    scores = result.log.scores
    assert scores.shape == (COUNT, BUDGET)
    best = torch.where(scores.isnan(), -2.0, scores).amax(1)
    assert result.tau.tolist() == pytest.approx(best.tolist(), abs=1e-6)
    assert result.tau_before.tolist() == pytest.approx(scores[:, 0].tolist(), abs=1e-6)
    assert torch.equal((~scores.isnan()).sum(1), result.log.spent)
    assert ((result.log.spent == BUDGET) | (result.tau > 1 - 1e-9)).all()
    assert result.steps == result.log.spent.max()
    assert (result.log.visible, result.log.budget) == ("inf" if visible is None else visible, BUDGET)


@every_visible
def test_a_curve_never_falls_and_ends_at_the_reported_mean(gallery, pictures, visible):
    result = order_attack(LocalOracle(gallery, visible), pictures, threat=Threat(0.3), count=20)
    marks, values = zip(*result.log.curve(), strict=True)
    assert marks == (1, 2, 5, 10, 20, 25)
    assert list(values) == sorted(values)
    assert values[0] == pytest.approx(result.tau_before.mean().item(), abs=1e-6)
    assert values[-1] == pytest.approx(result.tau.mean().item(), abs=1e-6)
    assert values[-1] > values[0] + 0.1


@every_visible
@pytest.mark.parametrize("exclude_self", [False, True])
def test_the_wanted_order_is_a_permutation_of_the_first_results(gallery, pictures, visible, exclude_self):
    index = torch.tensor([40, 2, 17])
    result = attack(
        LocalOracle(gallery, visible),
        pictures[index],
        GOAL,
        THREAT,
        method=METHODS["spsa"],
        budget=1,
        seed=7,
        gallery_ids=index,
        exclude_self=exclude_self,
    )
    excluded = index if exclude_self else None
    nearest = torch.tensor(lists(gallery, pictures[index], 4, excluded))
    assert torch.equal(result.targets, nearest.gather(1, permutations(7, [40, 2, 17], "oa", 4)))
    assert bool((result.targets == index[:, None]).any()) != exclude_self
    expected = taus(gallery, pictures[index], result.targets, visible, excluded)
    assert result.tau_before.tolist() == pytest.approx(expected)
    assert torch.equal(result.tau, result.tau_before)
    assert result.mean_rank.tolist() == [1.5] * 3  # places 0 to 3, the own copy not counted


@every_visible
def test_an_excluded_copy_counts_neither_in_the_search_nor_in_the_figures(gallery, pictures, visible):
    result = order_attack(LocalOracle(gallery, visible), pictures, exclude_self=True)
    expected = taus(gallery, result.adversarial, result.targets, visible, torch.arange(COUNT))
    assert result.tau.tolist() == pytest.approx(expected)
    best = torch.where(result.log.scores.isnan(), -2.0, result.log.scores).amax(1)
    assert result.tau.tolist() == pytest.approx(best.tolist(), abs=1e-6)


def test_every_query_leaves_out_the_excluded_copy_of_its_own_attack(cosine_gallery, pictures):
    index, excluded = torch.tensor([40, 2, 17, 59, 8]), []

    class Watching(Flaky):
        def top(self, images, count, tracked):
            excluded.append(torch.equal(tracked.excluded, index[tracked.attacks]))
            return super().top(images, count, tracked)

        def __call__(self, images, tracked):
            excluded.append(torch.equal(tracked.excluded, index[tracked.attacks]))
            return super().__call__(images, tracked)

    result = order_attack(
        Watching(cosine_gallery), pictures[index], Reorder(k=2), gallery_ids=index, exclude_self=True
    )
    assert (
        result.log.spent.min() < BUDGET == result.log.spent.max()
    )  # some left early: rows are not positions
    assert len(excluded) > 3
    assert all(excluded)


def test_a_given_order_is_of_present_places(gallery, pictures):
    goal = Reorder(k=4, order=(2, 0, 3, 1))
    result = order_attack(LocalOracle(gallery, SHOWN), pictures, goal, budget=1)
    nearest = gallery.search(gallery.embeddings[:COUNT], 4)
    assert torch.equal(result.targets, nearest[:, [2, 0, 3, 1]])
    assert result.tau.tolist() == pytest.approx([0.0] * COUNT)  # 3 of 6 pairs are in order


@every_visible
def test_explicit_targets_are_attacked_as_given(gallery, pictures, visible):
    targets = gallery.search(gallery.embeddings[:COUNT], 9)[:, [8, 1, 3, 0]]
    result = order_attack(LocalOracle(gallery, visible), pictures, targets=targets)
    assert torch.equal(result.targets, targets)
    assert result.tau_before.tolist() == pytest.approx(taus(gallery, pictures[:COUNT], targets, visible))
    assert result.tau.tolist() == pytest.approx(taus(gallery, result.adversarial, targets, visible))


def test_a_wanted_order_that_is_there_already_costs_one_query(cosine_gallery, pictures):
    oracle = BudgetedOracle(LocalOracle(cosine_gallery, SHOWN), 99)
    result = order_attack(oracle, pictures, Reorder(k=4, order=(0, 1, 2, 3)))
    assert result.log.spent.tolist() == [1] * COUNT
    assert result.tau.tolist() == [1.0] * COUNT
    assert torch.equal(result.adversarial, pictures[:COUNT])
    assert oracle.spent == dict.fromkeys(range(COUNT), 1)


@every_method
def test_no_room_and_a_single_query_return_the_original(cosine_gallery, pictures, method):
    for options in ({"threat": Threat(0.0)}, {"budget": 1}):
        result = order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, method=method, **options)
        assert torch.equal(result.adversarial, pictures[:COUNT])
        assert result.log.spent.tolist() == [1] * COUNT
        assert torch.equal(result.tau, result.tau_before)
        assert result.log.curve()[-1][1] == pytest.approx(result.tau.mean().item(), abs=1e-6)


@every_method
@pytest.mark.parametrize("side_by_side", [1, 2, 200])
def test_an_attack_does_not_depend_on_the_others_in_the_batch(
    cosine_gallery, pictures, method, side_by_side, monkeypatch
):
    options = {"method": method, "budget": BUDGET, "seed": 2}
    index, oracle = torch.tensor([40, 2, 17, 59, 8]), LocalOracle(cosine_gallery, SHOWN)
    together = attack(oracle, pictures[index], GOAL, THREAT, gallery_ids=index, **options)
    monkeypatch.setattr("rankproof.attacks.black_box.SIDE_BY_SIDE", side_by_side)
    order = torch.tensor([4, 0, 3])
    apart = attack(oracle, pictures[index[order]], GOAL, THREAT, gallery_ids=index[order], **options)
    assert torch.equal(apart.targets, together.targets[order])
    assert torch.equal(apart.adversarial, together.adversarial[order])
    assert torch.equal(apart.log.spent, together.log.spent[order])
    torch.testing.assert_close(apart.tau, together.tau[order])


@pytest.mark.parametrize("side_by_side", [2, 200])
def test_the_progress_counts_queries_up_to_what_was_spent(
    cosine_gallery, pictures, side_by_side, monkeypatch
):
    monkeypatch.setattr("rankproof.attacks.black_box.SIDE_BY_SIDE", side_by_side)
    seen = []
    result = order_attack(
        LocalOracle(cosine_gallery, SHOWN), pictures, progress=lambda *now: seen.append(now)
    )
    done = [done for done, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (int(result.log.spent.sum()), COUNT * BUDGET)


def test_8_bit_images_are_attacked_as_the_floats_they_stand_for(cosine_gallery, make):
    pixels = torch.randint(256, (3, 1, 4, 4), generator=make.random(0), dtype=torch.uint8)
    options = {"count": 3, "gallery_ids": None}
    oracle = LocalOracle(cosine_gallery, SHOWN)
    assert same(
        order_attack(oracle, pixels, **options), order_attack(oracle, pixels.double() / 255, **options)
    )


def test_a_search_in_a_smaller_subspace_is_noted(cosine_gallery, pictures):
    result = order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, subspace=Subspace("blocks", 2))
    note = "searched in blocks:2 among images off the 8-bit grid, which no service would accept as sent"
    assert result.notes == (note,)
    middle = order_attack(
        LocalOracle(cosine_gallery, SHOWN),
        torch.full_like(pictures, 0.5),
        subspace=Subspace("blocks", 2),
        gallery_ids=None,
    )
    corners = middle.adversarial[:, :, ::2, ::2]
    assert torch.equal(middle.adversarial, corners.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_a_memory_of_answers_changes_nothing_but_what_is_sent(cosine_gallery, pictures):
    inner = BudgetedOracle(LocalOracle(cosine_gallery, SHOWN), 10**6)
    oracle = Cached(inner)
    first = order_attack(oracle, pictures)
    sent = sum(inner.spent.values())
    assert same(first, order_attack(oracle, pictures))
    assert sum(inner.spent.values()) == sent
    assert same(first, order_attack(LocalOracle(cosine_gallery, SHOWN), pictures))


def test_an_oracle_with_a_budget_of_its_own_stops_the_search(cosine_gallery, pictures):
    with pytest.raises(
        SearchInterruptedError, match=r"after 7 of 25 queries: the budget of 9 queries"
    ) as caught:
        order_attack(BudgetedOracle(LocalOracle(cosine_gallery, SHOWN), 9), pictures)
    assert caught.value.state.history.spent.max() == 7


# -- a service of lists ----------------------------------------------------------------------------


def names_of(gallery, count):
    # A search service that names its items by strings.
    return lambda images: [
        [f"item-{item}" for item in row]
        for row in gallery.search(gallery.ranker.embed_all(images), count).tolist()
    ]


@every_method
def test_a_service_of_lists_is_attacked_like_the_gallery_behind_it(
    cosine_gallery, pictures, method, tmp_path
):
    oracle = ListOracle(names_of(cosine_gallery, SHOWN), SHOWN)
    result = order_attack(oracle, pictures, method=method)
    local = order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, method=method)
    assert torch.equal(result.adversarial, local.adversarial)
    assert torch.equal(result.log.spent, local.log.spent)
    torch.testing.assert_close(result.tau, local.tau)
    wanted = [[oracle.name(number) for number in row] for row in result.targets.tolist()]
    assert wanted == [[f"item-{item}" for item in row] for row in local.targets.tolist()]
    assert result.before.keys() == result.after.keys() == {"tau"}
    with pytest.raises(RankproofError, match="oa has no mean_rank; it has tau"):
        _ = result.mean_rank
    assert result.gallery_size == 0
    summary = AttackResult.load(result.save(tmp_path)).summary
    assert summary.mean_rank is summary.rank_after is None
    assert summary.tau == pytest.approx(result.tau.mean().item())


def test_explicit_targets_of_a_service_are_its_own_numbers(cosine_gallery, pictures):
    oracle = ListOracle(names_of(cosine_gallery, SHOWN), SHOWN)
    chosen = cosine_gallery.search(cosine_gallery.embeddings[:COUNT], 9)[:, [8, 1, 3, 0]]
    targets = torch.tensor([[oracle.number(f"item-{item}") for item in row] for row in chosen.tolist()])
    result = order_attack(oracle, pictures, targets=targets)
    assert torch.equal(result.targets, targets)
    assert result.tau.tolist() == pytest.approx(taus(cosine_gallery, result.adversarial, chosen, SHOWN))


def test_ids_of_a_service_may_be_as_large_as_64_bits_allow(cosine_gallery, pictures):
    index = torch.tensor([2**63 - 1, -(2**63), 5, 2**40, 0])
    oracle = ListOracle(names_of(cosine_gallery, SHOWN), SHOWN)
    assert torch.equal(order_attack(oracle, pictures, gallery_ids=index).gallery_ids, index)
    with pytest.raises(RankproofError, match=r"gallery_ids: expected 5 ids, got \(4,\)"):
        order_attack(oracle, pictures, gallery_ids=index[:4])


def test_a_service_that_shows_fewer_than_k_is_named(cosine_gallery, pictures):
    oracle = ListOracle(names_of(cosine_gallery, 3), SHOWN)
    with pytest.raises(RankproofError, match="returned 3 different ids, 4 are needed; choose a smaller k"):
        order_attack(oracle, pictures)


def test_a_service_that_fails_on_the_clean_query_gives_one_line_and_leaves_nothing(
    cosine_gallery, pictures, tmp_path
):
    def down(images):
        raise ConnectionError("connection refused")

    options = {"search_folder": tmp_path / "search"}
    with pytest.raises(RankproofError, match="failed on the clean images: connection refused") as caught:
        order_attack(ListOracle(down, SHOWN), pictures, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "search").exists()
    up = order_attack(ListOracle(names_of(cosine_gallery, SHOWN), SHOWN), pictures, **options)
    assert same(up, order_attack(ListOracle(names_of(cosine_gallery, SHOWN), SHOWN), pictures))


# -- a search kept in a folder ---------------------------------------------------------------------


class Flaky:
    # An oracle that fails at some calls; counts the images of each attack that it answered.

    def __init__(self, gallery, *errors):
        self.inner, self.visible, self.errors, self.answered = LocalOracle(gallery, SHOWN), SHOWN, errors, {}
        self.calls = 0

    def top(self, images, count, tracked):
        self._count(tracked, 1)
        return self.inner.top(images, count, tracked)

    def __call__(self, images, tracked):
        error = self.errors[self.calls] if self.calls < len(self.errors) else None
        self.calls += 1
        if error is not None:
            raise error
        self._count(tracked, images.shape[1])
        return self.inner(images, tracked)

    def repeat(self, images, tracked):
        # Outside the budget, which is what is counted here.
        return self.inner(images, tracked)

    def _count(self, tracked, count):
        for number in tracked.attacks.tolist():
            self.answered[number] = self.answered.get(number, 0) + count


@every_method
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize(
    "error", [ConnectionError("gone away"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_an_interrupted_attack_goes_on_where_it_stopped(
    cosine_gallery, pictures, method, at, error, tmp_path
):
    whole = order_attack(Flaky(cosine_gallery), pictures, method=method)
    oracle = Flaky(cosine_gallery, *[None] * at, error)
    options = {"method": method, "search_folder": tmp_path}
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SearchInterruptedError
    with pytest.raises(kind) as caught:
        order_attack(oracle, pictures, **options)
    if kind is SearchInterruptedError:
        assert caught.value.state.history.spent.max() == 1 + 6 * at
        assert f"after {1 + 6 * at} of {BUDGET} queries: gone away" in str(caught.value)
    assert max(oracle.answered.values()) == 1 + 6 * at
    assert same(order_attack(oracle, pictures, **options), whole)
    assert list(oracle.answered.values()) == whole.log.spent.tolist()
    calls = oracle.calls
    assert same(order_attack(oracle, pictures, **options), whole)  # all is there: nothing more is sent
    assert oracle.calls == calls
    assert list(oracle.answered.values()) == whole.log.spent.tolist()


def test_a_service_that_fails_at_every_round_is_finished_step_by_step(cosine_gallery, pictures, tmp_path):
    whole = order_attack(Flaky(cosine_gallery), pictures)
    oracle = Flaky(cosine_gallery, *[None, OSError("again")] * 3)
    for _ in range(3):
        with pytest.raises(SearchInterruptedError, match="again"):
            order_attack(oracle, pictures, search_folder=tmp_path)
    assert same(order_attack(oracle, pictures, search_folder=tmp_path), whole)
    assert list(oracle.answered.values()) == whole.log.spent.tolist()


def test_the_progress_of_a_continued_attack_starts_with_what_was_spent_before(
    cosine_gallery, pictures, tmp_path
):
    stop(cosine_gallery, pictures, tmp_path)
    seen = []
    result = order_attack(
        Flaky(cosine_gallery), pictures, search_folder=tmp_path, progress=lambda *now: seen.append(now)
    )
    assert seen[0][0] == 13 * COUNT
    assert seen[-1] == (int(result.log.spent.sum()), COUNT * BUDGET)


def test_finished_parts_are_not_searched_again(cosine_gallery, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr("rankproof.attacks.black_box.SIDE_BY_SIDE", 2)
    whole = order_attack(Flaky(cosine_gallery), pictures)
    oracle = Flaky(cosine_gallery, *[None] * 6, OSError("gone"))
    with pytest.raises(SearchInterruptedError):
        order_attack(oracle, pictures, search_folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search-000000.npz", "search-000002.npz"]
    before = dict(oracle.answered)
    assert same(order_attack(oracle, pictures, search_folder=tmp_path), whole)
    assert [oracle.answered[attack] for attack in range(COUNT)] == whole.log.spent.tolist()
    assert all(oracle.answered[attack] == before[attack] for attack in (0, 1))


def test_progress_is_written_between_rounds_too(cosine_gallery, pictures, tmp_path, monkeypatch):
    # A process that is killed cannot write any more: what counts is what is there already.
    times = iter(range(0, 10**6, 60))
    monkeypatch.setattr("rankproof.attacks.search_state.time.monotonic", lambda: next(times))
    found = []

    class Looking(Flaky):
        def __call__(self, images, tracked):
            found.append([path.read_bytes() for path in tmp_path.glob("search-*.npz")])
            return super().__call__(images, tracked)

    order_attack(Looking(cosine_gallery), pictures, search_folder=tmp_path)
    assert found[0] == []
    assert all(len(contents) == 1 for contents in found[1:])
    assert len({contents[0] for contents in found[1:]}) == len(found) - 1 >= 3


def stop(gallery, pictures, folder, **options):
    with pytest.raises(SearchInterruptedError):
        order_attack(Flaky(gallery, None, OSError("gone")), pictures, search_folder=folder, **options)
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3},
        {"budget": BUDGET + 1},
        {"threat": Threat(0.11)},
        {"threat": Threat(0.1, grid=True)},
        {"goal": Reorder(k=5)},
        {"method": SPSA(pairs=2)},
        {"method": METHODS["nes"]},
        {"subspace": Subspace("blocks", 2)},
        {"gallery_ids": torch.tensor([1, 0, 2, 3, 4])},
        {"gallery_ids": None},
        {"exclude_self": True},
        {"targets": torch.tensor([[10, 11, 12, 13]] * COUNT)},
        {"count": 4},
    ],
    ids=str,
)
def test_a_search_folder_of_another_attack_is_refused(cosine_gallery, pictures, options, tmp_path):
    path = stop(cosine_gallery, pictures, tmp_path)
    content = path.read_bytes()
    if options == {
        "gallery_ids": None
    }:  # the keys are then the rows, which are the index here: the same attack
        assert same(
            order_attack(Flaky(cosine_gallery), pictures, search_folder=tmp_path, **options),
            order_attack(Flaky(cosine_gallery), pictures),
        )
        return
    with pytest.raises(RankproofError, match=rf"{path.name}: belongs to another attack; choose another"):
        order_attack(Flaky(cosine_gallery), pictures, search_folder=tmp_path, **options)
    assert path.read_bytes() == content


def test_a_search_folder_of_other_images_or_another_n_is_refused(cosine_gallery, pictures, tmp_path):
    stop(cosine_gallery, pictures, tmp_path)
    changed = pictures.clone()
    changed[4, 0, 3, 3] += 0.001
    for oracle, images in (
        (Flaky(cosine_gallery), changed),
        (LocalOracle(cosine_gallery, SHOWN + 1), pictures),
    ):
        with pytest.raises(RankproofError, match="belongs to another attack"):
            order_attack(oracle, images, search_folder=tmp_path)


def damaged(content, tmp_path):
    np.save(tmp_path / "bare.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", scores=np.zeros(3))
    np.savez(tmp_path / "texts.npz", name=np.array(["a", "b"]))
    return {
        "empty": b"",
        "text": b"no archive",
        "torn": content[: len(content) // 2],
        "flipped": content[:200] + bytes(255 - byte for byte in content[200:260]) + content[260:],
        "bare array": (tmp_path / "bare.npy").read_bytes(),
        "other arrays": (tmp_path / "other.npz").read_bytes(),
        "texts": (tmp_path / "texts.npz").read_bytes(),
    }


@pytest.mark.parametrize("what", ["empty", "text", "torn", "flipped", "bare array", "other arrays", "texts"])
def test_a_damaged_search_file_gives_one_line_that_names_the_file(cosine_gallery, pictures, what, tmp_path):
    path = stop(cosine_gallery, pictures, tmp_path / "search")
    path.write_bytes(damaged(path.read_bytes(), tmp_path)[what])
    with pytest.raises(
        RankproofError, match=rf"{path.name}: cannot be continued \(.*\); delete it"
    ) as caught:
        order_attack(Flaky(cosine_gallery), pictures, search_folder=tmp_path / "search")
    assert "\n" not in str(caught.value)
    path.unlink()
    assert same(
        order_attack(Flaky(cosine_gallery), pictures, search_folder=tmp_path / "search"),
        order_attack(Flaky(cosine_gallery), pictures),
    )


def test_without_a_search_folder_nothing_is_written(cosine_gallery, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    order_attack(LocalOracle(cosine_gallery, SHOWN), pictures)
    assert list(tmp_path.iterdir()) == []


def test_scores_of_queries_that_were_not_spent_are_not_numbers(cosine_gallery, pictures):
    result = order_attack(
        LocalOracle(cosine_gallery, SHOWN), pictures, Reorder(k=2), Threat(0.3), count=20, budget=60
    )
    early = result.log.spent < 60
    assert early.any()
    assert (result.tau[early] == 1).all()
    for spent, scores in zip(result.log.spent.tolist(), result.log.scores.tolist(), strict=True):
        assert all(math.isnan(score) for score in scores[spent:])
        assert not any(math.isnan(score) for score in scores[:spent])


def test_a_search_folder_of_another_model_is_refused(cosine_gallery, pictures, tmp_path):
    order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, search_folder=tmp_path)
    moved = Gallery(cosine_gallery.ranker, cosine_gallery.embeddings.roll(1, 1))
    with pytest.raises(RankproofError, match="belongs to another attack"):
        order_attack(LocalOracle(moved, SHOWN), pictures, search_folder=tmp_path)


def test_the_time_of_a_search_in_two_sittings_is_the_sum_of_both(cosine_gallery, pictures, tmp_path):
    order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, search_folder=tmp_path)
    with np.load(tmp_path / "search-000000.npz") as stored:
        first = float(stored["seconds"])
    assert first > 0
    again = order_attack(LocalOracle(cosine_gallery, SHOWN), pictures, search_folder=tmp_path)
    assert again.seconds > first


@pytest.mark.parametrize(
    "option", [{"budget": 100}, {"subspace": Subspace("full")}, {"search_folder": Path("somewhere")}]
)
def test_what_only_a_black_box_has_is_refused_for_a_gallery(cosine_gallery, pictures, option):
    with pytest.raises(RankproofError, match=f"{next(iter(option))}: only a search in a black box has one"):
        attack(cosine_gallery, pictures[:2], GOAL, THREAT, gallery_ids=torch.arange(2), **option)


def test_items_to_keep_are_refused_for_an_oracle(cosine_gallery, pictures):
    with pytest.raises(RankproofError, match="preserved: an order attack keeps nothing"):
        order_attack(
            LocalOracle(cosine_gallery, SHOWN), pictures, preserved=torch.zeros(COUNT, 1, dtype=torch.int64)
        )


# -- the same image asked again --------------------------------------------------------------------


def shuffling(gallery, share, seed=0):
    # A search whose lists are in a random order, always or now and then.
    source, plain = random.Random(seed), names_of(gallery, SHOWN)

    def search(images):
        return [source.sample(row, len(row)) if source.random() < share else row for row in plain(images)]

    return ListOracle(search, SHOWN)


def budgeted(oracle):
    return BudgetedOracle(oracle, BUDGET)


@pytest.mark.parametrize("wrap", [lambda oracle: oracle, Cached, budgeted], ids=["bare", "cached", "Q"])
def test_answers_at_random_are_found_and_the_one_to_trust_is_told(cosine_gallery, pictures, wrap, tmp_path):
    result = order_attack(wrap(shuffling(cosine_gallery, 1.0)), pictures, count=20)
    repeats, summary = result.log.repeats, result.summary
    assert summary.tau > 0.4
    assert abs(summary.tau_again) < 0.35
    assert summary.checks == int(repeats.count.sum()) > 30
    assert summary.checks_differing == int(repeats.differs.sum()) >= 18
    assert result.log.spent.max() <= BUDGET
    (note,) = [note for note in result.notes if "the same image" in note]
    assert f"differed in {summary.checks_differing} of 20 attacks" in note
    assert f"told {summary.tau:.2f}, have {summary.tau_again:.2f} when asked again" in note
    loaded = AttackResult.load(result.save(tmp_path))
    assert loaded.summary == summary
    assert torch.equal(loaded.log.repeats.after, repeats.after)


def test_the_note_of_a_joined_result_counts_all_of_its_attacks(cosine_gallery, pictures):
    result = order_attack(shuffling(cosine_gallery, 1.0), pictures, count=6)
    joined = AttackResult.concat([result[:2], result[2:]])
    assert joined.notes[-1] == result.notes[-1] == result.repeat_note()
    assert len(joined.notes) == len(result.notes)
    assert torch.equal(joined.log.repeats.before, result.log.repeats.before)


@pytest.mark.parametrize("repeated", [False, True], ids=["ids once", "an id twice"])
@pytest.mark.parametrize("goal", [GOAL, Reorder(k=4, order=(0, 1, 2, 3))], ids=["drawn", "there already"])
def test_a_function_of_the_image_is_not_called_random(cosine_gallery, pictures, goal, repeated):
    def search(images):
        plain = names_of(cosine_gallery, SHOWN)(images)
        return [[row[0], *row] for row in plain] if repeated else plain

    result = order_attack(ListOracle(search, SHOWN), pictures, goal)
    repeats = result.log.repeats
    assert result.repeat_note() is None
    assert not repeats.differs.any()
    assert torch.equal(repeats.before, result.tau_before)
    assert repeats.after.tolist() == pytest.approx(result.tau.tolist())
    changed = (result.adversarial != result.original).flatten(1).any(1)
    assert torch.equal(repeats.count, 1 + changed.long())  # an unchanged image is not asked a third time
    assert len(result.notes) == 1


def test_answers_that_differ_now_and_then_are_found_where_the_best_is_one_of_them(cosine_gallery, pictures):
    result = order_attack(shuffling(cosine_gallery, 0.1), pictures, count=20, threat=Threat(0.01))
    repeats = result.log.repeats
    assert 1 <= int(repeats.differs.sum()) < 20
    lucky = result.tau - repeats.after > 1e-6
    assert bool((repeats.differs | ~lucky).all())
    assert result.repeat_note() is not None


def test_a_local_gallery_is_not_asked_again(cosine_gallery, pictures):
    for oracle in (LocalOracle(cosine_gallery, SHOWN), Cached(LocalOracle(cosine_gallery, SHOWN))):
        result = order_attack(oracle, pictures)
        assert result.log.repeats is None
        assert result.summary.checks is result.summary.tau_again is None


class Repeating(Flaky):
    # Counts what is asked again, and fails at one of these calls.

    def __init__(self, gallery, *failures):
        super().__init__(gallery)
        self.failures, self.again = list(failures), []

    def repeat(self, images, tracked):
        if self.failures and self.failures.pop(0):
            raise OSError("gone")
        self.again += tracked.attacks.tolist()
        return super().repeat(images, tracked)


@pytest.mark.parametrize(("failures", "name"), [((True,), "clean"), ((False, True), "best")])
def test_a_failure_while_asking_again_loses_nothing(cosine_gallery, pictures, failures, name, tmp_path):
    whole = order_attack(Repeating(cosine_gallery), pictures)
    oracle = Repeating(cosine_gallery, *failures)
    with pytest.raises(SearchInterruptedError, match=f"the {name} image was asked again: gone"):
        order_attack(oracle, pictures, search_folder=tmp_path)
    for _ in range(2):
        again = order_attack(oracle, pictures, search_folder=tmp_path)
        assert same(again, whole)
        assert torch.equal(again.log.repeats.after, whole.log.repeats.after)
        assert list(oracle.answered.values()) == whole.log.spent.tolist()
        assert sorted(oracle.again) == sorted(
            number for number, count in enumerate(whole.log.repeats.count.tolist()) for _ in range(count)
        )


def test_ids_of_other_items_are_noted(make):
    images = make.images(30)
    oracle = LocalOracle(Gallery.build(make.ranker(), images), visible=10)
    for ids, said in ((range(4), 0), ([0, 2, 1, 3], 1)):
        result = attack(oracle, images[:4], Reorder(k=3), Threat(8 / 255), budget=5, gallery_ids=ids)
        assert sum("2 of 4 images are not the gallery items" in note for note in result.notes) == said
