"""How far apart two embeddings are: smaller is nearer, always."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Distance(Protocol):
    """A distance between embeddings; every method keeps the precision of its inputs."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in files."""
        ...

    def prepare(self, z: Tensor) -> Tensor:
        """What a ranker stores of the raw embeddings (b, d): scaled to unit length, or left alone."""
        ...

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of every row of `a` (m, d) to every row of `b` (n, d): (m, n)."""
        ...

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances along the last dimension of two tensors that broadcast: (..., d) to (...)."""
        ...


@dataclass(frozen=True)
class Cosine:
    """d(a, b) = 1 - cos(a, b), in [0, 2], of embeddings already scaled to unit length."""

    name = "cosine"

    def prepare(self, z: Tensor) -> Tensor:
        """Scale to unit length."""
        return functional.normalize(z, dim=-1)

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - a b^T in one fused product."""
        return torch.addmm(a.new_ones(1), a, b.t(), alpha=-1)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - <a, b> row by row."""
        return 1 - (a * b).sum(-1)


@dataclass(frozen=True)
class Euclidean:
    """d(a, b) = |a - b|, the plain un-squared length."""

    name = "euclidean"

    def prepare(self, z: Tensor) -> Tensor:
        """Raw embeddings are used as they are."""
        return z

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """|a_i - b_j| through one matrix product; the gradient at distance 0 is 0."""
        result: Tensor = _EuclideanPairwise.apply(a, b)  # type: ignore[no-untyped-call]
        return result

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """|a - b| row by row; the gradient at distance 0 is 0."""
        length: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
        return length


@dataclass(frozen=True)
class Sphere(Euclidean):
    """d(a, b) = |a - b| of embeddings scaled to unit length, in [0, 2]: the later defences' distance."""

    name = "sphere"

    def prepare(self, z: Tensor) -> Tensor:
        """Scale to unit length."""
        return functional.normalize(z, dim=-1)


class _EuclideanPairwise(torch.autograd.Function):
    """All distances between two sets, with a backward pass that is two matrix products and no root."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        squares = torch.addmm(b.square().sum(1), a, b.t(), alpha=-2)  # (m, n)
        distances = squares.add_(a.square().sum(1)[:, None]).clamp_(min=0).sqrt_()
        ctx.save_for_backward(a, b, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, distances = ctx.saved_tensors
        weights = (grads[0] / distances).masked_fill_(distances == 0, 0)  # (m, n)
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = torch.addmm(a * weights.sum(1)[:, None], weights, b, alpha=-1)
        if ctx.needs_input_grad[1]:
            grad_b = torch.addmm(b * weights.sum(0)[:, None], weights.t(), a, alpha=-1)
        return grad_a, grad_b


def distance_by_name(name: str) -> Distance:
    """The distance a record or a command line names."""
    distances: dict[str, Distance] = {"cosine": Cosine(), "euclidean": Euclidean(), "sphere": Sphere()}
    if name not in distances:
        raise ValueError(f"unknown distance {name!r}; known: {', '.join(distances)}")
    return distances[name]
