"""What every search for the smallest budget is: a value that turns images into images that need little."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from rankproof.types import Images, Objective


@dataclass(frozen=True, kw_only=True)
class BudgetProblem:
    """What a search for the smallest budget may ask.

    Args:
        original: (b, c, h, w) the untouched images, in [0, 1].
        towards: a loss that tells far from the wish which way to go, with a fitness that is at least 0
            exactly where all that is wanted has come true.
        take: the problem of some of the attacks (k,), such as those that are not finished.
        seed, rng_keys: random numbers of attack i come from `seed` and `rng_keys[i]` alone.
        margins: where all that is wanted is a handful of inequalities, by how much each is missed (b, p),
            differentiable; all are at most 0 exactly where the wish holds. None where it is not.
    """

    original: Images
    towards: Objective
    take: Callable[[Tensor], "BudgetProblem"]
    seed: int
    rng_keys: Sequence[int]
    margins: Callable[[Images], Tensor] | None = None


@dataclass(frozen=True)
class BudgetOutput:
    """The result of a search for the smallest budget.

    Args:
        images: (b, c, h, w) images within [0, 1] at which the wish held, with the least change found;
            the originals where it never did.
        evaluations: (b,) forward and gradient evaluations spent on each attack.
    """

    images: Images
    evaluations: Int[Tensor, " b"]


@runtime_checkable
class BudgetSearch(Protocol):
    """A search for the smallest budget: hyper-parameters, no state."""

    @property
    def evaluations(self) -> int:
        """The most forward and gradient evaluations one attack takes."""
        ...

    def run(self, problem: BudgetProblem) -> BudgetOutput:
        """Search for every attack; each depends on nothing else in the batch."""
        ...
