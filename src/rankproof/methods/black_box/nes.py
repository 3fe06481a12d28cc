"""NES: a gradient estimated from antithetic normal probes, as published (ICCV section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.black_box.base import BlackBoxMethod, Problem
from rankproof.methods.black_box.spsa import Position, half_differences, weighted_mean
from rankproof.methods.black_box.subspace import Latents
from rankproof.parameters import Checked, Count, Positive, PositiveShare, Range, check_number
from rankproof.types import Feedback


@dataclass(frozen=True)
class AdamPosition(Position):
    """Where a search stands, and the moments of its gradients, each (b, c, s, s)."""

    first: Tensor
    second: Tensor


KEPT = Range(low=0.0, high=1.0, below=True)


@dataclass(frozen=True, kw_only=True)
class NES(Checked, BlackBoxMethod):
    """Natural evolution strategy: the gradient from antithetic normal probes, through Adam, then its sign.

    g = 1/(2n) sum over i of [ tau(v + p_i) - tau(v - p_i) ] p_i / sigma^2,  p_i = clamp(sigma N(0, 1), +-eps)
    v <- clip( v + step sign(Adam(g)) )

    Args:
        pairs: antithetic pairs in a round.
        sigma: standard deviation of the probes as a multiple of eps.
        step: length of a move, in [0, 1].
        decay: how much of the first and second moment is kept.
    """

    pairs: Count = 25
    sigma: Positive = 2.0
    step: PositiveShare = 2 / 255
    decay: tuple[float, float] = (0.9, 0.999)

    name = "nes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.decay) != 2 or not all(check_number("decay", value) in KEPT for value in self.decay):
            raise RankproofError(f"decay: both must be in [0, 1), got {self.decay}")

    def begin(self, problem: Problem, clean: Feedback) -> AdamPosition:
        """At the clean image."""
        start = torch.zeros_like(problem.low)
        return AdamPosition(start, start, start)

    def ask(self, problem: Problem, state: AdamPosition, number: int) -> Latents:
        """Both ends of each pair."""
        probes = self._probes(problem, number)
        return problem.clip(state.latents[:, None] + torch.cat([probes, -probes], dim=1))

    def tell(
        self, problem: Problem, state: AdamPosition, number: int, points: Latents, feedback: Feedback
    ) -> AdamPosition:
        """One step along the sign of the smoothed gradient."""
        gradient = weighted_mean(half_differences(feedback), self._probes(problem, number)) / (
            2 * problem.eps
        )
        first = self.decay[0] * state.first + (1 - self.decay[0]) * gradient
        second = self.decay[1] * state.second + (1 - self.decay[1]) * gradient.square()
        # Corrected for starting at zero; the size of a step is `step` whatever the second moment is.
        ahead = first / (1 - self.decay[0] ** (number + 1))
        spread = (second / (1 - self.decay[1] ** (number + 1))).sqrt() + 1e-8
        moved = state.latents + self.step * (ahead / spread).sign()
        return AdamPosition(problem.clip(moved), first, second)

    def _probes(self, problem: Problem, number: int) -> Latents:
        noise = self.sigma * problem.eps * problem.normal(number, self.name, self.pairs)
        return noise.clamp(-problem.eps, problem.eps)
