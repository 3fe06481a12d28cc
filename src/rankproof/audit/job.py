"""What an audit attacks, and what belongs to a part of its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankproof.attacks.batch import AttackBatch, make_batch
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Job:
    """What an audit attacks.

    Args:
        gallery: the database.
        images: (n, c, h, w) all images that may be attacked, floats in [0, 1] or 8-bit values.
        gallery_ids: (n,) positions of their own clean copies; None: they are not in the gallery.
        order: (n,) the order in which they are attacked: attack i is on the image at its i-th place.
        threat: the audited budget.
        seed: all choices and random numbers come from it.
        first: K, how many results count as the first ones.
    """

    gallery: Gallery
    images: Tensor
    gallery_ids: Tensor | None
    order: Tensor
    threat: Threat
    seed: int
    first: int

    @property
    def size(self) -> int:
        """How many items can stand in a ranking, from which the own clean copy is left out."""
        return len(self.gallery) - (self.gallery_ids is not None)

    def batch(
        self, rows: Sequence[int] | slice, targets: Tensor | None = None, preserved: Tensor | None = None
    ) -> AttackBatch:
        """Some of the attacks, each with the random numbers it has in the whole audit.

        Args:
            targets, preserved: items that were chosen for them; None chooses as published.
        """
        keys = torch.arange(len(self.images))[rows]
        positions = self.order[keys]
        ids = None if self.gallery_ids is None else self.gallery_ids[positions]
        batch = make_batch(
            self.gallery,
            self.gallery.ranker.as_input(self.images[positions]),
            gallery_ids=ids,
            targets=targets if targets is not None and targets.shape[1] else None,
            preserved=preserved if preserved is not None and preserved.shape[1] else None,
            exclude_self=ids is not None,
        )
        return batch if ids is not None else replace(batch, rng_keys=keys)
