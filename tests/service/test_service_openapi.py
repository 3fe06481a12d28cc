"""The service answers as its OpenAPI description says, whatever it is sent."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankproof.service.app import create_app

schemathesis = pytest.importorskip("schemathesis")
LEAN = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.fixture
def operations(service, files):
    """Every operation of the application; images in its requests are real ones."""
    for kind in ("PNG", "JPEG", "WEBP"):
        raw = files.encoded(files.noise(9, 9, 1), kind)
        schemathesis.openapi.media_type(f"image/{kind.lower()}", st.just(raw))
    schemathesis.openapi.media_type("application/octet-stream", st.just(raw))
    schemathesis.openapi.format("binary", st.just(raw))
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    return [found.ok() for found in schema.get_all_operations()]


def check(operation, headers, **options):
    """The statuses of many requests, each checked against what OpenAPI says."""
    seen = set()

    @LEAN
    @given(operation.as_strategy(**options))
    def send(case):
        answer = case.call_and_validate(headers=headers)
        seen.add(answer.status_code)

    send()
    return seen


def test_every_request_is_answered_as_described(service, operations):
    labels = {operation.label for operation in operations}
    assert {"POST /search", "PUT /items/{name}", "DELETE /items/{name}", "GET /metrics"} <= labels
    for operation in operations:
        assert max(check(operation, {})) < 500
    admin = {"X-Api-Key": service.keys.add("boss", admin=True)}
    seen = {}
    for operation in operations:
        if operation.label == "POST /search":
            assert max(check(operation, {}, generation_mode=schemathesis.GenerationMode.NEGATIVE)) < 500
        if operation.method in ("put", "delete"):
            seen[operation.method] = check(operation, admin)
            seen[operation.method] |= check(
                operation, admin, generation_mode=schemathesis.GenerationMode.NEGATIVE
            )
    assert {204, 422} <= seen["put"]
    assert {404, 422} <= seen["delete"]
    assert max(map(max, seen.values())) < 500
