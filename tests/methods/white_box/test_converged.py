import itertools

import pytest
import torch

from rankproof import (
    AttackResult,
    CandidateLower,
    CandidateRaise,
    Converged,
    Gallery,
    MaxShift,
    MomentumPGD,
    Preserve,
    QueryLower,
    QueryRaise,
    RankproofError,
    Reorder,
    Threat,
    attack,
)
from rankproof.methods.defaults import converged, strong
from rankproof.types import Evaluation, SplitObjective

EPS = 0.1
GOALS = {
    "ca+": CandidateRaise(w=2),
    "ca-": CandidateLower(),
    "qa-": QueryLower(m=2),
    "sp-qa+": QueryRaise() + 1.0 * Preserve(g=3),
    "oa": Reorder(k=4),
    "shift": MaxShift(),
}
every_goal = pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)


class Script:
    """An objective that gives each attack a fitness by its number of evaluations, and can be split.

    Args:
        fitness: for each attack the fitness from evaluation 0, 1, ... on; the last one stays.
        room, violation: as `fitness`, or None.
    """

    def __init__(self, fitness, room=None, violation=None):
        self.lines = {"fitness": fitness, "room": room, "violation": violation}
        self.seen = [0] * len(fitness)

    def part(self, rows, images):
        def value(name):
            lines = self.lines[name]
            if lines is None:
                return None
            return torch.tensor(
                [lines[row][min(self.seen[row], len(lines[row]) - 1)] for row in rows]
            ).double()

        assert len(images) == len(rows)
        found = Evaluation(images.flatten(1).sum(1), value("fitness"), value("violation"), room=value("room"))
        for row in rows:
            self.seen[row] += 1
        return found

    def __call__(self, images, penalty_weight=None):
        return self.part(range(len(self.seen)), images)

    def take(self, rows):
        return lambda images, penalty_weight=None: self.part(rows.tolist(), images)


def grey(count):
    return torch.full((count, 1, 2, 2), 0.5, dtype=torch.float64)


def run(method, objective, count):
    return method.run(grey(count), grey(count), objective, Threat(EPS), seed=0, rng_keys=list(range(count)))


def method(**more):
    return Converged(**{"search": MomentumPGD(steps=2), "blocks": 4, "tolerance": 0.1, "least": 1, **more})


@pytest.fixture(scope="module")
def gallery(make):
    images = make.images(24)
    return Gallery.build(make.ranker(), images, torch.arange(24) % 2)


def attacked(gallery, goal, search, count=5, eps=EPS, **more):
    ids = torch.arange(count)
    return attack(gallery, gallery.images[ids], goal, Threat(eps), method=search, gallery_ids=ids, **more)


# -- when an attack ends ---------------------------------------------------------------------------


def test_each_attack_ends_after_the_block_that_brought_it_too_little():
    """Blocks of 2, 4, 8 and 16 evaluations: they end after 2, 6, 14 and 30."""
    still = [0.0]
    early = [0.0] * 2 + [1.0]  # the second block helps, the third does not
    late = [0.0] * 6 + [1.0]  # the third block helps, the fourth does not
    little = [0.0] * 6 + [0.05]
    objective = Script([still, early, late, little])
    found = run(method(), objective, 4)
    assert found.evaluations.tolist() == objective.seen == [14, 14, 30, 14]
    assert found.passes == 30 == method().passes(EPS)


def test_with_more_patience_several_blocks_in_a_row_have_to_bring_nothing():
    still, late, both = [0.0], [0.0] * 6 + [1.0], [0.0] * 2 + [0.06] * 4 + [0.12]
    found = run(method(patience=2, blocks=5), Script([still, late, both]), 3)
    assert found.evaluations.tolist() == [30, 62, 30]
    assert run(method(patience=2), Script([[0.0] * 3 + [0.06] * 11 + [0.12]]), 1).passes == 30


