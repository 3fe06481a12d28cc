"""The HTTP client of a search service: one image in, one list of ids out, with retries."""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from rankproof.errors import RankproofError
from rankproof.io import versions
from rankproof.wire.adapter import KEY, KEY_PLACEHOLDER, Adapter, ResponseKind, excerpt
from rankproof.wire.destination import Destination
from rankproof.wire.errors import QuotaExhaustedError, UnreachableError
from rankproof.wire.rate_limit import (
    Clock,
    RateLimit,
    Sleep,
    Throttle,
    retry_after_seconds,
    sleep_unless_stopped,
)

if TYPE_CHECKING:
    import httpx

USER_AGENT = f"rankproof/{versions()['rankproof']} (security test of an image search)"
QUOTA_WAIT = 3600.0  # seconds; a longer Retry-After means a quota, not a rate limit
MAX_ANSWER_BYTES = 2**24  # a list of ids is far smaller


@dataclass(frozen=True)
class _Response:
    """An HTTP answer; without one `status` is None and `body` says what went wrong."""

    status: int | None
    body: bytes
    wait: float | None = None


class Client:
    """Client of a search service; may be shared by several threads.

    Args:
        destination: the service, as returned by `check_destination`.
        adapter: the form of requests and answers.
        secrets: the user's key as KEY, and environment variables.
        rate_limit: request rate and retries; None is the default.
        seed: of the jitter in waits.
        transport: an httpx transport; None is the network.
        sleep, clock: replace waiting and the clock in tests; None waits, and wakes when the search ends.
    """

    def __init__(
        self,
        destination: Destination,
        adapter: Adapter,
        *,
        secrets: Mapping[str, str] | None = None,
        rate_limit: RateLimit | None = None,
        seed: int = 0,
        transport: "httpx.BaseTransport | None" = None,
        sleep: Sleep | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.destination, self.adapter = destination, adapter
        self.rate_limit, self.sleep = rate_limit or RateLimit(), sleep
        self._secrets = _checked_secrets(secrets or {}, adapter)
        self._throttle, self._rng = Throttle(self.rate_limit.per_second, clock), random.Random(seed)
        httpx = _import_httpx()
        url = httpx.URL(destination.url)
        # Connect to the address that was checked, even if the name resolves differently by now.
        self._pinned, self._host = url.copy_with(host=destination.address), url.netloc.decode("ascii")
        self._request_error: type[Exception] = httpx.RequestError
        self._http = httpx.Client(
            transport=transport,
            timeout=self.rate_limit.timeout,
            limits=httpx.Limits(max_connections=self.rate_limit.concurrency),
            trust_env=False,
            follow_redirects=False,
        )

    @property
    def service(self) -> str:
        """Identifies the service and the form of requests, without secrets; keys the response cache."""
        adapter = self.adapter
        sent = (adapter.method, adapter.form, adapter.image, dict(adapter.more), adapter.ids)
        return json.dumps([self.destination.url, *sent])

    def search(self, png: bytes, on_call: Callable[[], None], stop: Event) -> list[str]:
        """Send a PNG; returns the ids in the answer, nearest first.

        Args:
            png: the encoded image.
            on_call: called before every call that is sent.
            stop: set when the search ends; no further call is then sent.
        Raises:
            UnfinishedError: the quota is used up, the service does not answer, or the search ended.
            RankproofError: the service refuses the image, or its answer has no ids.
        """
        url = self.destination.url
        for tries in range(1, self.rate_limit.tries + 1):
            sleep_unless_stopped(self._throttle.take(), self.sleep, stop)
            on_call()
            answer = self._send(png)
            kind = self.adapter.kind(answer.status, answer.body)
            if kind is ResponseKind.ANSWER:
                return self._ids(answer)
            if kind is ResponseKind.REFUSED:
                raise self._refused(answer)
            if kind is ResponseKind.QUOTA or (answer.wait or 0.0) > QUOTA_WAIT:
                raise QuotaExhaustedError(f"{url}: the quota is used up ({_status_text(answer)})")
            wait = max(self.rate_limit.backoff(tries, self._rng), answer.wait or 0.0)
            if kind is ResponseKind.RATE:
                self._throttle.slow()
            if kind is ResponseKind.RATE or answer.wait is not None:
                self._throttle.pause(wait)
            if tries < self.rate_limit.tries:
                sleep_unless_stopped(wait, self.sleep, stop)
        raise UnreachableError(f"{url}: no answer after {tries} tries ({_status_text(answer)})")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, png: bytes) -> _Response:
        """One call."""
        arguments = self.adapter.request(png, self._secrets)
        arguments["headers"] |= {"Host": self._host, "User-Agent": USER_AGENT}
        name = {"sni_hostname": self.destination.host}  # the certificate is the name's, not the address's
        url = self._pinned.copy_merge_params(arguments.pop("params", {}))
        try:
            with self._http.stream(self.adapter.method, url, extensions=name, **arguments) as answer:
                wait = retry_after_seconds(answer.headers.get("Retry-After"))
                return _Response(answer.status_code, _read_bounded(answer), wait)
        except self._request_error as error:
            return _Response(None, (str(error) or type(error).__name__).encode())

    def _ids(self, answer: _Response) -> list[str]:
        try:
            return self.adapter.ids_in(answer.body)
        except RankproofError as error:
            text = f"{self.destination.url}: {error}; an adapter says where the ids are"
            raise RankproofError(text) from None

    def _refused(self, answer: _Response) -> RankproofError:
        """The error for an answer that no retry would change."""
        cause = {
            401: "the key is missing or wrong; give it by --key-env or --key-file",
            403: "the key may not do this; give another by --key-env or --key-file",
            404: "there is nothing at this address; check the URL",
            405: f"{self.adapter.method} is not allowed there; check the URL and the adapter's method",
            413: "the image is too large for the service; use a smaller one",
        }.get(answer.status or 0, "the service refuses the image")
        if 300 <= (answer.status or 0) < 400:
            cause = "the service redirects, and redirects are not followed; give the address it redirects to"
        return RankproofError(f"{self.destination.url}: {cause} ({_status_text(answer)})")


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise RankproofError("attacking a service needs httpx; pip install 'rankproof[wire]'") from None
    return httpx


def _checked_secrets(secrets: Mapping[str, str], adapter: Adapter) -> Mapping[str, str]:
    """The secrets, once the key is known to be one line and to be used; no error quotes it."""
    if (key := secrets.get(KEY)) is not None:
        if not key or not key.isascii() or not key.isprintable():
            raise RankproofError("the key must be one line of plain letters; check --key-env or --key-file")
        if not adapter.takes_key():
            raise RankproofError(
                f"the adapter has no place for a key; write {KEY_PLACEHOLDER} into one of its headers"
            )
    return secrets


def _read_bounded(answer: "httpx.Response") -> bytes:
    """The body of an answer; one that is too long for a list of ids is an error."""
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise RankproofError(
                f"the answer is longer than {MAX_ANSWER_BYTES // 2**20} MiB; no list of ids is"
            )
    return body


def _status_text(answer: _Response) -> str:
    """The status of an answer and the beginning of its body."""
    status = "no connection" if answer.status is None else f"status {answer.status}"
    return f"{status}: {excerpt(answer.body)}" if answer.body else status
