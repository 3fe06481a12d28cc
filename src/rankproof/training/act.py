"""ACT, the anti-collapse triplet defence (Zhou et al., T-PAMI 2024)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.training.defenses import StepInput, StepOutput, TripletDefense
from rankproof.training.inner_attack import InnerAttack
from rankproof.training.triplets import Mining, mine_triplets


@dataclass(frozen=True, kw_only=True)
class AntiCollapse(TripletDefense):
    """Anti-collapse triplets: the attack pulls positive and negative together, the loss separates them.

    r_p, r_n = arg min d(x_p + r_p, x_n + r_n);  L( x_a, x_p + r_p, x_n + r_n )

    Zhou, Wang, Patel, Niu, Zhang, Hua: Adversarial Attack and Defense in Deep Ranking (T-PAMI 2024).

    Args:
        inner: the attack that pulls them together.
        mining: how the negative of each pair is chosen.
    """

    inner: InnerAttack
    mining: Mining = "random"

    name = "act"

    def __call__(self, step: StepInput) -> StepOutput:
        """The triplet loss of clean anchors with perturbed positives and negatives."""
        distance = step.ranker.distance
        z = distance.prepare(step.ranker.embed_all(step.images))
        anchor, positive, negative = mine_triplets(z, step.labels, distance, self.mining, step.rng).unbind(1)

        def separation(z: Tensor) -> Tensor:
            p, n = z.chunk(2)  # (t, d) each
            return distance.between(p, n).repeat(2) / 2  # (2 t,): half of each distance to either image

        attacked = step.perturb(self.inner, step.images[torch.cat([positive, negative])], separation)
        z = step.ranker.embed_prepared(torch.cat([step.images[anchor], attacked]))  # (3 t, d)
        a, p, n = z.chunk(3)
        loss = self.triplet_loss(step, a, p, n)
        return StepOutput(loss, z, loss.detach())
