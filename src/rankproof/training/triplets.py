"""Which triplets of a batch are compared: random ones, or ones mined by their distances."""

from typing import Literal

import torch
from torch import Tensor

from rankproof.ranking.distances import Distance

Mining = Literal["random", "semihard", "softhard"]


def random_triplets(labels: Tensor, rng: torch.Generator) -> Tensor:
    """About as many random triplets as the batch has images, an equal number for each class, without mining.

    Anchor and positive are drawn from the class and the negative from the rest of the batch, uniformly and
    with replacement: the sampling published for 28x28 images. A class with one image in the batch is skipped.

    Args:
        labels: (b,) class of each image of the batch.
    Returns:
        (t, 3) positions of anchor, positive, negative in the batch; t is about b.
    """
    classes = labels.unique()
    per_class = max(1, len(labels) // len(classes))
    triplets = []
    for label in classes:
        inside, outside = (labels == label).nonzero()[:, 0], (labels != label).nonzero()[:, 0]
        if len(inside) < 2 or len(outside) == 0:
            continue
        anchor, positive = inside[torch.randint(len(inside), (2, per_class), generator=rng)]
        negative = outside[torch.randint(len(outside), (per_class,), generator=rng)]
        triplets.append(torch.stack([anchor, positive, negative], dim=1))  # (per_class, 3)
    return torch.cat(triplets) if triplets else labels.new_empty(0, 3)


def mine_triplets(
    z: Tensor, labels: Tensor, distance: Distance, mining: Mining, rng: torch.Generator
) -> Tensor:
    """One triplet for every two images of a class, its negative drawn from the other classes.

    "random": any negative. "semihard": farther than the positive and nearer than the farthest image of the
    anchor's class. "softhard": nearer than the farthest image of the anchor's class (Roth et al., Revisiting
    Training Strategies and Generalization Performance in Deep Metric Learning, ICML 2020). Where no negative
    qualifies, the nearest is taken.

    Args:
        z: (b, d) embeddings of the batch.
        labels: (b,) their classes.
    Returns:
        (t, 3) positions of anchor, positive, negative in the batch.
    """
    anchors, positives = _pairs(labels)
    d = distance.pairwise(z[anchors], z)  # (t, b)
    same_class = labels[anchors, None] == labels  # (t, b)
    allowed = ~same_class
    if mining != "random":
        farthest = d.masked_fill(~same_class, -torch.inf).amax(1, keepdim=True)  # (t, 1)
        allowed = allowed & (d < farthest)
    if mining == "semihard":
        allowed = allowed & (d > d.gather(1, positives[:, None]))
    drawn = torch.rand(d.shape, generator=rng).to(d).masked_fill(~allowed, -1).argmax(1)
    nearest = d.masked_fill(same_class, torch.inf).argmin(1)
    negatives = torch.where(allowed.any(1), drawn, nearest)
    return torch.stack([anchors, positives, negatives], dim=1)


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of every two successive images of a class, (t,) each; an unpaired last image is left out."""
    order = labels.argsort(stable=True)
    ordered = labels[order]
    counts = labels.bincount()
    # The position of each image within its class.
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[ordered]
    is_first = (rank % 2 == 0)[:-1] & (ordered[1:] == ordered[:-1])
    first = is_first.nonzero()[:, 0]
    return order[first], order[first + 1]
