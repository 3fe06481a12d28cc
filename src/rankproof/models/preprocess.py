"""What a service does to an image before its encoder (JPEG, resizing, cropping): part of the attack."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from rankproof.errors import RankproofError
from rankproof.parameters import AT_LEAST_ONE, Range, check_integer

QUALITY = Range(low=1.0, high=100.0)


class Preprocess(nn.Module):
    """JPEG, then resizing, then a centre crop, on pixels in [0, 1]; applied before mean and std.

    For another order combine several of these in an `nn.Sequential`.

    Args:
        resize: N makes the shorter side N pixels and keeps the aspect ratio, the longer side rounded down as
            torchvision and transformers do; (height, width) is exact. It is bilinear with antialiasing,
            differentiable.
        crop: side of the square that is cut out of the centre.
        jpeg: quality 1 to 100. Pillow encodes and decodes each image, with default chroma subsampling; the
            gradient is that of the identity (straight-through).
    """

    def __init__(
        self,
        resize: int | tuple[int, int] | None = None,
        crop: int | None = None,
        jpeg: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(resize, tuple) and len(resize) != 2:
            raise RankproofError(f"resize: give one side, or (height, width), got {resize}")
        for name, value in (("resize", resize), ("crop", crop)):
            for side in value if isinstance(value, tuple) else (value,):
                if side is not None:
                    check_integer(f"{name}: a side in pixels", side, AT_LEAST_ONE)
        if jpeg is not None:
            check_integer("jpeg: the quality", jpeg, QUALITY)
        self.resize, self.crop, self.jpeg = resize, crop, jpeg

    def extra_repr(self) -> str:
        """The settings that are not None."""
        settings = {"jpeg": self.jpeg, "resize": self.resize, "crop": self.crop}
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for images of that height and width."""
        height, width = self._resized(height, width)
        if self.crop is None:
            return height, width
        if self.crop > min(height, width):
            raise RankproofError(
                f"crop: a square of {self.crop} pixels does not fit into images of {height}x{width}; "
                f"choose a smaller one"
            )
        return self.crop, self.crop

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c, *sides(h, w)), both in [0, 1]."""
        if self.jpeg is not None:
            images = images + (jpeg(images.detach(), self.jpeg) - images.detach())
        height, width = (int(side) for side in images.shape[2:])
        size, (crop_height, crop_width) = self._resized(height, width), self.sides(height, width)
        if size != (height, width):
            images = functional.interpolate(
                images, size, mode="bilinear", align_corners=False, antialias=True
            )
        top, left = (size[0] - crop_height) // 2, (size[1] - crop_width) // 2
        return images[:, :, top : top + crop_height, left : left + crop_width]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        shorter = min(height, width)
        return self.resize * height // shorter, self.resize * width // shorter


class GreyToColour(nn.Module):
    """Grey images for an encoder of colour images: the channel is repeated three times."""

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, h, w) to (b, 3, h, w)."""
        if images.shape[1] != 1:
            raise RankproofError(f"GreyToColour: images have {images.shape[1]} channels, it wants 1")
        return images.expand(-1, 3, -1, -1)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Images (b, c, h, w) in [0, 1] as a JPEG file of that quality stores them; without gradient."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise RankproofError(f"jpeg: images must have 1 or 3 channels, these have {channels}")
    pixels = (images * 255).round().clamp(0, 255).to(device="cpu", dtype=torch.uint8)
    decoded = [_through_jpeg(image, quality) for image in pixels.permute(0, 2, 3, 1).numpy()]
    stacked = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)  # (b, h, w, c) to (b, c, h, w)
    return stacked.to(images) / 255


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """One image (h, w, c) of 8-bit values, encoded and decoded."""
    file = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.asarray(decoded).reshape(pixels.shape)
