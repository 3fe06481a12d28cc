"""One split of a data set, in memory as 8-bit values."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images and where they come from.

    Args:
        images: (n, c, h, w) 8-bit pixel values.
        labels: (n,) class of each image, an index into `classes`.
        classes: name of each class.
        name: short name of the data set, as in records.
        split: "train" or "test".
        note: what was found and how it was split, for messages.
        files: file name of each image; empty where images are not single files.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    name: str
    split: str
    note: str
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def as_float(self) -> Tensor:
        """All images as (n, c, h, w) floats in [0, 1]; for large data sets use `take`."""
        return self.images.float() / 255

    @cached_property
    def sha256(self) -> str:
        """Digest of the pixels and labels; names do not count."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for values in (self.images, self.labels):
            digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()

    def take(self, positions: Tensor) -> Tensor:
        """The images at `positions` (b,) as (b, c, h, w) floats in [0, 1]."""
        return self.images[positions].float() / 255

    def head(self, count: int) -> "Dataset":
        """The first `count` images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count], files=self.files[:count])


def as_labels(values: object) -> Tensor:
    """Class numbers as a (n,) int64 tensor."""
    return torch.as_tensor(values, dtype=torch.int64)
