"""Sums of hinges between chosen items and a whole gallery, with their gradient in closed form.

The loss of QA+ is a mean over c in C and x in X of [d(q, c) - d(q, x)]+. It is piecewise linear in the
distances, so its gradient is a matter of counting: an item x loses 1 for every chosen c that is farther,
and a chosen c gains 1 for every x that is nearer - which is its rank. And because it is homogeneous of
degree 1, the loss itself is the inner product of distances and gradient. One pass over the distances gives
loss, gradient and ranks for all chosen items at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

RAISE, LOWER = 1, -1
ROWS = 16  # rows of distances handled together: they stay in the processor's cache; a GPU takes all at once
NEAR_SHARE = 0.05  # of all items: up to here picking out the nearer ones beats working on whole rows


class _GalleryHinge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        distances: Tensor,
        ids: Tensor,
        weights: Tensor,
        columns: "_Columns",
    ) -> tuple[Tensor, Tensor]:
        directions, distance_only, near_top, ordered, order_weight = columns
        d = distances.gather(1, ids)  # (b, m) of d(q, c)
        gradient = torch.zeros_like(distances)  # (b, n)
        counts = torch.empty_like(d)
        signs = [
            0.0 if alone else -float(direction)
            for direction, alone in zip(directions, distance_only, strict=True)
        ]
        m = d.shape[1]
        groups = [
            group for group in (slice(0, m - near_top), slice(m - near_top, m)) if group.start < group.stop
        ]
        together = ROWS if distances.device.type == "cpu" else max(1, len(distances))
        for start in range(0, len(distances), together):
            rows = slice(start, start + together)
            for group in groups:
                chosen = [values[rows, group] for values in (d, weights, counts)]
                part = _Part(distances[rows], gradient[rows], *chosen)
                if directions[group] != [RAISE] * part.d.shape[1] or not _count_near(part, signs[group]):
                    _count_rows(part, directions[group], signs[group])
        times = torch.where(d.new_tensor(distance_only) > 0, torch.ones_like(counts), counts)
        chosen_gradient = d.new_tensor(directions) * weights * times  # ECCV eq. 9 and 11, or 16 and 17
        if ordered:
            chosen_gradient[:, :ordered] += order_weight * _order_gradient(d[:, :ordered])  # ICCV eq. 1
        gradient.scatter_add_(1, ids, chosen_gradient)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(counts)
        return torch.linalg.vecdot(distances, gradient), counts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        scale = grads[0]
        if not bool((scale == 1).all()):
            gradient = gradient * scale[:, None]
        return (gradient, None, None, None)


class _Columns(NamedTuple):
    """What is wanted of the chosen items; the arguments of `gallery_hinge`."""

    directions: list[int]
    distance_only: list[bool]
    near_top: int
    ordered: int
    order_weight: float


class _Part(NamedTuple):
    """Some rows and some chosen items; `gradient` and `counts` are filled in place."""

    distances: Tensor
    gradient: Tensor
    d: Tensor
    weights: Tensor
    counts: Tensor


def _count_rows(part: _Part, directions: Sequence[int], signs: Sequence[float]) -> None:
    """Count the items each hinge is active for and add its share to the gradient."""
    active = torch.empty_like(part.distances)
    for column, (direction, sign) in enumerate(zip(directions, signs, strict=True)):
        compare = torch.lt if direction == RAISE else torch.gt
        compare(part.distances, part.d[:, column, None], out=active)
        part.counts[:, column] = active.sum(1)
        if sign:
            part.gradient.addcmul_(active, part.weights[:, column, None], value=sign)


def _count_near(part: _Part, signs: Sequence[float]) -> bool:
    """`_count_rows` for raised items near the top: only items nearer than the farthest of them are touched.

    Returns:
        False, with nothing done, where so many items are nearer that whole rows are quicker.
    """
    near = part.distances < part.d.amax(1, keepdim=True)
    if int(near.sum()) > NEAR_SHARE * near.numel():
        return False
    rows, items = near.nonzero(as_tuple=True)
    active = (part.distances[rows, items, None] < part.d[rows]).to(part.d.dtype)  # (nearer, m)
    part.counts.zero_().index_add_(0, rows, active)
    part.gradient[rows, items] += (active * part.weights[rows]) @ part.d.new_tensor(signs)
    return True


def _order_gradient(d: Tensor) -> Tensor:
    """Gradient of the sum over i < j of [d_i - d_j]+ with respect to d (b, k), in wanted order."""
    wrong = torch.triu(d[:, :, None] > d[:, None, :], diagonal=1).to(d.dtype)  # (b, k, k)
    return wrong.sum(2) - wrong.sum(1)


def gallery_hinge(
    distances: Tensor,
    ids: Tensor,
    weights: Tensor,
    directions: list[int],
    *,
    distance_only: list[bool] | None = None,
    near_top: int = 0,
    ordered: int = 0,
    order_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted hinges of chosen items against the whole gallery, and of ordered items among themselves.

    L = sum over c of  w_c * sum over x in X of [d(q, c) - d(q, x)]+     raised   (ECCV eq. 11)
                       w_c * sum over x in X of [d(q, x) - d(q, c)]+     lowered  (ECCV eq. 9)
                       w_c * d(q, c)  or  -w_c * d(q, c)                 distance (ECCV eq. 16, 17)
        + order_weight * sum over i < j of [d(q, c_i) - d(q, c_j)]+      ordered  (ICCV eq. 1)

    Args:
        distances: (b, n) distances of each query to the whole gallery; the gradient flows through these.
        ids: (b, m) positions of the chosen items.
        weights: (b, m) weight of each, at least 0.
        directions: RAISE or LOWER for each of the m columns.
        distance_only: which columns use the bare distance instead of hinges.
        near_top: how many of the last chosen items are near the top; they are counted separately.
        ordered: how many of the first chosen items are in wanted order.
    Returns:
        (b,) losses; (b, m) for each chosen item the number of strictly nearer (raised) or strictly
        farther (lowered) items.
    """
    alone = distance_only if distance_only is not None else [False] * ids.shape[1]
    columns = _Columns(directions, alone, near_top, ordered, order_weight)
    loss, counts = _GalleryHinge.apply(distances, ids, weights, columns)  # type: ignore[no-untyped-call]
    return loss, counts
