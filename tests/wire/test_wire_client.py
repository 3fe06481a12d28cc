import json
import random
from datetime import UTC, datetime
from threading import Event

import httpx
import pytest
import torch

from rankproof import RankproofError
from rankproof.wire import (
    RANKPROOF_SERVICE,
    Adapter,
    CapReachedError,
    QuotaExhaustedError,
    RateLimit,
    UnreachableError,
)
from rankproof.wire.client import USER_AGENT
from rankproof.wire.errors import StoppedError
from rankproof.wire.http_oracle import cached_search, exact_png
from rankproof.wire.rate_limit import Throttle, retry_after_seconds

BUSY = (503, {"Retry-After": "7"}, "")
TOO_FAST = (429, {"Retry-After": "2"}, '{"reason": "rate"}')
USED_UP = (429, {"Retry-After": "60"}, '{"reason": "quota"}')


def pictures(count):
    return [exact_png(torch.full((1, 4, 4), number / 255)) for number in range(count)]


def gone():
    raise httpx.ReadError("connection reset")


def late():
    raise httpx.ReadTimeout("timed out")


def ask(client, file=None):
    calls = []
    ids = client.search(file or pictures(1)[0], lambda: calls.append(1), Event())
    return ids, len(calls)


def test_a_request_is_honest_and_goes_to_the_address_that_was_checked(client):
    def handle(request):
        assert str(request.url) == "http://127.0.0.1:8000/search?v=2"
        assert request.headers["Host"] == "localhost:8000"
        assert request.headers["User-Agent"] == USER_AGENT
        assert request.headers["X-Api-Key"] == "k1"
        assert request.extensions["sni_hostname"] == "localhost"
        return httpx.Response(200, json={"ids": ["a"]})

    made = client(
        url="http://localhost:8000/search?v=2", transport=httpx.MockTransport(handle), secrets={"KEY": "k1"}
    )
    assert ask(made) == (["a"], 1)
    assert USER_AGENT.startswith("rankproof/")
    assert USER_AGENT.endswith(" (security test of an image search)")


def test_further_fields_of_a_raw_picture_join_the_url(client):
    def handle(request):
        assert dict(request.url.params) == {"v": "2", "top": "50"}
        assert request.read() == pictures(1)[0]
        return httpx.Response(200, json={"ids": []})

    adapter = Adapter(form="raw", more={"top": 50})
    assert ask(client(adapter, url="http://127.0.0.1/?v=2", transport=httpx.MockTransport(handle))) == ([], 1)


def test_proxies_of_the_environment_are_not_used(client, monkeypatch, serve, service):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    port, _ = serve(service)
    made = client(url=f"http://127.0.0.1:{port}/search", transport=httpx.HTTPTransport(), tries=1)
    assert len(ask(made)[0]) == 12


def test_trouble_is_waited_out_with_growing_waits(client, service, clock):
    service.faults = [gone, late, (500, {}, ""), (502, {}, "<html>"), (408, {}, "")]
    ids, calls = ask(client())
    assert len(ids) == 12
    assert calls == 6
    assert len(clock.slept) == 5
    for tries, seconds in enumerate(clock.slept):
        assert 0.25 * 2**tries <= seconds <= 0.5 * 2**tries
    assert len(set(clock.slept)) == 5


def test_waits_come_from_the_seed_and_have_an_end():
    limit = RateLimit(longest_wait=3.0)
    waits = [[limit.backoff(tries, random.Random(1)) for tries in range(1, 99)] for _ in range(2)]
    assert waits[0] == waits[1]
    assert max(waits[0]) <= 3.0


def test_what_the_service_says_about_waiting_is_obeyed(client, service, clock):
    service.faults = [BUSY, TOO_FAST]
    ask(client())
    assert clock.slept[0] == 7.0
    assert clock.now >= 9.0


def test_a_service_that_is_asked_too_fast_is_asked_more_slowly(client, service, clock):
    service.faults = [TOO_FAST]
    made = client()
    ask(made)
    began = clock.now
    for file in pictures(4):
        ask(made, file)
    assert clock.now - began == pytest.approx(4 * 0.25)


def test_calls_keep_the_agreed_rate(client, clock, cache):
    cached_search(client(per_second=4.0, concurrency=3), cache(), pictures(9))
    assert clock.now >= 8 / 4


def test_a_pause_holds_for_every_call():
    now = [100.0]
    turns = Throttle(None, lambda: now[0])
    assert turns.take() == 0
    turns.pause(5.0)
    turns.pause(3.0)  # told later, over earlier
    assert (turns.take(), turns.take()) == (5, 5)
    now[0] += 5
    assert turns.take() == 0


def test_one_refusal_slows_down_once():
    now = [0.0]
    turns = Throttle(None, lambda: now[0])
    for _ in range(3):  # three calls were under way
        turns.slow()
        turns.pause(2.0)
    assert turns.gap == 0.25
    now[0] = 2.0
    turns.slow()
    assert turns.gap == 0.5


