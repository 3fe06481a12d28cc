import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rankproof import RankproofError
from rankproof.wire.adapter import RANKPROOF_SERVICE, Adapter, ResponseKind
from rankproof.wire.json_path import parse_path, values_at

FOREIGN = """
url = "https://shop.example/v2/similar"
method = "PUT"
ids = "data.results[*].item.id"

[headers]
Authorization = "Bearer ${KEY}"
X-Team = "${TEAM}"

[send]
as = "json"
field = "query.image"
with = { limit = 50, token = "${KEY}" }

[limits]
rate = [420]
quota = [402]
retry = [503]
reason = "error.code"
exhausted = ["daily", "monthly"]
"""


def written(tmp_path, text):
    (tmp_path / "shop.toml").write_text(text)
    return tmp_path / "shop.toml"


@pytest.fixture
def foreign(tmp_path):
    return Adapter.load(written(tmp_path, FOREIGN))


def test_an_adapter_is_read_whole(foreign):
    assert foreign == Adapter(
        url="https://shop.example/v2/similar",
        method="PUT",
        headers={"Authorization": "Bearer ${KEY}", "X-Team": "${TEAM}"},
        form="json",
        image="query.image",
        more={"limit": 50, "token": "${KEY}"},
        ids="data.results[*].item.id",
        rate=(420,),
        quota=(402,),
        retry=(503,),
        reason="error.code",
        exhausted=("daily", "monthly"),
    )


def test_an_empty_adapter_is_our_own_service(tmp_path):
    assert Adapter.load(written(tmp_path, "")) == RANKPROOF_SERVICE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("urls = 'x'", "'urls' is unknown; known: url, method, ids, headers, send, limits"),
        ("[send]\nfeild = 'x'", "send: 'feild' is unknown; known: as, field, with"),
        ("[limits]\nwait = [429]", "limits: 'wait' is unknown; known: rate, quota, retry, reason, exhausted"),
        ("method = 'GET'", "method: 'GET' is unknown; known: POST, PUT"),
        ("[send]\nas = 'form'", "as: 'form' is unknown; known: multipart, raw, json"),
        ("ids = 'a..b'", "is no path"),
        ("ids = 3", "ids: expected a text"),
        ("send = 3", "send: expected a table"),
        ("[limits]\nrate = [200]", "rate: expected a list of statuses"),
        ("[limits]\nrate = 429", "rate: expected a list of statuses"),
        ("[limits]\nexhausted = 'quota'", "exhausted: expected a list of texts"),
        ("[headers]\nAccept = 3", "headers: expected a text"),
        ("[headers]\nuser-agent = 'Mozilla'", "user-agent is set by rankproof itself"),
        ("[headers]\nHost = 'other'", "Host is set by rankproof itself"),
        ("[send]\nas = 'json'\nfield = 'a[0]'", "is no path of names"),
        ("[send]\nwith = {a = [1]}", "with: expected a table of texts and numbers"),
        ("= 3", "cannot be read as TOML"),
    ],
)
def test_bad_adapters_are_one_line_that_names_the_file(tmp_path, text, message):
    with pytest.raises(RankproofError) as caught:
        Adapter.load(written(tmp_path, text))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "shop.toml"))
    assert "\n" not in str(caught.value)


def test_how_a_picture_is_sent(foreign):
    secrets = {"KEY": "k1", "TEAM": "red"}
    assert foreign.request(b"png", secrets) == {
        "headers": {"Authorization": "Bearer k1", "X-Team": "red"},
        "json": {
            "limit": 50,
            "token": "k1",
            "query": {"image": base64.b64encode(b"png").decode()},
        },
    }
    assert RANKPROOF_SERVICE.request(b"png", secrets) == {
        "headers": {"X-Api-Key": "k1"},
        "files": {"image": ("query.png", b"png", "image/png")},
        "data": {},
    }
    raw = Adapter(form="raw", more={"top": 50}).request(b"png", {})
    assert raw == {"headers": {"Content-Type": "image/png"}, "content": b"png", "params": {"top": 50}}


