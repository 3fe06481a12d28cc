import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from rankproof import (
    PGD,
    CandidateRaise,
    Gallery,
    MaxShift,
    MomentumPGD,
    QueryLower,
    Ranker,
    RankproofError,
    Threat,
    attack,
    load,
)
from rankproof.attacks import attack_batch
from rankproof.evaluation import Robustness, default_eps, robustness_score
from rankproof.evaluation.robustness import has_company
from rankproof.evaluation.terms import TERMS
from rankproof.goals import LeaveTop, Mismatch, Misrank, NearestOther
from rankproof.models.small_cnns import DigitsEncoder
from rankproof.ranking.metrics import mean_interval, recall_at
from rankproof.rng import draw

T = 30
STEPS = {steps: PGD(steps=steps, step=3 / 255) for steps in (1, 2, 6, 8, 24)}
RECALLS = ("shift-recall", "misrank", "nearest-other")


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def digits(request):
    torch.manual_seed(0)
    data = load("digits")
    return data, Gallery.build(Ranker(DigitsEncoder(), request.param), data.images, data.labels)


@pytest.fixture(scope="module")
def scored(digits):
    data, gallery = digits
    return robustness_score(gallery, data.images, eps=16 / 255, trials=T, seed=5, method=STEPS[6])


def made(values, **changes):
    """A result of given values, the same image in each row of all ten terms."""
    plain = {"moved": torch.rand(len(values["ca+"])), "gallery_ids": torch.arange(len(values["ca+"]))}
    rest = {"eps": 0.1, "method": "pgd", "steps": 3, "seed": 0, "flags": (), "notes": (), "seconds": 1.0}
    return Robustness(values=values, **{**plain, **rest, **changes})


# -- the terms


def test_every_term_is_that_of_its_own_attack(digits, scored):
    """Each attack made again on its own, the terms taken by plain loops from its images."""
    data, gallery = digits
    index = draw(797, T, 5)
    assert scored.gallery_ids.tolist() == index.tolist()
    method, threat = PGD(steps=6, step=3 / 255), Threat(16 / 255)

    def run(goal):
        return attack(gallery, data.take(index), goal, threat, method=method, seed=5, gallery_ids=index)

    def unit(images):
        return functional.normalize(gallery.ranker.embed_all(images).double())

    shifted, drawn = run(MaxShift()), run(Mismatch())
    assert scored.values["ca+"].tolist() == (2 * run(CandidateRaise()).rank_after[:, 0]).tolist()
    assert scored.values["qa-"].tolist() == (100 - run(QueryLower()).rank_after[:, 0]).tolist()
    clean, moved, pulled = unit(data.take(index)), unit(shifted.adversarial), unit(drawn.adversarial)
    for i in range(T):
        target = functional.normalize(gallery.embeddings[drawn.targets[i]].double())[0]
        assert scored.values["mismatch"][i].item() == pytest.approx(
            100 * (1 - float(pulled[i] @ target)), abs=1e-4
        )
        shift = float((moved[i] - clean[i]).norm())
        assert scored.values["shift"][i].item() == pytest.approx(100 * (2 - shift) / 2, abs=1e-3)
    assert scored.moved.tolist() == shifted.shift.tolist()
    for name, result in (
        ("shift-recall", shifted),
        ("misrank", run(Misrank())),
        ("nearest-other", run(NearestOther())),
    ):
        assert scored.values[name].tolist() == naive_recall(gallery, result, index), name
    assert scored.values["top4"].tolist() == naive_kept(gallery, run(LeaveTop()), index)


def rankings(gallery, result, index):
    """For each attacked image all others, nearest first."""
    far = gallery.squared_lengths(gallery.ranker.embed_all(result.adversarial))
    for row, own in zip(far, index.tolist(), strict=True):
        yield own, [x for x in row.argsort(stable=True).tolist() if x != own]


def naive_recall(gallery, result, index):
    labels = gallery.labels
    return [100.0 * bool(labels[order[0]] == labels[own]) for own, order in rankings(gallery, result, index)]


def naive_kept(gallery, result, index):
    far = gallery.squared_lengths(gallery.embeddings)
    kept = []
    for own, order in rankings(gallery, result, index):
        nearest = next(x for x in far[own].argsort(stable=True).tolist() if x != own)
        kept.append(100.0 * (nearest in order[:4]))
    return kept


