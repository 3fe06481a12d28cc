from dataclasses import replace

import pytest
import torch
from torch import nn

from rankproof import (
    CandidateLower,
    CandidateRaise,
    Gallery,
    LocalOracle,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    Reorder,
    Threat,
    attack,
)
from rankproof.attacks import cost
from rankproof.attacks.cost import bare_seconds, measure, measure_result, peak_mb, query_seconds


class Counting(nn.Module):
    """A linear encoder that remembers how many images each pass had."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Linear(4, 3, bias=False)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.matrix(images.flatten(1))


@pytest.fixture
def gallery():
    torch.manual_seed(0)
    gallery = Gallery.build(Ranker(Counting()), torch.rand(6, 1, 2, 2))
    gallery.ranker.encoder.sizes.clear()
    return gallery


@pytest.mark.parametrize("whole_gallery", [True, False])
def test_each_chunk_size_is_timed_five_times(gallery, whole_gallery):
    told = []
    seconds = bare_seconds(
        gallery,
        torch.rand(7, 1, 2, 2),
        10,
        whole_gallery=whole_gallery,
        chunk=3,
        progress=lambda *args: told.append(args),
    )
    assert gallery.ranker.encoder.sizes == [3] * 5 + [1] * 5
    assert told[-1] == (10, 10)
    assert seconds > 0


def test_the_best_of_five_is_multiplied_out(gallery, monkeypatch):
    times = iter([0.4, 0.3, 0.2, 0.5, 0.6, 0.1, 0.05, 0.7, 0.8, 0.9])
    monkeypatch.setattr(cost, "_timed", lambda work, device: next(times))
    seconds = bare_seconds(gallery, torch.rand(7, 1, 2, 2), 10, whole_gallery=True, chunk=3)
    assert seconds == pytest.approx(10 * (2 * 0.2 + 1 * 0.05))


def test_of_long_passes_two_are_timed(gallery, monkeypatch):
    told, times = [], iter([4.0, 3.5, 20.0])
    monkeypatch.setattr(cost, "_timed", lambda work, device: next(times))
    seconds = query_seconds(
        gallery, torch.rand(2, 1, 2, 2), 60, rows=7, progress=lambda *args: told.append(args)
    )
    assert seconds == pytest.approx(60 * 3.5 / 7)
    assert told == [(1, 5), (2, 5), (5, 5)]


def test_no_more_images_are_timed_than_were_sent(gallery):
    oracle = LocalOracle(gallery, visible=4)
    images, goal = torch.rand(2, 1, 2, 2), Reorder(k=3)
    result = attack(oracle, images, goal, Threat(0.1, grid=True), budget=20, seed=0)
    gallery.ranker.encoder.sizes.clear()
    seconds, _ = measure_result(gallery, images, goal, result)
    sizes, spent = gallery.ranker.encoder.sizes, int(result.log.spent.sum())
    assert 2 <= len(sizes) <= 5
    assert sum(sizes) <= spent
    assert seconds > 0


def test_the_bare_work_is_that_of_the_evaluations_really_spent(gallery, monkeypatch):
    monkeypatch.setattr(cost, "_timed", lambda work, device: 0.5)
    images, goal = torch.rand(2, 1, 2, 2), QueryRaise()
    result = attack(gallery, images, goal, Threat(0.1))
    assert measure_result(gallery, images, goal, result).model_seconds == 0.5 * result.steps
    apart = replace(result, evaluations=torch.tensor([3, 8]))
    assert measure_result(gallery, images, goal, apart).model_seconds == 0.5 * 5.5


def test_measured_in_the_chunks_of_the_attack(gallery):
    gallery.ranker.chunk = 4
    costs = measure(gallery, torch.rand(6, 1, 2, 2), QueryRaise(), 3)
    assert gallery.ranker.encoder.sizes == [4] * 5 + [2] * 5
    assert set(costs._asdict()) == {"model_seconds", "peak_mb"}
    assert min(costs) > 0


def test_without_passes_there_is_no_bare_work(gallery):
    assert bare_seconds(gallery, torch.rand(7, 1, 2, 2), 0, whole_gallery=True) == 0
    assert gallery.ranker.encoder.sizes == []


@pytest.mark.parametrize("whole_gallery", [True, False])
def test_the_timed_pass_does_the_work(gallery, whole_gallery):
    gradient = cost._bare_pass(gallery, torch.rand(2, 1, 2, 2), whole_gallery)()
    weight = gallery.ranker.encoder.matrix.weight.detach()
    upstream = gallery.embeddings.sum(0) if whole_gallery else torch.ones(3)
    expected = (upstream @ weight).view(1, 1, 2, 2).expand(2, -1, -1, -1)
    torch.testing.assert_close(gradient, expected)
    assert all(parameter.requires_grad for parameter in gallery.ranker.encoder.parameters())


def test_which_goals_need_the_whole_gallery():
    need = [QueryRaise(), QueryLower(), Reorder(), QueryRaise() + 1.0 * Preserve()]
    assert all(goal.whole_gallery for goal in need)
    assert not any(goal.whole_gallery for goal in (CandidateRaise(), CandidateLower(), MaxShift()))


def test_peak_memory_is_in_megabytes():
    before = peak_mb()
    block = torch.ones(40_000_000)  # 160 MB
    assert 50 < before <= peak_mb() < 100_000
    assert peak_mb() >= 160
    del block
