import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import (
    PGD,
    CandidateLower,
    CandidateRaise,
    Gallery,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
    load,
)
from rankproof.methods import Converged, Method, MomentumPGD
from rankproof.methods.defaults import published, strong
from rankproof.models import load_checkpoint
from rankproof.ranking.metrics import mean_interval, recall_at
from rankproof.rng import draw
from rankproof.types import Evaluation

EPS = 0.1
METHODS = {
    "pgd": PGD(),
    "pgd, iccv21": PGD(rule="iccv21"),
    "strong": MomentumPGD(),
    "strong, iccv21": MomentumPGD(rule="iccv21"),
    "strong, 5 steps": MomentumPGD(steps=5),
    "converged": Converged(search=MomentumPGD(steps=3), least=3, blocks=4),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


class Stub:
    """An objective that is a call and nothing else; remembers what it was given."""

    def __init__(self, loss, constraint_violation=None):
        self.loss, self.constraint_violation = loss, constraint_violation
        self.images, self.penalty_weights = [], []

    def __call__(self, images, penalty_weight=None):
        self.images.append(images.detach().clone())
        self.penalty_weights.append(None if penalty_weight is None else penalty_weight.clone())
        loss = self.loss(images)
        return Evaluation(
            loss,
            -loss.detach(),
            None if self.constraint_violation is None else self.constraint_violation(images),
        )


class Script(Stub):
    """An objective whose gradient, fitness, loss and violation at each call are given: (calls, attacks)."""

    def __init__(self, fitness, *, loss=None, constraint_violation=None, slope=None):
        super().__init__(None)
        self.script = [
            None if rows is None else torch.tensor(rows, dtype=torch.float64)
            for rows in (fitness, loss, constraint_violation, slope)
        ]

    def __call__(self, images, penalty_weight=None):
        call = len(self.images)
        self.images.append(images.detach().clone())
        self.penalty_weights.append(None if penalty_weight is None else penalty_weight.clone())
        fitness, loss, constraint_violation, slope = (
            None if rows is None else rows[call] for rows in self.script
        )
        values = images.flatten(1).sum(1) * (1 if slope is None else slope)
        values = values - values.detach() + (0 if loss is None else loss)
        return Evaluation(values, fitness, constraint_violation)


def run(method, original, objective, threat, initial=None):
    start = original if initial is None else initial
    return method.run(original, start, objective, threat, seed=0, rng_keys=list(range(len(original))))


def grey(count=1, value=0.5):
    return torch.full((count, 1, 1, 1), value, dtype=torch.float64)


def column(values):
    return [[value] for value in values]


# -- the optimum of a linear ranker is known -------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("goal", "sign"),
    [
        (CandidateRaise(form="distance"), 1),
        (QueryRaise(form="distance"), 1),
        (QueryLower(form="distance"), -1),
    ],
    ids=["ca+", "qa+", "qa-"],
)
def test_reaches_the_optimum_of_a_linear_ranker(make, distance, goal, sign):
    """The item to come near to, or to leave, is the corner of [0, 1] where w.x is largest."""
    w = torch.randn(1, 16, generator=make.random(4), dtype=torch.float64)
    images = torch.cat([(w > 0).double().view(1, 1, 4, 4), make.images(12, seed=2)])
    angles = torch.cat([w, 0 * w]), torch.tensor([0.0, 1.0], dtype=torch.float64)
    encoder = make.flat(*angles) if distance == "cosine" else make.flat(w)
    gallery = Gallery.build(Ranker(encoder, distance), images)
    targets = torch.zeros(12, 1, dtype=torch.int64)
    result = attack(
        gallery,
        images[1:],
        goal,
        Threat(EPS),
        method=MomentumPGD(),
        gallery_ids=torch.arange(1, 13),
        targets=targets,
    )
    best = (images[1:] + sign * EPS * w.sign().view(1, 1, 4, 4)).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, best)


def test_small_last_steps_settle_where_constant_ones_jump_to_and_fro():
    """The minima of |x - 0.437| and others lie between the places that steps of 0.01 reach from 0.5."""
    places = torch.linspace(0.431, 0.439, 9, dtype=torch.float64).view(9, 1, 1, 1)

    def error(method):
        def loss(x):
            return (x - places).abs().flatten(1).sum(1)

        return loss(run(method, grey(9), Stub(loss), Threat(EPS)).images).mean().item()

    assert error(MomentumPGD(momentum=0.0)) < 0.7 * error(PGD())
    assert error(MomentumPGD(momentum=0.0)) < 0.7 * error(MomentumPGD(momentum=0.0, last=0.5))


