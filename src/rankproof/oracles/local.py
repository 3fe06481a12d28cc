"""A gallery seen from outside, with as little of it compared as exact places allow."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankproof.checks import check_kind
from rankproof.errors import RankproofError
from rankproof.oracles.base import TrackedItems
from rankproof.parameters import check_integer
from rankproof.ranking.distances import LengthDistance
from rankproof.ranking.exact import Points
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.ranker import Ranker
from rankproof.types import Ids, Images, ImageSets, Places

PASS_VALUES = 40_000_000  # pixel values in one forward pass; 200 images of up to 256x256
PASS = 200  # images in one forward pass: their activations still fit the caches of a processor
SLACK = 3e-3  # of single-precision distances that only decide which items are looked at exactly


@dataclass(frozen=True)
class LocalOracle:
    """A gallery behind a curtain: positions among its first N results.

    Positions are exact, equal distances in gallery order. Only items that can stand
    before a tracked one are counted: with all images of an attack within r of their mean embedding m, an
    item x comes before c for none of them where |m - x| > max d(q, c) + r (triangle inequality).

    Args:
        gallery: the database.
        visible: N, how many results are shown; None shows the whole ranking.
    """

    gallery: Gallery
    visible: int | None = None

    def __post_init__(self) -> None:
        check_kind("gallery", self.gallery, Gallery, GALLERY)
        if self.visible is None:
            return
        object.__setattr__(self, "visible", check_integer("visible", self.visible))
        if not 1 <= self.visible <= len(self.gallery):
            raise RankproofError(
                f"visible must be between 1 and the gallery's {len(self.gallery)} items, got {self.visible}"
            )

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """The first results, the excluded item left out."""
        z = self._embed(images, self.gallery.ranker)
        return self.gallery.search(z, count, excluded=tracked.to(z.device).excluded).to(images.device)

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """Positions of the tracked items, at most `visible`."""
        z = self._embed(images.flatten(0, 1), self.gallery.ranker.for_search()).view(
            *images.shape[:2], -1
        )  # (b, p, d)
        tracked = tracked.to(z.device)
        places = self._pruned(z, tracked) if self._by_length(z) else self._counted(z, tracked)
        places = places if self.visible is None else places.clamp(max=self.visible)
        return places.to(images.device)

    def _embed(self, images: Images, ranker: Ranker) -> Tensor:
        most = max(1, min(PASS, PASS_VALUES // images[0].numel()))
        with ranker.frozen(), torch.no_grad():
            return torch.cat([ranker.embed(ranker.as_input(part)) for part in images.split(most)])

    def _by_length(self, z: Tensor) -> bool:
        """Whether the distances of some embeddings (..., d) grow with |a - b|, as the triangles need it."""
        distance = self.gallery.ranker.distance
        if not isinstance(distance, LengthDistance):
            return False
        return not distance.zero_adds or not (self._has_zeros or _any_zero(z))

    @cached_property
    def _has_zeros(self) -> bool:
        """Whether an embedding of the gallery has length 0."""
        return _any_zero(self.gallery.embeddings)

    def _counted(self, z: Tensor, tracked: TrackedItems) -> Tensor:
        """Positions by comparing with the whole gallery."""
        count_each = z.shape[1]
        excluded = None if tracked.excluded is None else tracked.excluded.repeat_interleave(count_each)
        chosen = tracked.ids.repeat_interleave(count_each, 0)
        places = self.gallery.rank_of(z.flatten(0, 1), chosen, ties="order", excluded=excluded)
        if excluded is not None:
            places = places.masked_fill(chosen == excluded[:, None], len(self.gallery))
        return places.view(*z.shape[:2], -1)

    def _pruned(self, z: Tensor, tracked: TrackedItems) -> Tensor:
        """Positions by comparing with the items that can matter: the distance grows with |a - b|."""
        database, embeddings = self.gallery.prepared, z
        z = self.gallery.prepare(z)
        centres = z.mean(1)  # (b, d)
        radii = (z - centres[:, None]).norm(dim=2).amax(1)  # (b,)
        far = self._lengths(centres)  # (b, n)
        chosen = database[tracked.ids]  # (b, k, d)
        lengths = z.square().sum(2)[:, :, None] + chosen.square().sum(2)[:, None]
        tracked_items = torch.baddbmm(lengths, z, chosen.mT, alpha=-2).clamp_(min=0).sqrt_()  # (b, p, k)
        limits = tracked_items.amax((1, 2)) + radii
        if self.visible is not None:
            # The first N for any of the images lie within the N-th length from the centre plus twice r.
            places = min(len(database), self.visible + (tracked.excluded is not None))
            limits = torch.minimum(limits, far.topk(places, dim=1, largest=False).values[:, -1] + 2 * radii)
        # Lengths that single precision cannot hold are no reason to leave an item out.
        near = ~(far > (limits * (1 + SLACK) + SLACK * z.norm(dim=2).amax(1))[:, None])
        excluded = tracked.excluded.tolist() if tracked.excluded is not None else [None] * len(z)
        points = self.gallery.frame.points(embeddings.flatten(0, 1))
        slack = 2 * self.gallery.frame.margin(points)
        return torch.stack([
            self._exact(_Asked(rows, points[part], slack[part], ids), mask.nonzero()[:, 0], skip)
            for part, rows, ids, mask, skip in zip(
                _slices(*z.shape[:2]), embeddings, tracked.ids, near, excluded, strict=True
            )
        ])  # fmt: skip

    @cached_property
    def _squares(self) -> Tensor:
        """(n,) squared lengths of the gallery's prepared embeddings."""
        return self.gallery.prepared.square().sum(1)

    def _lengths(self, centres: Tensor) -> Tensor:
        """(b, n) lengths |m - x| from points (b, d), in single precision."""
        squares = torch.addmm(self._squares, centres, self.gallery.prepared.t(), alpha=-2)
        return squares.add_(centres.square().sum(1)[:, None]).clamp_(min=0).sqrt_()

    def _exact(self, asked: "_Asked", items: Tensor, excluded: int | None) -> Tensor:
        """Positions (p, k) for the images of one attack among some items; n where not among them."""
        items = items if excluded is None else items[items != excluded]
        squared = self.gallery.frame.squared(asked.points, self.gallery.points(items))  # (p, m)
        places = asked.z.new_full((len(squared), len(asked.ids)), len(self.gallery), dtype=torch.int64)
        columns = torch.searchsorted(items, asked.ids).tolist()
        for number, (item, column) in enumerate(zip(asked.ids, columns, strict=True)):
            if column == len(items) or items[column] != item:
                continue
            limit = squared[:, column, None]
            nearer = (squared < limit - asked.slack).sum(1)
            # Only the item itself may be as far as it is up to rounding.
            if not torch.equal((squared <= limit + asked.slack).sum(1), nearer + 1):
                chosen = item.expand(len(squared), 1)
                nearer = self.gallery.rank_of(asked.z, chosen, ties="order", among=items)[:, 0]
            places[:, number] = nearer
        return places


@dataclass(frozen=True)
class _Asked:
    """The images of one attack and what is looked for in their rankings.

    Args:
        z: (p, d) their embeddings.
        points: the same in the gallery's frame.
        slack: (p, 1) how much two quick squared lengths must differ for their order to be certain.
        ids: (k,) the tracked items.
    """

    z: Tensor
    points: Points
    slack: Tensor
    ids: Tensor


def _slices(count: int, size: int) -> list[slice]:
    """The rows of each of `count` attacks of `size` images."""
    return [slice(start, start + size) for start in range(0, count * size, size)]


def _any_zero(z: Tensor) -> bool:
    """Whether any of some embeddings (..., d) has length 0."""
    return not bool(z.any(-1).all())
