"""A batch of attacks, one row each: checked once, then sliced and passed on as one value."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import AttackContext, BoundGoal, Goal
from rankproof.goals.candidate import CandidateGoal
from rankproof.ranking.gallery import Gallery
from rankproof.types import Embeddings, Ids, Images, Kept, Queries, Rows


@dataclass(frozen=True, kw_only=True)
class AttackBatch:
    """The images of b attacks and what belongs to each.

    Args:
        images: (b, c, h, w) images to perturb, in [0, 1]: candidates for CA, queries for QA and OA.
        rng_keys: (b,) names the random numbers of each attack, so that they do not depend on the batch.
        gallery_ids: (b,) positions of the images' own clean copies; None: they are not in the gallery.
        targets: (b, m) explicitly chosen items; None chooses as published.
        preserved: (b, g) explicitly chosen items to keep in place; None chooses as published.
        queries: (w, d) embeddings that CA+ and CA- take as their queries instead of gallery items, or None.
        exclude_self: whether the own clean copy is left out of every ranking.
    """

    images: Images
    rng_keys: Rows
    gallery_ids: Rows | None = None
    targets: Ids | None = None
    preserved: Kept | None = None
    queries: Queries | None = None
    exclude_self: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def excluded(self) -> Rows | None:
        """The item of each attack that does not count in a ranking, or None."""
        return self.gallery_ids if self.exclude_self else None

    def take(self, rows: Tensor) -> "AttackBatch":
        """The attacks at some rows (k,)."""
        return self._changed(lambda values: values[rows.to(values.device)])

    def cpu(self) -> "AttackBatch":
        """The batch on the CPU, where a black-box search runs."""
        return self._changed(lambda values: values.cpu())

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "AttackBatch":
        """The batch with `change` applied to everything that has a row for each attack."""
        names = ("images", "rng_keys", "gallery_ids", "targets", "preserved")
        present = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        changed: Any = {name: change(values) for name, values in present.items()}
        return replace(self, **changed)

    def bind(self, goal: Goal, gallery: Gallery, clean: Embeddings, seed: int) -> BoundGoal:
        """A goal bound to these attacks: its items are chosen, or checked where they are given.

        Args:
            clean: (b, d) embeddings of the unperturbed images.
            seed: seed of all choices.
        """
        return goal.bind(
            AttackContext(
                gallery=gallery,
                clean=clean,
                rng_keys=self.rng_keys.tolist(),
                seed=seed,
                gallery_ids=self.gallery_ids,
                targets=self.targets,
                preserved=self.preserved,
                queries=self.queries,
                exclude_self=self.exclude_self,
            )
        )


def make_batch(
    gallery: Gallery | None,
    images: Tensor,
    *,
    gallery_ids: Tensor | None = None,
    targets: Tensor | None = None,
    preserved: Tensor | None = None,
    queries: Tensor | None = None,
    exclude_self: bool = False,
) -> AttackBatch:
    """A batch from what a user gives, checked.

    Args:
        gallery: what is attacked, or None where it is not known, as behind a service.
        images: (b, c, h, w) floats in [0, 1] or 8-bit values.
        gallery_ids, targets, preserved, queries, exclude_self: as in `AttackBatch`.
    Raises:
        RankproofError: an argument does not fit; the message names it.
    """
    images = _checked_images(gallery, images)
    ids = _checked_ids(gallery, images, gallery_ids, exclude_self)
    for what, chosen in (("targets", targets), ("preserved", preserved)):
        if chosen is not None and (chosen.dim() != 2 or len(chosen) != len(images)):
            raise RankproofError(f"{what}: expected {len(images)} rows, one each, got {tuple(chosen.shape)}")
    return AttackBatch(
        images=images,
        rng_keys=torch.arange(len(images)) if ids is None else ids,
        gallery_ids=ids,
        targets=targets,
        preserved=preserved,
        queries=None if queries is None else _checked_queries(gallery, queries),
        exclude_self=exclude_self,
    )


def check_queries(goal: Goal, batch: AttackBatch) -> None:
    """Raise unless given queries are for a goal that takes any, and nothing else chooses them."""
    if batch.queries is None:
        return
    if not isinstance(goal, CandidateGoal):
        raise RankproofError(ONLY_CANDIDATES)
    if batch.targets is not None:
        raise RankproofError("queries: the queries are given or chosen by targets=, not both; leave one out")


ONLY_CANDIDATES = "queries: only CandidateRaise and CandidateLower on a gallery take any; leave out"


def _checked_images(gallery: Gallery | None, images: Tensor) -> Tensor:
    if images.dim() != 4 or len(images) == 0:
        raise RankproofError(
            f"images: expected a batch (b, c, h, w) with at least one image, got {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8:
        if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
            raise RankproofError("images: values must be floats in [0, 1] (or 8-bit integers)")
        return images
    return images / 255 if gallery is None else gallery.ranker.as_input(images)


def _checked_ids(
    gallery: Gallery | None, images: Tensor, ids: Tensor | None, exclude_self: bool
) -> Tensor | None:
    if ids is None:
        if exclude_self:
            raise RankproofError("exclude_self=True needs gallery_ids=, the gallery positions of the images")
        return None
    fits = ids.shape == (len(images),)
    if gallery is None:  # the ids of a service may be anything
        if not fits:
            raise RankproofError(f"gallery_ids: expected {len(images)} ids, got {tuple(ids.shape)}")
        return ids.to(dtype=torch.int64)
    if not fits or int(ids.min()) < 0 or int(ids.max()) >= len(gallery):
        raise RankproofError(
            f"gallery_ids: expected {len(images)} gallery positions in 0 .. {len(gallery) - 1}"
        )
    return ids.to(device=gallery.embeddings.device, dtype=torch.int64)


def _checked_queries(gallery: Gallery | None, queries: Tensor) -> Tensor:
    """Given queries in the precision of the gallery's own embeddings."""
    if gallery is None:
        raise RankproofError(ONLY_CANDIDATES)
    width = gallery.embeddings.shape[1]
    if queries.dim() != 2 or len(queries) == 0 or queries.shape[1] != width:
        raise RankproofError(
            f"queries: expected embeddings (w, {width}) as the gallery's, got {tuple(queries.shape)}"
        )
    if not bool(torch.isfinite(queries).all()):
        raise RankproofError("queries: the embeddings contain NaN or infinite values")
    return queries.detach().to(gallery.embeddings)
