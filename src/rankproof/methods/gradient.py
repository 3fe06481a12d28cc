"""Projected gradient descent as published, and the gradient both it and its stronger kin take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.base import Found
from rankproof.methods.schedule import Schedule, eccv20, iccv21
from rankproof.threat import Threat
from rankproof.types import Images, Objective, Outcome, PerAttack

Rule = Literal["eccv20", "iccv21"]


def ascend(objective: Objective, images: Images, emphasis: PerAttack | None = None) -> tuple[Tensor, Outcome]:
    """One forward and one backward pass.

    Returns:
        the gradient of each attack's loss with respect to its image (b, c, h, w), not finite values
        replaced by 0, and the outcome without its graph.
    """
    images = images.detach().requires_grad_(True)
    outcome = objective(images, emphasis)
    gradient = torch.zeros_like(images)
    if outcome.loss.requires_grad:  # an encoder may cut the gradient off
        (gradient,) = torch.autograd.grad(outcome.loss.sum(), images, materialize_grads=True)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    strain = None if outcome.strain is None else outcome.strain.detach()
    return gradient, Outcome(outcome.loss.detach(), outcome.merit.detach(), strain)


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Sign steps of one size, projected; the last iterate is returned (ECCV eq. 6, ICCV eq. 3).

    x_{t+1} = Clip_Gamma( x_t - alpha sign(grad L(x_t)) )

    Args:
        steps: number of steps; None follows `rule`.
        step: step size alpha in [0, 1]; None follows `rule`.
        rule: "eccv20" or "iccv21", the two papers' choices of steps and alpha.
    """

    steps: int | None = None
    step: float | None = None
    rule: Rule = "eccv20"

    name = "pgd"

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise RankproofError(f"steps must be at least 1, got {self.steps}")

    def schedule(self, eps: float) -> Schedule:
        """Steps and step size at a budget."""
        rule = {"eccv20": eccv20, "iccv21": iccv21}[self.rule](eps)
        return Schedule(self.steps or rule.steps, rule.step if self.step is None else self.step)

    def passes(self, eps: float) -> int:
        """One per step."""
        return self.schedule(eps).steps

    def run(
        self,
        original: Images,
        initial: Images,
        objective: Objective,
        threat: Threat,
        *,
        seed: int,
        keys: Sequence[int],
    ) -> Found:
        """Attack a batch; uses no random numbers."""
        schedule, ball = self.schedule(threat.eps), Threat(threat.eps)
        point, images = initial, threat.project(initial, original)
        silent = torch.ones(len(initial), dtype=torch.bool, device=initial.device)
        for _ in range(schedule.steps):
            gradient, _ = ascend(objective, images)
            silent &= (gradient == 0).flatten(1).all(1)
            # The point moves freely in the ball; what is scored and returned lies on the threat's grid.
            point = ball.project(point - schedule.step * gradient.sign(), original)
            images = threat.project(point, original)
        return Found(images, schedule.steps, silent)
