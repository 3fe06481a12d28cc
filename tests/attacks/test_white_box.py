from dataclasses import dataclass

import pytest
import torch

from rankproof import (
    PGD,
    CandidateLower,
    CandidateRaise,
    Gallery,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
)
from rankproof.errors import ThreatViolationError
from rankproof.methods import MethodOutput

THREAT = Threat(8 / 255)
GOALS = {
    "ca+": CandidateRaise(w=2),
    "ca-": CandidateLower(w=2),
    "sp-qa+": QueryRaise(m=2) + 1.0 * Preserve(g=3),
    "sp-qa-": QueryLower(m=2) + 100.0 * Preserve(g=3),
    "oa": Reorder(k=4),
    "shift": MaxShift(),
}
every_goal = pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS.keys())


def figures(result):
    return {f"{when}_{name}": v for when in ("before", "after") for name, v in getattr(result, when).items()}


# -- what does not fit is refused by name ------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 4, 4), torch.zeros(16), torch.zeros(0, 1, 4, 4)],
    ids=["one image", "flat", "empty"],
)
def test_images_of_another_shape_are_refused(gallery, images):
    with pytest.raises(RankproofError, match=r"images: .*\(b, c, h, w\)"):
        attack(gallery, images, MaxShift(), THREAT)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_values_outside_the_unit_range_are_refused(gallery, value):
    images = torch.full((2, 1, 4, 4), 0.5)
    images[1, 0, 3, 3] = value
    with pytest.raises(RankproofError, match=r"images: values must be floats in \[0, 1\]"):
        attack(gallery, images, MaxShift(), THREAT)


def test_integers_that_are_no_8_bit_images_are_refused(gallery):
    with pytest.raises(RankproofError, match="images: values"):
        attack(gallery, torch.zeros(1, 1, 4, 4, dtype=torch.int64), MaxShift(), THREAT)


@pytest.mark.parametrize("ids", [[0, 1, 60], [-1, 0, 1], [0, 1], [[0, 1, 2]]])
def test_gallery_ids_that_do_not_fit_are_refused(gallery, pictures, ids):
    with pytest.raises(RankproofError, match=r"gallery_ids: expected 3 gallery positions in 0 \.\. 59"):
        attack(gallery, pictures[:3], MaxShift(), THREAT, gallery_ids=torch.tensor(ids))


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (lambda: CandidateRaise(w=0), "w must be at least 1, got 0"),
        (lambda: CandidateLower(w=0), "w must be at least 1, got 0"),
        (lambda: QueryRaise(m=0), "m must be at least 1, got 0"),
        (lambda: QueryLower(m=-1), "m must be at least 1, got -1"),
        (lambda: QueryRaise() + 1.0 * Preserve(g=0), "g must be at least 1, got 0"),
        (lambda: Reorder(k=0), "k must be at least 1, got 0"),
        (lambda: Reorder(k=1), "k must be at least 2, got 1"),
        (lambda: CandidateRaise(w=61), "w = 61 is larger than the gallery of 60"),
        (lambda: CandidateLower(w=61), "w = 61 is larger than the gallery of 60"),
        (lambda: QueryRaise(m=61), "m = 61 is larger than the gallery of 60"),
        (lambda: QueryLower(m=60), "m = 60 is larger"),
        (lambda: QueryLower(m=3) + 1.0 * Preserve(g=57), "g = 57 is larger"),
        (lambda: Reorder(k=61), "k = 61 is larger than the gallery of 60"),
    ],
)
def test_a_count_that_does_not_fit_the_gallery_is_refused_by_its_letter(gallery, pictures, goal, message):
    with pytest.raises(RankproofError, match=message):
        attack(gallery, pictures[:2], goal(), THREAT, gallery_ids=torch.arange(2))


@pytest.mark.parametrize(
    "goal", [QueryRaise(m=60), CandidateRaise(w=60), QueryLower(m=59), Reorder(k=60)], ids=str
)
def test_the_largest_count_that_fits_is_accepted(gallery, pictures, goal):
    result = attack(gallery, pictures[:1], goal, Threat(0.0), gallery_ids=torch.arange(1))
    assert result.targets.shape[1] == max(v for v in result.parameters.values() if v and v > 50)


