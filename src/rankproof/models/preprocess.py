"""What a service does to an image before its encoder (JPEG, resizing, cropping): part of the attack."""

from io import BytesIO
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from rankproof.errors import RankproofError
from rankproof.models.pillow_resize import HEIGHT, RESAMPLES, Resample, pillow_resize
from rankproof.parameters import AT_LEAST_ONE, Range, check_integer

Centre = Literal["transformers", "torchvision"]

QUALITY = Range(low=1.0, high=100.0)


class Preprocess(nn.Module):
    """JPEG, then resizing, then a centre crop, on pixels in [0, 1]; applied before mean and std.

    JPEG and resizing are those of Pillow on 8-bit images: what they get is rounded to 8 bits first, as an
    upload is. For another order combine several of these in an `nn.Sequential`.

    Args:
        resize: N makes the shorter side N pixels and keeps the aspect ratio, the longer side rounded down as
            torchvision and transformers do; (height, width) is exact. See `pillow_resize`.
        crop: side, or (height, width), of what is cut out of the centre.
        jpeg: quality 1 to 100. Pillow encodes and decodes each image, with default chroma subsampling; the
            gradient is that of the identity (straight-through).
        resample: Pillow's filter for `resize`: "bilinear", "bicubic", "lanczos", "box", "hamming", "nearest".
        centre: whose centre it is where an odd number of pixels is cut off: "transformers" rounds the first
            row and column down, "torchvision" (and timm) rounds a half to the even number.
        pad: whether images smaller than the crop get a black margin, as in both libraries; else they are an
            error.
    """

    def __init__(
        self,
        resize: int | tuple[int, int] | None = None,
        crop: int | tuple[int, int] | None = None,
        jpeg: int | None = None,
        *,
        resample: Resample = "bilinear",
        centre: Centre = "transformers",
        pad: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("resize", resize), ("crop", crop)):
            if isinstance(value, tuple) and len(value) != 2:
                raise RankproofError(f"{name}: give one side, or (height, width), got {value}")
            for side in value if isinstance(value, tuple) else (value,):
                if side is not None:
                    check_integer(f"{name}: a side in pixels", side, AT_LEAST_ONE)
        if jpeg is not None:
            check_integer("jpeg: the quality", jpeg, QUALITY)
        for name, word, known in (
            ("resample", resample, RESAMPLES),
            ("centre", centre, get_args(Centre)),
        ):
            if word not in known:
                raise RankproofError(f"{name}: must be one of {', '.join(known)}, got {word!r}")
        self.resize, self.crop, self.jpeg = resize, crop, jpeg
        self.resample, self.centre, self.pad = resample, centre, pad

    def extra_repr(self) -> str:
        """The settings that count."""
        resized, cropped = self.resize is not None, self.crop is not None
        settings = {
            "jpeg": self.jpeg,
            "resize": self.resize,
            "resample": self.resample if resized else None,
            "crop": self.crop[0] if isinstance(self.crop, tuple) and len(set(self.crop)) == 1 else self.crop,
            "centre": self.centre if cropped and self.centre != "transformers" else None,
            "pad": True if cropped and self.pad else None,
        }
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for images of that height and width."""
        height, width = self._resized(height, width)
        if self.crop is None:
            return height, width
        crop = self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)
        if not self.pad and (crop[0] > height or crop[1] > width):
            what = f"a square of {crop[0]} pixels" if crop[0] == crop[1] else f"{crop[0]}x{crop[1]} pixels"
            raise RankproofError(
                f"crop: {what} does not fit into images of {height}x{width}; choose a smaller one"
            )
        return crop

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c, *sides(h, w)), both in [0, 1]."""
        if self.jpeg is not None:
            images = images + (jpeg(images.detach(), self.jpeg) - images.detach())
        height, width = (int(side) for side in images.shape[HEIGHT:])
        size, (crop_height, crop_width) = self._resized(height, width), self.sides(height, width)
        if self.resize is not None:
            images = pillow_resize(images, size, self.resample)
        if size == (crop_height, crop_width):
            return images
        top, left = self._offset(size[0], crop_height), self._offset(size[1], crop_width)
        margins = (-left, left + crop_width - size[1], -top, top + crop_height - size[0])
        return functional.pad(images, margins)  # a negative margin cuts off

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        shorter = min(height, width)
        return self.resize * height // shorter, self.resize * width // shorter

    def _offset(self, side: int, crop: int) -> int:
        """The first row or column of the crop; negative where there is a margin before the image."""
        if self.centre == "transformers":
            return (side - crop) // 2
        return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)


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
