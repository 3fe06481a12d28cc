"""A stronger white-box search for the same threat and the same number of evaluations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from rankproof.methods.white_box.base import MethodOutput
from rankproof.methods.white_box.pgd import PGD, Rule, ascend, normalised
from rankproof.parameters import Checked, Count, Momentum, Positive, PositiveShare, Share, Weight
from rankproof.threat import Threat
from rankproof.types import Evaluation, Images, Objective, PerAttack

REJECTED = -1e6  # below any fitness: where what is to be kept has moved too far
CHANGED = ("point", "velocity", "penalty_weight", "zero_gradient")  # of a path by every step


@dataclass(frozen=True, kw_only=True)
class MomentumPGD(Checked):
    """Sign steps on momentum with a step that decays to near 0; the best iterate is returned.

    g_t = grad L(x_t) / mean |grad L(x_t)|        v_t = mu v_{t-1} + g_t
    x_{t+1} = Clip_Gamma( x_t - min(eps, `longest`) s_t sign(v_t) )
                                                  s_t from 1 to `last` along half a cosine

    Three things make it stronger than the published descent: large first steps reach the far side of the
    ball at once and small last ones settle; momentum damps the zigzag between what is wanted and what is to
    be kept; and the iterate that is best by the goal's own figure, not the last one, is returned. Where a
    goal has a constraint, the weight of what is to be kept is adapted for each attack, and only iterates that
    do not violate it are eligible.

    Args:
        steps: evaluations; None takes as many as the published descent of `rule`.
        rule: "eccv20" or "iccv21".
        momentum: mu in [0, 1).
        longest: no step is longer, in [0, 1]. An order is settled by fine differences, which long steps jump
            over however large eps is.
        last: the last step as a share of the first.
        penalty_weight: first factor on the weight of what is to be kept.
        tighten, relax: factors on it after an evaluation that violates the constraint, or keeps it.
    """

    steps: Count | None = None
    rule: Rule = "eccv20"
    momentum: Momentum = 0.75
    longest: PositiveShare = 1.0
    last: Share = 0.05
    penalty_weight: Weight = 2.0
    tighten: Positive = 1.5
    relax: Positive = 0.8

    name = "strong"

    def passes(self, eps: float) -> int:
        """As many as the published descent."""
        return PGD(steps=self.steps, rule=self.rule).passes(eps)

    def run(
        self,
        original: Images,
        initial: Images,
        objective: Objective,
        threat: Threat,
        *,
        seed: int,
        rng_keys: Sequence[int],
    ) -> MethodOutput:
        """Attack a batch; uses no random numbers."""
        passes = self.passes(threat.eps)
        path = Path.begin(original, initial, threat, self.penalty_weight)
        for number in range(passes):
            self.step(path, objective, self.share(number, passes))
        return MethodOutput(path.best.images, passes, path.zero_gradient)

    def step(self, path: "Path", objective: Objective, share: float) -> None:
        """Evaluate where each attack is, keep what is better, and move on.

        Args:
            path: where the attacks are; changed.
            objective: scores their images.
            share: length of the step as a share of the longest.
        """
        threat, ball = path.threat, Threat(path.threat.eps)
        images = threat.project(path.point, path.original)
        gradient, evaluation = ascend(objective, images, path.penalty_weight)
        path.best.consider(images, evaluation)
        path.zero_gradient &= (gradient == 0).flatten(1).all(1)
        if evaluation.constraint_violation is not None:
            path.penalty_weight = path.penalty_weight * torch.where(
                evaluation.constraint_violation > 1, self.tighten, self.relax
            )
        path.velocity = self.momentum * path.velocity + normalised(gradient)
        step = min(threat.eps, self.longest) * share
        path.point = ball.project(path.point - step * path.velocity.sign(), path.original)

    def share(self, number: int, passes: int, first: float = 1.0) -> float:
        """The step after evaluation `number` of `passes` as a share of the longest, of which the first is."""
        progress = number / max(1, passes - 1)
        return self.last + (first - self.last) * (1 + math.cos(math.pi * progress)) / 2


class Best:
    """The best image of each attack so far: within the constraint, then by fitness, then by loss."""

    def __init__(self, images: Images) -> None:
        self.images = images.clone()
        self.fitness = images.new_full((len(images),), -math.inf)
        self.loss = images.new_full((len(images),), math.inf)
        self.room = images.new_full((len(images),), math.inf)  # how much fitter an image could be

    def consider(self, images: Images, evaluation: Evaluation) -> None:
        """Keep what is better."""
        fitness = eligible(evaluation)
        better = (fitness > self.fitness) | ((fitness == self.fitness) & (evaluation.loss < self.loss))
        self.fitness = torch.where(better, fitness, self.fitness)
        self.loss = torch.where(better, evaluation.loss, self.loss)
        self.images = torch.where(better[:, None, None, None], images, self.images)
        if evaluation.room is not None:
            room = evaluation.room.to(self.room)
            if evaluation.constraint_violation is not None:
                room = room.masked_fill(evaluation.constraint_violation > 1, math.inf)
            self.room = torch.where(better, room, self.room)

    def take(self, rows: Tensor) -> "Best":
        """That of the attacks at some rows (k,)."""
        part = Best(self.images[rows])
        part.fitness, part.loss, part.room = self.fitness[rows], self.loss[rows], self.room[rows]
        return part

    def put(self, rows: Tensor, part: "Best") -> None:
        """Take over what `take(rows)` has become."""
        self.images[rows], self.fitness[rows] = part.images, part.fitness
        self.loss[rows], self.room[rows] = part.loss, part.room


@dataclass(kw_only=True)
class Path:
    """Where the attacks of a batch are on their way.

    Args:
        threat: what may be changed.
        original: (b, c, h, w) centres of the threat sets.
        point: (b, c, h, w) where they are; it moves freely in the ball and is put on the threat's grid to be
            evaluated.
        velocity: (b, c, h, w) the momentum.
        penalty_weight: (b,) factor on the weight of what is to be kept.
        zero_gradient: (b,) whether every gradient so far was zero.
        best: the best images so far.
    """

    threat: Threat
    original: Images
    point: Images
    velocity: Images
    penalty_weight: PerAttack
    zero_gradient: Bool[Tensor, " b"]
    best: Best

    @classmethod
    def begin(cls, original: Images, initial: Images, threat: Threat, penalty_weight: float) -> "Path":
        """The start, at rest."""
        return cls(
            threat=threat,
            original=original,
            point=initial.clone(),
            velocity=torch.zeros_like(initial),
            penalty_weight=initial.new_full((len(initial),), penalty_weight),
            zero_gradient=torch.ones(len(initial), dtype=torch.bool, device=initial.device),
            best=Best(threat.project(initial, original)),
        )

    def take(self, rows: Tensor) -> "Path":
        """That of the attacks at some rows (k,)."""
        changed = {name: getattr(self, name)[rows] for name in ("original", *CHANGED)}
        return replace(self, best=self.best.take(rows), **changed)

    def put(self, rows: Tensor, part: "Path") -> None:
        """Take over what `take(rows)` has become."""
        for name in CHANGED:
            getattr(self, name)[rows] = getattr(part, name)
        self.best.put(rows, part.best)


def eligible(evaluation: Evaluation) -> PerAttack:
    """The fitness; where the constraint is violated, something lower than any fitness."""
    violation = evaluation.constraint_violation
    if violation is None:
        return evaluation.fitness
    return torch.where(violation > 1, REJECTED - violation, evaluation.fitness)
