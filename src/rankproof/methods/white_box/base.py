"""What every white-box method is: a value that turns images and an objective into better images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rankproof.rng import uniforms
from rankproof.threat import Threat
from rankproof.types import Images, Objective


@dataclass(frozen=True)
class MethodOutput:
    """The result of a method.

    Args:
        images: (b, c, h, w) the adversarial images.
        passes: forward and gradient evaluations spent on each attack, the most where they differ.
        zero_gradient: (b,) attacks whose gradient was zero or not finite in every pass.
        perturbation: (1, c, h, w) what all images share in a universal attack, else None.
        evaluations: (b,) those spent on each attack, where they differ; None: `passes` on each.
    """

    images: Images
    passes: int
    zero_gradient: Bool[Tensor, " b"]
    perturbation: Float[Tensor, "1 c h w"] | None = None
    evaluations: Int[Tensor, " b"] | None = None

    @property
    def evaluations_of_each(self) -> Tensor:
        """(b,) integers: the evaluations spent on each attack."""
        if self.evaluations is not None:
            return self.evaluations
        return torch.full((len(self.images),), self.passes, dtype=torch.int64, device=self.images.device)


def random_start(
    original: Images, threat: Threat, size: float, *, seed: int, rng_keys: Sequence[int], purpose: str
) -> Images:
    """Random images at most `size` away from the originals, within the threat set.

    Args:
        purpose: names the random numbers, which are those of each attack alone.
    """
    noise = uniforms(seed, rng_keys, purpose, original.shape[1:]).to(original)
    return threat.project(original + size * noise, original)


@runtime_checkable
class Method(Protocol):
    """A white-box method: hyper-parameters, no state."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in files."""
        ...

    def passes(self, eps: float) -> int:
        """How many forward and gradient evaluations one attack takes at that budget, at most."""
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
