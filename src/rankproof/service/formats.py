"""What kind of picture a file is, and where the picture in it ends.

A file that goes on after its picture is two things at once: the picture that is shown here, and whatever
another program finds behind it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from rankproof.service.limits import SCANS
from rankproof.service.refusal import RefusedError

PNG, RIFF, WEBP, JPEG = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP", b"\xff\xd8\xff"
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte, a restart nor filling
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
TRUNCATED = "the picture is cut off; send the whole file"


@dataclass(frozen=True)
class Format:
    """A kind of picture file.

    Args:
        media: its name in HTTP.
        end: the number of bytes up to the end of the picture; refuses a picture that is cut off.
    """

    media: str
    end: Callable[[bytes], int]


def format_of(raw: bytes) -> Format:
    """The format whose first bytes these are.

    Raises:
        RefusedError: they are those of none that is taken.
    """
    if raw.startswith(PNG):
        return Format("image/png", _png_end)
    if raw.startswith(JPEG):
        return Format("image/jpeg", _jpeg_end)
    if raw.startswith(RIFF) and raw[8:12] == WEBP:
        return Format("image/webp", _webp_end)
    raise RefusedError(415, "kind", "this is no PNG, JPEG or WebP picture; send one of these")


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
    """Segments: marker, length, data; after the start of a scan come its bits, up to the next marker."""
    at, scans = 2, 0
    while found := NEXT_MARKER.search(raw, at):
        at = found.end()
        marker = raw[at - 1]
        if marker == END_OF_IMAGE:
            return at
        scans += marker == START_OF_SCAN
        if scans > SCANS:
            raise RefusedError(422, "picture", f"the JPEG has more than {SCANS} scans; save it anew")
        at += int.from_bytes(raw[at : at + 2], "big")
    raise RefusedError(422, "picture", TRUNCATED)


def _webp_end(raw: bytes) -> int:
    """One RIFF container, which tells its size."""
    end = 8 + int.from_bytes(raw[4:8], "little")
    if end > len(raw):
        raise RefusedError(422, "picture", TRUNCATED)
    return end
