"""One split of a data set, in memory as 8-bit values."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rankproof.errors import RankproofError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images, their classes, and where they come from.

    Args:
        images: (n, c, h, w) 8-bit pixel values.
        labels: (n,) class of each image, an index into `classes`; None where images have no classes.
        classes: name of each class.
        name: short name of the data set, as in records.
        split: "train", "test" or "query".
        note: what was found and how it was split, for messages.
        files: file name of each image; empty where images are not single files.
        cameras: (n,) number of the camera that took each image, where known.
        queries: images that are searched for among these and are not part of them, where the data set has
            such; None: each image is searched for among the others.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | None
    classes: tuple[str, ...]
    name: str
    split: str
    note: str
    files: tuple[str, ...] = ()
    cameras: Int[Tensor, " n"] | None = None
    queries: "Dataset | None" = None

    def __len__(self) -> int:
        return len(self.images)

    def as_float(self) -> Tensor:
        """All images as (n, c, h, w) floats in [0, 1]; for large data sets use `take`."""
        return self.images.float() / 255

    def require_labels(self) -> Tensor:
        """The labels of a data set that must have some.

        Raises:
            RankproofError: the images have no classes.
        """
        if self.labels is None:
            raise RankproofError(
                f"{self.name}, {self.split} split: its images have no classes, which are needed here; "
                f"put them into one sub-folder per class"
            )
        return self.labels

    @cached_property
    def sha256(self) -> str:
        """Digest of the pixels and labels; names do not count."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for values in (self.images, self.labels):
            if values is None:
                continue
            digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()

    def take(self, positions: Tensor) -> Tensor:
        """The images at `positions` (b,) as (b, c, h, w) floats in [0, 1]."""
        return self.images[positions].float() / 255

    def head(self, count: int) -> "Dataset":
        """The first `count` images."""
        labels, cameras = (
            None if values is None else values[:count] for values in (self.labels, self.cameras)
        )
        return replace(
            self, images=self.images[:count], labels=labels, files=self.files[:count], cameras=cameras
        )


def as_labels(values: object) -> Tensor:
    """Class numbers as a (n,) int64 tensor."""
    return torch.as_tensor(values, dtype=torch.int64)
