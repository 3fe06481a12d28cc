"""Attacks on retrieval itself: the query's neighbours become those of something else.

Their figures are about whether a search still works, not about one item's rank: whether the nearest other
item has the query's own class ("hit"), whether the clean nearest is still in sight ("kept"), and how near the
query came to the item it was drawn to ("distance"). The robustness score is made of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import AttackContext, BoundGoal, Goal, GoalSpec, Wish
from rankproof.goals.hinge import LOWER
from rankproof.goals.query import BoundQuery, HingeTerm
from rankproof.goals.selection import nearest_others
from rankproof.goals.wish import PairWish, PlacesWish
from rankproof.ranking.metrics import hit, known_labels
from rankproof.rng import integers
from rankproof.types import Embeddings, Evaluation, Ids, Rows

TOP = 4  # results in sight
ROWS = 10_000_000  # squared lengths held at once


@dataclass(frozen=True, kw_only=True)
class Mismatch(Goal):
    """Targeted mismatch: draw the query's embedding to that of a random item (T-PAMI 2024, "TMA").

    L(q) = d(q, c)

    c is drawn uniformly from the gallery without the query's own clean copy; it may be of the query's class.
    """

    SPEC = GoalSpec(
        name="mismatch",
        title="Mismatch",
        family="embedding",
        direction="pull",
        paper="T-PAMI 2024",
        metric="distance",
        larger_is_stronger=False,
        describe=lambda values: "The query is changed so that it looks like an item drawn at random.",
        figure_label="distance to the target",
        wish=lambda values: "a random item comes first",
    )
    whole_gallery = False  # only with its target

    def bind(self, context: AttackContext) -> BoundGoal:
        """A random other item, or the explicit one."""
        if context.targets is not None:
            return BoundAnchor(context, context.explicit("targets", context.targets, 1))
        others = context.size - (context.gallery_ids is not None)
        chosen = integers(context.seed, context.rng_keys, "mismatch", others, 1).to(context.clean.device)
        if context.gallery_ids is not None:
            # The own copy is left out: positions from it on move one further.
            chosen += (chosen >= context.gallery_ids[:, None]).to(chosen.dtype)
        return BoundAnchor(context, chosen)

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """The item is the first other result."""
        assert isinstance(bound, BoundAnchor)
        return bound.wish()


@dataclass(frozen=True, kw_only=True)
class NearestOther(Goal):
    """Greedy top-1: draw the query to the nearest item that does not match it (T-PAMI 2024, "GTM").

    L(q) = d(q, c)

    c is the item of another class that is nearest to the clean query. Needs labels and `gallery_ids`.
    """

    SPEC = GoalSpec(
        name="nearest-other",
        title="Nearest other",
        family="embedding",
        direction="pull",
        paper="T-PAMI 2024",
        metric="hit",
        larger_is_stronger=False,
        describe=lambda values: "The query is changed so that the nearest item of another class comes first.",
        figure_label="R@1, as a share",
        wish=lambda values: "the nearest item of another class comes first",
    )
    whole_gallery = False  # only with its target

    def bind(self, context: AttackContext) -> BoundGoal:
        """The nearest item of another class, or the explicit one."""
        gallery_ids = _needs_classes(context, "NearestOther")
        if context.targets is not None:
            return BoundNearestOther(context, context.explicit("targets", context.targets, 1), gallery_ids)
        return BoundNearestOther(
            context, outermost(context, gallery_ids, same_class=False)[:, None], gallery_ids
        )

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """The item is the first other result."""
        assert isinstance(bound, BoundNearestOther)
        return bound.wish()


@dataclass(frozen=True, kw_only=True)
class Misrank(Goal):
    """Learn to misrank: bring what does not match ahead of what does (T-PAMI 2024, "LTM").

    L(q) = [ d(q, n) - d(q, p) ]+

    n is the item of another class farthest from the clean query and p the nearest other item of its own
    class. Once d(q, n) < d(q, p), the worst negative is ahead of the best positive. Both are chosen once, on
    the clean distances: an attacker who chose anew at every step would chase a target that moves away.
    `targets` are (b, 2), n first. Needs labels, `gallery_ids`, and at least two items in the query's class.
    """

    SPEC = GoalSpec(
        name="misrank",
        title="Misrank",
        family="embedding",
        direction="pull",
        paper="T-PAMI 2024",
        metric="hit",
        larger_is_stronger=False,
        describe=lambda values: (
            "The query is changed so that the least similar item of another class comes before the most "
            "similar one of its own."
        ),
        figure_label="R@1, as a share",
        wish=lambda values: (
            "the least similar item of another class comes before the most similar one of its own"
        ),
    )
    whole_gallery = False  # only with two items

    def bind(self, context: AttackContext) -> BoundGoal:
        """The farthest negative and the nearest positive, or the explicit pair."""
        gallery_ids = _needs_classes(context, "Misrank")
        if context.targets is not None:
            return BoundMisrank(context, context.explicit("targets", context.targets, 2), gallery_ids)
        negative = outermost(context, gallery_ids, same_class=False, farthest=True)
        positive = outermost(context, gallery_ids, same_class=True)
        return BoundMisrank(context, torch.stack([negative, positive], dim=1), gallery_ids)

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """The negative comes before the positive."""
        assert isinstance(bound, BoundMisrank)
        return PairWish(bound.context, bound.targets)


@dataclass(frozen=True, kw_only=True)
class LeaveTop(Goal):
    """Push the clean nearest result out of the first results (T-PAMI 2024, "GTT"): a QA- with m = 1.

    L(q) = mean over x in X of [ d(q, x) - d(q, c) ]+                  (ECCV eq. 9)

    c is the item nearest to the clean query, its own copy excluded. The attack succeeds where c is no longer
    among the first 4 others.
    """

    SPEC = GoalSpec(
        name="top4",
        title="Top 4",
        family="query",
        direction="lower",
        paper="T-PAMI 2024",
        metric="kept",
        larger_is_stronger=False,
        clean_value=1.0,
        describe=lambda values: (
            "The query is changed so that its nearest item leaves the first four results."
        ),
        figure_label="nearest still in the first 4, as a share",
        wish=lambda values: "the best result has left the first 4",
    )

    def bind(self, context: AttackContext) -> BoundGoal:
        """The nearest other item, or the explicit one."""
        if context.size - (context.gallery_ids is not None) <= TOP:
            raise RankproofError(f"LeaveTop needs more than {TOP} other items; take a larger gallery")
        if context.targets is not None:
            return BoundTop(context, context.explicit("targets", context.targets, 1))
        return BoundTop(context, nearest_others(context, 1))

    def wish(self, bound: BoundGoal, first: int) -> Wish | None:
        """The item is no longer among the first 4 other results."""
        assert isinstance(bound, BoundTop)
        return PlacesWish(bound.context, bound.targets, [TOP], [False], TOP)


class BoundAnchor:
    """A query and the item it is drawn to."""

    stationary = False

    def __init__(self, context: AttackContext, targets: Ids) -> None:
        self.context = context
        self.targets: Ids = targets
        self.preserved: Ids = targets[:, :0]
        self._anchors = context.gallery.prepared[targets[:, 0]]  # (b, d)

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: the distance to the target; fitness: minus that distance."""
        gallery = self.context.gallery
        left = gallery.between(gallery.prepare(z), self._anchors)
        return Evaluation(left, -left.detach())

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """The distance to the target."""
        gallery = self.context.gallery
        return {"distance": gallery.exact_between(z, gallery.embeddings[self.targets[:, 0]])}

    def wish(self) -> PlacesWish:
        """What has to come true: the item is the first other result."""
        return PlacesWish(self.context, self.targets, [1], [True], 1)


