"""Squared lengths between embeddings: quickly with a bound on the error, or as exact arithmetic rounds them.

Every distance here grows with the length |a - b| of two embeddings, scaled to unit length or not. So ranks
are decided by squared lengths alone. A matrix product in double precision gives all of them at once with an
error that is known in advance; only pairs that this error leaves undecided are computed again, in pairs of
doubles (Dekker 1971; about 32 digits), and rounded once. What is compared then are the squared lengths of
exact arithmetic on the embeddings as the encoder returned them, to the nearest double.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.ranking.distances import Distance, LengthDistance, to_one

ROUNDOFF = 2.0**-53  # the relative error of one operation in double precision
SPLITTER = 2.0**27 + 1  # cuts a double into two halves whose products are exact
PAIR_VALUES = 2_000_000  # embedding values of the pairs that are compared exactly at once
SAMPLE, SHARE = 64, 2.0**-40  # of any other distance: items that show its size, and its error relative to it
GRID_BITS = 12  # of whole numbers that are looked for
SIZE, UNIT_SIZE = 2.0**48, 2.0**16  # squared lengths of whole numbers below which the arithmetic is exact
BLOCK = 8192  # embeddings at once while the frame is measured


@dataclass(frozen=True, kw_only=True)
class Points:
    """Embeddings in double precision, where quick squared lengths are taken.

    Args:
        vectors: (b, d) scaled, and moved by the centre of their frame.
        squares: (b,) their squared lengths.
        zeros: (b,) what an embedding of length 0 adds to each of its squared lengths, or None.
        whole: (b, d) the embeddings as small whole numbers, whose products are exact, or None.
    """

    vectors: Tensor
    squares: Tensor
    zeros: Tensor | None
    whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice | Tensor) -> "Points":
        """The points at some rows."""
        zeros, whole = (None if part is None else part[rows] for part in (self.zeros, self.whole))
        return Points(vectors=self.vectors[rows], squares=self.squares[rows], zeros=zeros, whole=whole)


class Frame(ABC):
    """How the embeddings of a gallery are compared in double precision: quickly, or exactly.

    What is compared are squared lengths, or anything else that orders pairs as the distance does.
    """

    @abstractmethod
    def points(self, z: Tensor) -> Points:
        """Embeddings (b, d) as they are compared quickly."""

    @abstractmethod
    def margin(self, points: Points, others: Points | None = None) -> Tensor:
        """(b, 1) the largest error of what is compared quickly.

        Args:
            others: what the points are compared with besides the gallery.
        """

    @abstractmethod
    def squared(self, a: Points, b: Points) -> Tensor:
        """(m, n) quick values, each within the margin of the exact one."""

    @abstractmethod
    def squared_to(self, a: Points, b: Points) -> Tensor:
        """(p,) quick values of pairs of points, each within the margin of the exact one."""

    @abstractmethod
    def exact(self, a: Tensor, b: Tensor) -> Tensor:
        """(p,) exact values of pairs of embeddings (p, d)."""

    @abstractmethod
    def relative(self, value: Tensor, z: Tensor) -> float:
        """What a value stands for, relative to the mean length of embeddings (b, d)."""


def frame_of(embeddings: Tensor, distance: Distance) -> Frame:
    """How the embeddings (n, d) of a gallery are compared."""
    if isinstance(distance, LengthDistance):
        return LengthFrame.of(embeddings, distance)
    return OtherFrame(distance=distance, sample=distance.prepare(embeddings[:SAMPLE].double()))


@dataclass(frozen=True, kw_only=True)
class OtherFrame(Frame):
    """Any distance, as its own `pairwise` and `between` compute it in double precision.

    Args:
        distance: by which embeddings are compared.
        sample: (k, d) prepared embeddings that show how large distances are.
    """

    distance: Distance
    sample: Tensor

    def points(self, z: Tensor) -> Points:
        """Prepared embeddings."""
        vectors = self.distance.prepare(z.detach().double())
        return Points(
            vectors=vectors, squares=self.distance.pairwise(vectors, self.sample).abs().amax(1), zeros=None
        )

    def margin(self, points: Points, others: Points | None = None) -> Tensor:
        """(b, 1) a share of the largest distance to the sample."""
        return SHARE * points.squares[:, None]

    def squared(self, a: Points, b: Points) -> Tensor:
        """(m, n) distances by `pairwise`."""
        return self.distance.pairwise(a.vectors, b.vectors)

    def squared_to(self, a: Points, b: Points) -> Tensor:
        """(p,) distances by `between`."""
        return self.distance.between(a.vectors, b.vectors)

    def exact(self, a: Tensor, b: Tensor) -> Tensor:
        """(p,) distances by `between`."""
        a, b = (self.distance.prepare(z.detach().double()) for z in (a, b))
        return self.distance.between(a, b)

    def relative(self, value: Tensor, z: Tensor) -> float:
        """A distance relative to the mean length of prepared embeddings."""
        return float(value) / (float(self.distance.prepare(z.double()).norm(dim=1).mean()) or 1.0)


@dataclass(frozen=True, kw_only=True)
class LengthFrame(Frame):
    """Where the embeddings of a gallery lie: from a common centre, double precision reaches further.

    Args:
        distance: by which they are compared.
        scale: a power of 2 they are multiplied by, which is exact; 1 where each is scaled to unit length.
        centre: (d,) near the mean of the scaled embeddings, in double precision.
        radius: no scaled embedding of the gallery is farther from the centre.
        spread: root of the mean squared length from the centre.
        grid: a power of 2 that makes all embeddings whole numbers, such as those of hash codes, or 0. Their
            squared lengths are exact at once, and many of them are equal.
    """

    distance: LengthDistance
    scale: float
    centre: Tensor
    radius: float
    spread: float
    grid: float = 0.0

    @classmethod
    def of(cls, embeddings: Tensor, distance: LengthDistance) -> "LengthFrame":
        """The frame of a gallery's embeddings (n, d)."""
        scale = _common_scale(distance, *embeddings.split(BLOCK))
        parts = [_scaled(part, distance, scale).sum(0) for part in embeddings.split(BLOCK)]
        # Rounded to single precision, so that it is the embedding itself where all are equal.
        centre = (torch.stack(parts).sum(0) / len(embeddings)).float().double()
        squares = torch.cat(
            [(_scaled(part, distance, scale) - centre).square().sum(1) for part in embeddings.split(BLOCK)]
        )
        radius, spread = float(squares.max().sqrt()), float(squares.mean().sqrt())
        return cls(
            distance=distance,
            scale=scale,
            centre=centre,
            radius=radius,
            spread=spread,
            grid=_grid(embeddings, distance),
        )

    def points(self, z: Tensor) -> Points:
        """Embeddings (b, d) in this frame."""
        scaled = _scaled(z, self.distance, self.scale)
        zeros = None
        if self.distance.zero_adds and bool((empty := (scaled == 0).all(1)).any()):
            zeros = empty.double() * self.distance.zero_adds
        vectors = scaled - self.centre
        whole = _whole(z, self.grid, self.distance) if self.grid else None
        return Points(vectors=vectors, squares=vectors.square().sum(1), zeros=zeros, whole=whole)

    def margin(self, points: Points, others: Points | None = None) -> Tensor:
        """(b, 1) the largest error of quick squared lengths from points (b, d).

        With L >= |q'| + |x'|, u the unit roundoff and v the error of a scaled embedding: rounding the d
        products and the differences gives at most (d + 8) u L^2, and moving both ends by v 4 v L + 4 v^2.

        Args:
            others: what the points are compared with besides the gallery.
        """
        if points.whole is not None and (others is None or others.whole is not None):
            return torch.zeros_like(points.squares[:, None])
        reach = self.radius if others is None else max(self.radius, float(others.squares.max().sqrt()))
        return self.error(points.squares.sqrt()[:, None] + reach, points.vectors.shape[1])

    def error(self, length: Tensor, dimensions: int) -> Tensor:
        """The largest error of quick squared lengths, given L; see `margin`."""
        unit = (dimensions / 2 + 4) * ROUNDOFF if self.distance.unit else 0.0  # v
        return 1.01 * (dimensions + 8) * ROUNDOFF * length.square() + 4 * unit * length + 4 * unit**2

    def squared(self, a: Points, b: Points) -> Tensor:
        """(m, n) quick squared lengths, each within the margin of the exact one."""
        if a.whole is not None and b.whole is not None:
            sizes = a.whole.square().sum(1)[:, None], b.whole.square().sum(1)
            return self._of_whole(a.whole @ b.whole.t(), *sizes)
        squares = torch.addmm(b.squares, a.vectors, b.vectors.t(), alpha=-2)
        squares = squares.add_(a.squares[:, None])
        for zeros in (None if a.zeros is None else a.zeros[:, None], b.zeros):
            if zeros is not None:
                squares = squares.add_(zeros)
        return squares

    def squared_to(self, a: Points, b: Points) -> Tensor:
        """(p,) quick squared lengths of pairs of points, each within the margin of the exact one."""
        if a.whole is not None and b.whole is not None:
            sizes = a.whole.square().sum(1), b.whole.square().sum(1)
            return self._of_whole((a.whole * b.whole).sum(1), *sizes)
        squares = (a.vectors - b.vectors).square().sum(1)
        for zeros in (a.zeros, b.zeros):
            if zeros is not None:
                squares = squares.add_(zeros)
        return squares

    def _of_whole(self, products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Squared lengths from products and squares of whole numbers, in exact order and with exact ties.

        Products and squares are exact, and so are sums of them. <a, b>^2 / |b|^2 is rounded once and has a
        denominator below 2^16, so that the steps after it keep different ones apart.
        """
        if not self.distance.unit:
            return (a + b - 2 * products) * (self.scale / self.grid) ** 2
        return 2 - 2 * products.sign() * (products.square() / b / a).sqrt()

    def exact(self, a: Tensor, b: Tensor) -> Tensor:
        """(p,) squared lengths of pairs of embeddings (p, d), of exact arithmetic and rounded once."""
        size = max(1, PAIR_VALUES // max(1, a.shape[1]))
        parts = [self._exact(*pair) for pair in zip(a.split(size), b.split(size), strict=True)]
        return torch.cat(parts) if parts else a.new_empty(0, dtype=torch.float64)

    def _exact(self, a: Tensor, b: Tensor) -> Tensor:
        if self.distance.unit:
            (a_high, a_low), (b_high, b_low) = _unit_pair(a), _unit_pair(b)
            high, low = _two_sum(a_high, -b_high)
            low = low + (a_low - b_low)
        else:
            high, low = _two_sum(
                _scaled(a, self.distance, self.scale), -_scaled(b, self.distance, self.scale)
            )
        product, rest = _two_product(high, high)
        total = _pair_sum(product, rest + 2 * high * low)[0]
        if self.distance.zero_adds:
            empty = (a == 0).all(1).double() + (b == 0).all(1).double()
            total = total + self.distance.zero_adds * empty
        return total

    def relative(self, value: Tensor, z: Tensor) -> float:
        """A length relative to the mean length of scaled embeddings."""
        mean = float(_scaled(z, self.distance, self.scale).norm(dim=1).mean()) or 1.0
        return float(value.clamp(min=0).sqrt()) / mean

    def value(self, squared: Tensor) -> Tensor:
        """The distances that belong to squared lengths in this frame."""
        return self.distance.from_squared(squared.clamp(min=0)) / self.scale


def exact_distances(distance: Distance, a: Tensor, b: Tensor) -> Tensor:
    """(p,) distances between pairs of embeddings (p, d), to the last digits of double precision."""
    if not isinstance(distance, LengthDistance):
        return OtherFrame(distance=distance, sample=a[:0]).exact(a, b)
    frame = _uncentred(distance, a, b)
    return frame.value(frame.exact(a, b))


def ordered_distances(distance: Distance, z: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Values (b, m) that order the items (b, m, d) of each embedding (b, d) exactly, and their distances."""
    own, flat = torch.arange(len(z), device=z.device).repeat_interleave(items.shape[1]), items.flatten(0, 1)
    if not isinstance(distance, LengthDistance):
        distances = exact_distances(distance, z[own], flat).view(items.shape[:2])
        return distances, distances
    frame = _uncentred(distance, z, flat)
    squared = frame.squared_to(frame.points(z)[own], frame.points(flat)).view(items.shape[:2])
    rows, columns = undecided(squared, frame.error(squared.clamp(min=0).sqrt(), items.shape[2]))
    squared = squared.index_put((rows, columns), frame.exact(z[rows], items[rows, columns]))
    return squared, frame.value(squared)


def undecided(squared: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the values (b, c) that lie too near to others of their row to be ordered.

    Args:
        error: (b, c) the largest error of each, or (b, 1) that of a row.
    """
    ordered, places = squared.sort(dim=1)
    errors = error.expand_as(squared).gather(1, places)
    close = ordered[:, 1:] - ordered[:, :-1] < errors[:, 1:] + errors[:, :-1]
    none = torch.zeros_like(close[:, :1])
    rows, columns = (torch.cat([close, none], 1) | torch.cat([none, close], 1)).nonzero(as_tuple=True)
    return rows, places[rows, columns]


def _uncentred(distance: LengthDistance, a: Tensor, b: Tensor) -> LengthFrame:
    """A frame for some pairs of embeddings that have no gallery."""
    scale = _common_scale(distance, a, b)
    return LengthFrame(distance=distance, scale=scale, centre=a.new_zeros(1), radius=0.0, spread=0.0)


def _common_scale(distance: LengthDistance, *parts: Tensor) -> float:
    """The power of 2 that brings the largest of all values to between 0.5 and 1; 1 for unit lengths."""
    largest = [float(part.detach().abs().max()) for part in parts if part.numel() and not distance.unit]
    return float(to_one(torch.tensor([max(largest)], dtype=torch.float64))) if largest else 1.0


def _grid(embeddings: Tensor, distance: LengthDistance) -> float:
    """The smallest power of 2 that makes all embeddings small whole numbers; 0 where there is none."""
    largest = max(float(part.detach().abs().max()) for part in embeddings.split(BLOCK))
    one = float(to_one(torch.tensor([largest], dtype=torch.float64)))
    for bits in range(GRID_BITS):
        grid = one * 2.0**bits
        if all(
            _whole(part, grid, distance) is not None
            for part in (embeddings[:SAMPLE], *embeddings.split(BLOCK))
        ):
            return grid
    return 0.0


def _whole(z: Tensor, grid: float, distance: LengthDistance) -> Tensor | None:
    """Embeddings times a power of 2 if that makes small whole numbers of all, none of length 0; else None."""
    numbers = z.detach().double() * grid
    if not torch.equal(numbers, numbers.round()):
        return None
    sizes = numbers.square().sum(1)
    small = float(sizes.max()) < (UNIT_SIZE if distance.unit else SIZE) if len(sizes) else True
    return numbers if small and not (distance.unit and bool((sizes == 0).any())) else None


def _scaled(z: Tensor, distance: LengthDistance, scale: float) -> Tensor:
    """Embeddings in double precision, scaled to unit length or by a power of 2."""
    z = z.detach().double()
    if not distance.unit:
        return z * scale
    z = z * to_one(z)
    length: Tensor = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / length.masked_fill_(length == 0, 1)


def _unit_pair(z: Tensor) -> tuple[Tensor, Tensor]:
    """z / |z| as a pair of doubles each, (b, d)."""
    z = z.double()
    z = z * to_one(z)
    high, low = _pair_sum(*_two_product(z, z))  # |z|^2
    empty = high == 0
    root = 1 / high.masked_fill(empty, 1).sqrt()
    # One step of Newton's iteration for 1 / sqrt(s): r (1 + (1 - s r^2) / 2)
    square, rest = _two_product(root, root)
    product, more = _two_product(high, square)
    residual = (1 - product) - (more + high * rest + low * square)
    correction = (root * residual / 2).masked_fill_(empty, 0)[:, None]
    head, tail = _two_product(z, root.masked_fill_(empty, 0)[:, None])
    return _fast_two_sum(head, tail + z * correction)


def _pair_sum(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the last dimension of pairs of doubles (b, d), as a pair (b,)."""
    while (size := high.shape[-1]) > 1:
        half = size // 2
        total, rest = _two_sum(high[..., :half], high[..., half : 2 * half])
        total, rest = _fast_two_sum(total, rest + (low[..., :half] + low[..., half : 2 * half]))
        if size % 2:
            total, rest = torch.cat([total, high[..., -1:]], -1), torch.cat([rest, low[..., -1:]], -1)
        high, low = total, rest
    high, low = _fast_two_sum(high, low)
    return (high[..., 0], low[..., 0]) if high.shape[-1] else (high.sum(-1), low.sum(-1))


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and the rounding error exactly."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _fast_two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`_two_sum` where |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def _two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a b rounded, and the rounding error exactly."""
    product = a * b
    a_high, b_high = _high_half(a), _high_half(b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _high_half(a: Tensor) -> Tensor:
    large = SPLITTER * a
    return large - (large - a)