# -- steps -----------------------------------------------------------------------------------------


def test_steps_shrink_from_eps_to_the_last_along_half_a_cosine():
    objective = Script(column([0] * 3), slope=column([1, -1, 1]))
    run(MomentumPGD(steps=3, momentum=0.0, last=0.05), grey(), objective, Threat(EPS))
    visited = [image.item() for image in objective.images]
    assert visited == pytest.approx([0.5, 0.5 - EPS, 0.5 - EPS + 0.525 * EPS])


def test_no_step_is_longer_than_the_longest():
    for eps, longest, moved in ((EPS, 0.02, 0.02), (0.01, 0.02, 0.01), (EPS, 1.0, EPS)):
        objective = Script(column([0] * 3), slope=column([1, 1, 1]))
        run(MomentumPGD(steps=3, momentum=0.0, longest=longest), grey(), objective, Threat(eps))
        assert objective.images[1].item() == pytest.approx(0.5 - moved)


def test_momentum_carries_over_one_contrary_gradient():
    def fourth(momentum):
        objective = Script(column([0] * 4), slope=column([1, 1, -1, 1]))
        run(MomentumPGD(steps=4, momentum=momentum), grey(), objective, Threat(EPS))
        return objective.images[3].item()

    assert fourth(0.75) == pytest.approx(0.5 - EPS)
    assert fourth(0.0) > 0.5 - EPS + 0.01


def test_the_scale_of_a_loss_does_not_matter(make):
    """Gradients are normalised, each attack by its own: a steep early one must not drown the later ones."""
    original = make.images(3)
    towards = make.images(3, seed=1)

    def images(*scales):
        def loss(x):
            return (x - towards).square().flatten(1).sum(1) * torch.tensor(scales, dtype=x.dtype)

        return run(MomentumPGD(), original, Stub(loss), Threat(EPS)).images

    torch.testing.assert_close(images(1, 1, 1), images(1e-6, 1, 1e6))
    objective = Script(column([0] * 4), slope=column([1000, -1, -1, 1]))
    run(MomentumPGD(steps=4), grey(), objective, Threat(EPS))
    assert objective.images[2].item() > 0.5 - EPS + 0.01


# -- which iterate is returned ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fitness", "loss", "constraint_violation", "best"),
    [
        ([1, 5, 3, 2], None, None, 1),
        ([1, 2, 3, 4], None, None, 3),
        ([9, 5, 3, 2], None, None, 0),
        ([1, 4, 4, 4], [0, 3, 1, 2], None, 2),
        ([1, 4, 4, 4], [-9, 3, 3, 3], None, 1),
        ([1, 9, 3, 2], None, [0.1, 1.1, 0.9, 0.0], 2),
        ([1, 9, 3, 2], None, [0.1, 1.0, 0.9, 0.0], 1),
        ([-500, 9, 7, 8], None, [1.0, 1.1, 1.2, 9.0], 0),
        ([1, 9, 3, 2], [-4, -3, -2, -1], [3.0, 2.0, 1.5, 2.5], 2),
        ([1, 9, 3, 0.1], None, [3.0, 2.0, 1.5, 0.5], 3),
    ],
    ids=[
        "largest fitness",
        "the last",
        "the first",
        "ties by loss",
        "equal loss: the earlier",
        "too large a violation",
        "just tolerable",
        "any tolerable one",
        "none tolerable",
        "late relief",
    ],
)
def test_the_best_eligible_iterate_is_returned(fitness, loss, constraint_violation, best):
    script = Script(
        column(fitness),
        loss=None if loss is None else column(loss),
        constraint_violation=constraint_violation and column(constraint_violation),
        slope=column([1, -1, -1, 1]),
    )  # fmt: skip
    found = run(MomentumPGD(steps=4, momentum=0.0, last=0.3), grey(), script, Threat(EPS))
    visited = [image.item() for image in script.images]
    assert len({round(value, 6) for value in visited}) == 4
    assert found.images.item() == visited[best]


def test_each_attack_keeps_its_own_best():
    script = Script(
        [[1, 3, 0], [2, 2, 0], [3, 1, 0]],
        constraint_violation=[[0, 0, 5], [0, 0, 0.5], [0, 0, 2]],
        slope=[[1] * 3, [-1] * 3, [1] * 3],
    )
    found = run(MomentumPGD(steps=3, momentum=0.0), grey(3), script, Threat(EPS))
    assert [float(image) for image in found.images] == [
        float(script.images[call][attack]) for attack, call in enumerate([2, 0, 1])
    ]


