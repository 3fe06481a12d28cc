from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rankproof import (
    NES,
    PGD,
    PSO,
    SPSA,
    Beta,
    Converged,
    LocalOracle,
    MomentumPGD,
    Rand,
    RankproofError,
    Reorder,
    ThompsonSampling,
    Threat,
    attack,
)
from rankproof.methods import BlackBoxMethod, registry
from rankproof.methods.black_box.base import AttackTensors, Problem
from rankproof.types import Feedback

WHITE_BOX = {"pgd": PGD(), "strong": MomentumPGD(), "converged": Converged()}
BLACK_BOX = {
    "auto": ThompsonSampling(),
    "thompson": ThompsonSampling(),
    "rand": Rand(),
    "beta": Beta(),
    "pso": PSO(),
    "nes": NES(),
    "spsa": SPSA(),
}


def test_the_names_are_those_of_both_kinds():
    assert registry.names("white-box") == tuple(WHITE_BOX)
    assert registry.names("black-box") == tuple(BLACK_BOX)
    assert set(registry.names()) == {*WHITE_BOX, *BLACK_BOX}


@pytest.mark.parametrize(("name", "method"), [*WHITE_BOX.items(), *BLACK_BOX.items()])
def test_a_name_gives_its_method(name, method):
    assert registry.parse(name) == method
    known = registry.spec(name)
    assert known.name == name
    assert known.kind == ("white-box" if name in WHITE_BOX else "black-box")
    assert known.published == (name not in ("strong", "converged", "auto", "thompson"))


@pytest.mark.parametrize("name", ["pgd", "strong"])
def test_steps_and_rule_of_a_descent_follow_the_goal(name):
    assert registry.parse(name, "rank").rule == registry.parse(name, "shift").rule == "eccv20"
    assert registry.parse(name, "tau").rule == "iccv21"
    assert registry.parse(name, "tau", steps=7).steps == 7


def test_converged_begins_with_the_search_of_strong_and_has_a_tolerance_for_each_figure():
    for metric, steps in (("rank", None), ("tau", 7), ("shift", None)):
        assert registry.parse("converged", metric, steps).search == registry.parse("strong", metric, steps)
    assert registry.parse("converged", "rank").tolerance == 0.001  # of the gallery
    assert registry.parse("converged", "tau").tolerance < 2 / (10 * 9 / 2)  # one pair of ten
    assert registry.parse("converged", "shift").tolerance == 0 < registry.parse("converged", "shift").relative


@pytest.mark.parametrize("name", ["", "PGD", "thomson", "pgd "])
def test_an_unknown_method_is_named_with_all_that_would_do(name):
    for call in (registry.spec, registry.parse, registry.parse_black_box):
        with pytest.raises(RankproofError, match=f"method '{name}' is unknown; known: ") as caught:
            call(name)
        kind = "black-box" if call is registry.parse_black_box else None
        assert str(caught.value).endswith(f"known: {', '.join(registry.names(kind))}")


@pytest.mark.parametrize("name", WHITE_BOX)
def test_a_method_with_gradients_is_no_black_box_method(name):
    with pytest.raises(RankproofError, match=f"method '{name}' needs gradients; known: auto, thompson, rand"):
        registry.parse_black_box(name)


# -- a method of somebody else's -------------------------------------------------------------------


@dataclass(frozen=True)
class BestCorner(AttackTensors):
    """The best corner of each attack so far, and its score."""

    corner: Tensor
    score: Tensor


@dataclass(frozen=True, kw_only=True)
class Corners(BlackBoxMethod):
    """Corners of the ball near the best one: a tenth of its signs is turned."""

    population: int = 8

    name = "corners"

    def begin(self, problem: Problem, clean: Feedback) -> BestCorner:
        return BestCorner(problem.high.clone(), clean.score[:, 0])

    def ask(self, problem: Problem, state: BestCorner, number: int) -> Tensor:
        turned = problem.uniform(number, self.name, self.population) > 0.8
        return problem.clip(torch.where(turned, -1, 1) * state.corner[:, None])

    def tell(
        self, problem: Problem, state: BestCorner, number: int, points: Tensor, feedback: Feedback
    ) -> BestCorner:
        score, place = feedback.score.to(state.score).max(1)
        better = score > state.score
        corner = points[torch.arange(len(points)), place]
        return BestCorner(
            torch.where(better[:, None, None, None], corner, state.corner),
            torch.where(better, score, state.score),
        )


@pytest.fixture
def corners():
    registry.register("corners", "black-box", lambda metric, steps: Corners())
    yield Corners
    registry.unregister("corners")


def test_a_registered_method_attacks_by_its_name(corners, gallery, pictures, tmp_path):
    assert registry.names("black-box")[-1] == "corners"
    assert registry.spec("corners") == registry.MethodSpec(
        "corners", "black-box", False, registry.spec("corners").build
    )
    method, ids = registry.parse_black_box("corners"), torch.arange(10)
    options = {"method": method, "budget": 60, "gallery_ids": ids}
    oracle, goal = LocalOracle(gallery, 20), Reorder(k=3)
    result = attack(oracle, pictures[:10], goal, Threat(0.2), **options)
    assert result.method == "corners"
    assert result.log.spent.max() == 60
    assert result.tau.mean() > result.tau_before.mean() + 0.2
    assert result.summary.method == "corners"
    whole = attack(oracle, pictures[:10], goal, Threat(0.2), search_folder=tmp_path, **options)
    assert torch.equal(whole.adversarial, result.adversarial)


def test_a_name_is_registered_once(corners):
    for name in ("corners", "pgd", "auto"):
        with pytest.raises(
            RankproofError, match=f"method '{name}' is registered already; choose another name"
        ):
            registry.register(name, "black-box", lambda metric, steps: Corners())


def test_an_unregistered_method_is_unknown_again(corners):
    registry.unregister("corners")
    with pytest.raises(RankproofError, match="method 'corners' is unknown"):
        registry.parse("corners")
    registry.register("corners", "black-box", lambda metric, steps: Corners())


def test_metric_and_steps_are_handed_to_what_builds_a_method():
    seen = SimpleNamespace(given=None)

    def build(metric, steps):
        seen.given = metric, steps
        return PGD(steps=steps)

    registry.register("watched", "white-box", build, published=True)
    try:
        assert registry.parse("watched", "tau", 9) == PGD(steps=9)
        assert seen.given == ("tau", 9)
        assert registry.spec("watched").published
    finally:
        registry.unregister("watched")
