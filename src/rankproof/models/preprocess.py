"""What a service does to a picture before its encoder sees it, as part of what is attacked."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from rankproof.errors import RankproofError


class Preprocess(nn.Module):
    """JPEG, then resizing, then a centre crop, on pixels in [0, 1]; a `Ranker` does it before mean and std.

    For another order put several of these into an `nn.Sequential`.

    Args:
        resize: N makes the shorter side N pixels and keeps the aspect, (height, width) is taken exactly;
            bilinear with antialias, gradients flow through.
        crop: side of the square that is cut out of the middle.
        jpeg: quality 1 to 100. Each picture is really encoded by Pillow, with its usual half-size colours,
            and decoded again; the gradient is passed straight through, as if nothing had happened.
    """

    def __init__(
        self,
        resize: int | tuple[int, int] | None = None,
        crop: int | None = None,
        jpeg: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("resize", resize), ("crop", crop)):
            if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
                raise RankproofError(f"{name}: sides must be at least 1 pixel, got {value}")
        if jpeg is not None and not 1 <= jpeg <= 100:
            raise RankproofError(f"jpeg: the quality must lie in 1 .. 100, got {jpeg}")
        self.resize, self.crop, self.jpeg = resize, crop, jpeg

    def extra_repr(self) -> str:
        """The settings that do something."""
        given = {"jpeg": self.jpeg, "resize": self.resize, "crop": self.crop}
        return ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what comes out for pictures of that height and width."""
        height, width = self._resized(height, width)
        if self.crop is None:
            return height, width
        if self.crop > min(height, width):
            raise RankproofError(
                f"crop: a square of {self.crop} pixels does not fit into pictures of {height}x{width}; "
                f"choose a smaller one"
            )
        return self.crop, self.crop

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c, *sides(h, w)), both in [0, 1]."""
        if self.jpeg is not None:
            images = images + (jpeg(images.detach(), self.jpeg) - images.detach())
        height, width = (int(side) for side in images.shape[2:])
        size, (high, wide) = self._resized(height, width), self.sides(height, width)
        if size != (height, width):
            images = functional.interpolate(
                images, size, mode="bilinear", align_corners=False, antialias=True
            )
        top, left = (size[0] - high) // 2, (size[1] - wide) // 2
        return images[:, :, top : top + high, left : left + wide]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        scale = self.resize / min(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


class GreyToColour(nn.Module):
    """Grey pictures for an encoder of colour ones: the channel is taken three times."""

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, h, w) to (b, 3, h, w)."""
        if images.shape[1] != 1:
            raise RankproofError(f"GreyToColour: pictures have {images.shape[1]} channels, it wants 1")
        return images.expand(-1, 3, -1, -1)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """What is left of pictures (b, c, h, w) in [0, 1] after a JPEG file of that quality; no gradient."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise RankproofError(f"jpeg: pictures must have 1 or 3 channels, these have {channels}")
    pixels = (images * 255).round().clamp(0, 255).to(device="cpu", dtype=torch.uint8)
    decoded = [_through_jpeg(picture, quality) for picture in pixels.permute(0, 2, 3, 1).numpy()]
    stacked = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)  # (b, h, w, c) to (b, c, h, w)
    return stacked.to(images) / 255


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """One picture (h, w, c) of 8-bit values, encoded and decoded."""
    file = BytesIO()
    Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(
        file, "JPEG", quality=quality
    )
    with Image.open(file) as decoded:
        return np.asarray(decoded).reshape(picture.shape)
