"""Which triplets of a batch are compared."""

import torch
from torch import Tensor


def random_triplets(labels: Tensor, generator: torch.Generator) -> Tensor:
    """As many random triplets as the batch has images, an equal share for each class, without mining.

    Anchor and positive are drawn from the class, the negative from the rest of the batch, each uniformly
    and with replacement: the published sampling for 28x28 images. Classes alone in the batch are skipped.

    Args:
        labels: (b,) class of each image of the batch.
    Returns:
        (t, 3) positions of anchor, positive, negative; t is about b.
    """
    classes = labels.unique()
    share = max(1, len(labels) // len(classes))
    parts = []
    for label in classes:
        own, other = (labels == label).nonzero()[:, 0], (labels != label).nonzero()[:, 0]
        if len(own) < 2 or len(other) == 0:
            continue
        anchor, positive = own[torch.randint(len(own), (2, share), generator=generator)]
        negative = other[torch.randint(len(other), (share,), generator=generator)]
        parts.append(torch.stack([anchor, positive, negative], dim=1))
    return torch.cat(parts) if parts else labels.new_empty(0, 3)
