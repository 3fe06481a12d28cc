"""Figures of merit, one value per query; the mean belongs to whoever prints it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.parameters import AT_LEAST_ONE, check_integer
from rankproof.ranking.gallery import Gallery


def known_labels(gallery: Gallery) -> Tensor:
    """(n,) the class of every item, where its embedding is.

    Raises:
        RankproofError: the gallery has no labels.
    """
    if gallery.labels is None:
        raise RankproofError("the classes are not known: this figure needs a gallery with labels")
    return gallery.labels.to(gallery.embeddings.device)


def recalls_at(gallery: Gallery, ks: Sequence[int]) -> Tensor:
    """Recall@k for several k in one search, leave-one-out.

    R@k(q) = 1 where one of the k nearest others of q has q's own class, else 0

    A k beyond the other items asks for all of them; an item alone in its class counts as 0.

    Args:
        ks: the numbers of others that are looked at, each at least 1.
    Returns:
        (n, len(ks)) one 0 or 1 per gallery item and k.
    Raises:
        RankproofError: the gallery has no labels, or a k is below 1.
    """
    ks = [check_integer("k", k, AT_LEAST_ONE) for k in ks]
    if not ks:
        raise RankproofError("recall needs a k, such as 1")
    labels = known_labels(gallery)
    itself = torch.arange(len(gallery), device=labels.device)
    nearest = gallery.search(gallery.embeddings, min(max(ks), len(gallery) - 1), excluded=itself)
    same = labels[nearest] == labels[:, None]  # (n, largest k)
    return torch.stack([same[:, :k].any(1) for k in ks], dim=1).to(torch.float32)


def recall_at(gallery: Gallery, k: int) -> Tensor:
    """Recall@k, leave-one-out: whether one of the k nearest others has the item's own class.

    Returns:
        (n,) one 0 or 1 per gallery item.
    """
    return recalls_at(gallery, [k])[:, 0]


def hit(gallery: Gallery, z: Tensor, gallery_ids: Tensor) -> Tensor:
    """Recall@1 of perturbed items: whether the nearest other item still has the item's own class.

    Args:
        z: (b, d) embeddings of the perturbed items.
        gallery_ids: (b,) their positions in the gallery; their own clean copies do not count.
    Returns:
        (b,) 0 or 1, in double precision.
    """
    labels = known_labels(gallery)
    nearest = gallery.search(z, 1, excluded=gallery_ids)[:, 0]
    return (labels[nearest] == labels[gallery_ids]).double()


def normalised_rank(ranks: Tensor, size: int) -> Tensor:
    """R(q, c) = Rank(q, c) / |X| x 100 %, in [0, 100] (ECCV section 4)."""
    return ranks.to(torch.float64) * (100 / size)


def kendall_tau(ranks: Tensor) -> Tensor:
    """Kendall's tau of items listed in the wanted order, from the ranks they got (ICCV section 3.2).

    tau = (concordant - discordant) / (k (k - 1) / 2); a tie is neither.

    Args:
        ranks: (b, k) rank of each item, the item that should come first in column 0.
    Returns:
        (b,) in [-1, 1].
    """
    k = ranks.shape[1]
    if k < 2:
        raise RankproofError(f"an order needs at least 2 items, got k = {k}")
    first, second = torch.triu_indices(k, k, offset=1)
    agreement = torch.sign((ranks[:, second] - ranks[:, first]).to(torch.float64))
    return agreement.sum(1) / (k * (k - 1) / 2)


def places_in(lists: Tensor, watched: Tensor) -> Tensor:
    """Where watched ids stand in lists of results; the first occurrence of a repeated id counts.

    Args:
        lists: (..., n) ids in the order of the list, any integer type.
        watched: (..., k) ids to find, of the same type; leading dimensions broadcast.
    Returns:
        (..., k) positions from 0, n where an id is missing.
    """
    size = lists.shape[-1]
    here = lists[..., None, :] == watched[..., :, None]  # (..., k, n)
    # The first occurrence has the largest weight; a missing id has none.
    weights = torch.arange(size, 0, -1, dtype=torch.int16 if size < 2**15 else torch.int64)
    return size - (here * weights.to(lists.device)).amax(-1).long() if size else here.sum(-1)


def short_range_tau(places: Tensor, visible: int | None = None) -> Tensor:
    """Short-range ranking correlation of items listed in the wanted order (tau_S, ICCV algorithm 1).

    tau_S = sum over i < j of s_ij / (k (k - 1) / 2);  s_ij is 1 where c_i and c_j are both visible and c_i
    comes first, and -1 where they come the other way round or one of them is missing.

    Args:
        places: (..., k) position of each item in the list, the item that should come first in column 0.
        visible: N, how many positions are visible; items from there on are missing. None: everything is.
    Returns:
        (...) in [-1, 1]; with everything visible Kendall's tau.
    """
    k = places.shape[-1]
    if k < 2:
        raise RankproofError(f"an order needs at least 2 items, got k = {k}")
    later = places if visible is None else places.masked_fill(places >= visible, -1)
    first, second = torch.triu_indices(k, k, offset=1, device=places.device)
    # Where the later item is visible and comes later, the earlier one is visible too.
    concordant = (places[..., first] < later[..., second]).sum(-1)
    return 4 * concordant.to(torch.float64) / (k * (k - 1)) - 1


@dataclass(frozen=True)
class MeanInterval:
    """A mean over independent attacks with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    @property
    def ends(self) -> list[float | None]:
        """Both ends of the interval; None where there is none, as files cannot hold infinities."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where the values of a figure can lie, which its interval does not leave.

    Args:
        low, high: bounds of each value, and so of the mean.
        binary: whether each value is one of them: the mean is a share.
    """

    low: float = -math.inf
    high: float = math.inf
    binary: bool = False


