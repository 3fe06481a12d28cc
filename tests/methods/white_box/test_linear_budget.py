"""The linear programme of the least change, against a solver of linear programmes."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from rankproof.methods.white_box.linear_budget import least_change


def exact(slopes: Tensor, limits: Tensor, low: Tensor, high: Tensor) -> float:
    """The smallest budget of one programme by SciPy."""
    rows, identity = slopes.double().numpy(), np.eye(slopes.shape[1])
    ones = np.ones((slopes.shape[1], 1))
    above = np.vstack(
        [
            np.hstack([rows, np.zeros((len(rows), 1))]),
            np.hstack([identity, -ones]),
            np.hstack([-identity, -ones]),
        ]
    )
    right = np.concatenate([limits.double().numpy(), np.zeros(2 * slopes.shape[1])])
    ranges = [*zip(low.tolist(), high.tolist(), strict=True), (0, None)]
    cost = np.zeros(slopes.shape[1] + 1)
    cost[-1] = 1
    return float(linprog(cost, A_ub=above, b_ub=right, bounds=ranges).fun)


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    slopes = torch.randn(6, 4, 300, generator=random) + 2 * torch.randn(6, 1, 300, generator=random)
    slopes *= torch.tensor([1.0, 10.0, 0.1, 1e-4])[:, None]  # inequalities of different sizes
    limits = -torch.rand(6, 4, generator=random) * slopes.abs().sum(2) * 0.02
    pixels = torch.rand(6, 300, generator=random)
    return slopes, limits, -pixels, 1 - pixels


def test_agrees_with_a_solver(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    slopes, limits, low, high = problem
    found = least_change(slopes, limits, low, high, torch.ones(6), torch.zeros(6, 4))
    right = torch.tensor([exact(*row) for row in zip(slopes, limits, low, high, strict=True)])
    assert torch.allclose(found.eps, right.float(), rtol=0.01)
    assert bool((found.change.abs() <= found.eps[:, None] * (1 + 1e-6)).all())
    missed = torch.einsum("bpn,bn->bp", slopes, found.change) - limits
    assert bool((missed / slopes.abs().sum(2) <= 0.01 * found.eps[:, None]).all())


def test_a_narrow_box_asks_for_more(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    slopes, limits, low, high = problem
    wide = least_change(slopes, limits, low, high, torch.ones(6), torch.zeros(6, 4)).eps
    half = torch.arange(300) % 2 == 0
    low, high = low * half, high * half  # every other pixel stays
    right = torch.tensor([exact(*row) for row in zip(slopes, limits, low, high, strict=True)])
    found = least_change(slopes, limits, low, high, torch.ones(6), torch.zeros(6, 4)).eps
    assert torch.allclose(found, right.float(), rtol=0.01)
    assert bool((found > wide).all())


def test_what_cannot_be_fulfilled_is_approached(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    slopes, limits, low, high = problem
    reach = torch.full((6,), 1e-3)
    found = least_change(slopes, limits, low.clamp(min=-1e-3), high.clamp(max=1e-3), reach, torch.zeros(6, 4))
    assert torch.equal(found.eps, reach)
    scale = slopes.abs().sum(2)
    missed = (torch.einsum("bpn,bn->bp", slopes, found.change) - limits) / scale
    assert bool((missed.norm(dim=1) < (-limits / scale).norm(dim=1)).all())


def test_a_row_without_a_slope_does_no_harm(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    slopes, limits, low, high = problem
    slopes[:, 2] = 0
    found = least_change(slopes, limits, low, high, torch.ones(6), torch.zeros(6, 4))
    assert bool(found.change.isfinite().all())
    assert bool(found.price.isfinite().all())
