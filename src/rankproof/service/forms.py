"""Forms of HTTP uploads (multipart/form-data, RFC 7578), which are in memory already, within their limits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from rankproof.service.errors import RefusedError

MAX_PARTS = 9  # a file and eight fields
MAX_HEAD = 8192  # bytes of the headers of a part
MAX_BOUNDARY = 200  # characters; the standard allows 70


@dataclass(frozen=True)
class FormPart:
    """One part of a form.

    Args:
        name: of the field.
        is_file: whether it has a file name, in any notation (RFC 2231 and 5987 have filename*).
        content_type: of the part, None where it has none.
        content: its bytes.
    """

    name: str
    is_file: bool
    content_type: str | None
    content: bytes


def parse_form(body: bytes, content_type: str) -> list[FormPart]:
    """The parts of a form, in order.

    Text before the first part and after the last is no part of it. Headers may be folded, and their names and
    parameters be written in any case; the name of a file is never used.

    Args:
        content_type: the header of the request, with the boundary.
    Raises:
        RefusedError: this is no such form; the detail says why.
    """
    try:
        boundary = _headers(f"Content-Type: {content_type}").get_boundary("")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise ValueError("the content type names no boundary")
        parts: list[FormPart] = []
        for head, content in _split(body, boundary.encode("latin-1")):
            if len(parts) == MAX_PARTS:
                raise ValueError(f"more than {MAX_PARTS} parts")
            parts.append(_part(head, content))
    except (ValueError, LookupError, TypeError) as error:  # ValueError is what `email` has for odd parameters
        raise RefusedError(400, "request", f"the form cannot be parsed ({error})") from None
    return parts


def _split(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The headers and the content of each part."""
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    begin = None
    for match in delimiter.finditer(body):
        if begin is not None:
            # The line break after a delimiter is also the end of empty headers.
            end = body.find(b"\r\n\r\n", begin, match.start())
            if end < 0:
                raise ValueError("a part has no headers")
            if end - begin > MAX_HEAD:
                raise ValueError(f"the headers of a part are longer than {MAX_HEAD} bytes")
            yield body[begin + 2 : end], body[end + 4 : match.start()]
        if match[1]:
            return
        begin = match.end()
    raise ValueError("it does not end with its boundary")


def _part(head: bytes, content: bytes) -> FormPart:
    headers = _headers(head.decode("latin-1"))
    if headers.get_content_disposition() != "form-data":
        raise ValueError("a part has no Content-Disposition: form-data")
    # Keys are collapsed: filename, filename* and filename*0 are one parameter.
    parameters = {key.lower().rstrip("*") for key, _ in headers.get_params([], "content-disposition")}
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise ValueError("a part has no name")
    is_file = any(key.partition("*")[0] == "filename" for key in parameters)
    return FormPart(name, is_file, headers.get("content-type"), content)


def _headers(text: str) -> Message:
    return HeaderParser().parsestr(text)
