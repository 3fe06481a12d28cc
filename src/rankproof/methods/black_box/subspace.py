"""Where a black-box method searches: every pixel, or fewer latents that are enlarged to an image."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.parameters import Checked, Count

Kind = Literal["full", "blocks", "bilinear", "cosine"]
SMALL = 1000  # values of an image up to which the papers search every pixel
PUBLISHED_SIDE = 32

Latents = Float[Tensor, "b p c s t"]
"""p points of the subspace for each attack; s = t = the side unless an image is smaller, or full."""


@dataclass(frozen=True)
class Subspace(Checked):
    """Changes of an image, described by fewer numbers: r = U v U^T for each channel.

    Args:
        kind: "full" (U is the identity: every pixel), "blocks" (nearest neighbour), "bilinear", or
            "cosine" (the lowest frequencies, scaled so that each basis image reaches at most 1).
        side: latents along each side; for "full" it is ignored.
    """

    kind: Kind
    side: Count = PUBLISHED_SIDE

    @property
    def name(self) -> str:
        """How it is written on the command line, such as "bilinear:7"."""
        return self.kind if self.kind == "full" else f"{self.kind}:{self.side}"

    def shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the latents of an image (c, h, w)."""
        channels, height, width = image_shape
        if self.kind == "full":
            return image_shape
        return channels, min(self.side, height), min(self.side, width)

    def expand(self, latents: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """Changes (..., c, h, w) of an image from latents (..., c, s, s)."""
        if self.kind == "full":
            return latents
        rows, columns = self.bases(image_shape, latents)
        return rows @ latents @ columns.t()

    def bases(self, image_shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """U for the rows (h, s) and for the columns (w, s)."""
        _, height, width = self.shape(image_shape)
        return _basis(self.kind, image_shape[1], height, like), _basis(self.kind, image_shape[2], width, like)


def published_subspace(image_shape: tuple[int, int, int]) -> Subspace:
    """The papers' rule: every pixel up to 1,000 values, 32 x 32 nearest-neighbour blocks above."""
    return Subspace("full") if math.prod(image_shape) <= SMALL else Subspace("blocks", PUBLISHED_SIDE)


def parse_subspace(text: str) -> Subspace:
    """The subspace in "full", "blocks:32", "bilinear:7" or "cosine:16".

    Raises:
        RankproofError: the text names no subspace.
    """
    match = re.fullmatch(r"(full)|(blocks|bilinear|cosine):(\d{1,9})", text)
    if not match:
        raise RankproofError(f"subspace: {text!r} is unknown; write full, blocks:32, bilinear:7 or cosine:16")
    if match[1]:
        return Subspace("full")
    if int(match[3]) < 1:
        raise RankproofError(f"subspace: the side must be at least 1, got {int(match[3])}")
    kinds: dict[str, Kind] = {"blocks": "blocks", "bilinear": "bilinear", "cosine": "cosine"}
    return Subspace(kinds[match[2]], int(match[3]))


def _basis(kind: Kind, size: int, side: int, like: Tensor) -> Tensor:
    """The matrix (size, side) that enlarges `side` numbers to `size`."""
    places = torch.arange(size, dtype=torch.float64)
    if kind == "blocks":
        basis = torch.nn.functional.one_hot((places * side / size).long(), side)
    elif kind == "bilinear":
        centres = ((places + 0.5) * side / size - 0.5).clamp(0, side - 1)
        basis = (1 - (centres[:, None] - torch.arange(side)).abs()).clamp(min=0)
    else:
        basis = torch.cos(math.pi * (places[:, None] + 0.5) * torch.arange(side) / size)
    return basis.to(like)


def frequencies(size: int, count: int, like: Tensor) -> Tensor:
    """The lowest cosines (size, count) along one side, each of length 1."""
    basis = _basis("cosine", size, count, like)
    unit: Tensor = basis / basis.norm(dim=0)
    return unit
