"""How attacks enter the training: the papers' defence, the ones they reject, and none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.parameters import Share, Weight
from rankproof.ranking.ranker import Ranker
from rankproof.threat import Eps
from rankproof.training.inner_attack import InnerAttack, shifted
from rankproof.training.losses import Loss, Triplet
from rankproof.training.settings import RecipePart


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """What a defence gets in one step of the optimiser.

    Args:
        ranker: holds the encoder in training.
        loss: what the training minimises.
        images: (b, c, h, w) clean images in [0, 1].
        labels: (b,) their classes.
        triplets: (t, 3) positions in the batch.
        rng: random numbers of this step.
        eps_scale: factor on the eps of the attack, below 1 during the warm-up.
        previous_loss: the adversarial loss of the previous step, None in the first one.
    """

    ranker: Ranker
    loss: Loss
    images: Tensor
    labels: Tensor
    triplets: Tensor
    rng: torch.Generator
    eps_scale: float = 1.0
    previous_loss: float | None = None

    def mean_loss(self, z: Tensor) -> Tensor:
        """() mean loss of the batch's embeddings (b, d)."""
        return self.loss(z, self.labels, self.triplets, self.ranker.distance).mean()

    def perturb(self, inner: InnerAttack, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Images (b, c, h, w) perturbed so that their embeddings have a low loss; see `InnerAttack`."""
        return inner.minimize(self.ranker, images, loss, rng=self.rng, eps_scale=self.eps_scale)

    def shift(self, inner: InnerAttack) -> Tensor:
        """The batch (b, c, h, w) perturbed for maximal embedding shift."""
        return shifted(inner, self.ranker, self.images, rng=self.rng, eps_scale=self.eps_scale)


@dataclass(frozen=True)
class StepOutput:
    """What a defence returns.

    Args:
        loss: () to be minimised.
        z: (b, d) the embeddings it was computed from.
        adversarial_loss: () what the next step gets as `previous_loss`, or None.
    """

    loss: Tensor
    z: Tensor
    adversarial_loss: Tensor | None = None


@runtime_checkable
class Defense(Protocol):
    """Computes the training loss of a batch, usually from attacked images."""

    @property
    def name(self) -> str:
        """Used on the command line and in records."""
        ...

    @property
    def of_triplets(self) -> bool:
        """Whether it works with the triplet loss only."""
        ...

    def __call__(self, step: StepInput) -> StepOutput:
        """The loss of one step."""
        ...

    def settings(self) -> JsonObject:
        """All parameters, for the record."""
        ...


@dataclass(frozen=True)
class Undefended(RecipePart):
    """Training on clean images."""

    name = "none"
    of_triplets: ClassVar[bool] = False

    def __call__(self, step: StepInput) -> StepOutput:
        """The loss of the clean batch."""
        z = step.ranker.embed_prepared(step.images)
        return StepOutput(step.mean_loss(z), z)


@dataclass(frozen=True, kw_only=True)
class EmbeddingShift(RecipePart):
    """The papers' defence: each image is replaced by its perturbation of largest shift (ECCV eq. 13).

    min over theta of E [ L( x_a + r_a, x_p + r_p, x_n + r_n ) ],  r = arg max d(x + r, x)

    Args:
        inner: the maximum-shift attack.
    """

    inner: InnerAttack

    name = "est"
    of_triplets: ClassVar[bool] = False

    def __call__(self, step: StepInput) -> StepOutput:
        """The loss of the shifted batch."""
        z = step.ranker.embed_prepared(step.shift(self.inner))
        return StepOutput(step.mean_loss(z), z)  # eq. 13


@dataclass(frozen=True, kw_only=True)
class WholeBatch(RecipePart):
    """Min-max training on whole batches: all images are perturbed jointly so that the batch's loss rises.

    min over theta of E [ max over r_1 .. r_b of L( x_1 + r_1, ..., x_b + r_b ) ]

    Meant for a loss that compares each image with all others of the batch, such as the supervised contrastive
    loss (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020).

    Args:
        inner: the attack.
    """

    inner: InnerAttack

    name = "whole-batch"
    of_triplets: ClassVar[bool] = False

    def __call__(self, step: StepInput) -> StepOutput:
        """The loss of the perturbed batch."""

        def negative_loss(z: Tensor) -> Tensor:
            return -step.mean_loss(z).expand(len(z))

        z = step.ranker.embed_prepared(step.perturb(self.inner, step.images, negative_loss))
        return StepOutput(step.mean_loss(z), z)


@dataclass(frozen=True, kw_only=True)
class Suppress(RecipePart):
    """Embedding shift suppression: the maximal shift is a term of the loss (ECCV appendix H.3, eq. 22).

    L(a, p, n) + sum over x in {a, p, n} of max over r of d(x + r, x), averaged over the triplets

    Args:
        inner: the maximum-shift attack.
        weight: of the sum; 1 as published.
    """

    inner: InnerAttack
    weight: Weight = 1.0

    name = "suppress"
    of_triplets: ClassVar[bool] = False

    def __call__(self, step: StepInput) -> StepOutput:
        """Both terms, with gradients through the clean and the shifted embeddings."""
        images = step.shift(self.inner)
        z, moved = step.ranker.embed_prepared(torch.cat([step.images, images])).chunk(2)  # (b, d) each
        shift = step.ranker.distance.between(moved, z)  # (b,)
        triplets = step.triplets if len(step.triplets) else torch.arange(len(z))[:, None]
        total = shift[triplets.to(shift.device)].sum(1).mean()
        return StepOutput(step.mean_loss(z) + self.weight * total, z)  # eq. 22


@dataclass(frozen=True, kw_only=True)
class SingleStep(RecipePart):
    """A mixture of the clean loss and the loss after one gradient step (ECCV appendix H.2, eq. 20 and 21).

    share L(x) + (1 - share) L( x + eps sign( grad L(x) ) ), with every image of the batch perturbed

    Args:
        eps: size of the step in [0, 1].
        share: of the clean loss.
    """

    eps: Eps
    share: Share = 0.5

    name = "single-step"
    of_triplets: ClassVar[bool] = False

    def __call__(self, step: StepInput) -> StepOutput:
        """The mixture of both losses."""
        images = step.images.detach().clone().requires_grad_(True)
        with step.ranker.frozen():
            (gradient,) = torch.autograd.grad(step.mean_loss(step.ranker.embed_prepared(images)), images)
        moved = (step.images + self.eps * step.eps_scale * gradient.sign()).clamp(0, 1)
        clean, attacked = step.ranker.embed_prepared(torch.cat([step.images, moved])).chunk(2)  # (b, d) each
        loss = self.share * step.mean_loss(clean) + (1 - self.share) * step.mean_loss(attacked)  # eq. 20, 21
        return StepOutput(loss, attacked)


@dataclass(frozen=True)
class TripletDefense(RecipePart):
    """Base of the defences that work with the triplet loss only."""

    of_triplets: ClassVar[bool] = True

    def triplet_loss(self, step: StepInput, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """() mean triplet loss of embeddings (t, d) each."""
        loss, distance = require_triplet_loss(step.loss, self.name), step.ranker.distance
        return loss.of(distance.between(anchor, positive), distance.between(anchor, negative)).mean()


@dataclass(frozen=True, kw_only=True)
class MinMax(TripletDefense):
    """Madry's defence of classifiers, on triplets (ECCV appendix H.1, eq. 19; reported there to diverge).

    min over theta of E [ max over r of L( x_a + r, x_p, x_n ) ]

    Args:
        inner: the attack on the anchor.
    """

    inner: InnerAttack

    name = "madry"

    def __call__(self, step: StepInput) -> StepOutput:
        """The loss of triplets with attacked anchors."""
        ranker, distance, loss = step.ranker, step.ranker.distance, require_triplet_loss(step.loss, self.name)
        anchors = step.triplets[:, 0]
        z = distance.prepare(ranker.embed_all(step.images))
        _, positive, negative = z[step.triplets].unbind(1)  # (t, d) each

        def negative_loss(z: Tensor) -> Tensor:
            return -loss.of(distance.between(z, positive), distance.between(z, negative))

        attacked = step.perturb(self.inner, step.images[anchors], negative_loss)
        z = ranker.embed_prepared(torch.cat([step.images, attacked]))  # (b + t, d)
        clean, anchor = z[: len(step.images)], z[len(step.images) :]
        _, positive, negative = clean[step.triplets].unbind(1)
        return StepOutput(self.triplet_loss(step, anchor, positive, negative), z)  # eq. 19


def require_triplet_loss(loss: Loss, defense: str) -> Triplet:
    """The loss, if it is the triplet loss.

    Raises:
        RankproofError: it is another one.
    """
    if not isinstance(loss, Triplet):
        raise RankproofError(
            f"defense {defense} is made of triplets and cannot use {loss.name}; use --loss triplet"
        )
    return loss
