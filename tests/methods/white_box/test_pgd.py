import pytest
import torch
from torch import nn

from rankproof import (
    PGD,
    CandidateRaise,
    Gallery,
    MaxShift,
    QueryLower,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
)
from rankproof.methods.white_box.pgd import ascend, eccv20, iccv21
from rankproof.types import Evaluation

EPS = 0.1


def objective_of(loss):
    """What a method sees: losses of images, and nothing behind them."""

    def objective(images, penalty_weight=None):
        values = loss(images)
        return Evaluation(values, -values.detach(), torch.zeros_like(values.detach()))

    return objective


def run(loss, original, threat, method=None, initial=None):
    start = original if initial is None else initial
    method = method or PGD()
    return method.run(
        original, start, objective_of(loss), threat, seed=0, rng_keys=list(range(len(original)))
    )


# -- the optimum of a linear ranker is known -------------------------------------------------------


@pytest.fixture(params=["cosine", "euclidean"])
def linear(request, make):
    """An encoder x -> w.x, or (w.x, 1) for angles; the corner of [0, 1] where w.x is largest is item 0."""
    random = make.random(4)
    w = torch.randn(1, 16, generator=random, dtype=torch.float64)
    images = torch.cat([(w > 0).double().view(1, 1, 4, 4), make.images(12, seed=2)])
    if request.param == "cosine":
        encoder = make.flat(torch.cat([w, 0 * w]), torch.tensor([0.0, 1.0], dtype=torch.float64))
    else:
        encoder = make.flat(w)
    gallery = Gallery.build(Ranker(encoder, request.param), images)
    return gallery, images, w.sign().view(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("goal", "sign"),
    [
        (CandidateRaise(form="distance"), 1),
        (QueryRaise(form="distance"), 1),
        (QueryLower(form="distance"), -1),
    ],
    ids=["ca+", "qa+", "qa-"],
)
def test_pgd_reaches_the_optimum_of_a_linear_ranker(linear, goal, sign):
    gallery, images, direction = linear
    rows = torch.arange(1, 13)
    targets = torch.zeros(12, 1, dtype=torch.int64)
    result = attack(gallery, images[1:], goal, Threat(EPS), gallery_ids=rows, targets=targets)
    best = (images[1:] + sign * EPS * direction).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, best)


def test_max_shift_reaches_one_of_the_two_optima_of_a_linear_ranker(make):
    w = torch.randn(1, 16, generator=make.random(4), dtype=torch.float64)
    images = make.images(8) * 0.8 + 0.1  # away from the borders: both ends are equally far
    gallery = Gallery.build(Ranker(make.flat(w), "euclidean"), images)
    result = attack(gallery, images, MaxShift(), Threat(EPS), gallery_ids=torch.arange(8))
    assert result.shift.tolist() == pytest.approx([EPS * float(w.abs().sum())] * 8)


def test_max_shift_leaves_the_stationary_clean_image(gallery, pictures):
    result = attack(gallery, pictures[:6], MaxShift(), Threat(EPS), gallery_ids=torch.arange(6))
    assert result.before["shift"].abs().max().item() < 1e-7
    step = (result.adversarial - result.original).abs().flatten(1)
    assert bool((step.mean(1) > EPS / 2).all())  # nearly all pixels at the border of the ball
    noise = EPS * (2 * torch.rand(20, *pictures.shape, generator=torch.Generator().manual_seed(0)) - 1)
    ranker = gallery.ranker
    for z, image, shift in zip(gallery.embeddings, pictures, result.shift, strict=False):
        tries = ranker.embed_all((image + noise[:, 0]).clamp(0, 1))
        assert shift > gallery.exact_between(tries, z.expand_as(tries)).max()
    assert any("random start" in note for note in result.notes)


def test_the_random_start_is_kept_inside_a_budget_below_one_level(gallery, pictures):
    result = attack(gallery, pictures[:3], MaxShift(), Threat(0.2 / 255), method=PGD(steps=1, step=0.0))
    change = (result.adversarial - result.original).abs()
    assert 0.1 / 255 < change.max().item() <= 0.2 / 255 + 1e-9


# -- steps ---------------------------------------------------------------------------------------


def test_one_step_is_a_sign_step_downhill():
    original = torch.full((1, 1, 1, 3), 0.5, dtype=torch.float64)
    slope = torch.tensor([2.0, -0.001, 0.0], dtype=torch.float64)
    found = run(lambda x: (x * slope).flatten(1).sum(1), original, Threat(EPS), PGD(steps=1, step=0.02))
    assert found.images.flatten().tolist() == pytest.approx([0.48, 0.52, 0.5])


def test_the_last_iterate_is_returned_and_not_the_best(make):
    """On |x - 0.5| a step of 0.04 jumps from one side to the other for ever."""
    original = torch.full((1, 1, 1, 1), 0.51, dtype=torch.float64)
    found = run(lambda x: (x - 0.5).abs().flatten(1).sum(1), original, Threat(0.5), PGD(steps=3, step=0.04))
    assert found.images.item() == pytest.approx(0.47)


@pytest.mark.parametrize(("method", "passes"), [(PGD(), 15), (PGD(rule="iccv21"), 24), (PGD(steps=7), 7)])
def test_passes_are_the_evaluations_spent(make, method, passes):
    calls = []

    def loss(x):
        calls.append(x.shape)
        return x.flatten(1).sum(1)

    found = run(loss, make.images(2), Threat(0.03), method)
    assert len(calls) == found.passes == method.passes(0.03) == passes


