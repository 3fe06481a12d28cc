"""The lab over HTTP: attacks that run inside the service, are watched, stopped and taken away."""

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
from rankproof.oracle import ListOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.service.app import create_app
from rankproof.service.database import AwayError
from rankproof.service.lab import AT_ONCE, router

LIMIT = 60.0  # seconds


@pytest.fixture
def lab(service):
    with TestClient(create_app(service, [router])) as client:
        yield client


@pytest.fixture
def picture(local, files):
    return files.png(local.dataset.pictures[0])


@pytest.fixture
def wish(lab, picture):
    """The first five results the other way round."""
    ids = lab.post("/lab/search", content=picture).json()["ids"]
    return {"wanted": ids[4::-1], "eps": 16 / 255, "budget": 60, "seed": 3}


def ended(lab, name):
    """What is told of an attack when it runs no longer."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        told = lab.get(f"/lab/runs/{name}").json()
        if told["state"] != "running":
            return told
        time.sleep(0.01)
    raise AssertionError("the attack does not end")


def begun(lab, wish, picture):
    answer = lab.post("/lab/runs", params=wish, content=picture)
    assert answer.status_code == 201, answer.json()
    return answer.json()["id"]


def pixels(raw):
    return np.asarray(Image.open(BytesIO(raw))).astype(int)


def test_an_attack_is_the_one_anybody_could_make(lab, service, local, wish, picture):
    told = ended(lab, begun(lab, wish, picture))
    oracle = ListOracle(lambda images: service.search((images * 255).round().to(torch.uint8)), 50)
    targets = torch.tensor([[oracle.number(name) for name in wish["wanted"]]])
    alike = attack(
        oracle,
        local.dataset.pictures[:1] / 255,
        Reorder(k=5),
        Threat(wish["eps"], grid=True),
        budget=60,
        seed=3,
        targets=targets,
    )
    assert (told["state"], told["error"], told["k"], told["visible"]) == ("done", None, 5, 50)
    assert told["queries_spent"] == len(told["scores"]) == int(alike.queries[0]) <= 60
    assert told["scores"] == pytest.approx(alike.scores[0, : int(alike.queries[0])].tolist())
    assert (told["tau_before"], told["tau"]) == (float(alike.tau_before[0]), float(alike.tau[0]))
    assert told["tau"] > told["tau_before"]
    sent = lab.get(f"/lab/runs/{told['id']}/adversarial.png").content
    assert (pixels(sent) == alike.adversarial[0, 0].mul(255).round().numpy()).all()


def test_what_is_taken_away_does_what_was_told(lab, wish, picture):
    told = ended(lab, begun(lab, wish, picture))
    sent = lab.get(f"/lab/runs/{told['id']}/adversarial.png").content
    assert 0 < abs(pixels(sent) - pixels(picture)).max() <= 16
    found = lab.post("/search", content=sent).json()["ids"]
    places = torch.tensor([found.index(name) if name in found else 50 for name in wish["wanted"]])
    assert found == told["after"]
    assert float(short_range_tau(places, 50)) == told["tau"] == max(told["scores"])
    assert told["before"] == lab.post("/search", content=picture).json()["ids"]
    report = Image.open(BytesIO(lab.get(f"/lab/runs/{told['id']}/report.png").content))
    assert min(report.size) > 200
    assert "which no quota counts" in told["notes"][0]


def test_only_searches_of_callers_count(lab, service, wish, picture):
    ended(lab, begun(lab, wish, picture))
    assert service.quota.spent("anonymous") == 0
    assert lab.get("/quota").json() == {"left": 1_000_000, "per_day": 1_000_000}
    lab.post("/search", content=picture)
    assert lab.get("/quota").json()["left"] == 999_999


def test_an_attack_is_stopped_and_what_it_found_stays(lab, wish, picture):
    name = begun(lab, wish | {"budget": 10_000, "eps": 1 / 255}, picture)
    assert lab.delete(f"/lab/runs/{name}").status_code == 204
    told = ended(lab, name)
    assert (told["state"], told["error"]) == ("stopped", None)
    assert told["queries_spent"] < 10_000
    assert lab.get(f"/lab/runs/{name}/adversarial.png").status_code == 200
    assert lab.get(f"/lab/runs/{name}/report.png").status_code == 200


def test_an_attack_that_fails_tells_why(lab, service, wish, picture, monkeypatch):
    search, calls = service.search, []

    def away(pictures):
        calls.append(len(pictures))
        if sum(calls) > 11:
            raise AwayError("the database is gone")
        return search(pictures)

    monkeypatch.setattr(service, "search", away)
    told = ended(lab, begun(lab, wish, picture))
    assert told["state"] == "failed"
    assert "failed after 11 of 60 queries: the database is away" in told["error"]
    assert told["queries_spent"] == len(told["scores"]) == 11


def test_few_run_at_once(lab, wish, picture):
    long = wish | {"budget": 10_000, "eps": 1 / 255}
    names = [begun(lab, long, picture) for _ in range(AT_ONCE)]
    answer = lab.post("/lab/runs", params=long, content=picture)
    assert (answer.status_code, answer.json()["reason"]) == (429, "rate")
    assert int(answer.headers["retry-after"]) >= 1
    lab.delete(f"/lab/runs/{names[0]}")
    ended(lab, names[0])
    begun(lab, long, picture)  # and the end of the application stops what still runs


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
def test_odd_wishes(lab, wish, picture, change, words):
    answer = lab.post("/lab/runs", params=wish | change, content=picture)
    assert (answer.status_code, answer.json()["reason"]) == (422, "request")
    assert words in answer.json()["detail"]


def test_odd_pictures_and_odd_ids(lab, wish):
    answer = lab.post("/lab/runs", params=wish, content=b"GIF89a")
    assert (answer.status_code, answer.json()["reason"]) == (415, "kind")
    for path in ("", "/adversarial.png", "/report.png"):
        assert lab.get(f"/lab/runs/nobody{path}").status_code == 404
    assert lab.delete("/lab/runs/nobody").status_code == 404


def test_strangers_stay_outside(lab, service, wish, picture):
    key = service.keys.add("alice")
    for path in ("/lab/search", "/lab/runs"):
        assert lab.post(path, params=wish, content=picture).status_code == 401
        assert lab.post(path, params=wish, content=picture, headers={"X-Api-Key": key}).status_code < 300


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


def test_other_machines_see_no_lab_unless_that_is_meant(models, tmp_path):
    def refused(*options):
        words = ("serve", "--model", models / "cosine", "--folder", tmp_path, "--host", "0.0.0.0", *options)
        return CliRunner().invoke(program, [str(word) for word in words]).stderr

    assert "if that is meant, add --lab-for-all" in refused("--lab")
    assert "there are no keys" in refused("--lab", "--lab-for-all")  # which is another matter
