"""The goals behind the robustness score against plain loops in double precision, and against PGD."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import PGD, Gallery, Preserve, Ranker, RankproofError, Threat, attack, load
from rankproof.attacks.result import AttackResult
from rankproof.goals import AttackContext, LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.models.small_cnns import DigitsEncoder
from rankproof.ranking import gallery as gallery_room

CLASSES = 3
GOALS = [Mismatch(), NearestOther(), Misrank(), LeaveTop()]
all_goals = pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.spec.name)
both_distances = pytest.mark.parametrize("distance", ["cosine", "euclidean"])
cases = given(n=st.integers(9, 20), d=st.integers(2, 5), b=st.integers(1, 5), seed=st.integers(0, 9999))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of items and of queries, as a large gallery has."""
    monkeypatch.setattr(gallery_room, "BLOCK_ITEMS", 7)
    monkeypatch.setattr(gallery_room, "BLOCK_QUERIES", 2)


def far(distance, a, b):
    """One distance, by its definition."""
    if distance == "cosine":
        return 1 - torch.dot(a, b) / (a.norm() * b.norm())
    return ((a - b) ** 2).sum().sqrt()


@dataclass
class World:
    """A labelled gallery, the items attacked, and embeddings somewhere else that they are moved to."""

    distance: str
    context: AttackContext
    raw: torch.Tensor

    @classmethod
    def of(cls, make, distance, n, d, b, seed, **chosen):
        bare = make.gallery(distance, n, d, seed)
        labels = torch.arange(n)[torch.randperm(n, generator=make.random(seed + 4))] % CLASSES
        gallery = Gallery(bare.ranker, bare.embeddings, labels)
        index = torch.randint(n, (b,), generator=make.random(seed + 2))
        clean = gallery.embeddings[index]
        raw = torch.randn(b, d, generator=make.random(seed + 1), dtype=torch.float64).requires_grad_(True)
        context = AttackContext(
            gallery=gallery, clean=clean, rng_keys=index.tolist(), seed=seed, gallery_ids=index, **chosen
        )
        return cls(distance, context, raw)

    @property
    def z(self):
        return self.raw

    def others(self, i, rows, fits=lambda label, own: True):
        """(distance, item) of every other item that fits, for row i of embeddings, nearest first."""
        own, labels = int(self.context.gallery_ids[i]), self.context.gallery.labels.tolist()
        found = []
        for x, embedding in enumerate(self.context.gallery.embeddings):
            if x != own and fits(labels[x], labels[own]):
                found.append((float(far(self.distance, rows[i], embedding)), x))
        return sorted(found)

    def to(self, i, item):
        """The distance of the moved embedding to an item, with a gradient."""
        return far(self.distance, self.raw[i], self.context.gallery.embeddings[item])

    def still_found(self, i):
        """1 where the nearest other item of the moved embedding has its class."""
        nearest = self.others(i, self.raw.detach())[0][1]
        labels = self.context.gallery.labels
        return float(labels[nearest] == labels[self.context.gallery_ids[i]])

    def check(self, bound, losses, fitnesses):
        evaluation, expected = bound.evaluate(self.z), torch.stack(losses)
        torch.testing.assert_close(evaluation.loss, expected)
        torch.testing.assert_close(evaluation.fitness, torch.stack(fitnesses).detach())
        assert evaluation.constraint_violation is None
        assert not bound.stationary
        assert bound.preserved.shape == (len(losses), 0)
        weights = torch.arange(1.0, len(losses) + 1, dtype=torch.float64)
        (found,) = torch.autograd.grad((evaluation.loss * weights).sum(), self.raw, allow_unused=True)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), self.raw)
        torch.testing.assert_close(found, wanted)


def alike(label, own):
    return label == own


def unlike(label, own):
    return label != own


@both_distances
@cases
def test_mismatch_equals_the_loop(make, distance, n, d, b, seed):
    world = World.of(make, distance, n, d, b, seed)
    bound = Mismatch().bind(world.context)
    assert bound.targets.shape == (b, 1)
    assert bool((bound.targets[:, 0] != world.context.gallery_ids).all())
    distances = [world.to(i, c) for i, c in enumerate(bound.targets[:, 0])]
    world.check(bound, distances, [-own for own in distances])
    torch.testing.assert_close(bound.metrics(world.z)["distance"], torch.stack(distances))


