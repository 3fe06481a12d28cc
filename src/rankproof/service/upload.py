"""The picture file in a request, read with an eye on its size and on the clock."""

import asyncio

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from rankproof.service.intake import ANY, check_size
from rankproof.service.limits import Limits
from rankproof.service.refusal import RefusedError

FIELD = "image"
MULTIPART = "multipart/form-data"
WRAPPING = 16_384  # bytes of a form around its file
FIELDS = 8  # of a form, at most
MEDIA = ("image/png", "image/jpeg", "image/webp", ANY)


async def read_upload(request: Request, limits: Limits) -> tuple[bytes, str]:
    """The bytes of the picture and what the caller says they are.

    Raises:
        RefusedError: there is no picture, it is too large, of the wrong kind, or takes too long.
    """
    declared = _media(request.headers.get("content-type"))
    if declared not in (MULTIPART, *MEDIA):
        raise RefusedError(
            415, "kind", f"send the picture as {', '.join(MEDIA)} or as a form with field '{FIELD}'"
        )
    try:
        async with asyncio.timeout(limits.upload_seconds):
            body = await _read(request, limits.max_bytes + (WRAPPING if declared == MULTIPART else 0), limits)
    except TimeoutError:
        raise RefusedError(408, "slow", f"the upload took over {limits.upload_seconds:g} seconds") from None
    except ClientDisconnect:
        raise RefusedError(400, "request", "the connection ended before the picture did") from None
    return await _from_form(request, body) if declared == MULTIPART else (body, declared)


async def _read(request: Request, most: int, limits: Limits) -> bytes:
    """The body, unless it is longer than `most`: then the rest is never read."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        check_size(int(told), limits)
    parts, count = [], 0
    async for part in request.stream():
        count += len(part)
        if count > most:
            check_size(count, limits)
        parts.append(part)
    return b"".join(parts)


async def _from_form(request: Request, body: bytes) -> tuple[bytes, str]:
    """The file in a form that has been read."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=1, max_fields=FIELDS) as form:
            file = form.get(FIELD)
            if not isinstance(file, UploadFile):
                raise RefusedError(400, "request", f"the form has no file in a field '{FIELD}'")
            if unknown := sorted(set(form) - {FIELD}):
                raise RefusedError(
                    400, "request", f"the form has a field {unknown[0]!r}; only '{FIELD}' is known"
                )
            return await file.read(), _media(file.content_type)
    except HTTPException as error:
        raise RefusedError(400, "request", f"the form cannot be read ({error.detail})") from None


def _media(value: str | None) -> str:
    """The media type in a header, without its parameters."""
    return (value or ANY).partition(";")[0].strip().lower()