ANYWHERE = Scale()
SCALES = {
    "rank": Scale(low=0.0, high=100.0),
    "tau": Scale(low=-1.0, high=1.0),
    "shift": Scale(low=0.0),
    "distance": Scale(low=0.0),
    "hit": Scale(low=0.0, high=1.0, binary=True),
    "kept": Scale(low=0.0, high=1.0, binary=True),
}
"""The scale of each headline figure by its name."""


def mean_interval(values: Tensor, scale: Scale = ANYWHERE) -> MeanInterval:
    """Mean and 95 % interval of one value per attack (b,).

    mean +- t s / sqrt(b)      t the 97.5 % quantile of Student's distribution with b - 1 degrees of freedom

    The interval ends where the scale does. That of a share is Wilson's: it claims no certainty where all
    values are equal. A single value has no interval, unless it is one of a share.
    """
    values = values.detach().double().cpu()
    count, mean = len(values), float(values.mean())
    if scale.binary and count:
        low, high = wilson((mean - scale.low) / (scale.high - scale.low), count)
        return MeanInterval(mean, *(scale.low + (scale.high - scale.low) * end for end in (low, high)))
    if count < 2:
        return MeanInterval(mean, -math.inf, math.inf)
    half = student_t(count - 1) * float(values.std()) / math.sqrt(count)
    return MeanInterval(mean, max(mean - half, scale.low), min(mean + half, scale.high))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent yeses and noes."""
    z = NORMAL**2 / count
    centre = (share + z / 2) / (1 + z)
    half = math.sqrt(z * share * (1 - share) + z**2 / 4) / (1 + z)
    # At the ends of the scale rounding must not leave a rest.
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)


NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution
EXACT = 1000  # degrees of freedom up to which the quantile is solved for; from there on an expansion is exact


@cache
def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution: 12.706 for one degree of freedom, 1.962 for 999.

    P(|T| <= t) is a finite sum in the angle atan(t / sqrt(degrees)) (Abramowitz and Stegun 26.7.3, 26.7.4),
    solved by bisection; beyond 1,000 degrees their expansion 26.7.5.
    """
    if degrees > EXACT:
        z, n = NORMAL, degrees
        return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term = total = (cosine if odd else 1.0) if degrees > 1 else 0.0
    for j in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine**2 * ((j - 1) / j)
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
