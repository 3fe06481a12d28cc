"""Where a black-box method searches: every pixel, or fewer variables that are enlarged to a picture."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.errors import RankproofError

Kind = Literal["full", "blocks", "bilinear", "cosine"]
SMALL = 1000  # values of a picture up to which the papers search every pixel
PUBLISHED_SIDE = 32

Variables = Float[Tensor, "b p c s t"]
"""p points of the search space for each attack; s = t = the side unless a picture is smaller, or full."""


@dataclass(frozen=True)
class Space:
    """Changes of a picture, described by fewer numbers: r = U v U^T for each channel.

    Args:
        kind: "full" (U is the identity: every pixel), "blocks" (nearest neighbour), "bilinear", or
            "cosine" (the lowest frequencies, scaled so that each basis picture reaches at most 1).
        side: variables along each side; for "full" it is ignored.
    """

    kind: Kind
    side: int = PUBLISHED_SIDE

    def __post_init__(self) -> None:
        if self.side < 1:
            raise RankproofError(f"space: the side must be at least 1, got {self.side}")

    @property
    def name(self) -> str:
        """How it is written on the command line, such as "bilinear:7"."""
        return self.kind if self.kind == "full" else f"{self.kind}:{self.side}"

    def shape(self, picture: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the variables of a picture (c, h, w)."""
        channels, height, width = picture
        if self.kind == "full":
            return picture
        return channels, min(self.side, height), min(self.side, width)

    def expand(self, variables: Tensor, picture: tuple[int, int, int]) -> Tensor:
        """Changes (..., c, h, w) of a picture from variables (..., c, s, s)."""
        if self.kind == "full":
            return variables
        rows, columns = self.bases(picture, variables)
        return rows @ variables @ columns.t()

    def bases(self, picture: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """U for the rows (h, s) and for the columns (w, s)."""
        _, height, width = self.shape(picture)
        return _basis(self.kind, picture[1], height, like), _basis(self.kind, picture[2], width, like)


def published_space(picture: tuple[int, int, int]) -> Space:
    """The papers' rule: every pixel up to 1,000 values, 32 x 32 nearest-neighbour blocks above."""
    return Space("full") if math.prod(picture) <= SMALL else Space("blocks", PUBLISHED_SIDE)


def parse_space(text: str) -> Space:
    """The space in "full", "blocks:32", "bilinear:7" or "cosine:16".

    Raises:
        RankproofError: the text names no space.
    """
    found = re.fullmatch(r"(full)|(blocks|bilinear|cosine):(\d+)", text)
    if not found:
        raise RankproofError(f"space: {text!r} is unknown; write full, blocks:32, bilinear:7 or cosine:16")
    if found[1]:
        return Space("full")
    kinds: dict[str, Kind] = {"blocks": "blocks", "bilinear": "bilinear", "cosine": "cosine"}
    return Space(kinds[found[2]], int(found[3]))


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
