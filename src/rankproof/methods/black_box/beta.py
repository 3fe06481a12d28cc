"""The Beta attack, as published (ICCV section 4.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import SMALL, Latents
from rankproof.parameters import Checked, Count, Positive
from rankproof.types import Feedback

EDGE = 1e-6  # draws this close to 0 or 1 have no usable logarithm in single precision


@dataclass(frozen=True)
class Shapes(AttackTensors):
    """The two shapes of a Beta distribution for every variable, each (b, c, s, s)."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, kw_only=True)
class Beta(Checked, BlackBoxMethod):
    """Beta attack: r = eps (2 s - 1) with s ~ Beta(a, b) per variable, and ascent on a and b.

    a <- a + rate * mean over draws of clamp( tau * d log p(s; a, b) / da, +-5 ), and b alike

    Args:
        population: draws in a round.
        rate: step size of the shapes; None is 0.5 up to 1,000 latents and 3.0 above.
        bound: largest gradient of one draw.
        lowest, highest: range of the shapes.
    """

    population: Count = 50
    rate: Positive | None = None
    bound: Positive = 5.0
    lowest: Positive = 1e-7
    highest: Positive = 1e3

    name = "beta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lowest > self.highest:
            raise RankproofError(f"lowest must not be above highest, got {self.lowest} and {self.highest}")

    def begin(self, problem: Problem, clean: Feedback) -> Shapes:
        """The uniform distribution."""
        return Shapes(torch.ones_like(problem.low), torch.ones_like(problem.low))

    def ask(self, problem: Problem, state: Shapes, number: int) -> Latents:
        """Draws from the ball, not yet clipped to images, so that each tells its s."""
        shapes = iter(zip(state.a.double().numpy(), state.b.double().numpy(), strict=True))

        def numbers(source: torch.Generator) -> Tensor:
            a, b = next(shapes)
            draws = np.random.Generator(np.random.SFC64(source.initial_seed()))
            sample: Tensor = torch.from_numpy(draws.beta(a, b, (self.population, *problem.shape)))
            return sample

        return problem.eps * (2 * problem.draw(number, self.name, numbers) - 1)

    def tell(
        self, problem: Problem, state: Shapes, number: int, points: Latents, feedback: Feedback
    ) -> Shapes:
        """Score-function ascent, each draw weighted by its own score."""
        draws = ((points / problem.eps + 1) / 2).clamp(EDGE, 1 - EDGE)
        both = torch.digamma(state.a + state.b)
        score = feedback.score.to(draws)[:, :, None, None, None]
        rate = self.rate or (0.5 if problem.low[0].numel() <= SMALL else 3.0)

        def moved(shape: Tensor, logs: Tensor) -> Tensor:
            gradients = score * (logs - (torch.digamma(shape) - both)[:, None])
            step = gradients.clamp(-self.bound, self.bound).mean(1)
            return (shape + rate * step).clamp(self.lowest, self.highest)

        return Shapes(moved(state.a, draws.log()), moved(state.b, torch.log1p(-draws)))
