"""One picture to one list of ids, however often the way there fails."""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from rankproof.errors import RankproofError
from rankproof.versions import versions
from rankproof.wire.adapter import KEY, PLACE, Adapter, Kind, excerpt
from rankproof.wire.guard import Destination
from rankproof.wire.pace import Clock, Pace, Sleep, Turns, rest, seconds_told
from rankproof.wire.stops import QuotaExhaustedError, UnreachableError

if TYPE_CHECKING:
    import httpx

AGENT = f"rankproof/{versions()['rankproof']} (security test of an image search)"
DAY_IS_OVER = 3600.0  # a service that wants to be left alone for longer has a quota, not a rate
MOST_BYTES = 2**24  # of an answer; a list of ids is far smaller


@dataclass(frozen=True)
class _Answer:
    """What came back: a status with a body, or no status and what went wrong."""

    status: int | None
    body: bytes
    wait: float | None = None


class Client:
    """Asks a service at a place that may be asked; several threads may use it at once.

    Args:
        destination: where; what `allowed` returned.
        adapter: how.
        secrets: the user's key as KEY, and the environment.
        pace: how fast.
        seed: of the chance in waits.
        transport: what carries requests; None is the network.
        sleep, clock: seconds to wait, and seconds that went by; None sleeps until the search ends.
    """

    def __init__(
        self,
        destination: Destination,
        adapter: Adapter,
        *,
        secrets: Mapping[str, str] | None = None,
        pace: Pace | None = None,
        seed: int = 0,
        transport: "httpx.BaseTransport | None" = None,
        sleep: Sleep | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.destination, self.adapter = destination, adapter
        self.pace, self.sleep = pace or Pace(), sleep
        self._secrets = _checked(secrets or {}, adapter)
        self._turns, self._chance = Turns(self.pace.per_second, clock), random.Random(seed)
        httpx = _library()
        url = httpx.URL(destination.url)
        # The address that was checked, whatever its name leads to by now; no proxy and no redirect.
        self._pinned, self._host = url.copy_with(host=destination.address), url.netloc.decode("ascii")
        self._broken: type[Exception] = httpx.RequestError
        self._http = httpx.Client(
            transport=transport,
            timeout=self.pace.timeout,
            limits=httpx.Limits(max_connections=self.pace.concurrency),
            trust_env=False,
            follow_redirects=False,
        )

    @property
    def service(self) -> str:
        """What is asked and how, without secrets: equal answers may be expected where this is equal."""
        adapter = self.adapter
        sent = (adapter.method, adapter.form, adapter.image, dict(adapter.more), adapter.ids)
        return json.dumps([self.destination.url, *sent])

    def ask(self, picture: bytes, count: Callable[[], None], stop: Event) -> list[str]:
        """The ids that the service answers to a PNG, nearest first.

        Args:
            picture: the file.
            count: called before every call that is sent.
            stop: set when the search ends; no further call is then sent.
        Raises:
            UnfinishedError: the service answers no more today, or not at all; or the search ended.
            RankproofError: it refuses the picture or answers no ids.
        """
        for tries in range(1, self.pace.tries + 1):
            rest(self._turns.take(), self.sleep, stop)
            count()
            answer = self._send(picture)
            kind = Kind.RETRY if answer.status is None else self.adapter.kind(answer.status, answer.body)
            if kind is Kind.ANSWER:
                return self._ids(answer)
            if kind is Kind.REFUSED:
                raise self._refused(answer)
            if kind is Kind.QUOTA or (answer.wait or 0.0) > DAY_IS_OVER:
                raise QuotaExhaustedError(f"{self.destination.url}: the quota is used up ({_said(answer)})")
            wait = max(self.pace.wait(tries, self._chance), answer.wait or 0.0)
            if kind is Kind.RATE:
                self._turns.slow()
            if kind is Kind.RATE or answer.wait is not None:
                self._turns.pause(wait)
            if tries < self.pace.tries:
                rest(wait, self.sleep, stop)
        raise UnreachableError(f"{self.destination.url}: no answer after {tries} tries ({_said(answer)})")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, picture: bytes) -> _Answer:
        """One call."""
        arguments = self.adapter.request(picture, self._secrets)
        arguments["headers"] |= {"Host": self._host, "User-Agent": AGENT}
        name = {"sni_hostname": self.destination.host}  # the certificate is the name's, not the address's
        url = self._pinned.copy_merge_params(arguments.pop("params", {}))
        try:
            with self._http.stream(self.adapter.method, url, extensions=name, **arguments) as answer:
                told = seconds_told(answer.headers.get("Retry-After"))
                return _Answer(answer.status_code, _bounded(answer), told)
        except self._broken as error:
            return _Answer(None, (str(error) or type(error).__name__).encode())

    def _ids(self, answer: _Answer) -> list[str]:
        try:
            return self.adapter.ids_in(answer.body)
        except RankproofError as error:
            where = f"{self.destination.url}: {error}"
            raise RankproofError(f"{where}; an adapter says where the ids are") from None

    def _refused(self, answer: _Answer) -> RankproofError:
        """What to do about an answer that no repetition would change."""
        cause = {
            401: "the key is missing or wrong; give it by --key-env or --key-file",
            403: "the key may not do this; give another by --key-env or --key-file",
            404: "there is nothing at this address; check the URL",
            405: f"{self.adapter.method} is not allowed there; check the URL and the adapter's method",
            413: "the picture is too large for it; use a smaller one",
        }.get(answer.status or 0, "it refuses the picture")
        if 300 <= (answer.status or 0) < 400:
            cause = "it redirects, which is never followed; give the address it leads to"
        return RankproofError(f"{self.destination.url}: {cause} ({_said(answer)})")


def _library() -> Any:
    try:
        import httpx
    except ImportError:
        raise RankproofError("a live service needs httpx; pip install 'rankproof[wire]'") from None
    return httpx


def _checked(secrets: Mapping[str, str], adapter: Adapter) -> Mapping[str, str]:
    """The secrets, if the user's key is one line and has a place; its text is never shown."""
    if (key := secrets.get(KEY)) is not None:
        if not key or not key.isascii() or not key.isprintable():
            raise RankproofError("the key must be one line of plain letters; check --key-env or --key-file")
        if not adapter.takes_key():
            raise RankproofError(f"the adapter has no place for a key; write {PLACE} into one of its headers")
    return secrets


def _bounded(answer: "httpx.Response") -> bytes:
    """The body, as far as a list of ids can go."""
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise RankproofError(f"the answer is longer than {MOST_BYTES // 2**20} MiB; no list of ids is")
    return body


def _said(answer: _Answer) -> str:
    """A status and the beginning of what came with it."""
    status = "no connection" if answer.status is None else f"status {answer.status}"
    return f"{status}: {excerpt(answer.body)}" if answer.body else status
