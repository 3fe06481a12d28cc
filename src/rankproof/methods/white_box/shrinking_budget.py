"""One run in which the budget shrinks after a success and grows after a failure."""

import math
from dataclasses import dataclass

import torch

from rankproof.methods.white_box.budget_search import BudgetOutput, BudgetProblem
from rankproof.methods.white_box.pgd import ascend
from rankproof.parameters import Checked, Count, Momentum, PositiveShare, Share


@dataclass(frozen=True, kw_only=True)
class ShrinkingBudget(Checked):
    """Sign steps on momentum in a ball that follows the border of the wish.

    Args:
        evaluations: forward and gradient evaluations of each attack.
        start: first budget in (0, 1].
        momentum: mu in [0, 1).
        first, last: the first and last step as a share of the budget.
        change: how much the budget changes at first, as a share.
    """

    evaluations: Count = 60
    start: PositiveShare = 4 / 255
    momentum: Momentum = 0.75
    first: Share = 0.5
    last: Share = 0.05
    change: Share = 0.25

    def run(self, problem: BudgetProblem) -> BudgetOutput:
        """Search for every attack."""
        original = problem.original
        eps = original.new_full((len(original), 1, 1, 1), self.start)
        point, best, least = original, original.clone(), torch.full_like(eps, math.inf)
        velocity = torch.zeros_like(original)
        for number in range(self.evaluations):
            share = number / self.evaluations
            gradient, evaluation = ascend(problem.wish, point)
            reached = (evaluation.loss <= 0).view(eps.shape)
            size = (point - original).abs().amax((1, 2, 3), keepdim=True)
            better = reached & (size < least)
            best, least = torch.where(better, point, best), torch.where(better, size, least)
            factor = 1 + self.change * (1 - share)
            eps = torch.where(reached, torch.minimum(eps, size) / factor, eps * factor).clamp(max=1)
            scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            velocity = self.momentum * velocity + gradient / scale
            step = eps * (self.first + (self.last - self.first) * share)
            change = (point - step * velocity.sign() - original).clamp(-eps, eps)
            point = (original + change).clamp(0, 1)
        return BudgetOutput(best, torch.full((len(original),), self.evaluations))