def test_mismatch_draws_every_other_item_about_as_often(make):
    bare = make.gallery("cosine", 6)
    context = AttackContext(
        gallery=bare,
        clean=bare.embeddings[torch.full((3000,), 2)],
        rng_keys=range(3000),
        seed=1,
        gallery_ids=torch.full((3000,), 2),
    )
    counts = Mismatch().bind(context).targets.flatten().bincount(minlength=6).tolist()
    assert counts[2] == 0
    assert all(500 < count < 700 for item, count in enumerate(counts) if item != 2)
    stranger = AttackContext(gallery=bare, clean=context.clean, rng_keys=range(3000), seed=1)
    assert Mismatch().bind(stranger).targets.flatten().bincount(minlength=6).min() > 400


@both_distances
@cases
def test_nearest_other_equals_the_loop(make, distance, n, d, b, seed):
    world = World.of(make, distance, n, d, b, seed)
    bound = NearestOther().bind(world.context)
    nearest = [world.others(i, world.context.clean, unlike)[0][1] for i in range(b)]
    assert bound.targets[:, 0].tolist() == nearest
    distances = [world.to(i, c) for i, c in enumerate(nearest)]
    world.check(bound, distances, [-own for own in distances])
    metrics = bound.metrics(world.z)
    assert metrics["hit"].tolist() == [world.still_found(i) for i in range(b)]
    torch.testing.assert_close(metrics["distance"], torch.stack(distances))


@both_distances
@cases
def test_misrank_equals_the_loop(make, distance, n, d, b, seed):
    world = World.of(make, distance, n, d, b, seed)
    bound = Misrank().bind(world.context)
    pairs = [
        [
            world.others(i, world.context.clean, unlike)[-1][1],
            world.others(i, world.context.clean, alike)[0][1],
        ]
        for i in range(b)
    ]
    assert bound.targets.tolist() == pairs
    gaps = [world.to(i, negative) - world.to(i, positive) for i, (negative, positive) in enumerate(pairs)]
    world.check(bound, [gap.relu() for gap in gaps], [-gap for gap in gaps])
    assert bound.metrics(world.z)["hit"].tolist() == [world.still_found(i) for i in range(b)]


@both_distances
@pytest.mark.parametrize("exclude_self", [False, True])
@cases
def test_leave_top_equals_the_loop(make, distance, exclude_self, n, d, b, seed):
    world = World.of(make, distance, n, d, b, seed, exclude_self=exclude_self)
    bound = LeaveTop().bind(world.context)
    nearest = [world.others(i, world.context.clean)[0][1] for i in range(b)]
    assert bound.targets[:, 0].tolist() == nearest
    losses, fitnesses, kept = [], [], []
    for i, c in enumerate(nearest):
        own = world.to(i, c)
        hinges = [(world.to(i, x) - own).relu() for x in range(n)]
        losses.append(sum(hinges) / n)
        fitnesses.append(-torch.tensor([float(h > 0) for h in hinges], dtype=torch.float64).mean())
        order = [x for _, x in world.others(i, world.raw.detach())]
        kept.append(float(order.index(c) < 4))
    world.check(bound, losses, fitnesses)
    assert bound.metrics(world.z)["kept"].tolist() == kept


