"""Adapters describe how a service is called and where the ids stand in its answers."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from rankproof.config_table import Read, read_table, read_toml
from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.wire.json_path import parse_path, values_at

FORMS = ("multipart", "raw", "json")
METHODS = ("POST", "PUT")
RESERVED_HEADERS = ("user-agent", "host", "content-length", "transfer-encoding", "content-type")
KEY = "KEY"  # name of the secret given by --key-env or --key-file
KEY_PLACEHOLDER = f"${{{KEY}}}"
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
EXCERPT = 160  # characters of an answer that an error quotes


class ResponseKind(Enum):
    """What an answer means for the search."""

    ANSWER = "answer"
    RATE = "rate"
    QUOTA = "quota"
    RETRY = "retry"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The request and answer format of a service; the default is that of `rankproof serve`.

    Args:
        url: address of the service, unless the user gives another one.
        method: POST or PUT.
        headers: sent with every image; ${KEY} is the user's key, ${NAME} an environment variable.
        form: how the PNG is sent: "multipart" (a form field), "raw" (the body) or "json" (base64).
        image: the form field, or the path in the JSON, that holds the image.
        more: further fields, sent with every image.
        ids: path of the ids in the JSON answer, nearest first, such as results[*].item.id.
        rate, quota, retry: statuses that mean: slow down, stop until tomorrow, try again.
        reason: path of the reason in an answer with one of those statuses, or None.
        exhausted: reasons that mean that the quota is used up.
    """

    url: str | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Api-Key": "${KEY}"})
    form: str = "multipart"
    image: str = "image"
    more: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    ids: str = "ids[*]"
    rate: tuple[int, ...] = (429,)
    quota: tuple[int, ...] = ()
    retry: tuple[int, ...] = (408, 500, 502, 503, 504)
    reason: str | None = "reason"
    exhausted: tuple[str, ...] = ("quota",)

    def __post_init__(self) -> None:
        for what, value, choices in (("method", self.method, METHODS), ("as", self.form, FORMS)):
            if value not in choices:
                raise RankproofError(f"{what}: {value!r} is unknown; known: {', '.join(choices)}")
        if reserved := [name for name in self.headers if name.lower() in RESERVED_HEADERS]:
            raise RankproofError(f"headers: {reserved[0]} is set by rankproof itself; leave it out")
        parse_path(self.ids)
        if self.reason is not None:
            parse_path(self.reason)
        if self.form == "json" and not all(isinstance(step, str) for step in parse_path(self.image)):
            raise RankproofError(f"field: {self.image!r} is no path of names, such as query.image")

    @classmethod
    def load(cls, path: Path) -> "Adapter":
        """Read an adapter file.

        Raises:
            RankproofError: the file is not TOML, or has an unknown key or a value of the wrong type.
        """
        content = read_toml(path)
        values = _read(content, str(path), FILE)
        values |= _read(values.pop("send", {}), f"{path}: send", SEND)
        values |= _read(values.pop("limits", {}), f"{path}: limits", LIMITS)
        try:
            return cls(**{NAMES.get(key, key): value for key, value in values.items()})
        except RankproofError as error:
            raise RankproofError(f"{path}: {error}") from None

    def request(self, png: bytes, secrets: Mapping[str, str]) -> JsonObject:
        """The arguments for `httpx.Client.stream` that send a PNG.

        Args:
            png: the encoded image.
            secrets: the user's key as KEY, and environment variables.
        Raises:
            RankproofError: a secret is missing.
        """
        # Without a key its header is omitted: a service may not need one.
        headers = {
            name: _filled(text, secrets)
            for name, text in self.headers.items()
            if KEY in secrets or KEY_PLACEHOLDER not in text
        }
        more = {
            name: _filled(value, secrets) if isinstance(value, str) else value
            for name, value in self.more.items()
        }
        match self.form:
            case "raw":
                return {
                    "headers": {**headers, "Content-Type": "image/png"},
                    "content": png,
                    "params": more,
                }
            case "json":
                body = _nested(more, self.image.split("."), base64.b64encode(png).decode())
                return {"headers": headers, "json": body}
            case _:
                upload = ("query.png", png, "image/png")
                return {"headers": headers, "files": {self.image: upload}, "data": more}

    def takes_key(self) -> bool:
        """Whether the user's key is sent anywhere."""
        texts = [*self.headers.values(), *(value for value in self.more.values() if isinstance(value, str))]
        return any(KEY_PLACEHOLDER in text for text in texts)

    def kind(self, status: int | None, body: bytes) -> ResponseKind:
        """Classify an answer by its status (None: no connection) and its reason."""
        if status is None:
            return ResponseKind.RETRY
        if 200 <= status < 300:
            return ResponseKind.ANSWER
        if status in self.quota:
            return ResponseKind.QUOTA
        if status not in (*self.rate, *self.retry):
            return ResponseKind.REFUSED
        if self._reason_in(body) in self.exhausted:
            return ResponseKind.QUOTA
        return ResponseKind.RATE if status in self.rate else ResponseKind.RETRY

    def ids_in(self, body: bytes) -> list[str]:
        """The ids in an answer as text, nearest first.

        Raises:
            RankproofError: the answer is not JSON, or has no ids at the path.
        """
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise RankproofError(f"the answer is not JSON, it begins with {excerpt(body)!r}") from None
        ids = values_at(answer, parse_path(self.ids), self.ids)
        if bad := [value for value in ids if isinstance(value, bool) or not isinstance(value, str | int)]:
            raise RankproofError(
                f"{self.ids}: an id is a text or a whole number, got {excerpt(json.dumps(bad[0]).encode())}"
            )
        return [str(value) for value in ids]

    def _reason_in(self, body: bytes) -> str | None:
        if self.reason is None:
            return None
        try:
            return str(values_at(json.loads(body), parse_path(self.reason), self.reason)[0])
        except (ValueError, RecursionError, IndexError, RankproofError):  # most services give no reason
            return None


