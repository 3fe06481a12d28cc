"""8-bit images, saved and searched again: what a search found is still there."""

import numpy as np
import pytest
import torch
from PIL import Image

from rankproof import SPSA, Gallery, LocalOracle, Ranker, Reorder, Threat, attack, load
from rankproof.reproduction import measure
from rankproof.reproduction.cells import TableCell
from rankproof.reproduction.measure import Bench
from rankproof.reproduction.protocols import saved_and_read, searched_alone
from rankproof.system import RetrievalSystem

every_visible = pytest.mark.parametrize("visible", [4, 12, None], ids=["N = k", "N = 12", "N = inf"])


def taus(gallery, images, targets, visible):
    # tau_S of what a user would see, one attack and one pair at a time.
    prepare = gallery.ranker.distance.prepare
    z = prepare(gallery.ranker.embed_all(images).double())
    far = gallery.ranker.distance.pairwise(z, prepare(gallery.embeddings.double()))
    found = []
    for distances, wanted in zip(far.tolist(), targets.tolist(), strict=True):
        order = sorted(range(len(gallery)), key=lambda item, row=distances: (row[item], item))
        listed, k, total = order[: visible or len(gallery)], len(wanted), 0
        for i in range(k):
            for j in range(i + 1, k):
                seen = wanted[i] in listed and wanted[j] in listed
                total += 1 if seen and listed.index(wanted[i]) < listed.index(wanted[j]) else -1
        found.append(total / (k * (k - 1) / 2))
    return found


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@every_visible
def test_8_bit_images_saved_and_searched_again_have_exactly_the_reported_tau(
    make, pictures, distance, visible, tmp_path
):
    ranker = make.ranker(distance)
    ranker.encoder.float()
    gallery = Gallery.build(Ranker(ranker.encoder, distance), pictures)
    grid = Threat(24 / 255, grid=True)
    result = attack(
        LocalOracle(gallery, visible),
        pictures[:20].float(),
        Reorder(k=4),
        grid,
        method=SPSA(pairs=3),
        budget=25,
        gallery_ids=torch.arange(20),
        seed=2,
    )
    images = saved_and_read(result.adversarial, tmp_path)
    assert len(list(tmp_path.iterdir())) == 20
    for number, path in enumerate(sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))):
        with Image.open(path) as stored:
            assert (stored.format, stored.mode) == ("PNG", "L")
            assert np.array_equal(np.asarray(stored), (images[number, 0] * 255).round().numpy())
    assert torch.equal(images, result.adversarial)
    assert float((images * 255 - (pictures[:20].float() * 255).round()).abs().max()) <= 24 + 1e-4
    assert torch.equal(searched_alone(LocalOracle(gallery, visible), images, result.targets), result.tau)
    assert result.tau.tolist() == pytest.approx(taus(gallery, images, result.targets, visible))
    assert any("8-bit images" in note for note in result.notes)
    assert result.tau.mean() > result.tau_before.mean()


def test_coloured_images_come_back_from_their_files_as_they_were(make, tmp_path):
    images = torch.randint(256, (3, 3, 5, 7), generator=make.random(0)).float() / 255
    assert torch.equal(saved_and_read(images, tmp_path), images)


@pytest.fixture
def digits_system(make):
    """The digits under a random encoder."""
    digits = load("digits")
    encoder = make.flat(torch.randn(16, 64, generator=make.random(0)))
    gallery = Gallery.build(Ranker(encoder, "cosine", name="random"), digits.images, digits.labels)
    return RetrievalSystem(gallery=gallery, dataset=digits, record={})


def saved(method, budget):
    """A cell whose images are saved and searched again."""
    place = {"eps": 4 / 255, "letter": "k", "count": 5, "visible": 50, "budget": budget, "grid": True}
    return TableCell(name="saved", run="saved", model="ct", goal="oa", method=method, trials=6, **place)


def test_the_record_of_saved_digits(digits_system, monkeypatch):
    monkeypatch.setattr(measure, "PIECE", 4)
    done = []
    found = Bench().measure(saved("auto", 120), digits_system, digits_system, lambda *now: done.append(now))
    assert done == [(4, 6), (6, 6)]
    assert len(found.values["tau"]) == 6
    assert found.values["tau"] == found.values["tau_saved"]
    mean, low, high = found.figures["tau"]
    assert mean == pytest.approx(sum(found.values["tau"]) / 6)
    assert low < mean < high
    assert mean > 0.1
    assert found.steps == 120
    assert any("8-bit images" in note for note in found.notes)


def test_an_image_that_came_back_otherwise_is_not_counted_as_equal(digits_system, monkeypatch):
    monkeypatch.setattr(measure, "saved_and_read", lambda images: 1 - images)
    cell = saved("rand", 60)
    found = Bench().measure(cell, digits_system, digits_system, lambda done, total: None)
    pairs = zip(found.values["tau"], found.values["tau_saved"], strict=True)
    assert sum(one == other for one, other in pairs) < 6
    assert found.values["tau_saved"] != found.values["tau"]