@pytest.mark.parametrize(
    "build",
    [
        lambda: CandidateRaise() + 1.0 * Preserve(),
        lambda: 1.0 * Preserve() + CandidateRaise(),
        lambda: 2.0 * MaxShift(),
        lambda: Reorder() + 1.0 * Preserve(),
    ],
    ids=["ca+ and sp", "sp and ca+", "weighted shift", "oa and sp"],
)
def test_only_query_goals_add_up(build):
    with pytest.raises(RankproofError, match="only query goals can be added"):
        build()


def test_two_goals_at_once_are_refused(gallery, pictures):
    with pytest.raises(RankproofError, match="at most one Preserve"):
        attack(gallery, pictures[:1], QueryRaise() + QueryLower(), THREAT)


def test_excluding_the_own_copy_needs_its_position(gallery, pictures):
    with pytest.raises(RankproofError, match="exclude_self=True needs gallery_ids="):
        attack(gallery, pictures[:1], QueryRaise(), THREAT, exclude_self=True)


@pytest.mark.parametrize("what", ["targets", "preserved"])
@pytest.mark.parametrize(
    "ids",
    [
        torch.zeros(2, 2, dtype=torch.int64),
        torch.zeros(4, 2, dtype=torch.int64),
        torch.zeros(3, 1, dtype=torch.int64),
        torch.zeros(3, dtype=torch.int64),
        torch.full((3, 2), 60),
        torch.full((3, 2), -1),
    ],
    ids=["too few rows", "too many rows", "too few columns", "flat", "beyond the gallery", "negative"],
)
def test_explicit_items_that_do_not_fit_are_refused_by_name(gallery, pictures, what, ids):
    with pytest.raises(RankproofError, match=f"{what}: "):
        attack(gallery, pictures[:3], QueryRaise(m=2) + 1.0 * Preserve(g=2), THREAT, **{what: ids})


# -- what comes back ---------------------------------------------------------------------------------


@every_goal
def test_without_a_budget_the_originals_come_back_with_unchanged_figures(gallery, pictures, goal):
    result = attack(gallery, pictures[:5], goal, Threat(0.0), gallery_ids=torch.arange(5))
    assert torch.equal(result.original, pictures[:5])
    assert torch.equal(result.adversarial, pictures[:5])
    assert result.steps == 0
    assert not result.zero_gradient.any()
    assert result.before
    for name, values in result.before.items():
        assert torch.equal(result.after[name], values)
    assert not any("random start" in note for note in result.notes)


@every_goal
def test_the_figures_are_those_of_the_returned_images(gallery, pictures, goal):
    index = torch.arange(5)
    result = attack(gallery, pictures[:5], goal, THREAT, gallery_ids=index, seed=2)
    again = attack(
        gallery,
        result.adversarial,
        goal,
        Threat(0.0),
        targets=result.targets if result.targets.shape[1] else None,
        preserved=result.preserved if result.preserved.shape[1] else None,
    )
    assert torch.equal(result.original, pictures[:5])
    THREAT.check(result.adversarial, pictures[:5])
    assert float((result.adversarial - pictures[:5]).abs().max()) == pytest.approx(8 / 255)
    for name, values in result.after.items():
        if name == "shift":
            z, clean = gallery.ranker.embed_all(result.adversarial), gallery.embeddings[:5]
            torch.testing.assert_close(values, gallery.exact_between(z, clean))
        else:
            torch.testing.assert_close(values, again.after[name])


@pytest.mark.parametrize(
    ("goal", "better"),
    [
        (CandidateRaise(w=1), -1),
        (CandidateLower(w=1), 1),
        (QueryRaise(m=1), -1),
        (QueryLower(m=1), 1),
        (Reorder(k=4, xi=0.0), 1),
        (CandidateRaise(w=1, form="distance"), -1),
        (QueryLower(m=1, form="distance"), 1),
    ],
    ids=str,
)
def test_every_goal_moves_its_headline_the_way_it_wants(gallery, pictures, goal, better):
    result = attack(gallery, pictures[:20], goal, Threat(0.1), gallery_ids=torch.arange(20))
    gain = better * (result.headline() - result.headline(after=False))
    assert gain.mean().item() > 4 * gain.std().item() / 20**0.5


