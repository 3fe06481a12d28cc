"""A gallery: the embeddings of a whole database, and where items stand in its rankings.

Verdicts are taken in double precision: 32-bit cosine distances of near neighbours are so coarse that
different items tie, and a tie is a wrong rank. Products are taken in blocks, so that no matrix of all
pairs is ever held, and ranks are counted, never sorted for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.ranker import Ranker
from rankproof.types import ProgressCallback, no_progress

BLOCK_ITEMS = 8192  # gallery items in one block of distances
BLOCK_QUERIES = 512  # queries in one block of distances
ROUNDING = 1e-10  # of double-precision distances computed in two ways


@dataclass(frozen=True)
class Gallery:
    """A database that can be searched and asked for ranks.

    Args:
        ranker: how images become embeddings, and the distance between them.
        embeddings: (n, d) prepared embeddings of all items.
        labels: (n,) class of each item, where known.
        images: (n, c, h, w) the items themselves, for reports; never used to rank.
    """

    ranker: Ranker
    embeddings: Tensor
    labels: Tensor | None = None
    images: Tensor | None = None

    @classmethod
    def build(
        cls,
        ranker: Ranker,
        images: Tensor,
        labels: Tensor | None = None,
        progress: ProgressCallback = no_progress,
    ) -> "Gallery":
        """Embed a database.

        Args:
            images: (n, c, h, w) floats in [0, 1] or 8-bit values.
            labels: (n,) class of each item.
            progress: called with images embedded and images in all.
        """
        if len(images) < 2:
            raise RankproofError(f"a gallery needs at least 2 items, this one has {len(images)}")
        if labels is not None and len(labels) != len(images):
            raise RankproofError(f"{len(images)} gallery images but {len(labels)} labels")
        ranker.begin(images)
        return cls(ranker, ranker.embed_all(images, progress), labels, images)

    def __len__(self) -> int:
        return len(self.embeddings)

    def distances(self, z: Tensor) -> Tensor:
        """All distances from embeddings (b, d) to the whole gallery, (b, n), in the gallery's precision."""
        return self.ranker.distance.pairwise(z, self.embeddings)

    def blocks(self, z: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """The distances from (b, d) to the gallery in double precision, block by block.

        Yields:
            the rows of `z`, the gallery items, and their distances.
        """
        for first in range(0, len(self), BLOCK_ITEMS):
            items = slice(first, min(first + BLOCK_ITEMS, len(self)))
            block = self.embeddings[items].double()
            for start in range(0, len(z), BLOCK_QUERIES):
                rows = slice(start, min(start + BLOCK_QUERIES, len(z)))
                yield rows, items, self.ranker.distance.pairwise(z[rows].double(), block)

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
        best = z.new_empty(len(z), 0, dtype=torch.float64)
        ids = torch.empty(len(z), 0, dtype=torch.int64, device=z.device)
        for first in range(0, len(self), BLOCK_ITEMS):
            parts = list(self._nearest_in_block(z, first, top))
            best = torch.cat([best, torch.cat([d for d, _ in parts])], dim=1)
            ids = torch.cat([ids, torch.cat([i for _, i in parts])], dim=1)
            order = best.sort(dim=1, stable=True).indices[:, :top]
            best, ids = best.gather(1, order), ids.gather(1, order)
        return ids

    def _nearest_in_block(self, z: Tensor, first: int, top: int) -> Iterator[tuple[Tensor, Tensor]]:
        block = self.embeddings[first : first + BLOCK_ITEMS].double()
        for rows in z.split(BLOCK_QUERIES):
            distances = self.ranker.distance.pairwise(rows.double(), block)
            near, ids = _stable_smallest(distances, min(top, distances.shape[1]))
            yield near, ids + first

    def rank_of(
        self, z: Tensor, chosen: Tensor, *, ties: str = "strict", excluded: Tensor | None = None
    ) -> Tensor:
        """Where the chosen items stand in the ranking of each query, counted from 0.

        rank(q, c) = #{x in X: d(q, x) < d(q, c)}

        Args:
            z: (b, d) embeddings of queries.
            chosen: (b, m) positions in the gallery.
            ties: "strict" counts strictly nearer items; "order" also those equally far that come before
                `c` in the gallery, which is its place in the returned list.
            excluded: (b,) items that do not count, such as the query's own clean copy; None counts all.
        Returns:
            (b, m) ranks, int64.
        """
        columns = chosen if excluded is None else torch.cat([chosen, excluded[:, None]], dim=1)
        d = self._chosen_distances(z, columns)  # (b, m), or (b, m + 1) with the excluded item last
        ranks = torch.zeros_like(chosen)
        for rows, items, distances in self.blocks(z):
            for column in range(chosen.shape[1]):
                threshold = d[rows, column, None]
                nearer = distances < threshold
                if ties == "order":
                    before = (
                        torch.arange(items.start, items.stop, device=z.device) < chosen[rows, column, None]
                    )
                    nearer |= (distances == threshold) & before
                ranks[rows, column] += nearer.sum(1)
        if excluded is not None:
            counted = d[:, -1:] < d[:, :-1]
            if ties == "order":
                counted |= (d[:, -1:] == d[:, :-1]) & (excluded[:, None] < chosen)
            ranks -= counted.to(ranks.dtype)
        return ranks

    def _chosen_distances(self, z: Tensor, chosen: Tensor) -> Tensor:
        """The distances (b, m) of the chosen items, to the bit the ones that `blocks` yields."""
        d = torch.empty(chosen.shape, dtype=torch.float64, device=z.device)
        for rows, items, distances in self.blocks(z):
            inside = (chosen[rows] >= items.start) & (chosen[rows] < items.stop)
            local = (chosen[rows] - items.start).clamp(0, distances.shape[1] - 1)
            d[rows] = torch.where(inside, distances.gather(1, local), d[rows])
        return d

    def rank_among(
        self, z: Tensor, queries: Tensor, *, given: Tensor | None = None, excluded: Tensor | None = None
    ) -> Tensor:
        """Where items that replace nothing would stand in the rankings of gallery items used as queries.

        rank(q, c~) = #{x in X: d(q, x) < d(q, c~)}

        Args:
            z: (b, d) embeddings of the candidates.
            queries: (b, w) positions of the queries in the gallery, or in `given`.
            given: (u, d) embeddings of queries that are no items of the gallery, or None.
            excluded: (b,) items that do not count, such as the candidate's own clean copy; None counts all.
        Returns:
            (b, w) ranks, int64.
        """
        unique, inverse = queries.unique(return_inverse=True)
        anchors = (self.embeddings if given is None else given)[unique].double()
        d = self.ranker.distance.between(anchors[inverse], z.double()[:, None])  # (b, w)
        d -= ROUNDING * (1 + d.abs())  # the blocks round otherwise: an equally far copy must not count
        flat, order = inverse.flatten().sort(stable=True)
        thresholds = d.flatten()[order]  # grouped by query
        counts = torch.zeros_like(flat)
        for rows, _, distances in self.blocks(anchors):
            first = int(torch.searchsorted(flat, rows.start))
            last = int(torch.searchsorted(flat, rows.stop))
            for part in range(first, last, BLOCK_QUERIES):
                group = slice(part, min(part + BLOCK_QUERIES, last))
                nearer = distances[flat[group] - rows.start] < thresholds[group, None]
                counts[group] += nearer.sum(1)
        ranks = torch.empty_like(counts)
        ranks[order] = counts
        ranks = ranks.view(queries.shape)
        if excluded is not None:
            copies = self.embeddings[excluded].double()[:, None]
            ranks -= (self.ranker.distance.between(anchors[inverse], copies) < d).to(ranks.dtype)
        return ranks


def _stable_smallest(distances: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` smallest of each row, smallest first, equal ones in their order; values and columns."""
    spare = min(top + 8, distances.shape[1])
    near, columns = distances.topk(spare, dim=1, largest=False)
    columns, order = columns.sort(dim=1)
    near, order = near.gather(1, order).sort(dim=1, stable=True)
    columns = columns.gather(1, order)
    # A tie that reaches past the spare columns could have left out an earlier item: sort those rows whole.
    unsure = (
        near[:, top - 1] == near[:, -1] if spare < distances.shape[1] else torch.zeros(0, dtype=torch.bool)
    )
    if bool(unsure.any()):
        whole = distances[unsure].sort(dim=1, stable=True)
        near[unsure], columns[unsure] = whole.values[:, :spare], whole.indices[:, :spare]
    return near[:, :top], columns[:, :top]
