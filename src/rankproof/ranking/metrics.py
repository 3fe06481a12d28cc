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
