"""HM, the hardness manipulation defence (Zhou and Patel, CVPR 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.parameters import Weight
from rankproof.training.defenses import StepInput, StepOutput, TripletDefense, require_triplet_loss
from rankproof.training.inner_attack import InnerAttack
from rankproof.training.triplets import Mining, mine_triplets


@dataclass(frozen=True, kw_only=True)
class Hardness(TripletDefense):
    """Gradual hardness manipulation with the intra-class structure term.

    H = d(a, p) - d(a, n),  H_target = -clip(l, 0, margin)
    r = arg min of min(0, H(adversarial) - H_target)^2;  L( adversarial ) + intra [ d(a, a~) - d(a, p) ]+

    where l is the adversarial loss of the previous step: the better the encoder copes, the harder the
    triplets become.
    Zhou and Patel: Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022).

    Args:
        inner: the attack that makes triplets as hard as the target.
        intra: weight of the intra-class term.
        mining: how the negative of each pair is chosen.
    """

    inner: InnerAttack
    intra: Weight = 0.5
    mining: Mining = "softhard"

    name = "hm"

    def __call__(self, step: StepInput) -> StepOutput:
        """The triplet loss of the hardened triplets plus the intra-class term."""
        distance, margin = step.ranker.distance, require_triplet_loss(step.loss, self.name).margin
        z = distance.prepare(step.ranker.embed_all(step.images))
        triplets = mine_triplets(z, step.labels, distance, self.mining, step.rng)  # (t, 3)
        previous = margin if step.previous_loss is None else step.previous_loss
        target = -min(max(previous, 0.0), margin)  # H_target

        def gap(z: Tensor) -> Tensor:
            a, p, n = z.chunk(3)  # (t, d) each
            hardness = distance.between(a, p) - distance.between(a, n)  # H
            return (hardness - target).clamp(max=0).square().repeat(3) / 3  # (3 t,)

        # Images of all anchors, then of all positives, then of all negatives: (3 t, c, h, w).
        attacked = step.perturb(self.inner, step.images[triplets.t().flatten()], gap)
        clean = step.images[triplets[:, :2].t().flatten()]  # (2 t, c, h, w)
        z = step.ranker.embed_prepared(torch.cat([attacked, clean]))  # (5 t, d)
        a, p, n, clean_a, clean_p = z.chunk(5)
        loss = self.triplet_loss(step, a, p, n)
        intra = (distance.between(clean_a, a) - distance.between(clean_a, clean_p)).relu().mean()
        return StepOutput(loss + self.intra * intra, z, loss.detach())
