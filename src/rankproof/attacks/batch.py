"""A batch of attacks, one row each: checked once, then sliced and passed on as one value."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rankproof.checks import check_embeddings, check_ids, check_images
from rankproof.errors import RankproofError
from rankproof.goals.base import AttackContext, BoundGoal, Goal
from rankproof.goals.candidate import CandidateGoal
from rankproof.parameters import check_flag
from rankproof.ranking.exact import LengthFrame
from rankproof.ranking.gallery import Gallery
from rankproof.types import Embeddings, Ids, Images, ImagesLike, IntegersLike, Kept, Queries, Rows

REEMBEDDED = 1e-4  # how far an image may be from its own item, relative to the embeddings, by rounding alone


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
    images: ImagesLike,
    *,
    gallery_ids: IntegersLike | None = None,
    targets: IntegersLike | None = None,
    preserved: IntegersLike | None = None,
    queries: ImagesLike | None = None,
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
    images = check_images("images", images)
    count, size = len(images), None if gallery is None else len(gallery)  # a service has any ids
    if images.dtype == torch.uint8:
        images = images / 255 if gallery is None else gallery.ranker.as_input(images)
    if check_flag("exclude_self", exclude_self) and gallery_ids is None:
        raise RankproofError("exclude_self=True needs gallery_ids=, the gallery positions of the images")
    ids = None
    if gallery_ids is not None:
        ids = check_ids("gallery_ids", gallery_ids, (count,), size)
        ids = ids if gallery is None else ids.to(gallery.embeddings.device)
    return AttackBatch(
        images=images,
        rng_keys=torch.arange(count) if ids is None else ids,
        gallery_ids=ids,
        targets=None if targets is None else check_ids("targets", targets, (count, None), size),
        preserved=None if preserved is None else check_ids("preserved", preserved, (count, None), size),
        queries=None if queries is None else _checked_queries(gallery, queries),
        exclude_self=exclude_self,
    )


def checked_batch(batch: AttackBatch, size: int | None) -> AttackBatch:
    """A batch that somebody made without `make_batch`, its images and positions checked.

    Args:
        size: |X|; None where it is not known, as behind a service.
    """
    images, ids = check_images("images", batch.images), batch.gallery_ids
    if images.dtype == torch.uint8:
        raise RankproofError("images: a batch holds floats in [0, 1], got 8-bit integers; use make_batch")
    ids = None if ids is None else check_ids("gallery_ids", ids, (len(batch),), size)
    return replace(batch, images=images, gallery_ids=ids)


def count_foreign(gallery: Gallery, ids: Tensor | None, clean: Tensor) -> int:
    """How many images are not where the gallery items are that they are said to be.

    The embedding of an image lies at that of its own item, or beside it where the image was rounded or
    encoded again. One that is farther from it than the gallery's spread, or half of that and less than half
    as far from another item, is that of another image, or of an encoder whose weights have changed.

    Args:
        ids: (b,) positions of the images' own clean copies; None: they are not in the gallery.
        clean: (b, d) embeddings of the images.
    """
    frame = gallery.frame
    if ids is None or gallery.ranker.random or not isinstance(frame, LengthFrame):
        return 0
    squared = frame.squared_to(frame.points(clean), gallery.points(ids.to(clean.device)))
    limit = max(frame.spread / 2, REEMBEDDED * (float(frame.centre.norm()) + frame.spread))
    far = (squared > limit**2).nonzero()[:, 0]
    if not len(far):
        return 0
    nearest = gallery.quick_lengths(clean[far])[0].amin(1)
    return int(((nearest < squared[far] / 4) | (squared[far] > frame.spread**2)).sum())


def foreign_text(count: int, total: int) -> str:
    """What is said of images that are not where the gallery items are that they are said to be."""
    return (
        f"{count} of {total} images are not the gallery items that gallery_ids names, or the encoder has "
        f"changed since the gallery was built; give the positions of their own clean copies, or build it anew"
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


def _checked_queries(gallery: Gallery | None, queries: ImagesLike) -> Tensor:
    """Given queries in the precision of the gallery's own embeddings."""
    if gallery is None:
        raise RankproofError(ONLY_CANDIDATES)
    queries = check_embeddings("queries", queries, gallery.embeddings.shape[1])
    return queries.to(gallery.embeddings)