def test_nothing_is_lost_where_nothing_may_change(digits):
    data, gallery = digits
    result = robustness_score(gallery, data.images, eps=0.0, trials=200, seed=1)
    terms = {name: term.mean for name, term in result.terms.items()}
    for name in ("ca+", "qa+"):  # 2 x 50 %
        summary = mean_interval(result.values[name])
        assert abs(summary.mean - 100) < 2.1 * summary.half_width
        assert terms[name] <= 100
    found = 100 * float(recall_at(gallery, 1)[result.gallery_ids].mean())
    assert [terms[name] for name in RECALLS] == pytest.approx([found] * 3)
    assert found > 90
    assert terms["top4"] == 100
    assert terms["shift"] == pytest.approx(100, abs=1e-3)
    assert result.shift.mean == pytest.approx(0, abs=1e-6)
    assert (result.eps, result.steps, result.trials) == (0, 0, 200)


def test_a_larger_budget_leaves_less(digits, scored):
    data, gallery = digits
    less = robustness_score(gallery, data.images, eps=64 / 255, trials=T, seed=5, method=STEPS[24])
    assert less.ers.high < scored.ers.low
    assert less.shift.mean > scored.shift.mean
    assert less.terms["nearest-other"].mean < 50
    assert less.terms["top4"].mean < 50


# -- means, clipping, intervals


def test_the_score_is_the_mean_of_ten_and_its_interval_that_of_the_images(make):
    values = {name: 100 * torch.rand(40, generator=make.random(i)) for i, name in enumerate(TERMS)}
    # Terms that go against each other on the same images: their mean hardly varies.
    values["qa+"] = 100 - values["ca+"]
    result = made(values)
    own = [sum(float(values[name][i]) for name in TERMS) / 10 for i in range(40)]
    expected = mean_interval(torch.tensor(own, dtype=torch.float64))
    assert result.ers.mean == pytest.approx(expected.mean)
    assert (result.ers.low, result.ers.high) == pytest.approx((expected.low, expected.high), rel=1e-5)
    apart = math.sqrt(sum(term.half_width**2 for term in result.terms.values())) / 10
    assert result.ers.half_width < apart


def test_means_are_clipped_and_single_values_are_not(make):
    values = {name: torch.full((4,), 50.0) for name in TERMS}
    values["ca+"] = torch.tensor([0.0, 40.0, 160.0, 200.0])  # ranks of 0, 20, 80 and 100 %: exactly half way
    values["qa+"] = torch.tensor([90.0, 110.0, 110.0, 110.0])
    values["mismatch"] = torch.tensor([-3.0, -1.0, -2.0, -2.0])
    result = made(values)
    terms = result.terms
    assert terms["ca+"].mean == 100
    assert (terms["qa+"].mean, terms["qa+"].high) == (100, 100)
    assert (terms["mismatch"].mean, terms["mismatch"].low) == (0, 0)
    assert result.ers.mean == pytest.approx((100 + 100 + 0 + 7 * 50) / 10)
    assert result.values["ca+"].max() == 200


def test_one_image_has_no_interval(digits):
    data, gallery = digits
    told = robustness_score(gallery, data.images, eps=8 / 255, trials=1, method=STEPS[1]).as_dict()
    assert told["ci95"]["ers"] == told["ci95"]["shift"] == told["ci95"]["ers_terms"]["qa-"] == [None, None]
    assert math.isfinite(told["ers"])


def test_the_keys(scored):
    told = scored.as_dict()
    assert list(told["ers_terms"]) == list(told["ci95"]["ers_terms"]) == list(TERMS)
    assert told["ers"] == pytest.approx(sum(told["ers_terms"].values()) / 10)
    assert told["ci95"]["ers"][0] < told["ers"] < told["ci95"]["ers"][1]
    assert (told["eps"], told["trials"], told["steps"], told["method"]) == (16 / 255, T, 6, "pgd")
    assert all(0 <= value <= 100 for value in told["ers_terms"].values())


# -- settings


def test_the_published_settings_are_the_defaults(digits, monkeypatch):
    seen = []

    def spy(gallery, batch, goal, threat, *, method, **rest):
        seen.append((threat.eps, method))
        return attack_batch(gallery, batch, goal, threat, method=PGD(steps=1), **rest)

    monkeypatch.setattr("rankproof.evaluation.robustness.attack_batch", spy)
    data, gallery = digits
    result = robustness_score(gallery, data.images, trials=3)
    assert seen == [(77 / 255, PGD(steps=32, step=3 / 255))] * 9
    assert result.trials == 3