def excerpt(body: bytes) -> str:
    """The beginning of an answer as one printable line."""
    text = body[: 4 * EXCERPT].decode("utf-8", errors="replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:EXCERPT]


def _filled(text: str, secrets: Mapping[str, str]) -> str:
    """A text with its ${NAME} placeholders replaced."""

    def secret(match: re.Match[str]) -> str:
        if match[1] not in secrets:
            raise RankproofError(f"adapter: ${{{match[1]}}} is not set; set that environment variable")
        return secrets[match[1]]

    return PLACEHOLDER.sub(secret, text)


def _nested(fields: Mapping[str, Any], path: list[str], value: str) -> JsonObject:
    """The fields with a value inserted at a path."""
    first, *rest = path
    if not rest:
        return {**fields, first: value}
    inner = fields.get(first, {})
    return {**fields, first: _nested(inner if isinstance(inner, dict) else {}, rest, value)}


# -- readers: check one value of an adapter file


def _read(table: Any, where: str, readers: Mapping[str, Read]) -> JsonObject:
    if not isinstance(table, dict):
        raise RankproofError(f"{where}: expected a table")
    return read_table(table, where, {}, readers)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RankproofError(f"expected a text, got {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RankproofError(f"expected a list of texts, got {value!r}")
    return tuple(_text(each) for each in value)


def _statuses(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(each) is int and 300 <= each <= 599 for each in value)
    if not whole:
        raise RankproofError(f"expected a list of statuses such as [429], got {value!r}")
    return tuple(value)


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise RankproofError(f"expected a table, got {value!r}")
    return {name: _text(text) for name, text in value.items()}


def _fields(value: Any) -> dict[str, str | int | float | bool]:
    plain = isinstance(value, dict) and all(isinstance(each, str | int | float) for each in value.values())
    if not plain:
        raise RankproofError(f"expected a table of texts and numbers, got {value!r}")
    return dict(value)


def _table(value: Any) -> Any:
    return value


FILE: dict[str, Read] = {
    "url": _text,
    "method": _text,
    "ids": _text,
    "headers": _headers,
    "send": _table,
    "limits": _table,
}
SEND: dict[str, Read] = {"as": _text, "field": _text, "with": _fields}
LIMITS: dict[str, Read] = {
    "rate": _statuses,
    "quota": _statuses,
    "retry": _statuses,
    "reason": _text,
    "exhausted": _texts,
}
NAMES = {"as": "form", "field": "image", "with": "more"}  # "as" and "with" are keywords of Python
RANKPROOF_SERVICE = Adapter()