def test_a_block_more_is_taken_as_long_as_each_helps_and_never_more_than_allowed():
    rising = [number / 2 for number in range(100)]
    for blocks, spent in ((3, 14), (4, 30), (5, 62)):
        assert run(method(blocks=blocks), Script([rising]), 1).evaluations.tolist() == [spent]


def test_blocks_are_not_short_where_the_first_one_is():
    """At small budgets the published number of steps is 10, which says little of what more would bring."""
    search = Converged(search=MomentumPGD(), blocks=4)
    assert [search.length(number, 1 / 255) for number in range(4)] == [10, 40, 80, 160]
    assert [search.length(number, 0.1) for number in range(4)] == [20, 40, 80, 160]
    assert [search.length(number, 0.3) for number in range(4)] == [30, 60, 120, 240]
    assert search.passes(1 / 255) == 290
    assert run(method(least=3), Script([[0.0]]), 1).evaluations.tolist() == [2 + 6 + 12]


def test_what_has_no_fixed_scale_ends_by_its_own_size():
    found = run(method(tolerance=0.0, relative=0.01), Script([[1000.0] * 6 + [1009.0], [1.0] * 6 + [2.0]]), 2)
    assert found.evaluations.tolist() == [14, 30]


def test_a_fitness_that_is_no_number_ends_it():
    assert run(method(), Script([[float("nan")]]), 1).evaluations.tolist() == [14]


def test_an_attack_that_can_become_no_fitter_leaves_at_once_unless_it_violates():
    objective = Script(
        [[0.0] * 3 + [1.0], [1.0], [1.0]],
        room=[[1.0] * 3 + [0.0], [0.0], [0.0]],
        violation=[[0.5], [0.5], [1.5]],
    )
    found = run(method(), objective, 3)
    assert found.evaluations.tolist() == objective.seen == [4, 1, 14]


def test_an_objective_that_cannot_be_split_is_asked_for_all():
    split = Script([[0.0] * 6 + [1.0], [0.0], [0.0] * 6 + [2.0]])
    assert isinstance(split, SplitObjective)
    sizes = []

    def whole(images, penalty_weight=None):
        sizes.append((len(images), len(penalty_weight)))
        return Evaluation(images.flatten(1).sum(1), -images.detach().flatten(1).sum(1) * weight)

    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    found = run(method(tolerance=0.0), whole, 3)
    assert set(sizes) == {(3, 3)}
    assert found.evaluations.tolist()[1] == 14
    assert found.images[0].eq(0.5 - EPS).all()


# -- where blocks begin ----------------------------------------------------------------------------


def test_blocks_begin_at_the_best_image_and_at_random_points_in_turn():
    seen = []

    def objective(images, penalty_weight=None):
        seen.append(images.detach().clone())
        return Evaluation(images.flatten(1).sum(1), -images.detach().flatten(1).sum(1))

    found = run(method(blocks=5, tolerance=0.0, search=MomentumPGD(steps=2)), objective, 1)
    assert found.images.eq(0.5 - EPS).all()
    assert seen[2].eq(0.5 - EPS).all()  # the best so far
    assert (seen[6] - (0.5 - EPS)).abs().max() > 0  # a random point
    assert seen[6].unique().numel() == 4


def test_random_points_come_from_the_seed_and_the_attack_alone():
    def starts(keys, seed=0):
        seen = []

        def objective(images, penalty_weight=None):
            seen.append(images.detach().clone())
            return Evaluation(images.flatten(1).sum(1), -images.detach().flatten(1).sum(1))

        count = len(keys)
        method().run(grey(count), grey(count), objective, Threat(EPS), seed=seed, rng_keys=keys)
        return seen[6]

    assert torch.equal(starts([7, 3])[1], starts([3])[0])
    assert not torch.equal(starts([3]), starts([7]))
    assert not torch.equal(starts([3]), starts([3], seed=1))


def test_the_originals_are_left_alone():
    original = grey(2)
    method().run(original, original, Script([[0.0], [0.0]]), Threat(EPS), seed=0, rng_keys=[0, 1])
    assert torch.equal(original, grey(2))


