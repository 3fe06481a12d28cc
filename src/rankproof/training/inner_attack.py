"""The attack that a defence runs against the encoder in training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.methods import PGD
from rankproof.parameters import Checked, Count, Share
from rankproof.ranking.ranker import Ranker
from rankproof.threat import Eps, Threat
from rankproof.types import Evaluation

SMALL_IMAGE = 32  # pixels a side up to which the papers' settings for 28x28 images apply


@dataclass(frozen=True, kw_only=True)
class InnerAttack(Checked):
    """PGD from a random start near the clean images.

    The encoder is in eval mode while it runs, so that the running statistics of batch norms do not change.

    Args:
        eps: perturbation budget (L-infinity), in [0, 1].
        steps: number of gradient steps.
        step: step size in [0, 1].
        start: radius of the random start in [0, 1]. It must be above 0 for a maximum-shift attack, whose
            gradient is zero at the clean image.
    """

    eps: Eps
    steps: Count
    step: Share
    start: Share = 1 / 255

    def minimize(
        self,
        ranker: Ranker,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        *,
        rng: torch.Generator,
        eps_scale: float = 1.0,
    ) -> Tensor:
        """Images within eps of the given ones whose embeddings have a low loss.

        Args:
            images: (b, c, h, w) in [0, 1].
            loss: takes embeddings (b, d), returns one loss for each (b,).
            rng: draws the random start.
            eps_scale: factor on eps and on the step size, in [0, 1].
        Returns:
            (b, c, h, w) perturbed images, without gradient.
        """
        threat = Threat(self.eps * eps_scale)
        noise = torch.rand(images.shape, generator=rng).mul_(2).sub_(1).to(images)
        initial = images + noise * min(self.start, threat.eps)

        def objective(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
            value = loss(ranker.embed_prepared(images))
            return Evaluation(value, -value.detach())

        method = PGD(steps=self.steps, step=self.step * eps_scale)
        with ranker.frozen():
            output = method.run(images, initial, objective, threat, seed=0, rng_keys=range(len(images)))
        return output.images.detach()


def shifted(
    inner: InnerAttack, ranker: Ranker, images: Tensor, *, rng: torch.Generator, eps_scale: float = 1.0
) -> Tensor:
    """Images (b, c, h, w) perturbed for maximal embedding shift: max over r of d(x + r, x) (ECCV 3.3)."""
    clean = ranker.distance.prepare(ranker.embed_all(images))
    return inner.minimize(
        ranker, images, lambda z: -ranker.distance.between(z, clean), rng=rng, eps_scale=eps_scale
    )


def eccv_inner_attack(size: int) -> InnerAttack:
    """ECCV section 4: eps 0.3, 30 steps of 0.01 for 28x28 images; 0.06, 20 steps of 0.006 for larger ones."""
    if size <= SMALL_IMAGE:
        return InnerAttack(eps=0.3, steps=30, step=0.01)
    return InnerAttack(eps=0.06, steps=20, step=0.006)


def act_hm_inner_attack(size: int) -> InnerAttack:
    """The settings that ACT and HM are published with: 32 steps, eps 77/255, or 8/255 for larger images."""
    if size <= SMALL_IMAGE:
        return InnerAttack(eps=77 / 255, steps=32, step=3 / 255)
    return InnerAttack(eps=8 / 255, steps=32, step=1 / 255)
