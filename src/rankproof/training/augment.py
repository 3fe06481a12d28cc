"""Pictures are varied while an encoder is trained."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random shifts, as crops of the padded picture, and mirror images; one choice for each picture.

    Args:
        pad: pixels by which a picture may be shifted; the border is mirrored.
        flip: whether half of the pictures are mirrored left to right.
    """

    pad: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, source: torch.Generator) -> Tensor:
        """Varied pictures of the same shape (b, c, h, w)."""
        count, _, height, width = images.shape
        if self.flip:
            mirrored = torch.rand(count, generator=source) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
        if self.pad:
            padded = functional.pad(images, (self.pad,) * 4, mode="reflect")
            down, right = torch.randint(2 * self.pad + 1, (2, count), generator=source)
            rows = down[:, None] + torch.arange(height)  # (b, h)
            columns = right[:, None] + torch.arange(width)  # (b, w)
            picture = torch.arange(count)[:, None, None]
            images = padded[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return images

    def settings(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)