# -- the weight of what is to be kept --------------------------------------------------------------


def test_the_penalty_weight_rises_beyond_the_tolerable_violation_and_falls_within_it():
    violations = [[2.0, 0.5], [0.5, 0.5], [1.0, 1.01], [1.5, 0.0]]
    script = Script([[0, 0]] * 4, constraint_violation=violations)
    run(MomentumPGD(steps=4, penalty_weight=2.0, tighten=1.5, relax=0.8), grey(2), script, Threat(EPS))
    expected = [[2, 2], [2 * 1.5, 2 * 0.8], [3 * 0.8, 1.6 * 0.8], [2.4 * 0.8, 1.28 * 1.5]]
    torch.testing.assert_close(
        torch.stack(script.penalty_weights), torch.tensor(expected, dtype=torch.float64)
    )


def test_the_penalty_weight_stays_where_there_is_no_violation():
    script = Script([[0, 0]] * 5)
    run(MomentumPGD(steps=5, penalty_weight=3.0), grey(2), script, Threat(EPS))
    assert torch.stack(script.penalty_weights).tolist() == [[3.0, 3.0]] * 5


# -- what every method promises --------------------------------------------------------------------


@every_method
@given(
    seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.2 / 255, 1 / 255, 0.03, 8.5 / 255, 0.5, 1.0]),
    grid=st.booleans(),
)
def test_never_leaves_the_threat_set(method, seed, eps, grid):
    random = torch.Generator().manual_seed(seed)
    threat = Threat(eps, grid=grid)
    # a pixel in three is at a border of [0, 1]
    original = threat.start(torch.rand(12, 1, 3, 3, generator=random).mul(1.5).sub(0.25).clamp(0, 1))
    towards = torch.randn(12, 1, 3, 3, generator=random)

    def inside(images):
        assert images.min() >= 0
        assert images.max() <= 1
        assert (images - original).abs().max() <= eps + 1e-6
        if grid:
            assert torch.equal(torch.round(images * 255) / 255, images)

    def loss(images):
        inside(images.detach())
        return (images * towards).sin().flatten(1).sum(1)

    found = run(method, original, Stub(loss, lambda x: 2 * x.detach().flatten(1).mean(1)), threat)
    inside(found.images)
    if eps > 1 / 255:
        assert not torch.equal(found.images, original)


@every_method
def test_the_same_seed_gives_the_same_bytes(gallery, pictures, method):
    def images(goal):
        result = attack(
            gallery, pictures[:4], goal, Threat(EPS), method=method, seed=3, gallery_ids=torch.arange(4)
        )
        assert not torch.equal(result.adversarial, result.original)
        return result.adversarial.numpy().tobytes()

    for goal in (MaxShift(), QueryRaise() + 1.0 * Preserve(g=3)):
        assert images(goal) == images(goal)


@every_method
@pytest.mark.parametrize("eps", [1 / 255, 0.03, 16 / 255])
def test_spends_the_passes_it_promises_and_needs_nothing_but_a_call(make, method, eps):
    objective = Stub(lambda x: x.flatten(1).square().sum(1))
    found = run(method, make.images(2), objective, Threat(eps))
    assert len(objective.images) == found.passes == found.evaluations_of_each.max()
    assert found.passes == method.passes(eps) or (method.name == "converged" and found.passes < 45)
    assert found.images.shape == (2, 1, 4, 4)
    assert not found.images.requires_grad
    assert found.zero_gradient.tolist() == [False, False]
    assert isinstance(method, Method)


@pytest.mark.parametrize("metric", ["rank", "tau", "shift"])
@pytest.mark.parametrize("steps", [None, 7])
def test_strong_spends_exactly_what_the_published_descent_spends(make, metric, steps):
    for eps in (0.01, 0.03, 0.06, 0.3):
        calls = []
        for method in (published(metric, steps), strong(metric, steps)):
            objective = Stub(lambda x: x.flatten(1).sum(1))
            run(method, make.images(2), objective, Threat(eps))
            calls.append(len(objective.images))
        assert calls[0] == calls[1]
        assert steps is None or calls[0] == 7


