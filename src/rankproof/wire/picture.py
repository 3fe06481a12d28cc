"""A picture as the file that is sent, and a user's file as a picture."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rankproof.data.images import MAX_BYTES, decode, opened, peek
from rankproof.errors import RankproofError
from rankproof.threat import LEVELS

OFF_GRID = 1e-3  # of a level: 32-bit pixels are this near to the level they stand for
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def png(picture: Float[Tensor, "c h w"]) -> bytes:
    """The 8-bit PNG that holds exactly these pixels.

    Args:
        picture: (c, h, w) in [0, 1], grey (c = 1) or colour (c = 3), every value a multiple of 1/255.
    Raises:
        RankproofError: a file cannot hold the picture as it is.
    """
    if picture.shape[0] not in (1, 3):
        raise RankproofError(f"a picture has 1 channel (grey) or 3 (colour), got {picture.shape[0]}")
    levels = picture.detach().cpu().double() * LEVELS
    whole = levels.round()
    fits = ((levels - whole).abs() <= OFF_GRID) & (whole >= 0) & (whole <= LEVELS)
    if not bool(fits.all()):
        raise RankproofError("a picture off the 8-bit grid cannot be sent; use Threat(eps, grid=True)")
    pixels = whole.to(torch.uint8).permute(1, 2, 0).numpy()  # (h, w, c)
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)).save(
        stream, format="PNG"
    )
    return stream.getvalue()


def read_picture(path: Path) -> Float[Tensor, "c h w"]:
    """A user's picture (c, h, w) in [0, 1], upright, of its own size; grey stays one channel.

    Raises:
        RankproofError: the file is no picture, or parts of it are transparent.
    """
    raw, file = _bytes(path), str(path)
    with opened(raw, file) as image:
        if image.has_transparency_data:
            raise RankproofError(f"{file}: is transparent in places; save it without an alpha channel")
    return torch.from_numpy(decode(raw, file, peek(raw, file))).float() / LEVELS


def find_pictures(places: list[Path]) -> list[Path]:
    """The named files, and the pictures of the named folders in the order of their names.

    Raises:
        RankproofError: a place is not there, or a folder has no pictures.
    """
    found: list[Path] = []
    for place in places:
        inside = [place]
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        if not inside or not inside[0].is_file():
            raise RankproofError(f"{place}: no picture there; name a file, or a folder with pictures")
        found += inside
    if not found:
        raise RankproofError("--query: name the picture to attack, or a folder with some")
    return found


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise RankproofError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink it")
    return path.read_bytes()
