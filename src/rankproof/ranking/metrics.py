"""Figures of merit, one value per query; the mean belongs to whoever prints it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.gallery import Gallery


def recall_at(gallery: Gallery, k: int) -> Tensor:
    """Recall@k, leave-one-out: whether one of the k nearest others has the item's own class.

    Returns:
        (n,) one 0 or 1 per gallery item.
    """
    if gallery.labels is None:
        raise RankproofError("recall needs a gallery with labels")
    labels = gallery.labels.to(gallery.embeddings.device)
    found = gallery.search(gallery.embeddings, k + 1)  # (n, k + 1), usually with the item itself
    own = torch.arange(len(gallery), device=found.device)[:, None]
    others = found != own
    others[:, -1] &= ~others.all(1)  # an item pushed out by its duplicates: k others come before it
    return ((labels[found] == labels[:, None]) & others).any(1).to(torch.float32)


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
class Summary:
    """A mean over independent attacks with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def summarise(values: Tensor) -> Summary:
    """Mean and 95 % interval (mean +- 1.96 standard errors) of one value per attack (b,)."""
    values = values.detach().double().cpu()
    mean = float(values.mean())
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Summary(mean, mean - 1.96 * error, mean + 1.96 * error)
