"""8-bit images that do what images at the smallest budgets do, by changes of whole grey levels."""

from collections.abc import Callable

import torch
from torch import Tensor

from rankproof.threat import LEVELS, SLACK, on_grid

TRIED = 2  # whole numbers of grey levels, from the next one on


def read_again(images: Tensor) -> Tensor:
    """Images as an 8-bit file holds them, read again."""
    return ((images * LEVELS).round().clamp(0, LEVELS).to(torch.uint8).to(images.dtype)) / LEVELS


def saved_images(
    original: Tensor, images: Tensor, rows: Tensor, holds: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """8-bit images that fulfil a wish, with as few whole grey levels as the budget allows, or one more.

    Args:
        original: (b, c, h, w) the untouched images.
        images: (b, c, h, w) the images at the smallest budgets.
        rows: (k,) the attacks that have one.
        holds: whether the wish holds for images (k, c, h, w) of some attacks (k,).
    Returns:
        (b, c, h, w) 8-bit images as floats, the rounded originals where none fulfils the wish; (b,) whether
        it does.
    """
    saved, change = read_again(original), images - original
    kept = torch.zeros(len(original), dtype=torch.bool, device=original.device)
    size = change.flatten(1).abs().amax(1).clamp_min(torch.finfo(change.dtype).tiny)
    levels = (size * LEVELS - SLACK).ceil().clamp(min=1)
    for extra in range(TRIED):
        if not len(rows):
            break
        most = ((levels + extra) / LEVELS)[rows][:, None, None, None]
        scaled = original[rows] + change[rows] * (most / size[rows][:, None, None, None])
        low, high = (original[rows] - most).clamp(min=0), (original[rows] + most).clamp(max=1)
        candidates = read_again(on_grid(scaled, low, high))
        fulfils = holds(candidates, rows)
        saved[rows[fulfils]], kept[rows[fulfils]] = candidates[fulfils], True
        rows = rows[~fulfils]
    return saved, kept
