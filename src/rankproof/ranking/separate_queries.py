"""Queries that are no items of the gallery, such as uploads, and as person re-identification has them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.types import Embeddings


@dataclass(frozen=True, kw_only=True)
class SeparateQueries:
    """Queries that are no items of the gallery.

    Args:
        embeddings: (b, d) as the gallery's own.
        labels: (b,) class of each; None where they have none, and retrieval by them cannot be measured.
        cameras: (b,) camera of each, where known; items of a query's own class and camera do not count.
        gallery_cameras: (n,) camera of each gallery item.
    """

    embeddings: Embeddings
    labels: Tensor | None = None
    cameras: Tensor | None = None
    gallery_cameras: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.cameras is None) != (self.gallery_cameras is None):
            raise RankproofError("queries: give the cameras of both queries and gallery, or of neither")
        expected = {"labels": len(self.embeddings), "cameras": len(self.embeddings), "gallery_cameras": None}
        for name, count in expected.items():
            values: Tensor | None = getattr(self, name)
            if values is None:
                continue
            whole = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
            if not whole or values.dim() != 1 or (count is not None and len(values) != count):
                raise RankproofError(
                    f"queries: {name} must be one integer each, got {tuple(values.shape)} of {values.dtype}"
                )

    def __len__(self) -> int:
        return len(self.embeddings)