@every_method
@pytest.mark.parametrize(
    "goal",
    [QueryRaise() + 1.0 * Preserve(g=3), QueryLower(m=2), Reorder(k=4), CandidateLower(w=2), MaxShift()],
    ids=["sp-qa+", "qa-", "oa", "ca-", "shift"],
)
def test_an_attack_does_not_depend_on_its_neighbours(gallery, pictures, method, goal):
    index = torch.arange(5)
    options = {"method": method, "seed": 2}
    together = attack(gallery, pictures[:5], goal, Threat(EPS), gallery_ids=index, **options)
    order = torch.tensor([4, 1])
    apart = attack(gallery, pictures[order], goal, Threat(EPS), gallery_ids=order, **options)
    # Where a gradient is nothing but rounding, its sign depends on how many rows the processor multiplies at
    # once, and single pixels may go the other way.
    gaps = (apart.adversarial - together.adversarial[order]).abs()
    assert int((gaps > 1e-7).sum()) <= 3
    assert torch.equal(apart.targets, together.targets[order])


@every_method
def test_zero_gradients_are_reported_for_each_attack(method):
    slopes = torch.tensor([0.0, 1.0, float("nan")], dtype=torch.float64)
    found = run(method, grey(3), Stub(lambda x: x.flatten(1).sum(1) * slopes), Threat(EPS))
    assert found.zero_gradient.tolist() == [True, False, True]
    assert found.images.flatten().tolist()[::2] == [0.5, 0.5]


# -- bad settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5, float("nan")])
def test_a_bad_momentum(momentum):
    with pytest.raises(RankproofError, match=r"momentum must be in \[0, 1\)"):
        MomentumPGD(momentum=momentum)


@pytest.mark.parametrize("longest", [0.0, -0.1, 1.5, float("nan")])
def test_a_bad_longest(longest):
    with pytest.raises(RankproofError, match=r"longest must be in \(0, 1\]"):
        MomentumPGD(longest=longest)


@pytest.mark.parametrize("kind", [PGD, MomentumPGD])
@pytest.mark.parametrize("steps", [0, -3])
def test_a_bad_steps(kind, steps):
    with pytest.raises(RankproofError, match=f"steps must be at least 1, got {steps}"):
        kind(steps=steps)
    with pytest.raises(RankproofError, match="steps must be at least 1"):
        replace(kind(), steps=steps)


# -- the shipped model on its data -----------------------------------------------------------------

ZOO = "zoo:fashion-mnist/c2f1-ct"
QUERIES = 40


@pytest.fixture(scope="module")
def fashion():
    """The Fashion-MNIST test split."""
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    if not (root / "fashion-mnist").is_dir():
        pytest.skip(f"no fashion-mnist below {root}; set RANKPROOF_DATA")
    return load("fashion-mnist", "test", root=root)


@pytest.fixture(scope="module")
def shipped(fashion):
    """The test split as the shipped model sees it."""
    ranker = Ranker(load_checkpoint(ZOO).encoder, "cosine", name=ZOO)
    return Gallery.build(ranker, fashion.images, fashion.labels)


def both(gallery, goal, eps):
    """The published attack and ours on the same queries."""
    index = draw(len(gallery), QUERIES, 0)
    images = gallery.images[index]
    return [
        attack(gallery, images, goal, Threat(eps), method=preset(goal.metric), gallery_ids=index)
        for preset in (published, strong)
    ]


def test_strong_reorders_better_and_keeps_the_results_in_sight(shipped):
    plain, ours = both(shipped, Reorder(k=5), 4 / 255)
    assert plain.tau.mean() > 0.05
    assert ours.tau.mean() >= 1.3 * plain.tau.mean()
    assert ours.mean_rank.mean() <= plain.mean_rank.mean()


def test_a_larger_budget_never_weakens_an_order(shipped):
    """Steps as long as a large eps jump over the fine differences that make an order."""
    taus = [both(shipped, Reorder(k=10), level / 255)[1].tau.mean() for level in (4, 8, 16)]
    assert taus == sorted(taus)
    assert taus[-1] > taus[0] + 0.05


@pytest.mark.parametrize(
    ("goal", "sign"), [(CandidateRaise(), -1), (CandidateLower(), 1)], ids=["ca+", "ca-"]
)
def test_strong_moves_candidates_no_less_far(shipped, goal, sign):
    plain, ours = both(shipped, goal, 0.03)
    assert sign * (plain.headline() - plain.headline(after=False)).mean() > 5
    assert mean_interval(sign * (ours.headline() - plain.headline())).mean >= 0


@pytest.mark.slow
def test_the_shipped_model_recalls_what_its_record_says(shipped):
    recall = 100 * float(recall_at(shipped, 1).mean())
    assert recall == pytest.approx(load_checkpoint(ZOO).record["recall_at_1"], abs=0.05)
