"""How attacks get into the training: the papers' defence, those they tried, and none."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.ranker import Ranker
from rankproof.training.inner import Inner, shifted
from rankproof.training.losses import Loss, Triplet


@dataclass(frozen=True, kw_only=True)
class Step:
    """What there is to learn from in one step.

    Args:
        ranker: with the encoder in training.
        loss: what to lower.
        images: (b, c, h, w) clean pictures.
        labels: (b,) their classes.
        triplets: (t, 3) positions in the batch.
        source: random numbers of this step.
        strength: share of the attack's eps, below 1 while it warms up.
        before: adversarial loss of the step before, None in the first one.
    """

    ranker: Ranker
    loss: Loss
    images: Tensor
    labels: Tensor
    triplets: Tensor
    source: torch.Generator
    strength: float = 1.0
    before: float | None = None

    def value(self, z: Tensor) -> Tensor:
        """The mean loss of the batch's embeddings (b, d)."""
        return self.loss(z, self.labels, self.triplets, self.ranker.distance).mean()


@dataclass(frozen=True)
class Lesson:
    """What a step came to.

    Args:
        loss: () to be lowered.
        z: (b, d) the embeddings it was computed from.
        adversarial: () the part that the next step wants to know as `before`, or None.
    """

    loss: Tensor
    z: Tensor
    adversarial: Tensor | None = None


@runtime_checkable
class Defense(Protocol):
    """A way to train."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in records."""
        ...

    def __call__(self, step: Step) -> Lesson:
        """The loss of one step."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that defines it, for the record."""
        ...

    @property
    def of_triplets(self) -> bool:
        """Whether it is made of triplets and takes no other loss."""
        ...


@dataclass(frozen=True)
class Undefended:
    """Ordinary training."""

    name = "none"
    of_triplets = False

    def __call__(self, step: Step) -> Lesson:
        """The loss of the clean batch."""
        z = step.ranker.embed(step.images)
        return Lesson(step.value(z), z)

    def settings(self) -> dict[str, Any]:
        """Nothing to set."""
        return {"name": self.name}


@dataclass(frozen=True, kw_only=True)
class EmbeddingShift:
    """The papers' defence: every picture is replaced by the one that shifts most (ECCV eq. 13).

    min over theta of E [ L( x_a + r_a, x_p + r_p, x_n + r_n ) ],  r = arg max d(x + r, x)

    Args:
        inner: the attack.
    """

    inner: Inner

    name = "est"
    of_triplets = False

    def __call__(self, step: Step) -> Lesson:
        """The loss of the shifted batch."""
        images = shifted(self.inner, step.ranker, step.images, source=step.source, strength=step.strength)
        z = step.ranker.embed(images)
        return Lesson(step.value(z), z)

    def settings(self) -> dict[str, Any]:
        """The attack."""
        return {"name": self.name, **self.inner.settings()}


@dataclass(frozen=True, kw_only=True)
class WholeBatch:
    """Min-max training of a batch as a whole: all its pictures move at once so that its loss rises.

    min over theta of E [ max over r_1 .. r_b of L( x_1 + r_1, ..., x_b + r_b ) ]

    Meant for a loss that compares every picture with all others of the batch, such as the supervised
    contrastive one (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020).

    Args:
        inner: the attack.
    """

    inner: Inner

    name = "whole-batch"
    of_triplets = False

    def __call__(self, step: Step) -> Lesson:
        """The loss of the batch that was moved."""

        def relief(z: Tensor) -> Tensor:
            return -step.value(z).expand(len(z))

        images = self.inner.seek(step.ranker, step.images, relief, source=step.source, strength=step.strength)
        z = step.ranker.embed(images)
        return Lesson(step.value(z), z)

    def settings(self) -> dict[str, Any]:
        """The attack."""
        return {"name": self.name, **self.inner.settings()}


