"""How a foreign service is called: what is sent where, and where in its answer the ids are."""

import base64
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from rankproof.errors import RankproofError
from rankproof.tables import Read, read_table
from rankproof.wire.within import steps_of, values_at

FORMS = ("multipart", "raw", "json")
METHODS = ("POST", "PUT")
OURS = ("user-agent", "host", "content-length", "transfer-encoding", "content-type")
KEY = "KEY"  # the secret that the user gives for the service
PLACE = f"${{{KEY}}}"
SECRET = re.compile(r"\$\{(\w+)\}")
EXCERPT = 160  # characters of an answer that an error shows


class Kind(Enum):
    """What an answer means for the search."""

    ANSWER = "answer"
    RATE = "rate"
    QUOTA = "quota"
    RETRY = "retry"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """How one kind of service is called; the default is `rankproof serve`.

    Args:
        url: where it is, unless the user names another place.
        method: POST or PUT.
        headers: sent with every picture; ${KEY} is the user's key, ${NAME} a variable of the environment.
        form: how the PNG is sent: "multipart" (a field of a form), "raw" (the body) or "json" (base64).
        image: the field of the form, or the path in the JSON, that holds the picture.
        more: further fields, sent with every picture.
        ids: path of the ids in the JSON answer, nearest first, such as results[*].item.id.
        rate, quota, retry: statuses of an answer to wait after, to stop until tomorrow, to try again.
        reason: path in an answer of those statuses that tells why, or None.
        exhausted: what stands there when the quota is used up.
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
        for what, value, known in (("method", self.method, METHODS), ("as", self.form, FORMS)):
            if value not in known:
                raise RankproofError(f"{what}: {value!r} is unknown; known: {', '.join(known)}")
        if odd := [name for name in self.headers if name.lower() in OURS]:
            raise RankproofError(f"headers: {odd[0]} is set by rankproof itself; leave it out")
        steps_of(self.ids)
        if self.reason is not None:
            steps_of(self.reason)
        if self.form == "json" and not all(isinstance(step, str) for step in steps_of(self.image)):
            raise RankproofError(f"field: {self.image!r} is no path of names, such as query.image")

    @classmethod
    def load(cls, path: Path) -> "Adapter":
        """Read an adapter file.

        Raises:
            RankproofError: the file is no TOML, or has a key that is unknown or of the wrong kind.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RankproofError(f"{path}: no TOML ({error})") from None
        values = _read(content, str(path), FILE)
        values |= _read(values.pop("send", {}), f"{path}: send", SEND)
        values |= _read(values.pop("limits", {}), f"{path}: limits", LIMITS)
        try:
            return cls(**{NAMES.get(key, key): value for key, value in values.items()})
        except RankproofError as error:
            raise RankproofError(f"{path}: {error}") from None

    def request(self, picture: bytes, secrets: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of the request that sends a PNG.

        Args:
            picture: the file.
            secrets: the user's key as KEY, and the environment.
        Raises:
            RankproofError: a secret is not there.
        """
        # Without a key its header is left out: a service may ask for none.
        headers = {
            name: _filled(text, secrets)
            for name, text in self.headers.items()
            if KEY in secrets or PLACE not in text
        }
        more = {
            name: _filled(value, secrets) if isinstance(value, str) else value
            for name, value in self.more.items()
        }
        match self.form:
            case "raw":
                return {
                    "headers": {**headers, "Content-Type": "image/png"},
                    "content": picture,
                    "params": more,
                }
            case "json":
                body = _nested(more, self.image.split("."), base64.b64encode(picture).decode())
                return {"headers": headers, "json": body}
            case _:
                file = ("query.png", picture, "image/png")
                return {"headers": headers, "files": {self.image: file}, "data": more}

    def takes_key(self) -> bool:
        """Whether there is a place for the user's key."""
        texts = [*self.headers.values(), *(value for value in self.more.values() if isinstance(value, str))]
        return any(PLACE in text for text in texts)

    def kind(self, status: int, body: bytes) -> Kind:
        """What an answer means."""
        if 200 <= status < 300:
            return Kind.ANSWER
        if status in self.quota:
            return Kind.QUOTA
        if status not in (*self.rate, *self.retry):
            return Kind.REFUSED
        if self._why(body) in self.exhausted:
            return Kind.QUOTA
        return Kind.RATE if status in self.rate else Kind.RETRY

    def ids_in(self, body: bytes) -> list[str]:
        """The ids of an answer as text, nearest first.

        Raises:
            RankproofError: the answer is no JSON, or has no ids where they should be.
        """
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise RankproofError(f"the answer is not JSON, it begins with {excerpt(body)!r}") from None
        found = values_at(answer, steps_of(self.ids), self.ids)
        if odd := [value for value in found if isinstance(value, bool) or not isinstance(value, str | int)]:
            raise RankproofError(
                f"{self.ids}: an id is a text or a whole number, got {excerpt(json.dumps(odd[0]).encode())}"
            )
        return [str(value) for value in found]

    def _why(self, body: bytes) -> str | None:
        if self.reason is None:
            return None
        try:
            return str(values_at(json.loads(body), steps_of(self.reason), self.reason)[0])
        except (ValueError, RecursionError, IndexError, RankproofError):  # most services give no reason
            return None


def excerpt(body: bytes) -> str:
    """The beginning of an answer as one harmless line."""
    text = body[: 4 * EXCERPT].decode("utf-8", errors="replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:EXCERPT]


def _filled(text: str, secrets: Mapping[str, str]) -> str:
    """A text with its ${NAME}s replaced."""

    def secret(found: re.Match[str]) -> str:
        if found[1] not in secrets:
            raise RankproofError(f"adapter: ${{{found[1]}}} is not set; set that variable of the environment")
        return secrets[found[1]]

    return SECRET.sub(secret, text)


def _nested(fields: Mapping[str, Any], path: list[str], value: str) -> dict[str, Any]:
    """The fields with a value put in at a path."""
    first, *rest = path
    if not rest:
        return {**fields, first: value}
    inner = fields.get(first, {})
    return {**fields, first: _nested(inner if isinstance(inner, dict) else {}, rest, value)}


# -- readers: a value as it stands in the file, checked


def _read(table: Any, where: str, known: Mapping[str, Read]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise RankproofError(f"{where}: expected a table")
    return read_table(table, where, {}, known)


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
NAMES = {"as": "form", "field": "image", "with": "more"}  # "as" and "with" are words of Python
OWN = Adapter()
