"""How far apart two embeddings are: smaller is nearer, always."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

SHORT, LONG = 1e-9, 1e15  # lengths whose squares single precision holds well
BIAS, MANTISSA, EXPONENTS = 1023, 52, 1000  # the layout of a double, and the exponents that are looked at


@runtime_checkable
class Distance(Protocol):
    """A distance between embeddings; every method keeps the precision of its inputs and is differentiable."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in files."""
        ...

    def prepare(self, z: Tensor) -> Tensor:
        """Embeddings (..., d) as they are compared: scaled to unit length, or left alone."""
        ...

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of every row of `a` (m, d) to every row of `b` (n, d), both prepared: (m, n)."""
        ...

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances along the last dimension of prepared embeddings that broadcast: (..., d) to (...)."""
        ...


class LengthDistance(ABC):
    """A distance that grows with the length |a - b| of prepared embeddings, so that its ranks can be exact.

    Ranks are taken from squared lengths (`rankproof.ranking.exact`). Where all embeddings lie close together
    attacks subtract one common centre from them, which changes no length, and use `near_pairwise` and
    `near_between`.
    """

    unit: ClassVar[bool]
    """Whether embeddings are scaled to unit length before they are compared."""
    zero_adds: ClassVar[float] = 0.0
    """What an embedding of length 0, which has no direction, adds to its squared lengths."""

    @abstractmethod
    def from_squared(self, squared: Tensor) -> Tensor:
        """The distances that belong to squared lengths."""

    @abstractmethod
    def near_pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """`pairwise` of prepared embeddings less a common centre."""

    @abstractmethod
    def near_between(self, a: Tensor, b: Tensor) -> Tensor:
        """`between` of prepared embeddings less a common centre."""


@dataclass(frozen=True)
class Cosine(LengthDistance):
    """d(a, b) = 1 - cos(a, b) = |a/|a| - b/|b||^2 / 2, in [0, 2]; 1 where an embedding has length 0."""

    name = "cosine"
    unit = True
    zero_adds = 1.0  # |0 - b/|b||^2 + 1 = 2, which is the distance 1

    def from_squared(self, squared: Tensor) -> Tensor:
        """Half of the squared length."""
        return squared / 2

    def prepare(self, z: Tensor) -> Tensor:
        """Scale to unit length."""
        return _to_unit(z)

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - a b^T in one fused product."""
        return torch.addmm(a.new_ones(1), a, b.t(), alpha=-1)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - <a, b> row by row."""
        return 1 - (a * b).sum(-1)

    def near_pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """|a - b|^2 / 2, through one matrix product."""
        halves = torch.addmm(b.square().sum(1) / 2, a, b.t(), alpha=-1)
        return halves + a.square().sum(1)[:, None] / 2

    def near_between(self, a: Tensor, b: Tensor) -> Tensor:
        """|a - b|^2 / 2 row by row."""
        return (a - b).square().sum(-1) / 2


@dataclass(frozen=True)
class Euclidean(LengthDistance):
    """d(a, b) = |a - b|, the plain un-squared length."""

    name = "euclidean"
    unit = False

    def from_squared(self, squared: Tensor) -> Tensor:
        """The length."""
        return squared.sqrt()

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

    def near_pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """As `pairwise`: a common centre changes no difference."""
        return self.pairwise(a, b)

    def near_between(self, a: Tensor, b: Tensor) -> Tensor:
        """As `between`: a common centre changes no difference."""
        return self.between(a, b)


@dataclass(frozen=True)
class Sphere(Euclidean):
    """d(a, b) = |a - b| of embeddings scaled to unit length, in [0, 2]: the later defences' distance."""

    name = "sphere"
    unit = True

    def prepare(self, z: Tensor) -> Tensor:
        """Scale to unit length."""
        return _to_unit(z)


def _to_unit(z: Tensor) -> Tensor:
    """Embeddings (..., d) scaled to unit length, however short or long they are; one of length 0 stays."""
    lengths = torch.linalg.vector_norm(z.detach(), dim=-1, keepdim=True)
    if bool(((lengths < SHORT) | (lengths > LONG)).any()):
        z = (z.double() * to_one(z.detach())).to(z.dtype)  # so that squares neither vanish nor overflow
    return functional.normalize(z, dim=-1)


def to_one(z: Tensor) -> Tensor:
    """(..., 1) the power of 2 that brings the largest value of each embedding to between 0.5 and 1.

    Products with it are exact.
    """
    largest = z.abs().amax(-1, keepdim=True).double()
    exponents = largest.frexp().exponent.long().clamp(-EXPONENTS, EXPONENTS)
    return ((BIAS - exponents) << MANTISSA).view(torch.float64)


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
