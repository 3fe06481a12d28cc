"""Images of several sizes, each kept as it is; a batch holds images of one size at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor
from torch.nn import functional

from rankproof.errors import RankproofError

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass(frozen=True, eq=False)
class MixedImages:
    """Images that differ in height and width, in the order of a data set.

    Args:
        images: 8-bit values (c, h, w) of each image, with the same number of channels.
    """

    images: Sequence[Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(self.images))
        faults = [image for image in self.images if image.dim() != 3 or 0 in image.shape]
        if faults or not self.images:
            found = "none" if not self.images else f"one of {tuple(faults[0].shape)}"
            raise RankproofError(f"images: expected a list of images (c, h, w), got {found}")
        if any(image.dtype != torch.uint8 for image in self.images):
            raise RankproofError("images: a list of images of several sizes holds 8-bit integers")
        if len(channels := {image.shape[0] for image in self.images}) > 1:
            raise RankproofError(f"images: all must have the same channels, got {sorted(channels)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Tensor:
        return self.images[position]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of each image."""
        return tuple((int(c), int(h), int(w)) for c, h, w in (image.shape for image in self.images))

    def take(self, positions: Tensor) -> "MixedImages":
        """The images at `positions` (b,)."""
        return MixedImages([self.images[position] for position in positions.tolist()])

    def groups(self, values: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one size, the sizes in the order in which they first appear.

        Args:
            values: the most pixel values of a batch, unless a single image has more.
        Yields:
            positions (k,) in ascending order, and the images there (k, c, h, w), 8-bit values.
        """
        places: dict[Shape, list[int]] = {}
        for position, shape in enumerate(self.shapes):
            places.setdefault(shape, []).append(position)
        for (channels, height, width), positions in places.items():
            for rows in torch.tensor(positions).split(max(1, values // (channels * height * width))):
                yield rows, torch.stack([self.images[row] for row in rows.tolist()])

    def sample(self, count: int) -> Tensor:
        """A few images spread over all, as floats (k, c, h, w), stretched to the size of the middle one.

        What an encoder does to a batch is found out with images of one size.
        """
        spread = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long().tolist()
        chosen = sorted((self.images[position] for position in spread), key=Tensor.numel)
        size = chosen[len(chosen) // 2].shape[1:]
        floats = [image[None].float() / 255 for image in chosen]
        same = [
            image
            if image.shape[2:] == size
            else functional.interpolate(image, tuple(size), mode="bilinear", antialias=True)
            for image in floats
        ]
        return torch.cat(same).clamp(0, 1)

    @cached_property
    def sha256(self) -> str:
        """Digest of all pixels, in order."""
        digest = sha256(repr(self.shapes).encode())
        for image in self.images:
            digest.update(image.contiguous().numpy().data)
        return digest.hexdigest()