@pytest.mark.parametrize("answer", [gone, late, (503, {}, "")], ids=["gone", "late", "busy"])
def test_a_service_that_never_answers_is_given_up(client, service, answer):
    service.faults = [answer] * 3
    with pytest.raises(UnreachableError, match="no answer after 3 tries"):
        ask(client(tries=3))
    assert len(service.sent) == 3


@pytest.mark.parametrize(
    "answer",
    [USED_UP, (429, {"Retry-After": "3601"}, ""), (503, {"Retry-After": "40000"}, ""), (402, {}, "")],
)
def test_a_used_up_quota_ends_it_at_once(client, service, clock, answer):
    service.faults = [answer]
    with pytest.raises(QuotaExhaustedError, match="the quota is used up"):
        ask(client(Adapter(quota=(402,))))
    assert len(service.sent) == 1
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "headers", "fragment"),
    [
        (301, {"Location": "http://10.0.0.1/"}, "the service redirects, and redirects are not followed"),
        (307, {}, "the service redirects, and redirects are not followed"),
        (400, {}, "the service refuses the image (status 400: too dark)"),
        (401, {}, "the key is missing or wrong; give it by --key-env or --key-file"),
        (403, {}, "the key may not do this"),
        (404, {}, "there is nothing at this address"),
        (405, {}, "POST is not allowed there"),
        (413, {}, "the image is too large for the service"),
    ],
)
def test_refusals_are_told_and_not_repeated(client, service, status, headers, fragment):
    service.faults = [(status, headers, "too\n\x1b dark")]
    with pytest.raises(RankproofError) as caught:
        ask(client())
    assert fragment in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(service.sent) == 1


def test_an_answer_without_ids_names_the_service(client, service):
    service.faults = [(200, {}, '{"hits": []}')]
    with pytest.raises(RankproofError, match=r"search: the answer has no ids\[\*\].*an adapter says where"):
        ask(client())


def test_an_endless_answer_is_cut(client, service):
    service.faults = [(200, {}, " " * (2**24 + 1))]
    with pytest.raises(RankproofError, match="longer than 16 MiB"):
        ask(client())


@pytest.mark.parametrize("key", ["", "two\nlines", "schlüssel"])
def test_bad_keys_are_refused_without_being_shown(client, key):
    with pytest.raises(RankproofError, match="one line of plain letters") as caught:
        client(secrets={"KEY": key})
    assert not key or key not in str(caught.value)


def test_a_key_that_would_not_be_sent_is_an_error(client):
    with pytest.raises(RankproofError, match=r"no place for a key; write \$\{KEY\}"):
        client(Adapter(headers={}), secrets={"KEY": "k1"})


@pytest.mark.parametrize(
    "limits", [{"concurrency": 0}, {"tries": 0}, {"per_second": 0.0}, {"per_second": -1.0}]
)
def test_bad_rate_limits(limits):
    with pytest.raises(RankproofError, match=r"at least 1|above 0"):
        RateLimit(**limits)


def test_how_long_to_wait_is_read_from_seconds_and_dates():
    now = datetime(2021, 5, 1, 12, 0, tzinfo=UTC)
    told = [
        retry_after_seconds(header, lambda: now)
        for header in ("7", " 7 ", "Sat, 01 May 2021 12:01:00 GMT", "Sat, 01 May 2021 11:00:00 GMT")
    ]
    assert told == [7.0, 7.0, 60.0, 0.0]
    for header in (None, "soon", "", "-3", "Sat, 01 May 2021 12:01:00"):
        assert retry_after_seconds(header, lambda: now) is None


# -- several pictures at once


def test_a_picture_is_asked_once_however_often_it_is_wanted(client, cache, service):
    made, kept, files = client(concurrency=3), cache(), pictures(3)
    first = cached_search(made, kept, [files[0], files[1], files[0], files[2]])
    assert first[0] == first[2]
    assert cached_search(made, cache(), files) == [first[0], first[1], first[3]]
    assert sorted(service.sent) == sorted(files)


def test_what_was_answered_before_a_quota_is_kept(client, cache, service):
    service.faults = [None, None, USED_UP]
    kept = cache()
    with pytest.raises(QuotaExhaustedError):
        cached_search(client(), kept, pictures(6))
    assert [file in kept for file in pictures(6)] == [True, True, False, False, False, False]
    assert len(service.sent) == kept.calls == 3
    cached_search(client(), kept, pictures(6))
    assert len(service.sent) == kept.calls == 7


def test_the_cap_counts_repetitions(client, cache, service):
    service.faults = [gone, gone]
    kept = cache(cap=4)
    with pytest.raises(CapReachedError):
        cached_search(client(), kept, pictures(6))
    assert len(service.sent) == 4
    assert len(service.answered) == 2


def test_calls_that_wait_end_with_the_search(client):
    stop = Event()
    stop.set()
    with pytest.raises(StoppedError):
        client().search(b"", lambda: None, stop)


def test_the_own_adapter_needs_no_key(client, service):
    assert len(ask(client(RANKPROOF_SERVICE))[0]) == 12
    assert json.loads(client().service)[0] == "http://127.0.0.1:8000/search"
