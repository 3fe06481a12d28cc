"""One run in which the budget follows the border of a wish: down after a success, up after a failure."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.methods.white_box.budget_search import BudgetOutput, BudgetProblem
from rankproof.methods.white_box.pgd import ascend, normalised
from rankproof.parameters import Checked, Count, Momentum, Positive, PositiveShare, Share
from rankproof.types import Evaluation


@dataclass(frozen=True, kw_only=True)
class ShrinkingBudget(Checked):
    """Sign steps on momentum in a ball that follows the border of the wish.

    v_t = mu v_{t-1} + g_t / mean |g_t|        r_{t+1} = clip( r_t - s_t eps_t sign(v_t), +-eps_t )

    s_t falls from `first` to `last`. eps_{t+1} is below the least budget found after a success and up to that
    least one after a failure. The change of eps grows while the verdict stays the same and is cut where it
    turns, so that the first successes are found in doublings and the last ones in hundredths.

    Args:
        evaluations: forward and gradient evaluations of each attack.
        start: first budget in (0, 1].
        momentum: mu in [0, 1).
        first, last: the first and last step as a share of the budget.
        linear: whether eps goes no further than where the loss, taken as linear, crosses the border.
        change, least_change: the first change of eps as a share, and the least one.
        longest, longest_last: the largest change of eps once the wish came true, at first and at last.
        penalty_weight: first factor on the weight of what is to be kept.
        tighten, relax: factors on it after an evaluation in which it was not kept, or was.
    """

    evaluations: Count = 57
    start: PositiveShare = 1 / 255
    momentum: Momentum = 0.75
    first: Share = 0.25
    last: Share = 0.05
    linear: bool = True
    change: Share = 0.25
    least_change: Share = 0.01
    longest: Positive = 1.0
    longest_last: Positive = 0.02
    penalty_weight: Positive = 2.0
    tighten: Positive = 1.5
    relax: Positive = 0.8

    def run(self, problem: BudgetProblem) -> BudgetOutput:
        """Search for every attack."""
        original = point = problem.original
        state = _State(self, original)
        velocity = torch.zeros_like(original)
        weights = original.new_full((len(original),), self.penalty_weight)
        for number in range(self.evaluations):
            share = number / max(1, self.evaluations - 1)
            gradient, evaluation = ascend(problem.towards, point, weights)
            if evaluation.constraint_violation is not None:
                weights = weights * torch.where(evaluation.constraint_violation > 1, self.tighten, self.relax)
            eps = state.follow(point, gradient, evaluation, share)
            velocity = self.momentum * velocity + normalised(gradient)
            step = eps * (self.first + (self.last - self.first) * share)
            change = (point - step * velocity.sign() - original).clamp(-eps, eps)
            point = (original + change).clamp(0, 1)
        return BudgetOutput(state.best, torch.full((len(original),), self.evaluations))


class _State:
    """The budget of each attack, and the least one at which its wish came true; all (b, 1, 1, 1)."""

    def __init__(self, search: ShrinkingBudget, original: Tensor) -> None:
        self.search, self.original, self.best = search, original, original.clone()
        self.eps = original.new_full((len(original), 1, 1, 1), search.start)
        self.least = torch.full_like(self.eps, math.inf)
        self.change = torch.full_like(self.eps, search.change)
        self._held: Tensor | None = None

    def follow(self, point: Tensor, gradient: Tensor, evaluation: Evaluation, share: float) -> Tensor:
        """The next budgets after an evaluation at some images, a share of the search being done."""
        search, eps = self.search, self.eps
        held = (evaluation.fitness >= 0).view(eps.shape)
        size = (point - self.original).abs().amax((1, 2, 3), keepdim=True)
        better = held & (size < self.least)
        self.best = torch.where(better, point, self.best)
        self.least = torch.where(better, size, self.least)
        if self._held is None:  # the original itself says nothing of the first budget
            self._held = held
            return eps
        self.change = self.change * torch.where(held == self._held, FASTER, SLOWER)
        self.change = self.change.clamp(min=search.least_change)
        longest = search.longest * (search.longest_last / search.longest) ** share
        limit = torch.where(self.least.isinf(), torch.full_like(eps, FIRST_LONGEST), longest)
        self.change = torch.minimum(self.change, limit)
        self._held = held
        low = torch.minimum(eps, self.least) / (1 + self.change)
        high = torch.minimum(eps * (1 + self.change), self.least)
        goal = torch.where(held, low, high)
        if search.linear:
            slope = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            border = size - evaluation.fitness.view(eps.shape) / slope
            shrunk = torch.minimum(torch.minimum(eps, self.least / (1 + search.least_change)), border)
            grown = torch.maximum(border, size * (1 + search.least_change))
            goal = torch.where(held, shrunk, grown).maximum(low).minimum(high)
        self.eps = goal.clamp(max=1)
        return self.eps


FASTER, SLOWER = 1.3, 0.6  # factors on the change of eps after the same verdict, or another
FIRST_LONGEST = 0.5  # the largest change of eps before the wish came true