def test_a_header_without_its_key_is_left_out_and_any_other_secret_must_be_there(foreign):
    assert RANKPROOF_SERVICE.request(b"", {})["headers"] == {}
    with pytest.raises(RankproofError, match=r"\$\{TEAM\} is not set"):
        foreign.request(b"", {"KEY": "k1"})


def test_what_statuses_mean(foreign):
    def kind(adapter, status, body=b""):
        return adapter.kind(status, body)

    default = RANKPROOF_SERVICE
    assert kind(default, 200) is kind(default, 204) is ResponseKind.ANSWER
    assert kind(default, 429) is kind(default, 429, b'{"reason": "rate"}') is ResponseKind.RATE
    assert kind(default, 429, b'{"reason": "quota"}') is ResponseKind.QUOTA
    assert (
        kind(default, 429, b"not json")
        is kind(default, 429, b"[]")
        is kind(default, 429, b"[" * 9999)
        is ResponseKind.RATE
    )
    assert {kind(default, status) for status in (408, 500, 502, 503, 504)} == {ResponseKind.RETRY}
    assert {kind(default, status) for status in (301, 307, 400, 401, 404, 413, 501)} == {ResponseKind.REFUSED}
    assert (kind(foreign, 402), kind(foreign, 420), kind(foreign, 429)) == (
        ResponseKind.QUOTA,
        ResponseKind.RATE,
        ResponseKind.REFUSED,
    )
    assert kind(foreign, 503, b'{"error": {"code": "monthly"}}') is ResponseKind.QUOTA


def test_ids_are_found_whatever_they_are(foreign):
    answer = {"data": {"results": [{"item": {"id": each}} for each in ("a", 2**63, 7, "a")]}}
    assert foreign.ids_in(json.dumps(answer).encode()) == ["a", "9223372036854775808", "7", "a"]
    assert foreign.ids_in(b'{"data": {"results": []}}') == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>\n<b>Oops</b>\x00", "is not JSON, it begins with '<html> <b>Oops</b>'"),
        (b"", "is not JSON"),
        (b"[" * 99999, "is not JSON"),
        (b'{"items": [], "total": 3}', "no ids[*]: no 'ids' where there is an object with items, total"),
        (b'{"ids": null}', "no ids[*]: no list where there is null"),
        (b'{"ids": "17"}', "no ids[*]: no list where there is a text"),
        (b"[1, 2]", "no ids[*]: no 'ids' where there is a list of 2"),
        (b'{"ids": [1.5]}', "ids[*]: an id is a text or a whole number, got 1.5"),
        (b'{"ids": [true]}', "ids[*]: an id is a text or a whole number, got true"),
        (b'{"ids": [["a"]]}', "ids[*]: an id is a text or a whole number"),
    ],
)
def test_answers_without_ids_are_told_in_one_line(body, message):
    with pytest.raises(RankproofError) as caught:
        RANKPROOF_SERVICE.ids_in(body)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths():
    value = {"a": [{"b": [1, 2]}, {"b": [3]}], "c d": {"é": 4}}
    for path, found in {
        "a[*].b[*]": [1, 2, 3],
        "a[*].b[0]": [1, 3],
        "a[1].b": [[3]],
        "c d.é": [4],
    }.items():
        assert values_at(value, parse_path(path), path) == found
    assert values_at([5, 6], parse_path("[*]"), "[*]") == [5, 6]
    for path in ("", ".", "a.", ".a", "a[", "a[-1]", "a[x]", "a]", "a[*]b"):
        with pytest.raises(RankproofError, match="is no path"):
            parse_path(path)
    with pytest.raises(RankproofError, match=r"no item 2 where there is a list of 2"):
        values_at(value, parse_path("a[2]"), "a[2]")


def test_the_adapters_of_the_documentation(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "live-services.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    found = [Adapter.load(written(tmp_path, block)) for block in blocks]
    assert len(found) == 3
    assert replace(found[0], url=None) == RANKPROOF_SERVICE
    assert found[2].ids_in(b'[["a", 0.9], ["b", 0.8]]') == ["a", "b"]
