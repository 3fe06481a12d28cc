"""Searches that move a population: Rand, Beta and PSO as published (ICCV section 4.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankproof.methods.estimate import check_positive
from rankproof.methods.search import Problem, Value
from rankproof.methods.space import SMALL, Space, Variables, published_space
from rankproof.types import Seen

EDGE = 1e-6  # draws this close to 0 or 1 have no usable logarithm in single precision


@dataclass(frozen=True)
class Nothing(Value):
    """Random search remembers nothing but how many attacks there are."""

    attacks: Tensor


@dataclass(frozen=True, kw_only=True)
class Rand:
    """Random search: every round draws r ~ U(-eps, eps) per variable.

    Args:
        population: draws in a round.
    """

    population: int = 50

    name = "rand"
    grid = False

    def __post_init__(self) -> None:
        check_positive(population=self.population)

    def space(self, picture: tuple[int, int, int]) -> Space:
        """The papers' rule."""
        return published_space(picture)

    def begin(self, problem: Problem, clean: Seen) -> Nothing:
        """Nothing to remember."""
        return Nothing(problem.keys)

    def ask(self, problem: Problem, state: Nothing, number: int) -> Variables:
        """Uniform draws from the ball."""
        return problem.clip(problem.eps * problem.uniform(number, self.name, self.population))

    def tell(self, problem: Problem, state: Nothing, number: int, asked: Variables, seen: Seen) -> Nothing:
        """Nothing to learn."""
        return state


@dataclass(frozen=True)
class Shapes(Value):
    """The two shapes of a Beta distribution for every variable, each (b, c, s, s)."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, kw_only=True)
class Beta:
    """Beta attack: r = eps (2 s - 1) with s ~ Beta(a, b) per variable, and ascent on a and b.

    a <- a + rate * mean over draws of clamp( tau * d log p(s; a, b) / da, +-5 ), and b alike

    Args:
        population: draws in a round.
        rate: step size of the shapes; None is 0.5 up to 1,000 variables and 3.0 above.
        bound: largest gradient of one draw.
        lowest, highest: range of the shapes.
    """

    population: int = 50
    rate: float | None = None
    bound: float = 5.0
    lowest: float = 1e-7
    highest: float = 1e3

    name = "beta"
    grid = False

    def __post_init__(self) -> None:
        check_positive(population=self.population, bound=self.bound, lowest=self.lowest)

    def space(self, picture: tuple[int, int, int]) -> Space:
        """The papers' rule."""
        return published_space(picture)

    def begin(self, problem: Problem, clean: Seen) -> Shapes:
        """The uniform distribution."""
        return Shapes(torch.ones_like(problem.low), torch.ones_like(problem.low))

    def ask(self, problem: Problem, state: Shapes, number: int) -> Variables:
        """Draws from the ball, not yet clipped to pictures, so that each tells its s."""
        shapes = iter(zip(state.a.double().numpy(), state.b.double().numpy(), strict=True))

        def numbers(source: torch.Generator) -> Tensor:
            a, b = next(shapes)
            draws = np.random.Generator(np.random.SFC64(source.initial_seed()))
            sample: Tensor = torch.from_numpy(draws.beta(a, b, (self.population, *problem.shape)))
            return sample

        return problem.eps * (2 * problem.draw(number, self.name, numbers) - 1)

    def tell(self, problem: Problem, state: Shapes, number: int, asked: Variables, seen: Seen) -> Shapes:
        """Score-function ascent, each draw weighted with its own score."""
        draws = ((asked / problem.eps + 1) / 2).clamp(EDGE, 1 - EDGE)
        both = torch.digamma(state.a + state.b)
        score = seen.score.to(draws)[:, :, None, None, None]
        rate = self.rate or (0.5 if problem.low[0].numel() <= SMALL else 3.0)

        def moved(shape: Tensor, logs: Tensor) -> Tensor:
            gradients = score * (logs - (torch.digamma(shape) - both)[:, None])
            step = gradients.clamp(-self.bound, self.bound).mean(1)
            return (shape + rate * step).clamp(self.lowest, self.highest)

        return Shapes(moved(state.a, draws.log()), moved(state.b, torch.log1p(-draws)))


@dataclass(frozen=True)
class Swarm(Value):
    """Particles and the best that each of them and all of them found.

    Args:
        places, speeds: (b, p, c, s, s) of the particles.
        own: (b, p, c, s, s) where each particle was best, own_score (b, p) how good that was.
        best: (b, c, s, s) where any particle, or the clean image, was best, best_score (b,) how good.
    """

    places: Tensor
    speeds: Tensor
    own: Tensor
    own_score: Tensor
    best: Tensor
    best_score: Tensor


@dataclass(frozen=True, kw_only=True)
class PSO:
    """Particle swarm: each particle keeps its speed and is drawn to its own best and to the best of all.

    u <- inertia u + pull_own rho_1 (own - v) + pull_best rho_2 (best - v),  rho ~ U(0, 1);  v <- clip(v + u)

    Args:
        particles: in the swarm; each is scored at the start and after every move.
        inertia: how much of the speed is kept.
        pull_own, pull_best: weights of the two pulls.
    """

    particles: int = 40
    inertia: float = 1.10
    pull_own: float = 0.57
    pull_best: float = 0.44

    name = "pso"
    grid = False

    def __post_init__(self) -> None:
        check_positive(particles=self.particles, inertia=self.inertia)

    def space(self, picture: tuple[int, int, int]) -> Space:
        """The papers' rule."""
        return published_space(picture)

    def begin(self, problem: Problem, clean: Seen) -> Swarm:
        """Anywhere in the ball, with speeds of up to its width; the clean image is the best so far."""
        places = problem.clip(problem.eps * problem.uniform(0, "pso-place", self.particles))
        speeds = 2 * problem.eps * problem.uniform(0, "pso-speed", self.particles)
        score = clean.score.to(places)
        own = torch.full_like(score, -torch.inf).expand(-1, self.particles)
        return Swarm(places, speeds, places, own.contiguous(), torch.zeros_like(problem.low), score[:, 0])

    def ask(self, problem: Problem, state: Swarm, number: int) -> Variables:
        """Where the particles are."""
        return state.places

    def tell(self, problem: Problem, state: Swarm, number: int, asked: Variables, seen: Seen) -> Swarm:
        """Remember what is better, then move."""
        score = seen.score.to(state.places)
        better = score > state.own_score
        own = torch.where(better[:, :, None, None, None], state.places, state.own)
        top, leader = score.max(1)
        first = top > state.best_score
        ahead = state.places[torch.arange(len(score)), leader]
        best = torch.where(first[:, None, None, None], ahead, state.best)
        pulls = problem.draw(
            number,
            "pso-pull",
            lambda source: torch.rand(2, self.particles, *[1] * len(problem.shape), generator=source),
        )
        speeds = (
            self.inertia * state.speeds
            + self.pull_own * pulls[:, 0] * (own - state.places)
            + self.pull_best * pulls[:, 1] * (best[:, None] - state.places)
        )
        return Swarm(
            problem.clip(state.places + speeds),
            speeds,
            own,
            torch.where(better, score, state.own_score),
            best,
            torch.where(first, top, state.best_score),
        )
