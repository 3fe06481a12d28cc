"""Each control fires on a model or a search that is broken on purpose, and none on one that works."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from rankproof import (
    PGD,
    CandidateRaise,
    Gallery,
    MaxShift,
    MomentumPGD,
    QueryRaise,
    Ranker,
    Reorder,
    Threat,
    attack,
)
from rankproof.audit.control_methods import BestSeen, doubled
from rankproof.audit.controls import CONTROLS, ControlledAttack, control_flags, controls, png
from rankproof.io import decode_pixels, encode_jpeg, encode_png
from rankproof.methods.defaults import converged
from rankproof.methods.white_box.base import MethodOutput
from rankproof.types import Evaluation

EPS = 0.1
SIDE = 8
IDS = torch.arange(12)


class Net(nn.Module):
    """A bend and a matrix, enough pixels that random directions lead nowhere."""

    def __init__(self, before=None, seed=0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(24, SIDE * SIDE, generator=random) / SIDE)
        self.last = nn.Parameter(torch.randn(6, 24, generator=random) / 5)
        self.before = before

    def forward(self, images):
        x = images if self.before is None else self.before(images)
        return torch.tanh(x.flatten(1) @ self.first.T) @ self.last.T


def gallery_of(before=None, count=80):
    images = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return Gallery.build(Ranker(Net(before), "euclidean"), images)


def controlled(gallery, goal=None, method=None, eps=EPS):
    goal, method = goal or QueryRaise(), method or MomentumPGD(steps=24)
    options = {"gallery_ids": IDS, "exclude_self": True, "method": method}
    result = attack(gallery, gallery.images[IDS], goal, Threat(eps), **options)
    return ControlledAttack(gallery=gallery, goal=goal, threat=Threat(eps), method=method, result=result)


def failed(made, *names):
    return {control.name for control in controls(made, names or tuple(CONTROLS)) if control.passed is False}


@pytest.fixture(scope="module")
def healthy():
    return gallery_of()


# -- what works ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "goal", [QueryRaise(), CandidateRaise(), Reorder(k=3)], ids=lambda goal: goal.spec.name
)
def test_no_control_fires_on_a_search_that_works(healthy, goal):
    method = MomentumPGD(steps=40, momentum=0.9, longest=2 / 255) if goal.metric == "tau" else None
    made = controlled(healthy, goal, method)
    found = controls(made)
    assert [control for control in found if control.passed is False] == []
    assert control_flags(found) == []
    names = [control.name for control in found]
    assert {"gradient", "noise", "best-iterate", "png", "jpeg-90", "doubled"} <= set(names)
    assert {control.trials for control in found if control.name in ("noise", "png", "doubled")} == {10}
    assert all(control.goal == goal.spec.name for control in found)


def test_the_figures_are_those_of_the_first_ten_attacks(healthy):
    made = controlled(healthy)
    assert made.few.headline().tolist() == made.result.headline()[:10].tolist()
    found = {control.name: control for control in controls(made, ["noise", "png"])}
    assert found["noise"].compared_with == pytest.approx(float(made.result.headline()[:10].mean()))
    assert (found["png"].passed, found["png"].eps) == (None, EPS)


def test_controls_are_the_same_again_and_none_are_made_without_a_change(healthy):
    made = controlled(healthy)
    assert controls(made, ["noise", "gradient"]) == controls(made, ["noise", "gradient"])
    assert controls(controlled(healthy, eps=0.0)) == ()


# -- models whose gradients say nothing ------------------------------------------------------------


def staircase(images):
    """Correct values in the large, a fine ripple whose slope drowns theirs."""
    return images + 0.004 * torch.sin(images * 4e4)


def rounded(images):
    return torch.round(images * 32) / 32


def saturated(images):
    return torch.tanh(1000 * (images - 0.5)) / 2 + 0.5


@pytest.mark.parametrize("before", [staircase, rounded, saturated], ids=lambda each: each.__name__)
@pytest.mark.parametrize("goal", [QueryRaise(), MaxShift()], ids=lambda goal: goal.spec.name)
def test_a_gradient_that_leads_nowhere(before, goal):
    made = controlled(gallery_of(before), goal, MomentumPGD(steps=2))
    assert failed(made, "gradient") == {"gradient"}
    (flag,) = control_flags(controls(made, ["gradient"]))
    assert (flag.kind, flag.cell) == ("control-gradient", f"{goal.spec.name} at 25.5/255")
    assert "may be false" in flag.text


@pytest.mark.parametrize("before", [rounded, saturated], ids=lambda each: each.__name__)
def test_a_strong_looking_model_whose_wishes_are_not_found_at_any_budget(before):
    made = replace(controlled(gallery_of(before), QueryRaise(), MomentumPGD(steps=8)), first=1)
    assert "eps-1" in failed(made, "eps-1")
    assert "noise" in failed(made, "noise")


def test_a_goal_that_holds_from_the_start_needs_no_gradient(healthy):
    options = {"gallery_ids": IDS, "exclude_self": True, "targets": IDS[:, None]}
    options["method"] = MomentumPGD(steps=5)
    result = attack(healthy, healthy.images[IDS], QueryRaise(), Threat(EPS), **options)
    made = ControlledAttack(
        gallery=healthy, goal=QueryRaise(), threat=Threat(EPS), method=MomentumPGD(steps=5), result=result
    )
    assert [control.name for control in controls(made, ["gradient", "eps-1"])] == []
    assert failed(made) == set()


# -- searches that are broken ----------------------------------------------------------------------


def test_a_search_that_has_not_converged(healthy):
    made = controlled(healthy, QueryRaise(), PGD(steps=2, step=0.01))
    assert failed(made, "doubled") == {"doubled"}


@dataclass(frozen=True)
class Returns:
    """`MomentumPGD`, but it returns an image of its own choice."""

    which: str
    name = "broken"
    inner = MomentumPGD(steps=10)

    def passes(self, eps):
        return self.inner.passes(eps)

    def run(self, original, initial, objective, threat, **more):
        seen = []

        def watched(images, penalty_weight=None):
            seen.append(images.detach().clone())
            return objective(images, penalty_weight)

        output = self.inner.run(original, initial, watched, threat, **more)
        image = {"first": seen[0], "last": seen[1], "best": output.images}[self.which]
        return MethodOutput(image, output.passes, output.zero_gradient)


@pytest.mark.parametrize(("which", "expected"), [("first", True), ("last", True), ("best", False)])
@pytest.mark.parametrize("goal", [QueryRaise(), MaxShift(), Reorder(k=3)], ids=lambda goal: goal.spec.name)
def test_a_search_that_does_not_return_its_best_image(healthy, which, expected, goal):
    made = controlled(healthy, goal, Returns(which))
    assert failed(made, "best-iterate") == ({"best-iterate"} if expected else set())
    (control,) = controls(made, ["best-iterate"])
    sign = 1 if goal.spec.larger_is_stronger else -1
    assert sign * control.value >= sign * control.compared_with - 1e-6


def test_the_last_image_of_a_published_descent_is_its_definition(healthy):
    (control,) = controls(controlled(healthy, QueryRaise(), PGD(steps=30, step=0.1)), ["best-iterate"])
    assert control.passed is None
    assert control.value < control.compared_with


def test_a_search_that_cannot_cross_the_image_fails_where_everything_is_allowed(healthy):
    made = replace(controlled(healthy, QueryRaise(), PGD(steps=3, step=0.001)), first=1)
    assert failed(made, "eps-1") == {"eps-1"}
    (control,) = controls(made, ["eps-1"])
    assert (control.eps, control.compared_with) == (1.0, 1.0)
    assert "as it is, fulfils it" in control.text


# -- files -----------------------------------------------------------------------------------------


def test_an_attack_that_lives_below_a_grey_level_does_not_survive_the_file():
    """The encoder sees what is left after rounding, magnified: a PNG has nothing of it."""

    def between_levels(images):
        return 0.5 + 100 * (images - torch.round(images.detach() * 255) / 255)

    made = controlled(gallery_of(between_levels), QueryRaise(), eps=2 / 255)
    control = png(made)
    assert control is not None
    assert control.passed is False


@pytest.mark.parametrize("channels", [1, 3])
def test_files_come_back_as_they_were_written(make, channels):
    pixels = torch.randint(256, (channels, 16, 16), generator=make.random(1)).to(torch.uint8)
    assert torch.equal(decode_pixels(encode_png(pixels)), pixels)
    smooth = torch.linspace(0, 255, 16).to(torch.uint8).expand(channels, 16, 16).contiguous()
    read = decode_pixels(encode_jpeg(smooth))
    assert read.shape == smooth.shape
    assert int((read.int() - smooth.int()).abs().max()) <= 8


def test_colours_keep_their_resolution():
    """With halved colours a red and a green column side by side would mix."""
    pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    pixels[0, :, ::2], pixels[1, :, 1::2] = 255, 255
    read = decode_pixels(encode_jpeg(pixels, 95)).int()
    assert int((read - pixels.int()).abs().max()) < 60


def test_images_of_other_channels_have_no_file(make):
    images = torch.rand(20, 2, 4, 4, generator=make.random(0))
    gallery = Gallery.build(Ranker(lambda x: x.flatten(1) @ torch.eye(32)[:, :5]), images)
    options = {"gallery_ids": IDS, "exclude_self": True, "method": MomentumPGD(steps=3)}
    result = attack(gallery, images[IDS], QueryRaise(), Threat(EPS), **options)
    made = ControlledAttack(
        gallery=gallery, goal=QueryRaise(), threat=Threat(EPS), method=MomentumPGD(steps=3), result=result
    )
    assert controls(made, ["png", "jpeg-90"]) == ()


# -- doubling --------------------------------------------------------------------------------------


def test_a_doubled_search_takes_twice_the_evaluations():
    assert doubled(MomentumPGD(), 8 / 255).passes(8 / 255) == 2 * MomentumPGD().passes(8 / 255)
    assert doubled(PGD(rule="iccv21"), 8 / 255) == PGD(rule="iccv21", steps=48)
    for metric, eps in (("rank", 2 / 255), ("rank", 0.3), ("tau", 2 / 255)):  # blocks of 20 and of more
        assert doubled(converged(metric), eps).passes(eps) == 2 * converged(metric).passes(eps)

    @dataclass(frozen=True)
    class Outer(Returns):
        search: MomentumPGD

    assert doubled(Outer("best", MomentumPGD(steps=7)), 0.1).search.steps == 14
    assert doubled(Returns("best"), 0.1) == Returns("best")


def test_the_best_image_is_kept_of_parts_of_a_batch_too():
    """A search may go on with some of its attacks: what it then sees belongs to these."""

    class Parts:
        def __call__(self, images, penalty_weight=None):
            loss = images.flatten(1).sum(1)
            return Evaluation(loss, -loss.detach())

        def take(self, rows):
            return self

    @dataclass(frozen=True)
    class OnlyTheLast:
        name = "parts"

        def passes(self, eps):
            return 2

        def run(self, original, initial, objective, threat, **more):
            objective(original)
            objective.take(torch.tensor([2]))(original[2:] - 0.05)
            objective.take(torch.tensor([1]))(original[1:2] - 0.5)  # outside of eps
            return MethodOutput(original, 2, torch.zeros(3, dtype=torch.bool))

    original = torch.full((3, 1, 2, 2), 0.5)
    best = BestSeen(method=OnlyTheLast())
    output = best.run(original, original, Parts(), Threat(EPS), seed=0, rng_keys=[5, 6, 7])
    assert output.images[:, 0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.45])
    highest, returned = best.fitness[5, 6, 7]
    assert (highest - returned).tolist() == pytest.approx([0.0, 0.0, 0.2])
