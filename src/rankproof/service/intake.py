"""A stranger's upload as an 8-bit picture of the gallery's own form.

Everything is looked at in the order of its price: first bytes, container, header, and only then pixels. The
decoder is the one that read the gallery's files, so a file of the gallery becomes the gallery's picture, to
the bit; a picture that has the gallery's form already keeps every pixel.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

from rankproof.data.images import Form, decode, opened
from rankproof.errors import RankproofError
from rankproof.service.formats import format_of
from rankproof.service.limits import Limits
from rankproof.service.refusal import RefusedError

NAME = "the upload"
ANY = "application/octet-stream"


def take_in(raw: bytes, declared: str, limits: Limits, form: Form) -> UInt8[Tensor, "c h w"]:
    """Check and decode an upload.

    Args:
        raw: the bytes of the file.
        declared: its media type as the caller says, or `ANY`.
        form: what comes out.
    Raises:
        RefusedError: it is refused; the reason says what to do.
    """
    check_size(len(raw), limits)
    kind = format_of(raw)
    if declared not in (ANY, kind.media):
        raise RefusedError(415, "kind", f"the content type says {declared}, the picture is {kind.media}")
    if kind.end(raw) < len(raw):
        raise RefusedError(422, "picture", "something follows the end of the picture; save it anew")
    try:
        with opened(raw, NAME) as image:
            size, animated = image.size, getattr(image, "is_animated", False)
        _check_header(size, animated, limits)
        return torch.from_numpy(decode(raw, NAME, form).copy())
    except RankproofError as error:
        raise RefusedError(422, "picture", str(error)) from None
    except MemoryError:
        raise RefusedError(422, "picture", "the picture needs too much memory; shrink it") from None


def check_size(count: int, limits: Limits) -> None:
    """Refuse a file of more bytes than are allowed."""
    if count > limits.max_bytes:
        raise RefusedError(413, "size", f"the file is larger than {limits.max_bytes:,} bytes; shrink it")


def _check_header(size: tuple[int, int], animated: bool, limits: Limits) -> None:
    """Refuse by what the header says, before a pixel is decoded."""
    width, height = size
    form = f"{width}x{height}"
    if width * height > limits.max_pixels:
        raise RefusedError(413, "size", f"{form} is more than {limits.max_pixels:,} pixels; shrink it")
    if min(size) < limits.min_side and not limits.enlarge:
        raise RefusedError(422, "picture", f"{form} is too small: at least {limits.min_side} pixels a side")
    if animated:
        raise RefusedError(422, "picture", "the picture is animated; send one that stands still")
