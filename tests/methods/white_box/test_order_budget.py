"""The search for the smallest budget by linear programmes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.white_box.budget_search import BudgetProblem
from rankproof.methods.white_box.order_budget import OrderBudget
from rankproof.types import Evaluation, Images

COUNT, MARGINS, PIXELS = 3, 4, 64


def make(slopes: Tensor, offsets: Tensor, bend: float, original: Images, keys: list[int]) -> BudgetProblem:
    """A wish of the inequalities slopes r + offsets + bend (what the first rows do)^2 <= 0."""

    def margins(images: Images) -> Tensor:
        moved = torch.einsum("bpn,bn->bp", slopes, (images - original).flatten(1))
        return moved + offsets + bend * moved.roll(1, dims=1) ** 2

    def towards(images: Images, penalty_weight: Tensor | None = None) -> Evaluation:
        loss = margins(images).amax(1)
        return Evaluation(loss, -loss.detach())

    def take(rows: Tensor) -> BudgetProblem:
        return make(slopes[rows], offsets[rows], bend, original[rows], [keys[int(row)] for row in rows])

    return BudgetProblem(
        original=original,
        towards=towards,
        take=take,
        seed=0,
        rng_keys=keys,
        margins=margins,
    )


def problem(bend: float = 0.0) -> BudgetProblem:
    random = torch.Generator().manual_seed(1)
    slopes = torch.randn(COUNT, MARGINS, PIXELS, generator=random)
    offsets = torch.rand(COUNT, MARGINS, generator=random) - 0.3
    return make(slopes, offsets, bend, torch.rand(COUNT, 1, 8, 8, generator=random), list(range(COUNT)))


def sizes(problem: BudgetProblem, images: Images) -> Tensor:
    return (images - problem.original).flatten(1).abs().amax(1)


def lower_bound(problem: BudgetProblem) -> Tensor:
    """By the dual, over a fine grid of random multipliers: no budget below it is enough where bend = 0."""
    assert problem.margins is not None
    original = problem.original.clone().requires_grad_(True)
    margins = problem.margins(original)
    slopes = torch.stack([torch.autograd.grad(m.sum(), original, retain_graph=True)[0] for m in margins.T], 1)
    weights = torch.rand(50_000, MARGINS, generator=torch.Generator().manual_seed(2)) ** 3
    bounds = [
        (weights @ offset) / (weights @ rows.flatten(1)).abs().sum(1)
        for rows, offset in zip(slopes, margins.detach(), strict=True)
    ]
    return torch.stack([each.max() for each in bounds])


def test_straight_inequalities_are_solved_to_the_end() -> None:
    straight = problem()
    output = OrderBudget().run(straight)
    size, least = sizes(straight, output.images), lower_bound(straight)
    assert bool((straight.towards(output.images).loss <= 0).all())
    assert bool((size >= 0.97 * least).all())  # the grid is not endless
    assert bool((size <= 1.03 * least).all())


@pytest.mark.parametrize("bend", [0.1, 0.3])
def test_bent_inequalities_are_fulfilled_within_the_evaluations(bend: float) -> None:
    bent, search = problem(bend), OrderBudget()
    output = search.run(bent)
    assert bool((bent.towards(output.images).loss <= 0).all())
    assert bool((sizes(bent, output.images) > 0).all())
    assert bool((output.evaluations <= search.evaluations).all())
    assert torch.equal(output.images, output.images.clamp(0, 1))
    many = OrderBudget(evaluations=400, growth=0.03).run(bent)
    assert bool((sizes(bent, output.images) <= 1.05 * sizes(bent, many.images)).all())


def test_an_attack_depends_on_nothing_else_in_the_batch() -> None:
    search = OrderBudget(evaluations=60)
    together = search.run(problem(0.3))
    for row in (0, 2):
        alone = search.run(problem(0.3).take(torch.tensor([row])))
        assert torch.allclose(alone.images[0], together.images[row], atol=1e-5)
        assert int(alone.evaluations[0]) == int(together.evaluations[row])


def test_few_evaluations_are_kept_to() -> None:
    for evaluations in (12, 20, 31):
        output = OrderBudget(evaluations=evaluations).run(problem(0.3))
        assert int(output.evaluations.max()) <= evaluations


def test_what_holds_already_is_left_alone() -> None:
    start = problem()
    random = torch.Generator().manual_seed(5)
    slopes = torch.randn(COUNT, MARGINS, PIXELS, generator=random)
    offsets = torch.full((COUNT, MARGINS), -1.0)
    offsets[1] = 0.5
    mixed = make(slopes, offsets, 0.0, start.original, list(range(COUNT)))
    size = sizes(mixed, OrderBudget(evaluations=60).run(mixed).images)
    assert (size > 0).tolist() == [False, True, False]


def test_what_cannot_be_reached_returns_the_original() -> None:
    start = problem()
    flat, missed = torch.zeros(COUNT, MARGINS, PIXELS), torch.ones(COUNT, MARGINS)
    never = make(flat, missed, 0.0, start.original, list(range(COUNT)))
    output = OrderBudget(evaluations=40).run(never)
    assert torch.equal(output.images, never.original)


def test_a_wish_without_inequalities_is_refused() -> None:
    with pytest.raises(RankproofError, match="ShrinkingBudget"):
        OrderBudget().run(replace(problem(), margins=None))
