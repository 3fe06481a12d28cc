"""What has to come true for an attack to have succeeded: a yes or no for each attack, and how far it is off.

A figure says how far an attack went at one budget. A wish says whether it got what it wanted, so that the
smallest budget at which it does can be sought. In every wish the attacked image's own clean copy is left out
of the rankings (`AttackContext.exclude_self`), and places are those of the returned list.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from rankproof.goals.base import AttackContext
from rankproof.types import Embeddings, Evaluation, Ids

SIGHTS = (10, 20, 50, 100)  # how many results a page, or a few of them, show
FIRST = 10  # K: results of a first page


def sight(pool: int) -> int:
    """N, out of which an item has to sink: the smallest of 10, 20, 50, 100 that holds the pool, or the pool.

    Args:
        pool: how many of the nearest items an attack's items were chosen from.
    """
    return next((places for places in SIGHTS if places >= pool), pool)


class PlacesWish:
    """Items that are to stand within the first results of a perturbed query, or beyond them.

    Args:
        ids: (b, m) positions of the items.
        places: for each of the m columns a number of results.
        within: for each column whether the item is to be among them; else beyond them.
        shown: the number of results that a sentence names; None where that is K.
        kept: how many of the last items only have to stay; the others are all wanted within, or all beyond.
    """

    def __init__(
        self,
        context: AttackContext,
        ids: Ids,
        places: Sequence[int],
        within: Sequence[bool],
        shown: int | None = None,
        kept: int = 0,
    ) -> None:
        self.context, self.ids, self.places = context, ids, shown
        self._most = torch.tensor(places, device=ids.device)
        self._within = torch.tensor(within, device=ids.device)
        self._kept = kept

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: the largest distance by which an item is on the wrong side of its place."""
        loss = self._beyond(self.context.gallery.distances(z)).amax(1)
        return Evaluation(loss, -loss.detach())

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: how far the chosen items are from their places, plus what the kept ones are beyond theirs."""
        distances = self.context.gallery.distances(z)
        beyond = self._beyond(distances)
        chosen = beyond.shape[1] - self._kept
        raised = bool(self._within[0])
        loss = self._behind(distances, chosen) if raised else beyond[:, :chosen].amax(1)
        violation = None
        if self._kept:
            behind = beyond[:, chosen:].relu().sum(1)
            loss = loss + (behind if penalty_weight is None else penalty_weight * behind)
            violation = 1 + beyond[:, chosen:].amax(1).detach()
        return Evaluation(loss, -beyond.amax(1).detach(), violation)

    def _behind(self, distances: Tensor, chosen: int) -> Tensor:
        """(b,) the mean over the raised items of their distance beyond that of the items before them.

        These are all items that are nearer, and at least twice as many as there are first results: a mean
        changes little where items change places, which the distance of the last of them does not.
        """
        others = distances.detach()
        if (excluded := self.context.excluded) is not None:
            others = others.scatter(1, excluded[:, None], torch.inf)
        count = min(2 * int(self._most[0]), others.shape[1] - 1)
        nearest = others.topk(count, dim=1, largest=False).values[:, -1]
        losses = []
        for d in distances.gather(1, self.ids[:, :chosen]).unbind(1):
            before = others <= torch.maximum(d.detach(), nearest)[:, None]
            losses.append(d - (distances * before).sum(1) / before.sum(1))
        return torch.stack(losses, dim=1).mean(1)

    def _beyond(self, distances: Tensor) -> Tensor:
        """(b, m) how far each item is on the wrong side of its place, from distances (b, n)."""
        d = distances.gather(1, self.ids)
        limits = threshold(distances, self.ids, self._most, self.context.excluded)
        return torch.where(self._within, d - limits, limits - d)

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether every item stands on the right side of its place."""
        ranks = self.context.gallery.rank_of(z, self.ids, ties="order", excluded=self.context.excluded)
        return torch.where(self._within, ranks < self._most, ranks >= self._most).all(1)


