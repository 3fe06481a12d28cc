"""The HTTP API: answers, refusals, keys, quotas, and bodies that never end."""

import asyncio
import json

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient

from rankproof.service.app import create_app
from rankproof.service.errors import DatabaseUnavailableError
from rankproof.service.limits import Limits

SEARCH = "/search"


@pytest.fixture
def image_file(local, files):
    return files.png(local.dataset.images[0])


def assert_problem(answer, status, reason, words=""):
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert set(answer.json()) == {"detail", "reason"}
    assert words in answer.json()["detail"]


# -- keys and quotas


def test_anybody_may_search_until_there_are_keys(client, service, image_file):
    assert client.post(SEARCH, content=image_file).status_code == 200
    key = service.keys.add("alice")
    answer = client.post(SEARCH, content=image_file)
    assert_problem(answer, 401, "key", "a key is needed")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(client.post(SEARCH, content=image_file, headers={"X-Api-Key": "x"}), 401, "key", "unknown")
    for headers in ({"X-Api-Key": key}, {"Authorization": f"Bearer {key}"}):
        assert client.post(SEARCH, content=image_file, headers=headers).status_code == 200
    assert (service.quota.spent("anonymous"), service.quota.spent("alice")) == (1, 2)


def test_others_need_a_key_from_the_start(new_service, image_file):
    client = TestClient(create_app(new_service(anonymous=False)))
    assert_problem(client.post(SEARCH, content=image_file), 401, "key")


def test_a_wrong_key_is_refused_before_the_body_is_read(new_service):
    app = create_app(new_service(anonymous=False))
    status, read = asyncio.run(post(app, [b"x" * 1000] * 50))
    assert (status, read) == (401, 0)


def test_the_quota_of_a_day(new_service, image_file):
    service = new_service(limits=Limits(per_day=3, per_second=100))
    client = TestClient(create_app(service))
    assert_problem(client.post(SEARCH, content=b"no image"), 415, "kind")  # does not count
    assert [client.post(SEARCH, content=image_file).status_code for _ in range(3)] == [200] * 3
    answer = client.post(SEARCH, content=image_file)
    assert_problem(answer, 429, "quota", "all 3 calls of today")
    assert 1 <= int(answer.headers["retry-after"]) <= 86_400
    assert service.quota.spent("anonymous") == 3


def test_the_rate(new_service, image_file):
    service = new_service(limits=Limits(per_day=100, per_second=1))
    service.quota._clock = lambda: 1e9
    client = TestClient(create_app(service))
    assert client.post(SEARCH, content=image_file).status_code == 200
    answer = client.post(SEARCH, content=image_file)
    assert_problem(answer, 429, "rate")
    assert answer.headers["retry-after"] == "1"


def test_a_call_that_cannot_be_answered_does_not_count(client, service, image_file, monkeypatch):
    def unavailable(batch):
        raise DatabaseUnavailableError("gone")

    monkeypatch.setattr(service, "search", unavailable)
    answer = client.post(SEARCH, content=image_file)
    assert_problem(answer, 503, "database")
    assert int(answer.headers["retry-after"]) >= 1
    assert service.quota.spent("anonymous") == 0
    monkeypatch.undo()
    assert client.post(SEARCH, content=image_file).status_code == 200


# -- items


def test_items_are_put_and_deleted_by_admins(client, service, files, local):
    image_file = files.png(255 - local.dataset.images[0])
    alice, admin = service.keys.add("alice"), {"X-Api-Key": service.keys.add("boss", admin=True)}
    assert_problem(client.put("/items/new", content=image_file), 401, "key")
    for call in (client.put, client.delete):
        assert_problem(call("/items/new", headers={"X-Api-Key": alice}), 403, "admin")
    assert client.put("/items/new", content=image_file, headers=admin).status_code == 204
    assert client.get("/items/new/image").content == image_file
    assert client.post(SEARCH, content=image_file, headers=admin).json()["ids"][0] == "new"
    assert client.put("/items/new", files={"image": image_file}, headers=admin).status_code == 204  # again
    assert client.put("/items/0", content=image_file, headers=admin).status_code == 204  # replaces one
    assert client.get("/items/0/image").content == image_file
    assert client.get("/health").json()["items"] == 798
    assert client.delete("/items/new", headers=admin).status_code == 204
    assert_problem(client.delete("/items/new", headers=admin), 404, "item")
    assert_problem(client.get("/items/new/image"), 404, "item")
    assert "new" not in client.post(SEARCH, content=image_file, headers=admin).json()["ids"]
    assert_problem(client.put("/items/new", content=b"GIF89a", headers=admin), 415, "kind")


INVALID_IDS = (
    "1' OR '1'='1",
    "1; DROP TABLE items",
    "..",
    "../../etc/passwd",
    "%2e%2e%2fservice.sqlite",
    "..%5c..",
)