@dataclass(frozen=True, kw_only=True)
class Suppress:
    """The shift itself as part of the loss (ECCV appendix H.3, eq. 22).

    L(a, p, n) + sum over x in {a, p, n} of max over r of d(x + r, x), the mean over the triplets

    Args:
        inner: the attack.
        weight: of the sum; 1 as published.
    """

    inner: Inner
    weight: float = 1.0

    name = "suppress"
    of_triplets = False

    def __call__(self, step: Step) -> Lesson:
        """Both parts, with the gradient of the clean and of the shifted embeddings."""
        images = shifted(self.inner, step.ranker, step.images, source=step.source, strength=step.strength)
        z, moved = step.ranker.embed(torch.cat([step.images, images])).chunk(2)
        shift = step.ranker.distance.between(moved, z)  # (b,)
        triplets = step.triplets if len(step.triplets) else torch.arange(len(z))[:, None]
        total = shift[triplets.to(shift.device)].sum(1).mean()
        return Lesson(step.value(z) + self.weight * total, z)

    def settings(self) -> dict[str, Any]:
        """The attack and the weight."""
        return {"name": self.name, "weight": self.weight, **self.inner.settings()}


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The defence of classifiers, on triplets (ECCV appendix H.1, eq. 19; reported there to diverge).

    min over theta of E [ max over r of L( x_a + r, x_p, x_n ) ]

    Args:
        inner: the attack.
    """

    inner: Inner

    name = "madry"
    of_triplets = True

    def __call__(self, step: Step) -> Lesson:
        """The loss of triplets whose anchor was attacked."""
        ranker, loss = step.ranker, triplet_loss(step.loss, self.name)
        anchors = step.triplets[:, 0]
        _, positive, negative = ranker.embed_all(step.images)[step.triplets].unbind(1)

        def relief(z: Tensor) -> Tensor:
            near, far = ranker.distance.between(z, positive), ranker.distance.between(z, negative)
            return -loss.of(near, far)

        attacked = self.inner.seek(
            ranker, step.images[anchors], relief, source=step.source, strength=step.strength
        )
        z = ranker.embed(torch.cat([step.images, attacked]))
        clean, hurt = z[: len(step.images)], z[len(step.images) :]
        _, positive, negative = clean[step.triplets].unbind(1)
        near, far = ranker.distance.between(hurt, positive), ranker.distance.between(hurt, negative)
        return Lesson(loss.of(near, far).mean(), z)

    def settings(self) -> dict[str, Any]:
        """The attack."""
        return {"name": self.name, **self.inner.settings()}


@dataclass(frozen=True, kw_only=True)
class SingleStep:
    """A mixture of the clean loss and that after one gradient step (ECCV appendix H.2, eq. 20 and 21).

    share L(x) + (1 - share) L( x + eps sign( grad L(x) ) ), every picture of the batch moved

    Args:
        eps: length of the step in [0, 1].
        share: of the clean loss.
    """

    eps: float
    share: float = 0.5

    name = "single-step"
    of_triplets = False

    def __call__(self, step: Step) -> Lesson:
        """Both losses."""
        images = step.images.detach().clone().requires_grad_(True)
        with step.ranker.frozen():
            (gradient,) = torch.autograd.grad(step.value(step.ranker.embed(images)), images)
        moved = (step.images + self.eps * step.strength * gradient.sign()).clamp(0, 1)
        clean, hurt = step.ranker.embed(torch.cat([step.images, moved])).chunk(2)
        return Lesson(self.share * step.value(clean) + (1 - self.share) * step.value(hurt), hurt)

    def settings(self) -> dict[str, Any]:
        """Step and share."""
        return {"name": self.name, "eps": self.eps, "share": self.share}


def triplet_loss(loss: Loss, defense: str) -> Triplet:
    """The loss as the triplet loss that some defences are made of.

    Raises:
        RankproofError: it is another one.
    """
    if not isinstance(loss, Triplet):
        raise RankproofError(
            f"defense {defense} is made of triplets, it cannot use {loss.name}; take --loss triplet"
        )
    return loss
