"""Figures of merit, one value per query; the mean belongs to whoever prints it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def mean_interval(values: Tensor) -> MeanInterval:
    """Mean and 95 % interval (mean +- 1.96 standard errors) of one value per attack (b,)."""
    values = values.detach().double().cpu()
    mean = float(values.mean())
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return MeanInterval(mean, mean - 1.96 * error, mean + 1.96 * error)
