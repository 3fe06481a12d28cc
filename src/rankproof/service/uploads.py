"""Uploaded files: read from a request within limits, checked, and decoded to 8-bit images.

Checks run in the order of their cost: size and first bytes, the container, the header, and only then the
pixels. Files are decoded by the code that reads data sets, so a file of the gallery gives exactly the
gallery's image, and an image that already has the gallery's size and channels keeps every pixel.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from rankproof.data.images import Form, decode, opened
from rankproof.errors import RankproofError
from rankproof.service.errors import RefusedError
from rankproof.service.forms import parse_form
from rankproof.service.limits import Limits

if TYPE_CHECKING:
    from starlette.requests import Request

FIELD = "image"
ANY_TYPE, MULTIPART = "application/octet-stream", "multipart/form-data"
MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", ANY_TYPE)
FORM_OVERHEAD = 16_384  # bytes of a form around its file

PNG, RIFF, WEBP, JPEG = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP", b"\xff\xd8\xff"
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart marker or padding
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MAX_SCANS = 100  # of a progressive JPEG, which usually has ten; each is a pass over all pixels
TRUNCATED = "the image file is truncated; send the whole file"


async def read_upload(request: "Request", limits: Limits) -> tuple[bytes, str]:
    """Read the image file in a request; returns its bytes and the media type that the caller declares.

    Raises:
        RefusedError: there is no image file, it is too large or of another type, or sending takes too long.
    """
    from starlette.requests import ClientDisconnect

    declared = _media_type(request.headers.get("content-type"))
    if declared not in (MULTIPART, *MEDIA_TYPES):
        raise RefusedError(
            415, "kind", f"send the image as {', '.join(MEDIA_TYPES)} or as a form with a field '{FIELD}'"
        )
    most = limits.max_bytes + (FORM_OVERHEAD if declared == MULTIPART else 0)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            body = await _read_body(request, most, limits)
    except TimeoutError:
        raise RefusedError(
            408, "slow", f"the upload took longer than {limits.upload_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise RefusedError(
            400, "request", "the connection was closed before the upload was complete"
        ) from None
    if declared != MULTIPART:
        return body, declared
    return _from_form(body, request.headers["content-type"])


def decode_upload(raw: bytes, declared: str, limits: Limits, form: Form) -> UInt8[Tensor, "c h w"]:
    """Check an uploaded file and decode it.

    Args:
        raw: the bytes of the file.
        declared: its media type as the caller says, or `ANY_TYPE`.
        form: size and channels of the result.
    Raises:
        RefusedError: the file fails a check; the detail says what to do.
    """
    _check_size(len(raw), limits)
    kind = file_type(raw)
    if declared not in (ANY_TYPE, kind.media_type):
        raise RefusedError(
            415, "kind", f"the content type says {declared}, but the image is {kind.media_type}"
        )
    if kind.end(raw) < len(raw):
        raise RefusedError(422, "picture", "the file has data after the end of the image; save it again")
    try:
        with opened(raw, "the upload") as image:
            size, animated = image.size, getattr(image, "is_animated", False)
        _check_header(size, animated, limits)
        return torch.from_numpy(decode(raw, "the upload", form).copy())
    except RankproofError as error:
        raise RefusedError(422, "picture", str(error)) from None
    except MemoryError:
        raise RefusedError(422, "picture", "decoding the image needs too much memory; shrink it") from None


@dataclass(frozen=True)
class FileType:
    """A type of image file.

    Args:
        media_type: its name in HTTP.
        end: the number of bytes up to the end of the image; raises `RefusedError` for a truncated file.
    """

    media_type: str
    end: Callable[[bytes], int]


def file_type(raw: bytes) -> FileType:
    """The type of a file, by its first bytes.

    The end of the image inside the file matters because a file that goes on after its image can be two things
    at once: the image, and whatever another program finds behind it.

    Raises:
        RefusedError: it is not PNG, JPEG or WebP.
    """
    if raw.startswith(PNG):
        return FileType("image/png", _png_end)
    if raw.startswith(JPEG):
        return FileType("image/jpeg", _jpeg_end)
    if raw.startswith(RIFF) and raw[8:12] == WEBP:
        return FileType("image/webp", _webp_end)
    raise RefusedError(415, "kind", "the file is not a PNG, JPEG or WebP image; send one of these")


def _png_end(raw: bytes) -> int:
    """Chunks: length, name, data, checksum; the last is IEND."""
    at = len(PNG)
    while True:
        length, name = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        at += 12 + length
        if at > len(raw) or len(name) < 4:
            raise RefusedError(422, "picture", TRUNCATED)
        if name == b"IEND":
            return at


def _jpeg_end(raw: bytes) -> int:
    """Segments: marker, length, data; entropy-coded data follows a start of scan, up to the next marker."""
    at, scans = 2, 0
    while match := NEXT_MARKER.search(raw, at):
        at = match.end()
        marker = raw[at - 1]
        if marker == END_OF_IMAGE:
            return at
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise RefusedError(422, "picture", f"the JPEG has more than {MAX_SCANS} scans; save it again")
        at += int.from_bytes(raw[at : at + 2], "big")
    raise RefusedError(422, "picture", TRUNCATED)


def _webp_end(raw: bytes) -> int:
    """One RIFF container, whose size is in its header."""
    end = 8 + int.from_bytes(raw[4:8], "little")
    if end > len(raw):
        raise RefusedError(422, "picture", TRUNCATED)
    return end


def _check_size(count: int, limits: Limits) -> None:
    if count > limits.max_bytes:
        raise RefusedError(413, "size", f"the file is larger than {limits.max_bytes:,} bytes; shrink it")


def _check_header(size: tuple[int, int], animated: bool, limits: Limits) -> None:
    """Check what the header says, before any pixel is decoded."""
    width, height = size
    text = f"{width}x{height}"
    if width * height > limits.max_pixels:
        raise RefusedError(413, "size", f"{text} is more than {limits.max_pixels:,} pixels; shrink it")
    if min(size) < limits.min_side and not limits.enlarge:
        raise RefusedError(
            422, "picture", f"{text} is too small: each side needs at least {limits.min_side} pixels"
        )
    if animated:
        raise RefusedError(422, "picture", "the image is animated; send a single frame")


async def _read_body(request: "Request", most: int, limits: Limits) -> bytes:
    """The body of a request; what exceeds `most` bytes is never read."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        _check_size(int(length), limits)
    parts, count = [], 0
    async for part in request.stream():
        count += len(part)
        if count > most:
            _check_size(count, limits)
        parts.append(part)
    return b"".join(parts)


def _from_form(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The file in a multipart form, and its declared media type."""
    parts = parse_form(body, content_type)
    files = [part for part in parts if part.name == FIELD and part.is_file]
    if not files:
        raise RefusedError(400, "request", f"the form has no file in the field '{FIELD}'")
    if unknown := sorted({part.name for part in parts} - {FIELD}):
        raise RefusedError(
            400, "request", f"the form has an unknown field {unknown[0]!r}; only '{FIELD}' is allowed"
        )
    if len(parts) > 1:
        raise RefusedError(400, "request", f"the form cannot be parsed ({len(parts)} images; send one)")
    return files[0].content, _media_type(files[0].content_type)


def _media_type(header: str | None) -> str:
    """The media type in a content-type header, without its parameters."""
    return (header or ANY_TYPE).partition(";")[0].strip().lower()
