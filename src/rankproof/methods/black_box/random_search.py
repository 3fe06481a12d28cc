"""Random search, as published (ICCV section 4.2)."""

from dataclasses import dataclass

from torch import Tensor

from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import Latents
from rankproof.parameters import Checked, Count
from rankproof.types import Feedback


@dataclass(frozen=True)
class Nothing(AttackTensors):
    """The state of random search, which learns nothing: only the number of attacks."""

    attacks: Tensor


@dataclass(frozen=True, kw_only=True)
class Rand(Checked, BlackBoxMethod):
    """Random search: every round draws r ~ U(-eps, eps) per variable.

    Args:
        population: draws in a round.
    """

    population: Count = 50

    name = "rand"

    def begin(self, problem: Problem, clean: Feedback) -> Nothing:
        """Nothing to remember."""
        return Nothing(problem.rng_keys)

    def ask(self, problem: Problem, state: Nothing, number: int) -> Latents:
        """Uniform draws from the ball."""
        return problem.clip(problem.eps * problem.uniform(number, self.name, self.population))

    def tell(
        self, problem: Problem, state: Nothing, number: int, points: Latents, feedback: Feedback
    ) -> Nothing:
        """Nothing to learn."""
        return state