@pytest.mark.parametrize(("side", "eps"), [(8, 77), (28, 77), (32, 77), (33, 8), (224, 8)])
def test_the_budget_goes_by_the_size_of_the_images(side, eps):
    assert default_eps(torch.zeros(1, 3, 5, side)) == default_eps(torch.zeros(1, 3, side, 5)) == eps / 255


def test_another_method_takes_its_place(digits):
    data, gallery = digits
    result = robustness_score(gallery, data.images, eps=0.1, trials=4, method=MomentumPGD(steps=5))
    assert (result.method, result.steps) == ("strong", 5)


def test_the_same_seed_gives_the_same_values_and_an_image_depends_on_nothing_else(digits, scored):
    data, gallery = digits
    again = robustness_score(gallery, data.images, eps=16 / 255, trials=T, seed=5, method=STEPS[6])
    assert all(torch.equal(again.values[name], scored.values[name]) for name in TERMS)
    fewer = robustness_score(gallery, data.images, eps=16 / 255, trials=7, seed=5, method=STEPS[6])
    for name in TERMS:
        torch.testing.assert_close(fewer.values[name], scored.values[name][:7], rtol=1e-3, atol=0.3)
    other = robustness_score(gallery, data.images, eps=16 / 255, trials=T, seed=6, method=STEPS[6])
    assert other.gallery_ids.tolist() != scored.gallery_ids.tolist()


def test_progress_reaches_its_end_once(digits):
    data, gallery = digits
    calls = []
    robustness_score(
        gallery,
        data.images,
        eps=0.1,
        trials=5,
        method=STEPS[2],
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (90, 90)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


# -- what a reader must be told


class Constant(nn.Module):
    """Every image gets the same embedding, but for a trace of its pixels."""

    def __init__(self, trace):
        super().__init__()
        self.matrix = nn.Linear(64, 16)
        self.trace = trace

    def forward(self, images):
        return 1 + self.trace * self.matrix(images.flatten(1))


@pytest.mark.parametrize("trace", [0.0, 1e-4])
def test_a_collapsed_encoder_does_not_pass_for_a_robust_one(digits, trace):
    """Nothing moves, so that half of the terms are perfect: the score alone would look like a defence."""
    data, gallery = digits
    torch.manual_seed(0)
    ranker = Ranker(Constant(trace), gallery.ranker.distance)
    dead = Gallery.build(ranker, data.images, data.labels)
    result = robustness_score(dead, data.images, trials=50, method=STEPS[8])
    assert result.collapsed
    assert result.as_dict()["collapsed"]
    assert "collapsed" in {flag.kind for flag in result.flags}
    assert result.terms["shift"].mean > 99
    if trace == 0:
        assert result.ers.mean > 35
        assert "silent-gradient" in {flag.kind for flag in result.flags}
        assert result.terms["misrank"].mean < 40


def test_a_working_encoder_is_not_called_collapsed(scored):
    assert not scored.collapsed


def test_distances_off_the_unit_sphere_are_told(digits, scored):
    told = any("unit sphere" in note for note in scored.notes)
    assert told == (digits[1].ranker.distance.name == "euclidean")
    assert any(note.startswith("shift: random start within") for note in scored.notes)


def test_images_alone_in_their_class_are_left_out_and_told(digits):
    data, gallery = digits
    labels = data.labels.clone()
    drawn = draw(797, 12, 0)
    labels[drawn[[2, 9]]] = torch.tensor([77, 78])
    lone = dataclasses.replace(gallery, labels=labels)
    assert has_company(lone).logical_not().nonzero().flatten().tolist() == sorted(drawn[[2, 9]].tolist())
    result = robustness_score(lone, data.images, eps=0.05, trials=12, method=STEPS[1])
    assert result.gallery_ids.tolist() == [x for i, x in enumerate(drawn.tolist()) if i not in (2, 9)]
    assert any(note.startswith("2 of the images drawn are alone") for note in result.notes)


def test_what_cannot_be_scored_is_refused(digits):
    data, gallery = digits
    for labels, reason in (
        (None, "labels"),
        (torch.zeros(797, dtype=torch.int64), "all items are of one class"),
        (torch.arange(797), "alone in its class"),
    ):
        with pytest.raises(RankproofError, match=reason):
            robustness_score(dataclasses.replace(gallery, labels=labels), data.images, trials=5)
    with pytest.raises(RankproofError, match="images: expected 797 images, got 9"):
        robustness_score(gallery, data.images[:9])
    with pytest.raises(RankproofError, match="trials must be at least 1"):
        robustness_score(gallery, data.images, trials=0)
