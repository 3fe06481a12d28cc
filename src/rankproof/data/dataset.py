"""One split of a data set, in memory as 8-bit values."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.mixed_images import MixedImages


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """What is known of images: their classes, and where they come from.

    Args:
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

    labels: Int[Tensor, " n"] | None
    classes: tuple[str, ...]
    name: str
    split: str
    note: str
    files: tuple[str, ...] = ()
    cameras: Int[Tensor, " n"] | None = None
    queries: "Dataset | MixedDataset | None" = None

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


@dataclass(frozen=True, kw_only=True)
class Dataset(LabelledImages):
    """Images of one size, their classes, and where they come from.

    Args:
        images: (n, c, h, w) 8-bit pixel values.
    """

    images: UInt8[Tensor, "n c h w"]

    def __len__(self) -> int:
        return len(self.images)

    def one_size(self) -> "Dataset":
        """This data set, whose images all have one size."""
        return self

    def as_float(self) -> Tensor:
        """All images as (n, c, h, w) floats in [0, 1]; for large data sets use `take`."""
        return self.images.float() / 255

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


@dataclass(frozen=True, kw_only=True)
class MixedDataset(LabelledImages):
    """Images of several sizes, each kept as it is, their classes, and where they come from.

    Args:
        images: n images of any heights and widths.
    """

    images: MixedImages

    def __len__(self) -> int:
        return len(self.images)

    def one_size(self) -> Dataset:
        """Nothing: images of several sizes are no tensor.

        Raises:
            RankproofError: always; the message says what to do.
        """
        sizes = len(set(self.images.shapes))
        raise RankproofError(
            f"{self.name}: its images have {sizes} sizes, and one is needed here; give --size N (in Python "
            f"size=), or attack them by `rankproof attack --size keep`"
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of the pixels and labels; names do not count."""
        digest = hashlib.sha256(self.images.sha256.encode())
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def take(self, positions: Tensor) -> MixedImages:
        """The images at `positions` (b,), each at its own size, as 8-bit values."""
        return self.images.take(positions)


def as_labels(values: object) -> Tensor:
    """Class numbers as a (n,) int64 tensor."""
    return torch.as_tensor(values, dtype=torch.int64)
