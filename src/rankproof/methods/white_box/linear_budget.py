"""The least change that fulfils a few linear inequalities: a linear programme of many pixels and few rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 12  # of Newton's method on the multipliers; they settle after about eight
ROUGH, FINE = 4.0, 0.5  # how many pixels lie off the border: first, and in the end
SOFT = 1e-4  # inequalities are softened by this much, so that those that cannot be fulfilled have an answer
LONGEST = 2.0  # no multiplier changes by more than this share of their sum at once
DEAREST = 1e3
SMALLEST = 1e-30  # stands for 0 in a divisor
BEYOND = 10.0  # pixels lie in [0, 1]: what asks for more than this asks for too much, whatever it is
SETTLED = 0.6  # share of the rounds after which the problem is as hard as it gets


@dataclass(frozen=True)
class LeastChange:
    """The solution of b linear programmes.

    Args:
        change: (b, n) what is added to the pixels.
        eps: (b,) the largest of it, but for rounding.
        multipliers: (b, p) how much every inequality costs once its row is scaled to a sum of 1; only their
            ratios matter.
        price: (b,) by how much eps grows, at most `DEAREST`, when the scaled inequalities become harder by 1.
    """

    change: Tensor
    eps: Tensor
    multipliers: Tensor
    price: Tensor


def least_change(
    slopes: Tensor, limits: Tensor, low: Tensor, high: Tensor, largest: Tensor, multipliers: Tensor
) -> LeastChange:
    """Find the change that needs the smallest budget, in a box.

    min eps  subject to  slopes y <= limits,  |y|_inf <= eps,  low <= y <= high

    The dual has one multiplier for each inequality, a handful, whatever the number of pixels. For given
    multipliers l and budget eps every pixel goes to the end of its range that l . slopes asks for, and

        l . limits - min over the box of l . slopes y <= 0

    is necessary, so it gives a lower bound on eps, which grows round by round; the multipliers follow by
    Newton's method on the dual of a slightly rounded problem, in which pixels that hardly matter stay
    inside. Where no change in the box fulfils all of them, the squares of what is missing are as small as
    they can be.

    Args:
        slopes: (b, p, n) one row for each inequality.
        limits: (b, p) their right-hand sides.
        low, high: (b, n) the range of each pixel, 0 or the present change inside.
        largest: (b,) the largest eps that the box allows.
        multipliers: (b, p) a first guess; zeros for none.
    """
    scale = slopes.abs().sum(2).clamp_min(SMALLEST)  # a row then moves by eps at most
    rows, wanted = slopes / scale[:, :, None], (limits / scale).clamp(-BEYOND, BEYOND)
    count = slopes.shape[2]
    weights = torch.where(multipliers.sum(1, keepdim=True) > 0, multipliers, (-wanted).relu())
    weights = ROUGH * weights / weights.sum(1, keepdim=True).clamp_min(SMALLEST)
    least = torch.maximum(low, -high).amax(1).relu()  # an eps below this leaves the box empty
    eps = torch.minimum(torch.maximum(least, (-wanted).amax(1)), largest).clamp_min(1e-12)
    for number in range(ROUNDS):
        progress = min(1.0, number / (SETTLED * ROUNDS))
        softness = ROUGH * (FINE / ROUGH) ** progress / count
        pull = _pull(weights, rows)
        eps = torch.minimum(torch.maximum(eps, _bound(pull, weights, wanted, low, high, eps)), largest)
        change, inside = _settle(pull, low, high, eps, softness)
        missing = (torch.einsum("bpn,bn->bp", rows, change) - wanted) / eps[:, None] - SOFT * weights
        weights = (weights + _newton(rows, inside / softness, missing, weights)).relu()
    pull = _pull(weights, rows)
    change, _ = _settle(pull, low, high, eps, softness)
    return LeastChange(change, eps, weights, _price(pull, weights, low, high, eps))


def _pull(weights: Tensor, rows: Tensor) -> Tensor:
    """(b, n) the weighted sum of the rows."""
    return torch.einsum("bp,bpn->bn", weights, rows)


def _ends(pull: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """(b, n) where each pixel is pulled, and whether it is eps that stops it there."""
    down, reach = pull > 0, eps[:, None]
    ends = torch.where(down, torch.maximum(low, -reach), torch.minimum(high, reach))
    return ends, torch.where(down, low < -reach, (high > reach) & (pull < 0))


def _bound(pull: Tensor, weights: Tensor, wanted: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """(b,) an eps below which the weighted sum of the inequalities cannot be fulfilled."""
    ends, stopped = _ends(pull, low, high, eps)
    missing = (pull * ends).sum(1) - (weights * wanted).sum(1)
    return eps + missing / (pull.abs() * stopped).sum(1).clamp_min(SMALLEST)


def _price(pull: Tensor, weights: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """(b,) the sum of the multipliers in units of eps; large where eps does not help."""
    _, stopped = _ends(pull, low, high, eps)
    total = weights.sum(1)
    return total / torch.maximum((pull.abs() * stopped).sum(1), total / DEAREST).clamp_min(SMALLEST)


def _settle(pull: Tensor, low: Tensor, high: Tensor, eps: Tensor, softness: float) -> tuple[Tensor, Tensor]:
    """(b, n) the change that goes with the multipliers, and which pixels lie inside their range."""
    reach = eps[:, None]
    free = -pull * (reach / softness)
    low, high = torch.maximum(low, -reach), torch.minimum(high, reach)
    return torch.minimum(torch.maximum(free, low), high), ((free > low) & (free < high)).to(pull.dtype)


def _newton(rows: Tensor, inside: Tensor, missing: Tensor, weights: Tensor) -> Tensor:
    """(b, p) a step of the multipliers; those at 0 that would become negative stay."""
    moving = (weights > 0) | (missing > 0)
    identity = torch.eye(rows.shape[1], dtype=torch.float64, device=rows.device)
    curvature = ((rows * inside[:, None]) @ rows.mT).double() + SOFT * identity
    curvature = torch.where(moving[:, :, None] & moving[:, None, :], curvature, identity)
    solved, _ = torch.linalg.solve_ex(curvature, (missing * moving).double()[:, :, None])
    step = torch.nan_to_num(solved[:, :, 0]).to(missing.dtype)
    longest = LONGEST * weights.sum(1, keepdim=True) + 1
    shortened = longest / step.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
    return step * shortened.clamp(max=1)
