"""A gallery: the embeddings of a whole database, and where items stand in its rankings.

Ranks are those of exact arithmetic on the embeddings, whatever their scale and however near to each other
they lie: `rankproof.ranking.exact` decides what double precision leaves open. Products are taken in blocks,
so that no matrix of all pairs is ever held, and ranks are counted, never sorted for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankproof.checks import check_embeddings, check_images, check_labels, check_not_black
from rankproof.errors import RankproofError
from rankproof.modes import ordinary_modes
from rankproof.ranking.distances import LengthDistance
from rankproof.ranking.exact import (
    PAIR_VALUES,
    Frame,
    LengthFrame,
    Points,
    exact_distances,
    frame_of,
    undecided,
)
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import Ranker
from rankproof.ranking.sorting import sort_rows
from rankproof.types import ImagesLike, IntegersLike, ProgressCallback, no_progress

BLOCK_ITEMS = 8192  # gallery items in one block of distances
BLOCK_QUERIES = 512  # queries in one block of distances
SPARE = 8  # items a search keeps beyond those asked for, to see whether the order of the last is certain
WHOLE_VALUES = 10_000_000  # squared lengths of whole rows held at once
KEPT_VALUES = 50_000_000  # embedding values up to which a gallery keeps its points in double precision
EQUAL = 2.0**-44  # relative difference of squared lengths to an item that was embedded again
GALLERY = "Gallery.build(ranker, images)"  # what a message gives as an example
NARROW = 1 / 64  # spread of the embeddings around their centre, relative to its length


@dataclass(frozen=True)
class Gallery:
    """A database that can be searched and asked for ranks.

    Args:
        ranker: how images become embeddings, and the distance between them.
        embeddings: (n, d) embeddings of all items, as the encoder returned them.
        labels: (n,) class of each item, where known.
        images: (n, c, h, w) the items themselves, or of several sizes, for reports; never used to rank.
    """

    ranker: Ranker
    embeddings: Tensor
    labels: Tensor | None = None
    images: Tensor | MixedImages | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Tensor] = {"embeddings": check_embeddings("embeddings", self.embeddings)}
        if self.labels is not None:
            checked["labels"] = check_labels("labels", self.labels, len(self.embeddings))
        if isinstance(self.images, MixedImages):
            if len(self.images) != len(self.embeddings):
                raise RankproofError(f"images: expected {len(self.embeddings)}, got {len(self.images)}")
        elif self.images is not None:
            checked["images"] = check_images("images", self.images, count=len(self.embeddings))
        for name, values in checked.items():
            object.__setattr__(self, name, values)

    @classmethod
    @ordinary_modes()
    def build(
        cls,
        ranker: Ranker,
        images: ImagesLike | MixedImages,
        labels: IntegersLike | None = None,
        progress: ProgressCallback = no_progress,
    ) -> "Gallery":
        """Embed a database.

        Args:
            images: (n, c, h, w) floats in [0, 1] or 8-bit values, or images of several sizes.
            labels: (n,) class of each item, as integers; a list will do.
            progress: called with images embedded and images in all.
        Raises:
            RankproofError: the images or labels are something else, or are fewer than two.
        """
        images = images if isinstance(images, MixedImages) else check_images("images", images)
        if len(images) < 2:
            raise RankproofError(f"a gallery needs at least 2 items, this one has {len(images)}")
        if isinstance(images, Tensor):
            check_not_black("images", images)
        labels = None if labels is None else check_labels("labels", labels, len(images))
        ranker.begin(images)
        return cls(ranker, ranker.embed_all(images, progress), labels, images)

    def __len__(self) -> int:
        return len(self.embeddings)

    # -- what attacks go by: differentiable, in the gallery's precision ------------------------------

    @cached_property
    def frame(self) -> Frame:
        """How the embeddings are compared in double precision."""
        return frame_of(self.embeddings, self.ranker.distance)

    @property
    def narrow(self) -> bool:
        """Whether all embeddings lie so close together that single precision would lose their distances."""
        return self._centre is not None

    @cached_property
    def prepared(self) -> Tensor:
        """(n, d) all embeddings as `prepare` returns them."""
        return self.prepare(self.embeddings)

    def prepare(self, z: Tensor) -> Tensor:
        """Embeddings (..., d) as attacks compare them: scaled as the distance asks, and moved if narrow.

        Where all embeddings lie close together, single precision would lose their distances. There they are
        taken from the gallery's centre, which changes no distance.
        """
        prepared = self.ranker.distance.prepare(z)
        return prepared if self._centre is None else prepared - self._centre

    @cached_property
    def _centre(self) -> Tensor | None:
        """(d,) the centre from which embeddings are taken in a narrow gallery, else None."""
        frame = self.frame
        if not isinstance(frame, LengthFrame) or frame.spread >= NARROW * float(frame.centre.norm()):
            return None
        return (frame.centre / frame.scale).to(self.embeddings)

    def distances(self, z: Tensor) -> Tensor:
        """All distances from embeddings (b, d) to the whole gallery, (b, n)."""
        distance, prepared = self.ranker.distance, self.prepare(z)
        if self._centre is None or not isinstance(distance, LengthDistance):
            return distance.pairwise(prepared, self.prepared)
        return distance.near_pairwise(prepared, self.prepared)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances along the last dimension of embeddings that `prepare` returned: (..., d) to (...)."""
        distance = self.ranker.distance
        if self._centre is None or not isinstance(distance, LengthDistance):
            return distance.between(a, b)
        return distance.near_between(a, b)

    # -- what figures are taken from: double precision, and exact where that leaves the order open ----

    def exact_between(self, a: Tensor, b: Tensor) -> Tensor:
        """(p,) distances between pairs of embeddings (p, d), exact to the last digits of double precision."""
        return exact_distances(self.ranker.distance, a, b)

    @cached_property
    def _kept_points(self) -> Points | None:
        """All items in the frame, where they are few enough to be kept."""
        return self.frame.points(self.embeddings) if self.embeddings.numel() <= KEPT_VALUES else None

    def points(self, items: slice | Tensor) -> Points:
        """Some items in the frame, where quick squared lengths to them are taken."""
        kept = self._kept_points
        return self.frame.points(self.embeddings[items]) if kept is None else kept[items]

    def blocks(self, points: Points) -> Iterator[tuple[slice, slice, Tensor]]:
        """Quick squared lengths from points of the frame (b, d) to the gallery, block by block.

        Yields:
            the rows of the points, the gallery items, and their squared lengths (rows, items).
        """
        for first in range(0, len(self), BLOCK_ITEMS):
            items = slice(first, min(first + BLOCK_ITEMS, len(self)))
            block = self.points(items)
            for start in range(0, len(points), BLOCK_QUERIES):
                rows = slice(start, min(start + BLOCK_QUERIES, len(points)))
                yield rows, items, self.frame.squared(points[rows], block)

    @cached_property
    def _groups(self) -> Tensor:
        """(n,) a number for each item; items with equal embeddings have the same."""
        bits = (self.embeddings + 0.0).contiguous().view(torch.uint8)  # 0 and -0 are equal
        random = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**63), 2**63 - 1, (bits.shape[1],), generator=random).to(bits.device)
        # Sums of products modulo 2^64: unequal embeddings collide once in 2^64 pairs.
        sums = torch.cat([(part * factors).sum(1) for part in bits.split(BLOCK_ITEMS)])
        groups: Tensor = sums.unique(return_inverse=True)[1]
        return groups

    def _exact(self, z: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        """(p,) exact squared lengths from rows of `z` (b, d) to items; equal items are computed once."""
        keys, inverse = (rows * len(self) + self._groups[items]).unique(return_inverse=True)
        pair = torch.empty_like(keys).scatter_(0, inverse, torch.arange(len(rows), device=rows.device))
        return self.frame.exact(z[rows[pair]], self.embeddings[items[pair]])[inverse]

    def refined(self, z: Tensor, squared: Tensor, margin: Tensor, items: Tensor | None = None) -> Tensor:
        """Squared lengths (b, c) in exact order: those that lie too near to others are replaced.

        Args:
            z: (b, d) the embeddings they are taken from.
            squared: (b, c) quick squared lengths.
            margin: (b, 1) their largest error.
            items: (b, c) the items they belong to; None for the whole gallery.
        """
        ordered = sort_rows(squared.clone())
        touched = (ordered[:, 1:] - ordered[:, :-1] < 2 * margin).any(1).nonzero()[:, 0]
        if not len(touched):
            return squared
        rows, columns = undecided(squared[touched], margin[touched])
        rows = touched[rows]
        exact = self._exact(z, rows, columns if items is None else items[rows, columns])
        return squared.index_put((rows, columns), exact)

    def quick_lengths(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Squared lengths (b, n) from embeddings (b, d) to the gallery, and their largest error (b, 1)."""
        points = self.frame.points(z)
        squared = torch.empty(len(z), len(self), dtype=torch.float64, device=z.device)
        for rows, items, block in self.blocks(points):
            squared[rows, items] = block
        return squared, self.frame.margin(points)

    def squared_lengths(self, z: Tensor) -> Tensor:
        """(b, n) squared lengths from embeddings (b, d) to the whole gallery, in exact order."""
        return self.refined(z, *self.quick_lengths(z))

    def search(self, z: Tensor, top: int, *, excluded: Tensor | None = None) -> Tensor:
        """The nearest items, nearest first; equal distances in gallery order.

        Args:
            z: (b, d) embeddings of queries.
            excluded: (b,) items that do not count, such as the query's own clean copy; None counts all.
        Returns:
            (b, min(top, n)) positions in the gallery; with `excluded` top must be below n.
        """
        if excluded is not None:
            ids = self.search(z, top + 1)
            others = ids != excluded[:, None]
            others[:, -1] &= ~others.all(1)  # duplicates may have pushed the excluded item further back
            return ids[others].view(len(ids), top)
        top = min(top, len(self))
        points = self.frame.points(z)
        margin = self.frame.margin(points)
        squared, ids = self._nearest(points, min(top + SPARE, len(self)))
        order = self.refined(z, squared, margin, ids).sort(dim=1, stable=True).indices[:, :top]
        found = ids.gather(1, order)
        if squared.shape[1] < len(self):
            # An item that was not kept is at least as far as the farthest one that was.
            last = squared.kthvalue(top, dim=1).values
            unsure = (squared.amax(1) - last <= 2 * margin[:, 0]).nonzero()[:, 0]
            for rows in unsure.split(max(1, WHOLE_VALUES // len(self))):
                found[rows] = self.squared_lengths(z[rows]).sort(dim=1, stable=True).indices[:, :top]
        return found

    def _nearest(self, points: Points, count: int) -> tuple[Tensor, Tensor]:
        """The smallest `count` quick squared lengths of each row and their items, in gallery order."""
        squared = points.squares.new_empty(len(points), 0)
        ids = torch.empty(len(points), 0, dtype=torch.int64, device=squared.device)
        parts: list[tuple[Tensor, Tensor]] = []
        for rows, items, block in self.blocks(points):
            near, columns = block.topk(min(count, block.shape[1]), dim=1, largest=False)
            parts.append((near, columns + items.start))
            if rows.stop == len(points):
                squared = torch.cat([squared, torch.cat([near for near, _ in parts])], dim=1)
                ids, parts = torch.cat([ids, torch.cat([numbers for _, numbers in parts])], dim=1), []
                squared, columns = squared.topk(min(count, squared.shape[1]), dim=1, largest=False)
                ids = ids.gather(1, columns)
        ids, columns = ids.sort(dim=1)
        return squared.gather(1, columns), ids

    def rank_of(
        self,
        z: Tensor,
        chosen: Tensor,
        *,
        ties: str = "strict",
        excluded: Tensor | None = None,
        among: Tensor | None = None,
    ) -> Tensor:
        """Where the chosen items stand in the ranking of each query, counted from 0.

        rank(q, c) = #{x in X: d(q, x) < d(q, c)}

        Args:
            z: (b, d) embeddings of queries.
            chosen: (b, m) positions in the gallery.
            ties: "strict" counts strictly nearer items; "order" also those equally far that come before
                `c` in the gallery, which is its place in the returned list.
            excluded: (b,) items that do not count, such as the query's own clean copy; None counts all.
            among: (k,) the only items that count, in gallery order; None counts all.
        Returns:
            (b, m) ranks, int64.
        """
        ranks, rows = torch.zeros_like(chosen), torch.arange(len(z), device=z.device)
        points = self.frame.points(z)
        own = rows.repeat_interleave(chosen.shape[1])
        limits = self._lengths(points, own, lambda part: self.points(chosen.flatten()[part]))
        limits, slack = limits.view(chosen.shape), 2 * self.frame.margin(points)
        positions = torch.arange(len(self), device=z.device) if among is None else among
        for ids in positions.split(BLOCK_ITEMS):
            block = self.points(ids if among is not None else slice(int(ids[0]), int(ids[-1]) + 1))
            for part in rows.split(BLOCK_QUERIES):
                squared = self.frame.squared(points[part], block)
                if excluded is not None:
                    _leave_out(squared, ids, excluded[part])
                for column, items in enumerate(chosen[part].unbind(1)):
                    present = _find(ids, items)[1]
                    limit = _Limit(
                        squared=limits[part, column, None],
                        slack=slack[part],
                        anchors=z[part],
                        chosen=self.embeddings[items],
                        present=present if excluded is None else present & (items != excluded[part]),
                        first=items if ties == "order" else None,
                    )
                    ranks[part, column] += self._nearer(squared, ids, limit)
        return ranks

    def rank_among(
        self, z: Tensor, queries: Tensor, *, given: Tensor | None = None, excluded: Tensor | None = None
    ) -> Tensor:
        """Where items that replace nothing would stand in the rankings of gallery items used as queries.

        rank(q, c~) = #{x in X: d(q, x) < d(q, c~)}

        The clean copy of an unmoved candidate is as far as the candidate, although it was embedded in another
        batch: squared lengths that differ by less than 2^-44 of their size are equal here.

        Args:
            z: (b, d) embeddings of the candidates.
            queries: (b, w) positions of the queries in the gallery, or in `given`.
            given: (u, d) embeddings of queries that are no items of the gallery, or None.
            excluded: (b,) items that do not count, such as the candidate's own clean copy; None counts all.
        Returns:
            (b, w) ranks, int64.
        """
        unique, inverse = queries.unique(return_inverse=True)
        anchors = (self.embeddings if given is None else given)[unique]
        # One slot for each query of each candidate (b * w), grouped by query.
        query, order = inverse.flatten().sort(stable=True)
        candidate = order // queries.shape[1]
        points, ends = self.frame.points(anchors), self.frame.points(z)
        limits = self._lengths(points, query, lambda part: ends[candidate[part]])[:, None]
        slack = 2 * self.frame.margin(points, ends)[query]
        slack = slack + EQUAL * limits if bool(slack.any()) else slack
        counts = torch.zeros_like(query)
        for rows, items, squared in self.blocks(points):
            ids = torch.arange(items.start, items.stop, device=z.device)
            first = int(torch.searchsorted(query, rows.start))
            last = int(torch.searchsorted(query, rows.stop))
            for start in range(first, last, BLOCK_QUERIES):
                slots = slice(start, min(start + BLOCK_QUERIES, last))
                asked, moved = query[slots], candidate[slots]
                there = squared[asked - rows.start]
                if excluded is not None:
                    _leave_out(there, ids, excluded[moved])
                limit = _Limit(
                    squared=limits[slots],
                    slack=slack[slots],
                    anchors=anchors[asked],
                    chosen=z[moved],
                    equal=EQUAL,
                )
                counts[slots] += self._nearer(there, ids, limit)
        return torch.empty_like(counts).scatter_(0, order, counts).view(queries.shape)

    def _lengths(self, points: Points, rows: Tensor, ends: Callable[[slice], Points]) -> Tensor:
        """(p,) quick squared lengths from the points at some rows (p,), each to its own end."""
        size = max(1, PAIR_VALUES // points.vectors.shape[1])
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        return torch.cat([self.frame.squared_to(points[rows[part]], ends(part)) for part in parts])

    def _nearer(self, squared: Tensor, ids: Tensor, limit: "_Limit") -> Tensor:
        """(g,) how many of some items (k,) stand before the chosen one of each row."""
        certain = squared < limit.squared - limit.slack
        count = certain.sum(1)
        if not bool(limit.slack.any()):
            if limit.first is not None:
                count += ((squared == limit.squared) & (ids < limit.first[:, None])).sum(1)
            return count
        possible = squared <= limit.squared + limit.slack
        open_rows = (possible.sum(1) - count != limit.present).nonzero()[:, 0]
        if not len(open_rows):
            return count
        anchors = limit.anchors[open_rows]
        rows, columns = (possible[open_rows] & ~certain[open_rows]).nonzero(as_tuple=True)
        chosen = limit.chosen[open_rows]
        same = (self.embeddings[ids[columns]] == chosen[rows]).all(1)
        if limit.first is not None:
            tied = same & (ids[columns] < limit.first[open_rows][rows])
            count = count.index_add(0, open_rows[rows], tied.to(count.dtype))
        rows, columns = rows[~same], columns[~same]
        if not len(rows):
            return count
        compared, inverse = rows.unique(return_inverse=True)
        here = self.frame.exact(anchors[compared], chosen[compared])[inverse]
        there = self._exact(anchors, rows, ids[columns])
        before = there < here * (1 - limit.equal)
        if limit.first is not None:
            before |= (there == here) & (ids[columns] < limit.first[open_rows][rows])
        return count.index_add(0, open_rows[rows], before.to(count.dtype))


@dataclass(frozen=True, kw_only=True)
class _Limit:
    """What items are compared with in g rankings.

    Args:
        squared: (g, 1) quick squared length from each query to the chosen item.
        slack: (g, 1) how much two quick squared lengths must differ for their order to be certain.
        anchors: (g, d) embeddings of the queries.
        chosen: (g, d) embeddings of the chosen items.
        present: (g,) whether the chosen item is itself among those that are compared with it.
        first: (g,) the position from which on equally far items do not count; None: none of them counts.
        equal: squared lengths that differ by less, relative to their size, are equal.
    """

    squared: Tensor
    slack: Tensor
    anchors: Tensor
    chosen: Tensor
    present: Tensor | int = 0
    first: Tensor | None = None
    equal: float = 0.0


def _find(ids: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Where some items (b,) stand among ascending ids (k,), and whether they do."""
    columns = torch.searchsorted(ids, items.contiguous()).clamp(max=len(ids) - 1)
    return columns, ids[columns] == items


def _leave_out(squared: Tensor, ids: Tensor, excluded: Tensor) -> None:
    """Make the excluded item of each row infinitely far, in place."""
    columns, present = _find(ids, excluded)
    rows = present.nonzero()[:, 0]
    squared[rows, columns[rows]] = torch.inf
