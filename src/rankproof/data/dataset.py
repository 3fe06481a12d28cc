"""One split of labelled pictures, held in memory as 8-bit values."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Pictures, labels and the story of where they came from.

    Args:
        pictures: (n, c, h, w) 8-bit pixel values.
        labels: (n,) class of each picture, an index into `classes`.
        classes: name of each class.
        name: short name of the data set, as it appears in records.
        split: "train" or "test".
        note: one sentence that says what was found and how it was split.
        files: name of each picture, or empty where pictures have no file of their own.
    """

    pictures: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    name: str
    split: str
    note: str
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def images(self) -> Tensor:
        """All pictures as (n, c, h, w) floats in [0, 1]; large sets are better taken in pieces by `take`."""
        return self.pictures.float() / 255

    @cached_property
    def sha256(self) -> str:
        """Of the pictures and labels, whatever the set is called."""
        digest = hashlib.sha256(repr(tuple(self.pictures.shape)).encode())
        for values in (self.pictures, self.labels):
            digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()

    def take(self, positions: Tensor) -> Tensor:
        """The pictures at `positions` (b,) as (b, c, h, w) floats in [0, 1]."""
        return self.pictures[positions].float() / 255

    def head(self, count: int) -> "Dataset":
        """The first `count` pictures, as a data set of its own."""
        return Dataset(
            pictures=self.pictures[:count],
            labels=self.labels[:count],
            classes=self.classes,
            name=self.name,
            split=self.split,
            note=self.note,
            files=self.files[:count],
        )


def as_labels(values: object) -> Tensor:
    """Class numbers as a (n,) int64 tensor."""
    return torch.as_tensor(values, dtype=torch.int64)