class BoundNearestOther(BoundAnchor):
    """A query that is drawn to an item of another class."""

    def __init__(self, context: AttackContext, targets: Ids, gallery_ids: Rows) -> None:
        super().__init__(context, targets)
        self._gallery_ids = gallery_ids

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """R@1 of the query, and the distance to the target."""
        return {"hit": hit(self.context.gallery, z, self._gallery_ids)} | super().metrics(z)


class BoundMisrank:
    """A query, the negative that is to come first and the positive that is to come after it."""

    stationary = False

    def __init__(self, context: AttackContext, targets: Ids, gallery_ids: Rows) -> None:
        self.context, self._gallery_ids = context, gallery_ids
        self.targets: Ids = targets
        self.preserved: Ids = targets[:, :0]
        self._anchors = context.gallery.prepared[targets]  # (b, 2, d)

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: the hinge; fitness: how much nearer the negative is than the positive."""
        gallery = self.context.gallery
        negative, positive = gallery.between(gallery.prepare(z)[:, None], self._anchors).unbind(1)
        behind = negative - positive
        return Evaluation(behind.relu(), -behind.detach())

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """R@1 of the query."""
        return {"hit": hit(self.context.gallery, z, self._gallery_ids)}


class BoundTop(BoundQuery):
    """A query and its clean nearest result, which is to leave the first results."""

    def __init__(self, context: AttackContext, targets: Ids) -> None:
        super().__init__(context, (HingeTerm(ids=targets, direction=LOWER, weight=1.0, keeps=False),))

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """Whether the result is in sight, by its place in the returned list, and its normalised rank in %."""
        places = self.context.gallery.rank_of(
            z, self.targets, ties="order", excluded=self.context.gallery_ids
        )
        return {"kept": (places[:, 0] < TOP).double()} | super().metrics(z)


def outermost(context: AttackContext, gallery_ids: Rows, *, same_class: bool, farthest: bool = False) -> Rows:
    """The nearest, or farthest, item of each clean image's own class, or of any other class.

    The image's own clean copy does not count; of equally far items the first in the gallery is taken.

    Args:
        gallery_ids: (b,) gallery positions of the images.
        same_class: among the other items of the image's class; else among all of other classes.
        farthest: the farthest of them instead of the nearest.
    Returns:
        (b,) positions in the gallery.
    Raises:
        RankproofError: an image has no such item.
    """
    gallery, labels = context.gallery, known_labels(context.gallery)
    items = torch.arange(len(gallery), device=labels.device)
    positions = torch.full_like(gallery_ids, -1)
    for rows in torch.arange(len(gallery_ids), device=labels.device).split(max(1, ROWS // len(gallery))):
        own = gallery_ids[rows, None]
        fits = ((labels[own] == labels) == same_class) & (own != items)  # (rows, n)
        squared = gallery.squared_lengths(context.clean[rows])
        signed = (-squared if farthest else squared).masked_fill(~fits, math.inf)
        positions[rows] = signed.argmin(1).where(fits.any(1), -1)  # the first of equal ones
    if bool((positions < 0).any()):
        item = int(gallery_ids[positions < 0][0])
        kind = "another item of its class" if same_class else "an item of another class"
        raise RankproofError(f"item {item} needs {kind} in the gallery, there is none; attack other items")
    return positions


def _needs_classes(context: AttackContext, goal: str) -> Rows:
    """The images' gallery positions, by which their classes are known."""
    if context.gallery.labels is None or context.gallery_ids is None:
        raise RankproofError(
            f"{goal} asks for classes: give the gallery labels, and gallery_ids= to attack()"
        )
    return context.gallery_ids
