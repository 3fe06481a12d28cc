"""The lab over HTTP: attacks inside the service are started, watched, stopped and downloaded."""

import time
from io import BytesIO

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from rankproof import Reorder, Threat, attack
from rankproof.cli import app as program
from rankproof.oracles import ListOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.service.app import create_app
from rankproof.service.errors import DatabaseUnavailableError
from rankproof.service.lab import MAX_RUNNING, router

LIMIT = 60.0  # seconds


@pytest.fixture
def lab(service):
    with TestClient(create_app(service, [router])) as client:
        yield client


@pytest.fixture
def image_file(local, files):
    return files.png(local.dataset.images[0])


@pytest.fixture
def settings(lab, image_file):
    """The first five results in reverse order."""
    ids = lab.post("/lab/search", content=image_file).json()["ids"]
    return {"wanted": ids[4::-1], "eps": 16 / 255, "budget": 60, "seed": 3}


def final_result(lab, name):
    """The result of an attack once it has ended."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        result = lab.get(f"/lab/runs/{name}").json()
        if result["state"] != "running":
            return result
        time.sleep(0.01)
    raise AssertionError("the attack does not end")


def start(lab, settings, image_file):
    answer = lab.post("/lab/runs", params=settings, content=image_file)
    assert answer.status_code == 201, answer.json()
    return answer.json()["id"]


def pixels(raw):
    return np.asarray(Image.open(BytesIO(raw))).astype(int)


def test_an_attack_is_the_one_a_caller_could_make(lab, service, local, settings, image_file):
    result = final_result(lab, start(lab, settings, image_file))
    oracle = ListOracle(lambda images: service.search((images * 255).round().to(torch.uint8)), 50)
    targets = torch.tensor([[oracle.number(name) for name in settings["wanted"]]])
    local_result = attack(
        oracle,
        local.dataset.images[:1] / 255,
        Reorder(k=5),
        Threat(settings["eps"], grid=True),
        budget=60,
        seed=3,
        targets=targets,
    )
    assert (result["state"], result["error"], result["k"], result["visible"]) == ("done", None, 5, 50)
    assert result["queries_spent"] == len(result["scores"]) == int(local_result.log.spent[0]) <= 60
    assert result["scores"] == pytest.approx(
        local_result.log.scores[0, : int(local_result.log.spent[0])].tolist()
    )
    assert (result["tau_before"], result["tau"]) == (
        float(local_result.tau_before[0]),
        float(local_result.tau[0]),
    )
    assert result["tau"] > result["tau_before"]
    sent = lab.get(f"/lab/runs/{result['id']}/adversarial.png").content
    assert (pixels(sent) == local_result.adversarial[0, 0].mul(255).round().numpy()).all()


def test_the_downloaded_image_gives_the_reported_result(lab, settings, image_file):
    result = final_result(lab, start(lab, settings, image_file))
    sent = lab.get(f"/lab/runs/{result['id']}/adversarial.png").content
    assert 0 < abs(pixels(sent) - pixels(image_file)).max() <= 16
    found = lab.post("/search", content=sent).json()["ids"]
    places = torch.tensor([found.index(name) if name in found else 50 for name in settings["wanted"]])
    assert found == result["after"]
    assert float(short_range_tau(places, 50)) == result["tau"] == max(result["scores"])
    assert result["before"] == lab.post("/search", content=image_file).json()["ids"]
    report = Image.open(BytesIO(lab.get(f"/lab/runs/{result['id']}/report.png").content))
    assert min(report.size) > 200
    assert "which no quota counts" in result["notes"][0]


def test_only_searches_of_callers_count(lab, service, settings, image_file):
    final_result(lab, start(lab, settings, image_file))
    assert service.quota.spent("anonymous") == 0
    assert lab.get("/quota").json() == {"left": 1_000_000, "per_day": 1_000_000}
    lab.post("/search", content=image_file)
    assert lab.get("/quota").json()["left"] == 999_999


def test_a_stopped_attack_keeps_its_best_image(lab, settings, image_file):
    name = start(lab, settings | {"budget": 10_000, "eps": 1 / 255}, image_file)
    assert lab.delete(f"/lab/runs/{name}").status_code == 204
    result = final_result(lab, name)
    assert (result["state"], result["error"]) == ("stopped", None)
    assert result["queries_spent"] < 10_000
    assert lab.get(f"/lab/runs/{name}/adversarial.png").status_code == 200
    assert lab.get(f"/lab/runs/{name}/report.png").status_code == 200


def test_a_failed_attack_says_why(lab, service, settings, image_file, monkeypatch):
    search, calls = service.search, []

    def unavailable(batch):
        calls.append(len(batch))
        if sum(calls) > 11:
            raise DatabaseUnavailableError("it is gone")
        return search(batch)

    monkeypatch.setattr(service, "search", unavailable)
    result = final_result(lab, start(lab, settings, image_file))
    assert result["state"] == "failed"
    assert "failed after 11 of 60 queries: the database is unavailable" in result["error"]
    assert result["queries_spent"] == len(result["scores"]) == 11


def test_the_number_of_running_attacks_is_limited(lab, settings, image_file):
    long = settings | {"budget": 10_000, "eps": 1 / 255}
    names = [start(lab, long, image_file) for _ in range(MAX_RUNNING)]
    answer = lab.post("/lab/runs", params=long, content=image_file)
    assert (answer.status_code, answer.json()["reason"]) == (429, "rate")
    assert int(answer.headers["retry-after"]) >= 1
    lab.delete(f"/lab/runs/{names[0]}")
    final_result(lab, names[0])
    start(lab, long, image_file)  # and the end of the application stops what still runs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wanted": ["1"]}, "at least 2"),
        ({"wanted": ["1", "2", "1"]}, "named twice"),
        ({"wanted": ["1", "'; DROP TABLE items"]}, "pattern"),
        ({"wanted": [str(number) for number in range(27)]}, "at most 26"),
        ({"eps": 2}, "less than or equal"),
        ({"eps": "nan"}, "eps"),
        ({"budget": 1}, "greater than or equal"),
        ({"budget": 10**9}, "less than or equal"),
        ({"seed": -1}, "greater than or equal"),
    ],
)
def test_invalid_settings(lab, settings, image_file, change, words):
    answer = lab.post("/lab/runs", params=settings | change, content=image_file)
    assert (answer.status_code, answer.json()["reason"]) == (422, "request")
    assert words in answer.json()["detail"]


def test_invalid_images_and_ids(lab, settings):
    answer = lab.post("/lab/runs", params=settings, content=b"GIF89a")
    assert (answer.status_code, answer.json()["reason"]) == (415, "kind")
    for path in ("", "/adversarial.png", "/report.png"):
        assert lab.get(f"/lab/runs/nobody{path}").status_code == 404
    assert lab.delete("/lab/runs/nobody").status_code == 404


def test_a_key_is_needed_where_there_are_keys(lab, service, settings, image_file):
    key = service.keys.add("alice")
    for path in ("/lab/search", "/lab/runs"):
        assert lab.post(path, params=settings, content=image_file).status_code == 401
        assert (
            lab.post(path, params=settings, content=image_file, headers={"X-Api-Key": key}).status_code < 300
        )


def test_items_are_listed_by_the_page(client, service):
    service.remove("1")
    assert client.get("/items", params={"limit": 3}).json() == {"ids": ["0", "2", "3"], "items": 796}
    last = client.get("/items", params={"offset": 790, "limit": 100}).json()["ids"]
    assert last == [str(number) for number in range(791, 797)]
    assert client.get("/items", params={"offset": 10**9}).json()["ids"] == []
    for odd in ({"limit": 101}, {"limit": 0}, {"offset": -1}, {"offset": 10**30}, {"offset": "x"}):
        assert client.get("/items", params=odd).status_code == 422


def test_a_service_without_a_lab(client, lab):
    assert client.get("/health").json()["extra"] == []
    assert lab.get("/health").json()["extra"] == ["lab"]
    assert client.post("/lab/search", content=b"").status_code in (404, 405)


def test_other_machines_see_no_lab_unless_it_is_allowed(models, tmp_path):
    def refused(*options):
        words = ("serve", "--model", models / "cosine", "--folder", tmp_path, "--host", "0.0.0.0", *options)
        return CliRunner().invoke(program, [str(word) for word in words]).stderr

    assert "add --lab-for-all to allow it" in refused("--lab")
    assert "there are no keys" in refused("--lab", "--lab-for-all")  # which is another matter