def threshold(distances: Tensor, ids: Ids, places: Tensor, excluded: Tensor | None) -> Tensor:
    """(b, m) the distance of the last of the first results, each item itself left out.

    An item is among the first K results where it is nearer than this.

    Args:
        distances: (b, n) from each query to the gallery.
        ids: (b, m) the items.
        places: (m,) K of each column.
        excluded: (b,) items that do not count, or None.
    """
    if excluded is not None:
        distances = distances.scatter(1, excluded[:, None], torch.inf)
    count = min(int(places.max()) + 1, distances.shape[1])
    nearest = distances.topk(count, dim=1, largest=False).values  # (b, K + 1) ascending
    last = (places - 1).clamp(max=count - 1).expand(len(ids), -1)
    inside = distances.gather(1, ids) <= nearest.gather(1, last)
    return nearest.gather(1, (last + inside).clamp(max=count - 1))


class CandidateWish:
    """A perturbed candidate that is to stand within, or beyond, the first results of each of its queries.

    Args:
        queries: (b, w) the queries.
        limits: (b, w) the distance within which, or beyond which, the candidate has to be.
        anchors: (b, w, d) the prepared embeddings of the queries.
        places: how many results.
        within: whether the candidate is to be among them.
    """

    def __init__(
        self,
        context: AttackContext,
        queries: Ids,
        limits: Tensor,
        anchors: Tensor,
        *,
        places: int,
        within: bool,
    ) -> None:
        self.context, self.queries, self.limits, self.anchors = context, queries, limits, anchors
        self.places, self._most, self.within = None if within else places, places, within

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: the largest distance by which the candidate is on the wrong side."""
        gallery = self.context.gallery
        d = gallery.between(self.anchors, gallery.prepare(z)[:, None])  # (b, w)
        beyond = d - self.limits if self.within else self.limits - d
        loss = beyond.amax(1)
        return Evaluation(loss, -loss.detach())

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """The same."""
        return self.evaluate(z)

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether the candidate stands on the right side for every query."""
        context = self.context
        ranks = context.gallery.rank_among(z, self.queries, given=context.queries, excluded=context.excluded)
        return ((ranks < self._most) if self.within else (ranks >= self._most)).all(1)


class PairWish:
    """Two items of which the first is to come before the second.

    Args:
        pairs: (b, 2) positions of the items.
    """

    places: int | None = None

    def __init__(self, context: AttackContext, pairs: Ids) -> None:
        self.context, self.pairs = context, pairs
        self._anchors = context.gallery.prepared[pairs]  # (b, 2, d)

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: how much farther the first is than the second."""
        gallery = self.context.gallery
        first, second = gallery.between(gallery.prepare(z)[:, None], self._anchors).unbind(1)
        return Evaluation(first - second, (second - first).detach())

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """The same."""
        return self.evaluate(z)

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether the first comes before the second in the returned list."""
        first, second = self.context.gallery.rank_of(z, self.pairs, ties="order").unbind(1)
        return first < second


class OrderWish:
    """Chosen results that are to stand in a wanted order within sight.

    Args:
        wanted: (b, k) the results in wanted order.
        places: within how many of the first results all of them have to be.
    """

    def __init__(self, context: AttackContext, wanted: Ids, places: int) -> None:
        self.context, self.wanted, self.places = context, wanted, places

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: the largest distance by which two neighbours, or the last place, are wrong."""
        loss = self.margins(z).amax(1)
        return Evaluation(loss, -loss.detach())

    def margins(self, z: Embeddings) -> Tensor:
        """(b, k) how much farther each is than the next, and the last than the last place in sight.

        Where the order is right, the last of them is the farthest. Where everything is in sight, as in a
        small gallery, there are k - 1.
        """
        distances = self.context.gallery.distances(z)
        d = distances.gather(1, self.wanted)
        if distances.shape[1] - (self.context.excluded is not None) <= self.places:
            return d[:, :-1] - d[:, 1:]
        places = torch.tensor([self.places], device=d.device)
        limit = threshold(distances, self.wanted[:, -1:], places, self.context.excluded)
        return torch.cat([d[:, :-1] - d[:, 1:], d[:, -1:] - limit], dim=1)

    def towards(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """The same as the wish."""
        return self.evaluate(z)

    def reached(self, z: Embeddings) -> Bool[Tensor, " b"]:
        """Whether Kendall's tau is 1 and every one of them is in sight."""
        ranks = self.context.gallery.rank_of(z, self.wanted, ties="order", excluded=self.context.excluded)
        return (ranks[:, 1:] > ranks[:, :-1]).all(1) & (ranks < self.places).all(1)
