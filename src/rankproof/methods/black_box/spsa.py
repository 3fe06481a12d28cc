"""SPSA: a gradient estimated from antithetic pairs of random signs, as published (ICCV section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import Latents
from rankproof.parameters import Checked, Count, PositiveShare
from rankproof.types import Feedback


@dataclass(frozen=True)
class Position(AttackTensors):
    """Where a search stands: latents (b, c, s, s)."""

    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class SPSA(Checked, BlackBoxMethod):
    """Simultaneous perturbation: the gradient from antithetic pairs of random signs.

    g = 1/n sum over i of [ tau(v + sigma d_i) - tau(v - sigma d_i) ] / (2 sigma) d_i,  d_i in {-1, 1}
    v <- clip( v + step sign(g) )

    Args:
        pairs: antithetic pairs in a round.
        sigma: length of a probe, in [0, 1].
        step: length of a move, in [0, 1].
    """

    pairs: Count = 25
    sigma: PositiveShare = 2 / 255
    step: PositiveShare = 2 / 255

    name = "spsa"

    def begin(self, problem: Problem, clean: Feedback) -> Position:
        """At the clean image."""
        return Position(torch.zeros_like(problem.low))

    def ask(self, problem: Problem, state: Position, number: int) -> Latents:
        """Both ends of each pair."""
        probes = self.sigma * problem.signs(number, self.name, self.pairs)
        return problem.clip(state.latents[:, None] + torch.cat([probes, -probes], dim=1))

    def tell(
        self, problem: Problem, state: Position, number: int, points: Latents, feedback: Feedback
    ) -> Position:
        """One step along the sign of the gradient."""
        probes = problem.signs(number, self.name, self.pairs)
        gradient = weighted_mean(half_differences(feedback), probes)
        return Position(problem.clip(state.latents + self.step * gradient.sign()))


def half_differences(feedback: Feedback) -> Tensor:
    """Half of the score at the one end of each pair minus that at the other: (b, pairs)."""
    plus, minus = feedback.score.chunk(2, dim=1)
    return (plus - minus) / 2


def weighted_mean(weights: Tensor, probes: Latents) -> Tensor:
    """The mean of probes (b, p, c, s, s) with weights (b, p): (b, c, s, s)."""
    return torch.einsum("bp,bpchw->bchw", weights.to(probes), probes) / probes.shape[1]
