"""Gradients estimated from scores: NES and SPSA as published (ICCV section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.search import Problem, Value
from rankproof.methods.space import Space, Variables, published_space
from rankproof.types import Seen


@dataclass(frozen=True)
class Place(Value):
    """Where a search stands: variables (b, c, s, s)."""

    variables: Tensor


@dataclass(frozen=True)
class Point(Place):
    """Where a search stands, and the moments of its gradients, each (b, c, s, s)."""

    first: Tensor
    second: Tensor


@dataclass(frozen=True, kw_only=True)
class SPSA:
    """Simultaneous perturbation: the gradient from antithetic pairs of random signs.

    g = 1/n sum over i of [ tau(v + sigma d_i) - tau(v - sigma d_i) ] / (2 sigma) d_i,  d_i in {-1, 1}
    v <- clip( v + step sign(g) )

    Args:
        pairs: antithetic pairs in a round.
        sigma: length of a probe, in [0, 1].
        step: length of a move, in [0, 1].
    """

    pairs: int = 25
    sigma: float = 2 / 255
    step: float = 2 / 255

    name = "spsa"
    grid = False

    def __post_init__(self) -> None:
        check_positive(pairs=self.pairs, sigma=self.sigma, step=self.step)

    def space(self, picture: tuple[int, int, int]) -> Space:
        """The papers' rule."""
        return published_space(picture)

    def begin(self, problem: Problem, clean: Seen) -> Place:
        """At the clean image."""
        return Place(torch.zeros_like(problem.low))

    def ask(self, problem: Problem, state: Place, number: int) -> Variables:
        """Both ends of each pair."""
        probes = self.sigma * problem.signs(number, self.name, self.pairs)
        return problem.clip(state.variables[:, None] + torch.cat([probes, -probes], dim=1))

    def tell(self, problem: Problem, state: Place, number: int, asked: Variables, seen: Seen) -> Place:
        """One step along the sign of the gradient."""
        probes = problem.signs(number, self.name, self.pairs)
        gradient = weighted(difference(seen), probes)
        return Place(problem.clip(state.variables + self.step * gradient.sign()))


@dataclass(frozen=True, kw_only=True)
class NES:
    """Natural evolution strategy: the gradient from antithetic normal probes, through Adam, then its sign.

    g = 1/(2n) sum over i of [ tau(v + p_i) - tau(v - p_i) ] p_i / sigma^2,  p_i = clamp(sigma N(0, 1), +-eps)
    v <- clip( v + step sign(Adam(g)) )

    Args:
        pairs: antithetic pairs in a round.
        sigma: standard deviation of the probes as a multiple of eps.
        step: length of a move, in [0, 1].
        decay: how much of the first and second moment is kept.
    """

    pairs: int = 25
    sigma: float = 2.0
    step: float = 2 / 255
    decay: tuple[float, float] = (0.9, 0.999)

    name = "nes"
    grid = False

    def __post_init__(self) -> None:
        check_positive(pairs=self.pairs, sigma=self.sigma, step=self.step)
        if not all(0 <= decay < 1 for decay in self.decay):
            raise RankproofError(f"decay: both must be in [0, 1), got {self.decay}")

    def space(self, picture: tuple[int, int, int]) -> Space:
        """The papers' rule."""
        return published_space(picture)

    def begin(self, problem: Problem, clean: Seen) -> Point:
        """At the clean image."""
        start = torch.zeros_like(problem.low)
        return Point(start, start, start)

    def ask(self, problem: Problem, state: Point, number: int) -> Variables:
        """Both ends of each pair."""
        probes = self._probes(problem, number)
        return problem.clip(state.variables[:, None] + torch.cat([probes, -probes], dim=1))

    def tell(self, problem: Problem, state: Point, number: int, asked: Variables, seen: Seen) -> Point:
        """One step along the sign of the smoothed gradient."""
        gradient = weighted(difference(seen), self._probes(problem, number)) / (2 * problem.eps)
        first = self.decay[0] * state.first + (1 - self.decay[0]) * gradient
        second = self.decay[1] * state.second + (1 - self.decay[1]) * gradient.square()
        # Corrected for starting at zero; the size of a step is `step` whatever the second moment is.
        ahead = first / (1 - self.decay[0] ** (number + 1))
        spread = (second / (1 - self.decay[1] ** (number + 1))).sqrt() + 1e-8
        moved = state.variables + self.step * (ahead / spread).sign()
        return Point(problem.clip(moved), first, second)

    def _probes(self, problem: Problem, number: int) -> Variables:
        noise = self.sigma * problem.eps * problem.normal(number, self.name, self.pairs)
        return noise.clamp(-problem.eps, problem.eps)


def difference(seen: Seen) -> Tensor:
    """Half of the score at the one end of each pair minus that at the other: (b, pairs)."""
    plus, minus = seen.score.chunk(2, dim=1)
    return (plus - minus) / 2


def weighted(weights: Tensor, probes: Variables) -> Tensor:
    """The mean of probes (b, p, c, s, s) with weights (b, p): (b, c, s, s)."""
    return torch.einsum("bp,bpchw->bchw", weights.to(probes), probes) / probes.shape[1]


def check_positive(**values: int | float) -> None:
    """Raise unless every value is above 0; the message names it."""
    for name, value in values.items():
        if not value > 0:
            raise RankproofError(f"{name} must be above 0, got {value}")
