"""Queries that are no items of the gallery, as person re-identification has them."""

from dataclasses import dataclass

from torch import Tensor

from rankproof.types import Embeddings


@dataclass(frozen=True, kw_only=True)
class SeparateQueries:
    """Queries that are no items of the gallery.

    Args:
        embeddings: (b, d) as the gallery's own.
        labels: (b,) class of each.
        cameras: (b,) camera of each, where known; items of a query's own class and camera do not count.
        gallery_cameras: (n,) camera of each gallery item.
    """

    embeddings: Embeddings
    labels: Tensor
    cameras: Tensor | None = None
    gallery_cameras: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)