# -- on a gallery ----------------------------------------------------------------------------------


@every_goal
def test_never_weaker_than_strong(gallery, goal):
    theirs = strong(goal.metric, 5)
    found, ours, alone = (
        attacked(gallery, goal, search)
        for search in (theirs, converged(goal.metric, 5), Converged(search=theirs, blocks=1))
    )
    assert fitness(gallery, goal, ours).ge(fitness(gallery, goal, found) - 1e-6).all()
    assert torch.equal(alone.headline(), found.headline())


@every_goal
def test_more_blocks_are_never_worse(gallery, goal):
    reached = [
        fitness(gallery, goal, attacked(gallery, goal, Converged(search=MomentumPGD(steps=2), blocks=blocks)))
        for blocks in (1, 2, 4)
    ]
    assert all(bool((more >= less - 1e-6).all()) for less, more in itertools.pairwise(reached))


def fitness(gallery, goal, result):
    """The goal's own figure of each image that an attack returned."""
    bound_images = []

    class Reader:
        name = "reader"

        def passes(self, eps):
            return 1

        def run(self, original, initial, objective, threat, *, seed, rng_keys):
            found = objective(result.adversarial)
            value = found.fitness.detach()
            if found.constraint_violation is not None:
                value = value.masked_fill(found.constraint_violation > 1, -1e6)
            bound_images.append(value)
            return MomentumPGD(steps=1).run(
                original, initial, objective, threat, seed=seed, rng_keys=rng_keys
            )

    attacked(gallery, goal, Reader(), len(result))
    return torch.cat(bound_images)


def test_evaluations_are_told_for_each_attack(gallery, tmp_path):
    told = []
    result = attacked(
        gallery, GOALS["oa"], converged("tau"), 8, progress=lambda done, total: told.append((done, total))
    )
    spent = result.evaluations
    assert spent.dtype == torch.int64
    assert 0 < spent.min() < spent.max() == result.steps
    assert told[-1][0] == told[-1][1] == max(done for done, _ in told) == 8 * converged("tau").passes(EPS)
    summary = result.summary.to_json()
    assert (summary["evaluations"], summary["evaluations_max"]) == (spent.double().mean(), spent.max())
    assert result[[5, 2]].evaluations.tolist() == spent[[5, 2]].tolist()
    assert AttackResult.concat([result[:3], result[3:]]).evaluations.tolist() == spent.tolist()
    result.save(tmp_path)
    assert AttackResult.load(tmp_path).evaluations.tolist() == spent.tolist()


def test_no_budget_needs_no_evaluation(gallery):
    result = attacked(gallery, QueryRaise(), converged("rank"), eps=0.0)
    assert torch.equal(result.adversarial, result.original)
    assert result.evaluations.tolist() == [0] * 5


@pytest.mark.parametrize("goal", [CandidateRaise(), QueryRaise(), Reorder(k=2)], ids=["ca+", "qa+", "oa"])
def test_an_attack_that_has_all_it_wants_stops(gallery, goal):
    """Over the whole range of pixels nearly every item comes first; nothing is left to look for then."""
    result = attacked(gallery, goal, converged(goal.metric), 12, eps=1.0)
    reached = result.tau == 1 if goal.metric == "tau" else result.rank_after[:, 0] <= 100 / len(gallery)
    first, length = strong(goal.metric).passes(1.0), max(20, strong(goal.metric).passes(1.0))
    least = first + length * (14 if goal.metric == "tau" else 6)
    assert reached.sum() >= 3
    assert bool((result.evaluations[reached] < least).any())
    assert bool((result.evaluations[~reached] >= least).all())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("blocks", 0, "blocks must be at least 1"),
        ("tolerance", -0.1, "tolerance must be"),
        ("first", 0.0, r"first must be in \(0, 1\]"),
    ],
)
def test_bad_settings(setting, value, message):
    with pytest.raises(RankproofError, match=message):
        Converged(**{setting: value})
