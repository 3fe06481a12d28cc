"""Projected gradient descent as published, and the gradient that every white-box method takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankproof.methods.white_box.base import MethodOutput
from rankproof.parameters import Checked, Count, Share
from rankproof.threat import Threat
from rankproof.types import Evaluation, Images, Objective, PerAttack

Rule = Literal["eccv20", "iccv21"]

ROUNDING = 1e-9


@dataclass(frozen=True)
class Schedule:
    """A number of steps of one size in [0, 1]."""

    steps: int
    step: float


def eccv20(eps: float) -> Schedule:
    """alpha = min(max(eps/10, 1/255), 0.01), steps = int(min(max(10, 2 eps/alpha), 30)) (ECCV section 4)."""
    alpha = min(max(eps / 10, 1 / 255), 0.01)
    return Schedule(int(min(max(10, 2 * eps / alpha + ROUNDING), 30)), alpha)


def iccv21(eps: float) -> Schedule:
    """24 steps of 1/255 at any eps (ICCV section 4)."""
    return Schedule(24, 1 / 255)


def ascend(
    objective: Objective, images: Images, penalty_weight: PerAttack | None = None
) -> tuple[Tensor, Evaluation]:
    """One forward and one backward pass.

    Returns:
        the gradient of each attack's loss with respect to its image (b, c, h, w), not finite values
        replaced by 0, and the evaluation without its graph.
    """
    images = images.detach().requires_grad_(True)
    evaluation = objective(images, penalty_weight)
    gradient = torch.zeros_like(images)
    if evaluation.loss.requires_grad:  # an encoder may cut the gradient off
        (gradient,) = torch.autograd.grad(evaluation.loss.sum(), images, materialize_grads=True)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    violation, room = (
        None if value is None else value.detach()
        for value in (evaluation.constraint_violation, evaluation.room)
    )
    return gradient, Evaluation(evaluation.loss.detach(), evaluation.fitness.detach(), violation, room)


def normalised(gradient: Tensor) -> Tensor:
    """Gradients (b, ...) of which each has a mean absolute value of 1; 0 stays 0."""
    sizes = gradient.abs().mean(tuple(range(1, gradient.dim())), keepdim=True)
    return gradient / sizes.clamp_min(torch.finfo(gradient.dtype).tiny)


@dataclass(frozen=True, kw_only=True)
class PGD(Checked):
    """Sign steps of one size, projected; the last iterate is returned (ECCV eq. 6, ICCV eq. 3).

    x_{t+1} = Clip_Gamma( x_t - alpha sign(grad L(x_t)) )

    Args:
        steps: number of steps; None follows `rule`.
        step: step size alpha in [0, 1]; None follows `rule`.
        rule: "eccv20" or "iccv21", the two papers' choices of steps and alpha.
    """

    steps: Count | None = None
    step: Share | None = None
    rule: Rule = "eccv20"

    name = "pgd"

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
        rng_keys: Sequence[int],
    ) -> MethodOutput:
        """Attack a batch; uses no random numbers."""
        schedule, ball = self.schedule(threat.eps), Threat(threat.eps)
        point, images = initial, threat.project(initial, original)
        zero_gradient = torch.ones(len(initial), dtype=torch.bool, device=initial.device)
        for _ in range(schedule.steps):
            gradient, _ = ascend(objective, images)
            zero_gradient &= (gradient == 0).flatten(1).all(1)
            # The point moves freely in the ball; what is scored and returned lies on the threat's grid.
            point = ball.project(point - schedule.step * gradient.sign(), original)  # ECCV eq. 6, ICCV eq. 3
            images = threat.project(point, original)
        return MethodOutput(images, schedule.steps, zero_gradient)
