"""Forms as clients write them: names of files, headers, ends of lines; and HEAD requests."""

from contextlib import suppress

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankproof.service.app import create_app
from rankproof.service.errors import RefusedError
from rankproof.service.forms import parse_form


@pytest.fixture
def image_file(local, files):
    return files.png(local.dataset.images[0])


def form(file, *headers, end="\r\n", before=b"", after=b""):
    """The body of a form with one part."""
    head = end.join(["--b", *headers, "", ""]).encode("latin-1")
    return before + head + file + f"{end}--b--{end}".encode() + after


def post(client, body):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post("/search", content=body, headers=headers)


NAMED = 'Content-Disposition: form-data; name="image"; '
PNG = "Content-Type: image/png"


@pytest.mark.parametrize(
    "headers",
    [
        (NAMED + 'filename="a.png"', PNG),
        (NAMED + "filename=a.png", PNG),
        ("Content-Disposition: form-data; name=image; filename=a.png", PNG),
        (NAMED + "filename*=UTF-8''caf%C3%A9.png", PNG),
        (NAMED + "filename*=utf-8'en'caf%C3%A9.png", PNG),
        (NAMED + "filename*=ISO-8859-1''caf%E9.png", PNG),
        (NAMED + "filename*=nonsense''%FF%FE", PNG),
        (NAMED + "filename*=UTF-8''%FF", PNG),
        (NAMED + "filename*=no-quotes.png", PNG),
        (NAMED + "filename*=", PNG),
        (NAMED + "filename=\"a.png\"; filename*=UTF-8''b.png", PNG),
        (NAMED + "filename*=UTF-8''b.png; filename=\"a.png\"", PNG),
        (NAMED + 'filename*0="a"; filename*1=".png"', PNG),
        (NAMED + 'filename="C:\\pictures\\a.png"', PNG),
        (NAMED + 'filename="a\\"b;c=d.png"', PNG),
        (NAMED + 'filename=""', PNG),
        (NAMED + 'filename="caf\xe9.png"', PNG),
        (NAMED + 'filename="../../etc/passwd"', PNG),
        ('Content-Disposition: form-data; filename="a.png"; name="image"', PNG),
        ('content-disposition: FORM-DATA; NAME="image"; FileName="a.png"', "content-type: IMAGE/PNG"),
        ('Content-Disposition:form-data;name="image";filename="a.png"', "Content-Type:image/png"),
        (NAMED + 'filename="a.png"',),
        (NAMED + 'filename="a.png"', "Content-Type: image/png; charset=binary"),
        (NAMED + 'filename="a.png"', "Content-Type: application/octet-stream"),
        (PNG, NAMED + 'filename="a.png"', "Content-Transfer-Encoding: binary", "X-Other: 1"),
        ('Content-Disposition: form-data; name="image";', ' filename="a.png"', PNG),
        ('Content-Disposition: form-data;\r\n\tname="image"; filename="a.png"', PNG),
    ],
)
def test_an_upload_is_read_however_its_file_is_named(client, image_file, headers):
    answer = post(client, form(image_file, *headers))
    assert answer.status_code == 200, answer.json()
    assert answer.json()["ids"][0] == "0"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (
            ('Content-Disposition: form-data; name="other"; filename="a.png"', PNG),
            "no file in the field 'image'",
        ),
        (('Content-Disposition: form-data; filename="a.png"', PNG), "cannot be parsed"),
        ((PNG,), "cannot be parsed"),
        ((), "cannot be parsed"),
    ],
)
def test_a_part_that_is_not_the_image_is_named(client, image_file, headers, words):
    answer = post(client, form(image_file, *headers))
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_text_around_the_form_is_no_part_of_it(client, image_file):
    headers = (NAMED + 'filename="a.png"', PNG)
    for around in ({"before": b"ignored\r\n"}, {"before": b"\r\n"}, {"after": b"ignored"}):
        assert post(client, form(image_file, *headers, **around)).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--b\r\n--b--", "no headers"),
        (b"--b\r\n\r\n\r\n--b--", "no Content-Disposition"),
        (b"--b\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n\r\n--b--", "longer than 8192 bytes"),
        (b"--b\r\n" + NAMED.encode() + b"\r\n\r\nx", "does not end with its boundary"),
        (b"--bee--\r\n", "does not end with its boundary"),
        (b"", "does not end with its boundary"),
        ((b"--b\r\n" + NAMED.encode() + b"filename=a\r\n\r\nx\r\n") * 10 + b"--b--", "more than 9 parts"),
        ((b"--b\r\n" + NAMED.encode() + b"filename=a\r\n\r\nx\r\n") * 2 + b"--b--", "2 images; send one"),
        (b"--b\r\n" + NAMED.encode() + b"filename*" + b"9" * 5000 + b"=a\r\n\r\nx\r\n--b--", "parsed"),
        (b"--b--", "no file in the field 'image'"),
    ],
)
def test_what_is_no_form_is_refused_in_one_line(client, body, words):
    answer = post(client, body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


LETTERS = st.sampled_from("abn=;:*\"'\\%\r\n\t 019-/") | st.characters(max_codepoint=255)
HEADS = st.text(LETTERS, max_size=60)


@given(HEADS, HEADS, st.binary(max_size=20))
def test_no_header_is_more_than_a_refusal(head, content_type, content):
    kinds = ("multipart/form-data; boundary=b", f"multipart/form-data; {content_type}")
    for disposition in ("", "Content-Disposition: form-data; ", NAMED):
        body = form(content, disposition + head, PNG)
        for kind in kinds:
            with suppress(RefusedError):
                assert all(isinstance(part.name, str) for part in parse_form(body, kind))


def test_a_file_may_hold_what_looks_like_a_boundary():
    content = b"\r\n--bee\r\n\r\n--b-\r\n--"
    headers = (NAMED + "filename=a", PNG)
    (part,) = parse_form(form(content, *headers), "multipart/form-data; boundary=b")
    assert part.content == content
    (part,) = parse_form(form(b"", *headers), 'multipart/form-data; boundary="b"')
    assert (part.name, part.is_file, part.content_type, part.content) == ("image", True, "image/png", b"")


# -- HEAD

PAGES = [
    "/search",
    "/health",
    "/items",
    "/items/0/image",
    "/quota",
    "/metrics",
    "/openapi.json",
    "/",
    "/nowhere",
]


@pytest.mark.parametrize("path", [*PAGES, "/items?limit=0", "/items/none/image"])
def test_head_is_get_without_its_body(client, path):
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    changing = {"content-length"} if path == "/metrics" else set()
    for name in {*got.headers} - changing:
        assert head.headers[name] == got.headers[name]
    assert int(head.headers["content-length"]) > 0


def test_a_head_request_is_counted_by_its_route(client):
    client.head("/health")
    lines = client.get("/metrics").text.splitlines()
    assert 'rankproof_requests_total{route="/health",status="200"} 1.0' in lines


def test_head_of_items_that_need_no_key_and_of_a_quota_that_does(new_service):
    client = TestClient(create_app(new_service(anonymous=False)))
    assert client.head("/quota").status_code == 401
    assert client.head("/health").status_code == 200
