"""Two later defences on the unit sphere: anti-collapse triplets and hardness manipulation."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rankproof.ranking.distances import Distance
from rankproof.training.defenses import Lesson, Step, triplet_loss
from rankproof.training.inner import Inner

Mining = Literal["random", "semihard", "softhard"]


@dataclass(frozen=True, kw_only=True)
class AntiCollapse:
    """Anti-collapse triplets: positive and negative are pulled together, then told apart again.

    r_p, r_n = arg min d(x_p + r_p, x_n + r_n);  L( x_a, x_p + r_p, x_n + r_n )

    Zhou, Wang, Patel, Niu, Zhang, Hua: Adversarial Attack and Defense in Deep Ranking (T-PAMI 2024).

    Args:
        inner: the attack.
        mining: how the negative of each pair is chosen.
    """

    inner: Inner
    mining: Mining = "random"

    name = "act"
    of_triplets = True

    def __call__(self, step: Step) -> Lesson:
        """The triplet loss of clean anchors with pulled positives and negatives."""
        ranker, distance, loss = step.ranker, step.ranker.distance, triplet_loss(step.loss, self.name)
        z = ranker.embed_all(step.images)
        anchor, positive, negative = mined(z, step.labels, distance, self.mining, step.source).unbind(1)

        def apart(z: Tensor) -> Tensor:
            first, second = z.chunk(2)
            return distance.between(first, second).repeat(2) / 2

        images = step.images[torch.cat([positive, negative])]
        attacked = self.inner.seek(ranker, images, apart, source=step.source, strength=step.strength)
        z = ranker.embed(torch.cat([step.images[anchor], attacked]))
        a, p, n = z.chunk(3)
        value = loss.of(distance.between(a, p), distance.between(a, n)).mean()
        return Lesson(value, z, value.detach())

    def settings(self) -> dict[str, Any]:
        """The attack and the mining."""
        return {"name": self.name, "mining": self.mining, **self.inner.settings()}


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """Hardness manipulation, gradual, with the intra-class term.

    H = d(a, p) - d(a, n),  H_target = -clip(l, 0, margin)
    r = arg min of min(0, H(adversarial) - H_target)^2;  L( adversarial ) + intra [ d(a, a~) - d(a, p) ]+

    where l is the adversarial loss of the step before: the better the encoder copes, the harder the triplets.
    Zhou and Patel: Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022).

    Args:
        inner: the attack.
        intra: weight of the intra-class term.
        mining: how the negative of each pair is chosen.
    """

    inner: Inner
    intra: float = 0.5
    mining: Mining = "softhard"

    name = "hm"
    of_triplets = True

    def __call__(self, step: Step) -> Lesson:
        """The triplet loss of the hardened triplets and the intra-class term."""
        ranker, distance, loss = step.ranker, step.ranker.distance, triplet_loss(step.loss, self.name)
        z = ranker.embed_all(step.images)
        triplets = mined(z, step.labels, distance, self.mining, step.source)  # (t, 3)
        before = loss.margin if step.before is None else step.before
        target = -min(max(before, 0.0), loss.margin)

        def gap(z: Tensor) -> Tensor:
            a, p, n = z.chunk(3)
            hardness = distance.between(a, p) - distance.between(a, n)
            return (hardness - target).clamp(max=0).square().repeat(3) / 3

        images = step.images[triplets.t().flatten()]  # anchors, positives, negatives
        attacked = self.inner.seek(ranker, images, gap, source=step.source, strength=step.strength)
        clean = step.images[triplets[:, :2].t().flatten()]
        z = ranker.embed(torch.cat([attacked, clean]))
        a, p, n, clean_a, clean_p = z.chunk(5)
        value = loss.of(distance.between(a, p), distance.between(a, n)).mean()
        within = (distance.between(clean_a, a) - distance.between(clean_a, clean_p)).relu().mean()
        return Lesson(value + self.intra * within, z, value.detach())

    def settings(self) -> dict[str, Any]:
        """The attack, the weight and the mining."""
        return {"name": self.name, "intra": self.intra, "mining": self.mining, **self.inner.settings()}


def mined(z: Tensor, labels: Tensor, distance: Distance, how: Mining, source: torch.Generator) -> Tensor:
    """One triplet for every two pictures of a class, the negative chosen among the other classes.

    "random": any. "semihard": one that is farther than the positive and nearer than the farthest picture of
    the class. "softhard": one that is nearer than the farthest picture of the class (Roth et al., Revisiting
    Training Strategies and Generalization Performance in Deep Metric Learning, 2020). Where there is none,
    the nearest.

    Args:
        z: (b, d) embeddings of the batch.
        labels: (b,) their classes.
    Returns:
        (t, 3) positions of anchor, positive, negative.
    """
    anchors, positives = _pairs(labels)
    d = distance.pairwise(z[anchors], z)  # (t, b)
    own = labels[anchors, None] == labels
    allowed = ~own
    if how != "random":
        farthest = d.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        allowed = allowed & (d < farthest)
    if how == "semihard":
        allowed = allowed & (d > d.gather(1, positives[:, None]))
    drawn = torch.rand(d.shape, generator=source).to(d).masked_fill(~allowed, -1).argmax(1)
    nearest = d.masked_fill(own, torch.inf).argmin(1)
    negatives = torch.where(allowed.any(1), drawn, nearest)
    return torch.stack([anchors, positives, negatives], dim=1)


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every two successive pictures of a class: (t,) first and (t,) second; an odd one is left out."""
    order = labels.argsort(stable=True)
    ordered = labels[order]
    counts = labels.bincount()
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[ordered]
    first = (place % 2 == 0)[:-1] & (ordered[1:] == ordered[:-1])
    starts = first.nonzero()[:, 0]
    return order[starts], order[starts + 1]