@every_goal
@pytest.mark.parametrize("chunk", [3, 500])
def test_an_attack_does_not_depend_on_the_others_in_the_batch(gallery, pictures, goal, chunk, monkeypatch):
    monkeypatch.setattr(gallery.ranker, "chunk", chunk)
    index = torch.tensor([40, 2, 17, 59, 8])
    together = attack(gallery, pictures[index], goal, THREAT, gallery_ids=index, seed=6)
    for place in (0, 3, 4):
        own = index[place : place + 1]
        alone = attack(gallery, pictures[own], goal, THREAT, gallery_ids=own, seed=6)
        assert torch.equal(alone.targets, together.targets[place : place + 1])
        assert torch.equal(alone.preserved, together.preserved[place : place + 1])
        torch.testing.assert_close(alone.adversarial, together.adversarial[place : place + 1])
        for name, values in figures(alone).items():
            torch.testing.assert_close(values, figures(together)[name][place : place + 1])


@every_goal
def test_without_gallery_ids_chunks_do_not_change_the_choices(gallery, pictures, goal, monkeypatch):
    strangers = 1 - pictures[:5]
    whole = attack(gallery, strangers, goal, THREAT)
    monkeypatch.setattr(gallery.ranker, "chunk", 2)
    parts = attack(gallery, strangers, goal, THREAT)
    assert whole.gallery_ids is None
    assert torch.equal(whole.targets, parts.targets)
    torch.testing.assert_close(whole.adversarial, parts.adversarial)


def test_explicit_items_are_attacked_as_given(gallery, pictures):
    targets, preserved = torch.tensor([[3, 4], [5, 6], [7, 8]]), torch.tensor([[9], [10], [11]])
    goal = QueryRaise(m=2) + 1.0 * Preserve(g=1)
    result = attack(gallery, pictures[:3], goal, THREAT, targets=targets, preserved=preserved)
    assert torch.equal(result.targets, targets)
    assert torch.equal(result.preserved, preserved)


def test_8_bit_images_are_attacked_as_the_floats_they_stand_for(gallery, make):
    pixels = torch.randint(256, (3, 1, 4, 4), generator=make.random(0), dtype=torch.uint8)
    whole, floats = (
        attack(gallery, images, QueryRaise(), THREAT) for images in (pixels, pixels.double() / 255)
    )
    torch.testing.assert_close(whole.adversarial, floats.adversarial)


def test_a_grid_threat_returns_8_bit_images_near_the_8_bit_originals(gallery, pictures):
    result = attack(
        gallery, pictures[:4], QueryRaise(), Threat(8 / 255, grid=True), gallery_ids=torch.arange(4)
    )
    for images in (result.original, result.adversarial):
        assert torch.equal(torch.round(images * 255) / 255, images)
    levels = torch.round((result.adversarial - result.original) * 255)
    assert levels.abs().max().item() == 8


def test_the_progress_ends_at_all_evaluations(gallery, pictures, monkeypatch):
    monkeypatch.setattr(gallery.ranker, "chunk", 2)
    seen = []
    method = PGD(steps=6)
    attack(gallery, pictures[:5], MaxShift(), THREAT, method=method, progress=lambda *now: seen.append(now))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (30, 30)


@pytest.mark.parametrize(("goal", "steps"), [(QueryRaise(), 16), (Reorder(k=3), 24)])
def test_each_goal_follows_the_schedule_of_its_own_paper(gallery, pictures, goal, steps):
    assert attack(gallery, pictures[:1], goal, THREAT).steps == steps


@dataclass(frozen=True)
class Leaper:
    """A method that does whatever it likes."""

    change: object  # not one of the types that are checked before anything runs
    name = "leaper"

    def passes(self, eps):
        return 1

    def run(self, original, initial, objective, threat, *, seed, rng_keys):
        return MethodOutput(original + self.change, 1, torch.zeros(len(original), dtype=torch.bool))


@pytest.mark.parametrize("change", [8.01 / 255, -8.01 / 255, float("nan")])
def test_a_method_that_leaves_the_threat_set_is_no_result(gallery, make, change):
    images = make.images(2) / 2 + 0.25
    with pytest.raises(ThreatViolationError):
        attack(gallery, images, MaxShift(), THREAT, method=Leaper(change))


