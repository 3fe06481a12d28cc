"""What the attacker may change: how much of each pixel, and on which grid."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from rankproof.errors import RankproofError, ThreatViolationError
from rankproof.parameters import Checked, Range

LEVELS = 255
SLACK = 1e-3  # grey levels that a border may be off by rounding
TOLERANCE = 1e-6  # rounding of 32-bit pixels; anything beyond is a violation

Eps = Annotated[float, Range(low=0.0, high=1.0, text="between 0 and 1 (such as 8/255 or 0.03)")]
"""Largest change of a pixel."""


@dataclass(frozen=True)
class Threat(Checked):
    """An L-infinity ball around an image within [0, 1] (ECCV eq. 2).

    Gamma = { r : |r|_inf <= eps;  x + r in [0, 1] }

    Args:
        eps: largest change of a pixel, in [0, 1]; printed as n/255.
        grid: results must be 8-bit images: every value a multiple of 1/255.
        shared: one perturbation for all images (universal) instead of one each.
    """

    eps: Eps
    grid: bool = False
    shared: bool = False

    def start(self, images: Tensor) -> Tensor:
        """The images the ball is drawn around: put on the 8-bit grid first where the threat asks for it."""
        return torch.round(images * LEVELS) / LEVELS if self.grid else images

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """The nearest allowed images.

        Args:
            images: (..., c, h, w) anything.
            original: (..., c, h, w) centres of the balls, as `start` returns them; broadcast.
        """
        if self.shared:
            return self.apply(self.perturbation(images - original), original)
        low, high = (original - self.eps).clamp_(min=0), (original + self.eps).clamp_(max=1)
        if not self.grid:
            return torch.maximum(torch.minimum(images, high), low)
        return on_grid(images, low, high)

    def perturbation(self, changes: Tensor) -> Tensor:
        """The shared perturbation (1, c, h, w) nearest to the mean of many changes (b, c, h, w).

        The perturbation itself is kept in the ball; images are clipped when it is applied, so that no
        single image narrows what the others get.
        """
        bound = math.floor(self.eps * LEVELS + SLACK) / LEVELS if self.grid else self.eps
        mean = changes.mean(0, keepdim=True)
        mean = torch.round(mean * LEVELS) / LEVELS if self.grid else mean
        return mean.clamp(-bound, bound)

    def apply(self, perturbation: Tensor, original: Tensor) -> Tensor:
        """Images (b, c, h, w) with a perturbation of the same or one image's shape added, within [0, 1]."""
        return (original + perturbation).clamp(0, 1)

    def check(self, images: Tensor, original: Tensor) -> None:
        """Raise unless every image lies in the threat set, up to rounding of 32-bit numbers."""
        excess = float((images - original).abs().max()) - self.eps if len(images) else 0.0
        below, above = (float(-images.min()), float(images.max()) - 1) if len(images) else (0.0, 0.0)
        worst = max(excess, below, above)
        if not worst <= TOLERANCE:
            raise ThreatViolationError(
                f"an image left the threat set by {worst:.3g} (eps = {format_eps(self.eps)})"
            )


def on_grid(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest multiples of 1/255 between `low` and `high`, both of the images' shape."""
    # The outermost grid points inside the ball; the slack keeps the ones that lie on its border.
    low, high = torch.ceil(low * LEVELS - SLACK), torch.floor(high * LEVELS + SLACK)
    return torch.round(images * LEVELS).clamp_(low, high) / LEVELS


def format_eps(eps: float) -> str:
    """eps as people write it: n/255, with decimals only where n is no integer."""
    levels = eps * LEVELS
    nearest = round(levels)
    return f"{nearest}/255" if abs(levels - nearest) < 1e-6 else f"{levels:.4g}/255"


def parse_eps(text: str) -> float:
    """The number in "8/255" or "0.03".

    Raises:
        RankproofError: the text is no number between 0 and 1.
    """
    try:
        numerator, _, denominator = text.partition("/")
        eps = float(numerator) / float(denominator) if denominator else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise RankproofError(f"eps: {text!r} is no number; write 8/255 or 0.03") from None
    return Threat(eps).eps
