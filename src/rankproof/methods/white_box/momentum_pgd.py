"""A stronger white-box search for the same threat and the same number of evaluations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rankproof.methods.white_box.base import MethodOutput
from rankproof.methods.white_box.pgd import PGD, Rule, ascend
from rankproof.parameters import Checked, Count, Momentum, Positive, PositiveShare, Share, Weight
from rankproof.threat import Threat
from rankproof.types import Evaluation, Images, Objective, PerAttack


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
        passes, ball = self.passes(threat.eps), Threat(threat.eps)
        point, velocity = initial, torch.zeros_like(initial)
        best = _Best(threat.project(initial, original))
        penalty_weight = initial.new_full((len(initial),), self.penalty_weight)
        zero_gradient = torch.ones(len(initial), dtype=torch.bool, device=initial.device)
        for number in range(passes):
            images = threat.project(point, original)
            gradient, evaluation = ascend(objective, images, penalty_weight)
            best.consider(images, evaluation)
            zero_gradient &= (gradient == 0).flatten(1).all(1)
            if evaluation.constraint_violation is not None:
                penalty_weight = penalty_weight * torch.where(
                    evaluation.constraint_violation > 1, self.tighten, self.relax
                )
            scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            velocity = self.momentum * velocity + gradient / scale
            step = min(threat.eps, self.longest) * self._share(number, passes)
            point = ball.project(point - step * velocity.sign(), original)
        return MethodOutput(best.images, passes, zero_gradient)

    def _share(self, number: int, passes: int) -> float:
        """The step after evaluation `number` as a share of the first."""
        progress = number / max(1, passes - 1)
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * progress)) / 2


class _Best:
    """The best image of each attack so far: within the constraint, then by fitness, then by loss."""

    def __init__(self, images: Images) -> None:
        self.images = images.clone()
        self.fitness = images.new_full((len(images),), -math.inf)
        self.loss = images.new_full((len(images),), math.inf)

    def consider(self, images: Images, evaluation: Evaluation) -> None:
        """Keep what is better."""
        fitness = _eligible(evaluation)
        better = (fitness > self.fitness) | ((fitness == self.fitness) & (evaluation.loss < self.loss))
        self.fitness = torch.where(better, fitness, self.fitness)
        self.loss = torch.where(better, evaluation.loss, self.loss)
        self.images = torch.where(better[:, None, None, None], images, self.images)


def _eligible(evaluation: Evaluation) -> PerAttack:
    """The fitness; where the constraint is violated, something lower than any fitness."""
    if evaluation.constraint_violation is None:
        return evaluation.fitness
    return torch.where(
        evaluation.constraint_violation > 1, -1e6 - evaluation.constraint_violation, evaluation.fitness
    )
