"""The service ranks exactly as `Gallery.search` does."""

import pytest
import torch
from fastapi.testclient import TestClient

from rankproof.attacks import attack
from rankproof.goals import Reorder
from rankproof.oracles import ListOracle, LocalOracle
from rankproof.ranking import Ranker
from rankproof.service.app import create_app
from rankproof.service.batching import batch_invariant_multiple
from rankproof.service.limits import Limits
from rankproof.system import SystemOptions, open_system, preprocess_of
from rankproof.threat import Threat


def expected(target, images, count=50):
    """The first results by `Gallery.search`, as ids."""
    z = target.gallery.ranker.embed_all(images)
    return [[str(number) for number in row] for row in target.gallery.search(z, count).tolist()]


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
def test_twenty_images_over_http(new_service, models, files, distance):
    target = open_system(str(models / distance), None)
    random = torch.Generator().manual_seed(1)
    noise = torch.randint(-20, 21, (20, 1, 8, 8), generator=random)
    perturbed = (target.dataset.images[:20].int() + noise).clamp(0, 255).to(torch.uint8)
    client = TestClient(create_app(new_service(distance)))
    answers = [client.post("/search", files={"image": files.png(image)}).json() for image in perturbed]
    assert [answer["ids"] for answer in answers] == expected(target, perturbed)
    assert {answer["visible"] for answer in answers} == {50}


def test_raw_bytes_and_a_form_are_the_same(client, local, files):
    raw = files.png(local.dataset.images[3])
    form = client.post("/search", files={"image": ("a.png", raw, "image/png")})
    assert form.status_code == 200
    for media in ("image/png", "application/octet-stream", "IMAGE/PNG; charset=binary"):
        assert client.post("/search", content=raw, headers={"Content-Type": media}).json() == form.json()
    assert client.post("/search", content=raw).json() == form.json()
    assert form.json()["ids"][0] == "3"


def test_fewer_results_where_fewer_are_set_or_there_are(new_service, local, files):
    raw = files.png(local.dataset.images[3])
    service = new_service(limits=Limits(visible=7))
    client = TestClient(create_app(service))
    assert client.post("/search", content=raw).json() == {
        "visible": 7,
        "ids": expected(local, local.dataset.images[3:4], 7)[0],
    }
    for number in range(3, 797):
        service.index.remove(str(number))
    assert sorted(client.post("/search", content=raw).json()["ids"]) == ["0", "1", "2"]
    for number in range(3):
        service.index.remove(str(number))
    assert client.post("/search", content=raw).json()["ids"] == []


def test_an_embedding_does_not_depend_on_its_batch(service, local):
    batch = local.dataset.images[:16]
    together = service.embed(batch)
    for count in (1, 2, 3, 5, 11):
        assert torch.equal(service.embed(batch[:count]), together[:count])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(service.embed(batch[order]), together[order])


class BatchVariant(torch.nn.Module):
    """Rounds differently in batches that are no multiple of `period` images."""

    def __init__(self, period):
        super().__init__()
        self.period = period

    def forward(self, x):
        return x.flatten(1)[:, :3] + (len(x) % self.period) * 2.0**-20


@pytest.mark.parametrize(("period", "multiple"), [(1, 4), (2, 4), (4, 4), (8, 8), (16, 16), (3, 32)])
def test_the_multiple_for_which_batches_are_invariant(period, multiple):
    reports = []
    ranker = Ranker(BatchVariant(period), "euclidean")
    found = batch_invariant_multiple(ranker, (1, 4, 4), 32, lambda *sizes: reports.append(sizes))
    assert found == multiple
    assert reports == [(done, 7) for done in range(1, 8)]


def test_the_service_preprocesses_as_a_local_target_does(new_service, models, files):
    chain = preprocess_of(None, None, 60)
    target = open_system(str(models / "cosine"), None, SystemOptions(preprocess=chain))
    client = TestClient(create_app(new_service(preprocess=chain)))
    images = target.dataset.images[:4]
    answers = [client.post("/search", content=files.png(image)).json()["ids"] for image in images]
    assert answers == expected(target, images)


def test_images_of_items(client, local, files):
    for number in (0, 796):
        answer = client.get(f"/items/{number}/image")
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == files.png(local.dataset.images[number])
    assert client.get("/items/797/image").status_code == 404


def test_an_attack_over_http_is_the_local_one(client, local, files):
    def ask(images):
        pixels = (images * 255).round().to(torch.uint8)
        return [client.post("/search", content=files.png(image)).json()["ids"] for image in pixels]

    index = torch.arange(20)
    images, threat, goal = local.dataset.take(index), Threat(16 / 255, grid=True), Reorder(k=5)
    here = attack(LocalOracle(local.gallery, 50), images, goal, threat, budget=12, seed=3)
    there = attack(ListOracle(ask, 50), images, goal, threat, budget=12, seed=3)
    assert torch.equal(here.adversarial, there.adversarial)
    assert torch.equal(here.tau, there.tau)
    assert (here.tau > here.tau_before).any()