def test_every_scored_image_lies_in_the_threat_set(make):
    original, threat = Threat(0.03, grid=True).start(make.images(3)), Threat(0.03, grid=True)

    def loss(x):
        threat.check(x.detach(), original)
        assert torch.equal(torch.round(x.detach() * 255) / 255, x.detach())
        return x.flatten(1).square().sum(1)

    run(loss, original, threat)


def test_steps_below_one_level_still_add_up_on_the_grid(make):
    """The point moves freely and only what is scored is rounded."""
    original = torch.full((1, 1, 2, 2), 100 / 255, dtype=torch.float64)
    threat = Threat(4 / 255, grid=True)
    found = run(lambda x: x.flatten(1).sum(1), original, threat, PGD(steps=10, step=0.4 / 255))
    assert (found.images * 255).flatten().tolist() == pytest.approx([96.0] * 4)


@pytest.mark.parametrize("goal", [QueryRaise(), MaxShift(), Reorder(k=3), CandidateRaise()])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(gallery, pictures, goal):
    def bytes_of(seed):
        result = attack(gallery, pictures[:5], goal, Threat(EPS), seed=seed, gallery_ids=torch.arange(5))
        return result.adversarial.numpy().tobytes()

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)


# -- without a gradient --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "flows"),
    [
        (lambda weight, images: weight.expand(len(images), -1), False),
        (lambda weight, images: weight + 0 * images.flatten(1), True),
        (lambda weight, images: images.detach().flatten(1) * weight, False),
        (lambda weight, images: torch.round(images * 4).flatten(1) * weight, True),
    ],
    ids=["constant", "zero gradient", "detached", "quantised"],
)
@pytest.mark.parametrize("goal", [QueryRaise(), CandidateRaise(), MaxShift(), Reorder(k=3)])
def test_an_encoder_without_a_gradient_is_reported(make, pictures, forward, flows, goal):
    class Dull(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(make.images(1, seed=3).flatten(1))

        def forward(self, images):
            return forward(self.weight, images)

    gallery = Gallery.build(Ranker(Dull(), "euclidean"), pictures)
    if not flows:
        with pytest.raises(RankproofError, match="no gradient flows through the encoder"):
            attack(gallery, pictures[:3], goal, Threat(EPS), gallery_ids=torch.arange(3))
        return
    result = attack(gallery, pictures[:3], goal, Threat(EPS), gallery_ids=torch.arange(3))
    assert result.zero_gradient.tolist() == [True] * 3


def test_a_working_gradient_is_not_reported_as_zero(gallery, pictures):
    for goal in (QueryRaise(), MaxShift()):
        result = attack(gallery, pictures[:3], goal, Threat(EPS), gallery_ids=torch.arange(3))
        assert result.zero_gradient.tolist() == [False] * 3


def test_zero_gradients_are_reported_for_each_attack_and_one_usable_gradient_is_enough():
    """Image 0 never has a gradient, image 1 only after it was moved, image 2 always."""
    original = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    initial = torch.tensor([0.5, 0.48, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    wake = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    calls = []

    def loss(x):
        calls.append(0)
        flat = x.flatten(1)[:, 0]
        awake = wake * torch.tensor([1.0, float(len(calls) > 1), 1.0], dtype=torch.float64)
        return flat * awake

    assert run(loss, original, Threat(EPS), PGD(steps=3), initial).zero_gradient.tolist() == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_no_number_counts_as_none(value):
    original = torch.full((2, 1, 1, 2), 0.5, dtype=torch.float64)
    slope = torch.tensor([[value, value], [value, 1.0]], dtype=torch.float64)
    found = run(lambda x: (x.flatten(1) * slope).sum(1), original, Threat(EPS), PGD(steps=2))
    assert found.zero_gradient.tolist() == [True, False]
    assert found.images.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5, 0.48])


def test_ascend_returns_each_attacks_own_gradient_and_keeps_no_graph(make):
    images = make.images(3)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    objective = objective_of(lambda x: weights * x.flatten(1).square().sum(1))
    gradient, evaluation = ascend(objective, images)
    torch.testing.assert_close(gradient, 2 * weights[:, None, None, None] * images)
    assert not evaluation.loss.requires_grad
    assert not images.requires_grad


# -- the published schedules ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "step", "steps"),
    [(0.01, 1 / 255, 10), (0.03, 1 / 255, 15), (0.06, 0.006, 20), (0.1, 0.01, 20), (0.3, 0.01, 30)],
)
def test_eccv_schedule_is_the_published_one(eps, step, steps):
    schedule = eccv20(eps)
    assert (schedule.steps, schedule.step) == (steps, pytest.approx(step))


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 16, 32])
def test_iccv_schedule_is_24_steps_of_one_level_whatever_the_budget(levels):
    schedule = iccv21(levels / 255)
    assert (schedule.steps, schedule.step) == (24, 1 / 255)


def test_pgd_follows_its_rule_unless_given_steps():
    assert PGD().schedule(0.03) == eccv20(0.03)
    assert PGD(rule="iccv21").schedule(0.03) == iccv21(0.03)
    assert PGD(rule="iccv21", steps=3).schedule(0.03).steps == 3
    assert PGD(rule="iccv21", steps=3).schedule(0.03).step == 1 / 255
    assert PGD(step=0.5).schedule(0.03).step == 0.5
    assert PGD(step=0.5).passes(0.03) == 15


def test_no_steps_are_refused():
    with pytest.raises(RankproofError, match="steps must be at least 1, got 0"):
        PGD(steps=0)