def test_a_method_that_leaves_the_unit_range_is_no_result(gallery):
    with pytest.raises(ThreatViolationError):
        attack(gallery, torch.ones(2, 1, 4, 4), MaxShift(), THREAT, method=Leaper(4 / 255))


def test_a_method_inside_the_threat_set_is_taken_at_its_word(gallery, make):
    images = make.images(2) / 2 + 0.25
    result = attack(gallery, images, MaxShift(), THREAT, method=Leaper(8 / 255))
    torch.testing.assert_close(result.adversarial, images + 8 / 255)
    assert (result.method, result.steps) == ("leaper", 1)


def test_the_encoder_is_left_as_it_was(make, pictures):
    ranker = make.ranker()
    ranker.encoder.train()
    gallery = Gallery.build(ranker, pictures)
    attack(gallery, pictures[:2], QueryRaise(), THREAT)
    assert ranker.encoder.training
    assert all(p.requires_grad and p.grad is None for p in ranker.encoder.parameters())


# -- what the caller's torch is set to does not change a figure -----------------------------------------


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device"],
)
@pytest.mark.parametrize("single", [False, True])
def test_an_attack_is_the_same_in_any_mode_of_torch(make, mode, single):
    ranker, images = make.ranker(), make.images(30)
    if single:
        ranker, images = Ranker(ranker.encoder.float(), "cosine"), images.float()

    def run():
        gallery = Gallery.build(ranker, images)
        return attack(gallery, images[:4], QueryRaise(m=2), THREAT, gallery_ids=range(4))

    plain = run()
    with mode():
        other = run()
        assert torch.is_grad_enabled() == (mode not in (torch.no_grad, torch.inference_mode))
    assert torch.equal(plain.adversarial, other.adversarial)
    assert float(other.mean.mean) == float(plain.mean.mean) < plain.summary.before


def test_a_gallery_of_embeddings_made_in_inference_mode_can_be_attacked(make):
    ranker, images = make.ranker(), make.images(30)
    with torch.inference_mode():
        embeddings = ranker.embed_all(images)
    result = attack(Gallery(ranker, embeddings), images[:3], QueryRaise(m=2), THREAT, gallery_ids=range(3))
    assert result.mean.mean < result.summary.before


# -- images that are not the items they are said to be ---------------------------------------------------


def foreign(result):
    return [note for note in result.notes if "gallery_ids" in note]


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
def test_ids_of_other_items_are_noted_and_right_ones_are_not(make, distance):
    images = make.images(30)
    gallery = Gallery.build(make.ranker(distance), images)
    right = attack(gallery, images[:5], MaxShift(), Threat(8 / 255, grid=True), gallery_ids=range(5))
    wrong = attack(gallery, images[:5], MaxShift(), THREAT, gallery_ids=[0, 2, 1, 4, 3])
    assert foreign(right) == []
    assert [note[:15] for note in foreign(wrong)] == ["4 of 5 images a"]


def test_images_of_a_collapsed_encoder_are_not_called_other_items(make):
    images = make.images(10, dtype=torch.float32)
    constant = Ranker(make.flat(torch.zeros(3, 16), torch.ones(3)), "euclidean")
    assert (
        foreign(attack(Gallery.build(constant, images), images, MaxShift(), THREAT, gallery_ids=range(10)))
        == []
    )


def test_a_gallery_of_earlier_weights_is_noted(make):
    ranker, images = make.ranker(), make.images(30)
    gallery = Gallery.build(ranker, images)
    with torch.no_grad():
        for parameter in ranker.encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=make.random(5), dtype=torch.float64))
    result = attack(gallery, images[:5], MaxShift(), THREAT, gallery_ids=range(5))
    assert "the encoder has changed since the gallery was built" in foreign(result)[0]


def test_the_pool_of_targets_is_noted_only_where_they_are_chosen(make):
    images = make.images(30)
    gallery = Gallery.build(make.ranker(), images)

    def pools(**options):
        notes = attack(gallery, images[:2], QueryLower(m=1), THREAT, gallery_ids=range(2), **options).notes
        return sum("chosen among" in note for note in notes)

    assert (pools(), pools(targets=[[4], [5]])) == (1, 0)