@pytest.mark.parametrize("name", [*INVALID_IDS, "%00", "é", "x" * 65, "a" * 10_000, "-", ".hidden", "a%0a"])
def test_invalid_ids(client, service, image_file, name):
    admin = {"X-Api-Key": service.keys.add("boss", admin=True)}
    for answer in (
        client.get(f"/items/{name}/image"),
        client.put(f"/items/{name}", content=image_file, headers=admin),
        client.delete(f"/items/{name}", headers=admin),
    ):
        assert answer.status_code in (404, 405, 422)
        assert set(answer.json()) == {"detail", "reason"}
    assert len(service.items) == len(service) == 797


def test_changes_survive_a_restart(new_service, files, local, tmp_path):
    first = new_service()
    first.put("new", 255 - local.dataset.images[0])
    first.remove("5")
    wanted = first.search(local.dataset.images[:8])
    first.close()
    again = new_service()
    assert again.search(local.dataset.images[:8]) == wanted
    assert again.image("new") == files.png(255 - local.dataset.images[0])
    assert len(again) == 797


# -- uploads


@pytest.mark.parametrize(
    ("body", "status", "reason", "words"),
    [
        ({"content": b""}, 415, "kind", "not a PNG"),
        (
            {"content": b"hello", "headers": {"Content-Type": "text/plain"}},
            415,
            "kind",
            "send the image as",
        ),
        ({"json": {"image": "x"}}, 415, "kind", "send the image as"),
        ({"files": {"photo": b"x"}}, 400, "request", "no file in the field 'image'"),
        ({"data": {"image": "x"}}, 415, "kind", "send the image as"),
        ({"files": {"image": ("a.png", b"GIF89a", "image/gif")}}, 415, "kind", "not a PNG"),
        ({"files": {"image": b"x"}, "data": {"top": "9"}}, 400, "request", "only 'image' is allowed"),
        ({"files": [("image", b"a"), ("image", b"b")]}, 400, "request", "the form cannot be parsed"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "request", "form"),
        (
            {"content": b"--a\r\n\r\nx", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
            400,
            "request",
            "form",
        ),
    ],
)
def test_bodies_that_are_no_image(client, body, status, reason, words):
    assert_problem(client.post(SEARCH, **body), status, reason, words)


async def post(app, parts, headers=(), path=SEARCH):
    """The status of a request whose body comes in parts, and how many of them were read."""
    read, sent = 0, []

    async def receive():
        nonlocal read
        if read == len(parts):
            await asyncio.Event().wait()  # the rest never comes
        read += 1
        return {"type": "http.request", "body": parts[read - 1], "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": list(headers)}
    await app({**scope, "http_version": "1.1", "scheme": "http", "server": ("t", 80)}, receive, send)
    assert set(json.loads(sent[1]["body"])) == {"detail", "reason"}
    return sent[0]["status"], read


FORM = (b"content-type", b"multipart/form-data; boundary=a")


@pytest.mark.parametrize("headers", [(), (FORM,)])
def test_a_hundred_megabytes_are_not_read(client, headers):
    parts = [bytes(65_536)] * 1600
    status, read = asyncio.run(post(client.app, parts, headers))
    assert status == 413
    assert read * 65_536 < 4_000_000
    length = (b"content-length", b"104857600")
    assert asyncio.run(post(client.app, parts, (*headers, length))) == (413, 0)


def test_uploads_that_never_end(new_service, image_file):
    app = create_app(new_service(limits=Limits(upload_seconds=0.05)))
    assert asyncio.run(post(app, [image_file[:20]])) == (408, 1)


# -- the rest


def test_health_and_metrics(client, image_file):
    assert client.get("/health").json() == {
        "status": "ok", "items": 797, "visible": 50, "version": client.app.version, "extra": [],
    }  # fmt: skip
    client.post(SEARCH, content=image_file)
    client.post(SEARCH, content=b"x")
    client.get("/nowhere")
    text = client.get("/metrics").text
    for line in (
        'rankproof_requests_total{route="/search",status="200"} 1.0',
        'rankproof_requests_total{route="/search",status="415"} 1.0',
        'rankproof_requests_total{route="other",status="404"} 1.0',
        'rankproof_request_seconds_count{route="/search"} 2.0',
        'rankproof_batch_pictures_count 1.0',
        'rankproof_queue_pictures 0.0',
        'rankproof_refusals_total{reason="kind"} 1.0',
    ):  # fmt: skip
        assert line in text.splitlines()


@pytest.mark.parametrize("path", ["/search", "/health", "/nowhere", "/items/0/image", "/openapi.json"])
def test_every_answer_is_safe_for_browsers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]


def test_more_routes_and_a_page(service, tmp_path, monkeypatch):
    router = APIRouter()
    router.add_api_route("/lab", lambda: "here")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>page</p>")
    monkeypatch.setattr("rankproof.service.app.PAGE", tmp_path / "page")
    client = TestClient(create_app(service, extra=[router]))
    assert client.get("/lab").json() == "here"
    assert client.get("/").text == "<p>page</p>"
    assert client.get("/health").status_code == 200
    assert client.get("/../service.sqlite").status_code == 404


def test_the_service_is_closed_with_the_application(new_service):
    service = new_service()
    with TestClient(create_app(service)) as client:
        assert client.get("/health").status_code == 200
    with pytest.raises(Exception, match="closed"):
        service.items.database.run("SELECT 1")
