"""One perturbation for many images (ECCV section 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rankproof.methods.white_box.base import MethodOutput
from rankproof.methods.white_box.pgd import ascend
from rankproof.parameters import Checked, Count, PositiveShare
from rankproof.threat import Threat
from rankproof.types import Images, Objective


@dataclass(frozen=True, kw_only=True)
class Universal(Checked):
    """Sign steps on the mean loss of all images, from no perturbation at all (ECCV eq. 14).

    r <- clip( r - step sign( mean over images of the gradient of L(clip(x + r)) ), +-eps )

    Where x + r leaves [0, 1], r changes nothing and the image has no say. The last r is returned.

    Args:
        steps: forward and gradient evaluations of every image.
        step: step size in (0, 1].
    """

    steps: Count = 100
    step: PositiveShare = 2 / 255

    name = "universal"

    def passes(self, eps: float) -> int:
        """One per step."""
        return self.steps

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
        """Attack all images at once; uses no random numbers."""
        perturbation = torch.zeros_like(original[:1])
        zero_gradient = torch.ones(len(original), dtype=torch.bool, device=original.device)
        for _ in range(self.steps):
            moved = original + perturbation
            gradient, _ = ascend(objective, moved.clamp(0, 1))
            zero_gradient &= (gradient == 0).flatten(1).all(1)
            inside = gradient * ((moved >= 0) & (moved <= 1))
            step = self.step * inside.mean(0, keepdim=True).sign()
            perturbation = threat.perturbation(perturbation - step)  # ECCV eq. 14
        return MethodOutput(threat.apply(perturbation, original), self.steps, zero_gradient, perturbation)
