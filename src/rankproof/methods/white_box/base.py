"""What every white-box method is: a value that turns images and an objective into better images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from rankproof.threat import Threat
from rankproof.types import Images, Objective


@dataclass(frozen=True)
class MethodOutput:
    """The result of a method.

    Args:
        images: (b, c, h, w) the adversarial images.
        passes: forward and gradient evaluations spent on each attack.
        zero_gradient: (b,) attacks whose gradient was zero or not finite in every pass.
        perturbation: (1, c, h, w) what all images share in a universal attack, else None.
    """

    images: Images
    passes: int
    zero_gradient: Bool[Tensor, " b"]
    perturbation: Float[Tensor, "1 c h w"] | None = None


@runtime_checkable
class Method(Protocol):
    """A white-box method: hyper-parameters, no state."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in files."""
        ...

    def passes(self, eps: float) -> int:
        """How many forward and gradient evaluations one attack takes at that budget."""
        ...

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
        """Attack a batch.

        Args:
            original: (b, c, h, w) centres of the threat sets.
            initial: (b, c, h, w) where to start, inside the threat sets.
            objective: scores images.
            threat: what may be changed.
            seed, rng_keys: random numbers of attack i come from `seed` and `rng_keys[i]` alone.
        """
        ...