def test_a_duplicate_of_the_query_is_another_item(make):
    """Only the item itself is left out; its copies are found, and are positives."""
    line = torch.tensor([[0.0], [0.0], [1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    bare = make.raw("euclidean", line)
    gallery = Gallery(bare.ranker, line, torch.tensor([0, 0, 0, 1, 1, 1]))
    context = AttackContext(
        gallery=gallery, clean=line[:1], rng_keys=[0], seed=0, gallery_ids=torch.tensor([0])
    )
    assert Misrank().bind(context).targets.tolist() == [[5, 1]]
    assert LeaveTop().bind(context).targets.tolist() == [[1]]
    assert NearestOther().bind(context).metrics(line[:1])["hit"].tolist() == [1.0]
    # At 3.5 the items stand 4 5 3 2 and then the two copies: the nearest fell to place 4, counted from 0.
    assert LeaveTop().bind(context).metrics(line[:1] + 3.5)["kept"].tolist() == [0.0]
    assert LeaveTop().bind(context).metrics(line[:1] + 1.5)["kept"].tolist() == [1.0]


@all_goals
def test_explicit_targets_replace_the_choice(make, goal):
    wanted = torch.tensor([[3, 1], [0, 7]])[:, : 2 if isinstance(goal, Misrank) else 1]
    world = World.of(make, "cosine", 12, 3, 2, 0, targets=wanted)
    assert goal.bind(world.context).targets.tolist() == wanted.tolist()
    wrong = World.of(make, "cosine", 12, 3, 2, 0, targets=torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(RankproofError, match=r"targets: expected 2 x \d gallery positions.* got \(2, 3\)"):
        goal.bind(wrong.context)


@all_goals
def test_a_goal_keeps_single_precision_while_the_attack_runs(make, goal):
    context = World.of(make, "cosine", 12, 3, 2, 0).context
    gallery = Gallery(context.gallery.ranker, context.gallery.embeddings.float(), context.gallery.labels)
    clean = context.clean.float()
    bound = goal.bind(
        AttackContext(gallery=gallery, clean=clean, rng_keys=[0, 1], seed=0, gallery_ids=context.gallery_ids)
    )
    evaluation = bound.evaluate(clean)
    assert evaluation.loss.dtype == evaluation.fitness.dtype == torch.float32
    assert all(values.dtype == torch.float64 for values in bound.metrics(clean).values())


@pytest.mark.parametrize("goal", [NearestOther(), Misrank()], ids=lambda goal: goal.spec.name)
def test_goals_about_classes_need_them(make, goal):
    context = World.of(make, "cosine", 12, 3, 2, 0).context
    for gallery, index in ((make.gallery("cosine", 12, 3), context.gallery_ids), (context.gallery, None)):
        lacking = AttackContext(
            gallery=gallery, clean=context.clean, rng_keys=[0, 1], seed=0, gallery_ids=index
        )
        with pytest.raises(RankproofError, match=r"labels, and gallery_ids="):
            goal.bind(lacking)


@pytest.mark.parametrize(
    ("goal", "labels", "reason"),
    [
        (NearestOther(), [0] * 6, "item 1 needs an item of another class"),
        (Misrank(), [0] * 6, "item 1 needs an item of another class"),
        (Misrank(), [0, 1, 0, 0, 2, 2], "item 1 needs another item of its class"),
    ],
)
def test_a_missing_positive_or_negative_is_named(make, goal, labels, reason):
    bare = make.gallery("euclidean", 6)
    gallery = Gallery(bare.ranker, bare.embeddings, torch.tensor(labels))
    index = torch.tensor([4, 1] if labels[1] else [1])
    context = AttackContext(
        gallery=gallery, clean=bare.embeddings[index], rng_keys=index.tolist(), seed=0, gallery_ids=index
    )
    with pytest.raises(RankproofError, match=reason):
        goal.bind(context)


def test_leaving_the_first_four_takes_more_than_four_others(make):
    bare = make.gallery("cosine", 5)
    context = AttackContext(
        gallery=bare, clean=bare.embeddings[:1], rng_keys=[0], seed=0, gallery_ids=torch.tensor([0])
    )
    with pytest.raises(RankproofError, match="more than 4 other items"):
        LeaveTop().bind(context)
    LeaveTop().bind(AttackContext(gallery=bare, clean=bare.embeddings[:1], rng_keys=[0], seed=0))


def test_names_and_parameters():
    assert [goal.spec.name for goal in GOALS] == ["mismatch", "nearest-other", "misrank", "top4"]
    assert [goal.metric for goal in GOALS] == ["distance", "hit", "hit", "kept"]
    assert set(LeaveTop().parameters.values()) == {None}
    with pytest.raises(RankproofError, match="only query goals can be added"):
        LeaveTop() + 1.0 * Preserve()


# -- attacks in earnest


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def digits(request):
    """The embedded digits under an encoder with random weights, in single precision."""
    torch.manual_seed(0)
    data = load("digits")
    return data, Gallery.build(Ranker(DigitsEncoder(), request.param), data.images, data.labels)


@all_goals
def test_descent_gets_every_goal_further(digits, goal, monkeypatch):
    monkeypatch.undo()  # large blocks
    data, gallery = digits
    index = torch.arange(0, 797, 12)
    method = PGD(steps=16, step=3 / 255)
    result = attack(
        gallery,
        data.take(index),
        goal,
        Threat(0.2),
        method=method,
        gallery_ids=index,
        seed=2,
        exclude_self=True,
    )
    before, after = result.headline(after=False), result.headline()
    assert after.mean() < 0.7 * before.mean()
    assert result.zero_gradient.float().mean() < 0.1
    if goal.metric == "kept":
        assert before.tolist() == [1.0] * len(index)
    if goal.metric == "hit":
        assert before.mean() > 0.9


def test_a_result_is_kept_in_files(digits, tmp_path):
    data, gallery = digits
    index = torch.arange(3)
    result = attack(gallery, data.take(index), NearestOther(), Threat(8 / 255), gallery_ids=index)
    again = AttackResult.load(result.save(tmp_path))
    assert (again.metric, again.goal) == ("hit", "nearest-other")
    assert again.after["hit"].tolist() == result.after["hit"].tolist()
    assert again.summary == result.summary
