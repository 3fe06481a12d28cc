"""Every goal against a naive double loop, its gradient against autograd of that loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from rankproof.errors import RankproofError
from rankproof.goals import (
    AttackContext,
    CandidateLower,
    CandidateRaise,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    hinge,
)

both_distances = pytest.mark.parametrize("distance", ["cosine", "euclidean"])
both_forms = pytest.mark.parametrize("form", ["inequality", "distance"])
cases = given(
    n=st.integers(12, 22),
    d=st.integers(2, 5),
    b=st.integers(1, 4),
    m=st.integers(1, 3),
    g=st.integers(1, 4),
    explicit=st.booleans(),
    seed=st.integers(0, 9999),
)
TOLERANCE = {"rtol": 1e-7, "atol": 1e-6}  # Euclidean self-distances come out of one product: 1e-8, not 0


def far(distance, a, b):
    """One distance, by its definition."""
    if distance == "cosine":
        return 1 - torch.dot(a, b) / (a.norm() * b.norm())
    return ((a - b) ** 2).sum().sqrt()


def raised(own, others):
    """Mean over the gallery of [own - other]+."""
    return sum(functional.relu(own - other) for other in others) / len(others)


def lowered(own, others):
    return sum(functional.relu(other - own) for other in others) / len(others)


def mean(values):
    return sum(values) / len(values)


class World:
    """A random context, and raw embeddings of attacked images at a generic point."""

    def __init__(self, make, distance, n, d, b, seed, **chosen):
        self.distance = distance
        self.gallery = make.gallery(distance, n, d, seed)
        self.raw = torch.randn(b, d, generator=make.random(seed + 1), dtype=torch.float64)
        self.raw.requires_grad_(True)
        self.index = torch.randint(n, (b,), generator=make.random(seed + 2))
        self.clean = self.gallery.embeddings[self.index]
        self.context = AttackContext(
            gallery=self.gallery,
            clean=self.clean,
            rng_keys=self.index.tolist(),
            seed=seed,
            gallery_ids=self.index,
            **{what: ids for what, ids in chosen.items() if ids is not None},
        )

    @property
    def z(self):
        return self.raw

    def from_image(self, i):
        """The distances of attacked image i to the whole gallery."""
        return [far(self.distance, self.raw[i], x) for x in self.gallery.embeddings]

    def from_item(self, q):
        return [far(self.distance, self.gallery.embeddings[q], x) for x in self.gallery.embeddings]

    def to_item(self, i, q):
        return far(self.distance, self.gallery.embeddings[q], self.raw[i])

    def check(self, evaluation, losses):
        """Losses and their gradients, with a different weight for every attack."""
        expected = torch.stack(losses)
        torch.testing.assert_close(evaluation.loss, expected, **TOLERANCE)
        weights = torch.arange(1.0, len(losses) + 1, dtype=torch.float64)
        (found,) = torch.autograd.grad((evaluation.loss * weights).sum(), self.raw)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), self.raw)
        torch.testing.assert_close(found, wanted, **TOLERANCE)


def chosen_items(make, explicit, n, b, m, seed):
    return torch.randint(n, (b, m), generator=make.random(seed + 3)) if explicit else None


def nearer(distances, own):
    """How many are strictly nearer: a rank."""
    return sum(bool(d < own) for d in distances)


def farther(distances, own):
    return sum(bool(d > own) for d in distances)


def term(form, direction, own, distances):
    """The loss of one chosen item."""
    if form == "distance":
        return own if direction == "+" else -own
    return raised(own, distances) if direction == "+" else lowered(own, distances)


@pytest.fixture(autouse=True, params=[0.0, 1.0], ids=["whole-rows", "near-only"])
def both_ways_of_counting(request, monkeypatch):
    """Small galleries would only ever see one of the two ways."""
    monkeypatch.setattr(hinge, "NEAR_SHARE", request.param)


@both_distances
@both_forms
@pytest.mark.parametrize("direction", ["+", "-"])
@cases
def test_query_goal_equals_the_double_loop(make, distance, form, direction, n, d, b, m, g, explicit, seed):
    world = World(make, distance, n, d, b, seed, targets=chosen_items(make, explicit, n, b, m, seed))
    goal = (QueryRaise if direction == "+" else QueryLower)(m=m, form=form)
    bound = goal.bind(world.context)
    evaluation = bound.evaluate(world.z)
    losses, fitnesses, ranks = [], [], []
    for i in range(b):
        distances = world.from_image(i)
        owns = [distances[c] for c in bound.targets[i]]
        losses.append(mean([term(form, direction, own, distances) for own in owns]))
        ahead = [(nearer if direction == "+" else farther)(distances, own) for own in owns]
        fitnesses.append(-np.mean(ahead) / n)
        ranks.append([100 * nearer(distances, own) / n for own in owns])
    world.check(evaluation, losses)
    assert evaluation.fitness.tolist() == pytest.approx(fitnesses)
    assert evaluation.constraint_violation is None
    torch.testing.assert_close(bound.metrics(world.z)["rank"], torch.tensor(ranks, dtype=torch.float64))


def test_preserve_alone_is_refused(make):
    world = World(make, "cosine", 12, 3, 2, 0)
    with pytest.raises(RankproofError, match="at most one Preserve"):
        Preserve(g=2).bind(world.context)


@both_distances
@both_forms
@pytest.mark.parametrize("direction", ["+", "-"])
@pytest.mark.parametrize("weighted", [False, True])
@cases
def test_sum_equals_the_weighted_means_and_penalty_weight_scales_what_is_kept(
    make, distance, form, direction, weighted, n, d, b, m, g, explicit, seed
):
    xi = 0.5 + seed % 7
    world = World(
        make,
        distance,
        n,
        d,
        b,
        seed,
        targets=chosen_items(make, explicit, n, b, m, seed),
        preserved=chosen_items(make, explicit, n, b, g, seed + 1),
    )
    goal = (QueryRaise if direction == "+" else QueryLower)(m=m, form=form)
    bound = (goal + xi * Preserve(g=g)).bind(world.context)
    penalty_weight = torch.rand(b, generator=make.random(seed), dtype=torch.float64) * 3 if weighted else None
    losses, ranks, fitnesses = [], [], []
    for i in range(b):
        distances = world.from_image(i)
        own = mean([term(form, direction, distances[c], distances) for c in bound.targets[i]])
        ahead = [
            (nearer if direction == "+" else farther)(distances, distances[c]) / n for c in bound.targets[i]
        ]
        lost = np.mean([nearer(distances, distances[c]) / n for c in bound.preserved[i]])
        price = 1.5 * xi * lost if direction == "+" else 0.018 * xi / m**0.5 * lost * (1 + lost / 0.02)
        fitnesses.append(-np.mean(ahead) - price)
        kept = mean([raised(distances[c], distances) for c in bound.preserved[i]])
        losses.append(own + xi * (penalty_weight[i] if weighted else 1) * kept)
        ranks.append([100 * nearer(distances, distances[c]) / n for c in bound.preserved[i]])
    evaluation = bound.evaluate(world.z, penalty_weight)
    world.check(evaluation, losses)
    assert evaluation.fitness.tolist() == pytest.approx(fitnesses)
    metrics = bound.metrics(world.z)
    assert metrics["rank"].shape == (b, m)
    torch.testing.assert_close(metrics["sp_rank"], torch.tensor(ranks, dtype=torch.float64))


@both_distances
@both_forms
@pytest.mark.parametrize("direction", ["+", "-"])
@cases
def test_candidate_goal_equals_the_double_loop(
    make, distance, form, direction, n, d, b, m, g, explicit, seed
):
    world = World(make, distance, n, d, b, seed, targets=chosen_items(make, explicit, n, b, m, seed))
    goal = (CandidateRaise if direction == "+" else CandidateLower)(w=m, form=form)
    bound = goal.bind(world.context)
    evaluation = bound.evaluate(world.z)
    losses, fitnesses, ranks = [], [], []
    for i in range(b):
        terms, ahead, row = [], [], []
        for q in bound.targets[i]:
            distances, own = world.from_item(q), world.to_item(i, q)
            terms.append(term(form, direction, own, distances))
            ahead.append((nearer if direction == "+" else farther)(distances, own))
            row.append(100 * nearer(distances, own) / n)
        losses.append(mean(terms))
        fitnesses.append(-np.mean(ahead) / n)
        ranks.append(row)
    world.check(evaluation, losses)
    assert evaluation.fitness.tolist() == pytest.approx(fitnesses)
    torch.testing.assert_close(bound.metrics(world.z)["rank"], torch.tensor(ranks, dtype=torch.float64))


@both_distances
@pytest.mark.parametrize("weighted", [False, True])
@cases
def test_reorder_equals_the_double_loop(make, distance, weighted, n, d, b, m, g, explicit, seed):
    k, xi = m + 1, 0.5 + seed % 7
    wanted = None
    if explicit:  # distinct items: a repeated one has no place of its own
        wanted = torch.stack([torch.randperm(n, generator=make.random(seed + i))[:k] for i in range(b)])
    world = World(make, distance, n, d, b, seed, targets=wanted)
    bound = Reorder(k=k, xi=xi, sight=10).bind(world.context)
    penalty_weight = torch.rand(b, generator=make.random(seed), dtype=torch.float64) * 3 if weighted else None
    losses, taus, places = [], [], []
    for i in range(b):
        distances = world.from_image(i)
        owns = [distances[c] for c in bound.targets[i]]
        pairs = [(owns[s], owns[t]) for s in range(k) for t in range(s + 1, k)]
        order = sum(functional.relu(first - second) for first, second in pairs) / k**2
        sight = mean([raised(own, distances) for own in owns])
        losses.append(order + xi * (penalty_weight[i] if weighted else 1) * sight)
        taus.append(np.mean([1 if first < second else -1 for first, second in pairs]))
        places.append([nearer(distances, own) for own in owns])
    evaluation = bound.evaluate(world.z, penalty_weight)
    world.check(evaluation, losses)
    assert evaluation.fitness.tolist() == pytest.approx(taus)
    assert evaluation.constraint_violation.tolist() == pytest.approx([(max(row) + 1) / 10 for row in places])
    metrics = bound.metrics(world.z)
    assert metrics["tau"].tolist() == pytest.approx(taus)
    assert metrics["mean_rank"].tolist() == pytest.approx([np.mean(row) for row in places])
    expected = torch.tensor(places, dtype=torch.float64) * 100 / n
    torch.testing.assert_close(metrics["rank"], expected)


@both_distances
@cases
def test_max_shift_is_minus_the_distance_moved(make, distance, n, d, b, m, g, explicit, seed):
    world = World(make, distance, n, d, b, seed)
    bound = MaxShift().bind(world.context)
    evaluation = bound.evaluate(world.z)
    moved = [far(distance, world.raw[i], world.clean[i]) for i in range(b)]
    world.check(evaluation, [-own for own in moved])
    torch.testing.assert_close(evaluation.fitness, torch.stack(moved).detach())
    torch.testing.assert_close(bound.metrics(world.z.detach())["shift"], torch.stack(moved).detach())
    assert bound.targets.shape == bound.preserved.shape == (b, 0)


@both_distances
@pytest.mark.parametrize("goal", [QueryRaise(m=2), CandidateLower(w=2), Reorder(k=3)], ids=["qa", "ca", "oa"])
def test_a_dropped_own_copy_does_not_count_in_any_rank(make, distance, goal):
    kept, dropped = (
        goal.bind(
            AttackContext(
                gallery=world.gallery,
                clean=world.clean,
                rng_keys=world.index.tolist(),
                seed=0,
                gallery_ids=world.index,
                targets=torch.tensor([[3, 8, 11][: 3 if isinstance(goal, Reorder) else 2]] * 4),
                exclude_self=exclude_self,
            )
        ).metrics(world.z)["rank"]
        for world in [World(make, distance, 20, 3, 4, 7)]
        for exclude_self in (False, True)
    )
    world = World(make, distance, 20, 3, 4, 7)
    lost = []
    for i, own in enumerate(world.index):
        row = []
        for c in [3, 8, 11][: kept.shape[1]]:
            if isinstance(goal, CandidateLower):
                row.append(5.0 * bool(world.from_item(c)[own] < world.to_item(i, c)))
            else:
                row.append(5.0 * bool(world.from_image(i)[own] < world.from_image(i)[c]))
        lost.append(row)
    assert sum(map(sum, lost)) > 0
    torch.testing.assert_close(kept - dropped, torch.tensor(lost, dtype=torch.float64))


def test_the_gradient_follows_an_incoming_scale(make):
    """Losses may be weighted one by one before the backward pass."""
    world = World(make, "euclidean", 15, 3, 2, 0)
    bound = QueryRaise(m=2).bind(world.context)
    (once,) = torch.autograd.grad(bound.evaluate(world.z).loss.sum(), world.raw)
    scale = torch.tensor([3.0, 0.0], dtype=torch.float64)
    (scaled,) = torch.autograd.grad((bound.evaluate(world.z).loss * scale).sum(), world.raw)
    torch.testing.assert_close(scaled, once * scale[:, None])
    assert bool((once != 0).any(1).all())


def test_more_rows_than_one_block_of_rows_are_all_counted(make):
    world = World(make, "cosine", 15, 3, 40, 1)
    bound = QueryRaise(m=2).bind(world.context)
    together = bound.evaluate(world.z)
    for i in (0, 15, 16, 31, 32, 39):
        distances = world.from_image(i)
        expected = mean([raised(distances[c], distances) for c in bound.targets[i]])
        assert together.loss[i].item() == pytest.approx(expected.item())
        assert together.fitness[i].item() == pytest.approx(
            -np.mean([nearer(distances, distances[c]) for c in bound.targets[i]]) / 15
        )


@pytest.mark.parametrize("goal", [QueryRaise(m=2), CandidateRaise(w=2), Reorder(k=3), MaxShift()])
def test_a_goal_keeps_single_precision_while_the_attack_runs(make, goal):
    world = World(make, "cosine", 15, 3, 2, 0)
    gallery = make.raw("cosine", world.gallery.embeddings.float())
    context = AttackContext(gallery=gallery, clean=world.clean.float(), rng_keys=[0, 1], seed=0)
    evaluation = goal.bind(context).evaluate(world.z.detach().float())
    assert evaluation.loss.dtype == evaluation.fitness.dtype == torch.float32
    assert all(
        v.dtype == torch.float64 for v in goal.bind(context).metrics(world.z.detach().float()).values()
    )


@pytest.mark.parametrize(
    ("goal", "fitness", "slope"), [(CandidateRaise(), -2 / 5, 2 / 5), (CandidateLower(), -1 / 5, -1 / 5)]
)
def test_an_equally_far_item_is_neither_ahead_of_a_candidate_nor_behind_it(make, goal, fitness, slope):
    gallery = make.raw("euclidean", torch.tensor([[0.0], [1.0], [2.0], [2.0], [3.0]], dtype=torch.float64))
    z = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    context = AttackContext(
        gallery=gallery, clean=z.detach(), rng_keys=[0], seed=0, targets=torch.tensor([[0]])
    )
    evaluation = goal.bind(context).evaluate(z)
    assert evaluation.fitness.item() == pytest.approx(fitness)
    assert torch.autograd.grad(evaluation.loss.sum(), z)[0].item() == pytest.approx(slope)


@pytest.mark.parametrize("foreign", [False, True], ids=["in the gallery", "outside"])
@pytest.mark.parametrize(
    "goal",
    [CandidateRaise(w=3), CandidateLower(w=2), QueryRaise(m=2), QueryLower(), Reorder(k=4)],
    ids=["ca+", "ca-", "qa+", "qa-", "oa"],
)
def test_room_is_what_is_left_up_to_the_fittest_image_there_can_be(make, goal, foreign):
    """Fitness and room add up to the same everywhere, and no image is fitter than that."""
    gallery = make.gallery("cosine", 30, 3)
    clean = gallery.embeddings[:5]
    ids = None if foreign else torch.arange(5)
    bound = goal.bind(AttackContext(gallery=gallery, clean=clean, rng_keys=range(5), seed=0, gallery_ids=ids))
    random = torch.randn(200, 5, 3, generator=make.random(1), dtype=clean.dtype)
    found = [bound.evaluate(z) for z in (clean, *random)]
    most = torch.stack([each.fitness + each.room for each in found])
    torch.testing.assert_close(most, most[:1].expand_as(most))
    assert min(each.room.min() for each in found) >= -1e-9
    if goal.metric == "tau":
        torch.testing.assert_close(most, torch.ones_like(most))
    elif not isinstance(goal, CandidateRaise):
        assert bool((most.abs() < 1e-9).all())
    else:  # the queries themselves stay ahead, unless the candidate's own copy is one
        own = torch.full_like(bound.targets[:, :1], -1) if foreign else ids[:, None]
        ahead = (bound.targets != own).double().mean(1) / len(gallery)
        torch.testing.assert_close(most[0].double(), -ahead)
