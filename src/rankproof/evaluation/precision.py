"""Average precision of every item's leave-one-out ranking, without keeping a ranking of all pairs.

Only the places of the items of a query's own class matter. The squared lengths are sorted as bare values,
which is far quicker than sorting items, and a binary search finds the places. Where another item is as far up
to rounding, they cannot tell which comes first, and that query's ranking is sorted exactly.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import known_labels
from rankproof.ranking.sorting import sort_rows
from rankproof.types import ProgressCallback, no_progress

VALUES = 10_000_000  # distances held at once


def average_precisions(gallery: Gallery, progress: ProgressCallback = no_progress) -> Tensor:
    """AP and AP@R of every item used as a query, over the whole ranking of the others.

    AP(q)   = 1/R sum over j = 1 .. R of  j / place_j
    AP@R(q) = 1/R sum over j with place_j <= R of  j / place_j       (Musgrave et al., ECCV 2020)

    R is the number of other items of q's class and place_j, counted from 1, the place of the j-th of them in
    the returned list, where equally far items stand in gallery order. An item alone in its class counts as 0.

    Args:
        progress: called with queries done and queries in all.
    Returns:
        (n, 2) AP and AP@R in [0, 1], in double precision.
    Raises:
        RankproofError: the gallery has no labels.
    """
    labels, size = known_labels(gallery), len(gallery)
    parts = []
    for items in torch.arange(size, device=labels.device).split(max(1, VALUES // size)):
        itself = torch.zeros(len(items), size, dtype=torch.bool, device=labels.device)
        itself.scatter_(1, items[:, None], True)
        wanted = (labels[items, None] == labels) & ~itself
        parts.append(precisions_of(ranked_matches(gallery, gallery.embeddings[items], wanted, itself)))
        progress(int(items[-1]) + 1, size)
    return torch.cat(parts)


def ranked_matches(
    gallery: Gallery, z: Tensor, wanted: Bool[Tensor, "b n"], ignored: Bool[Tensor, "b n"]
) -> Bool[Tensor, "b n"]:
    """Which places of the rankings of some queries hold a wanted item.

    Args:
        z: (b, d) embeddings of the queries.
        wanted: the items that match each query; there is at least one query.
        ignored: the items that do not count for each query; they stand last and match nothing.
    """
    squared, margin = gallery.quick_lengths(z)
    squared.masked_fill_(ignored, math.inf)
    matches, unsure = _matches(squared, wanted, 2 * margin)
    if len(unsure):
        squared = gallery.refined(z[unsure], squared[unsure], margin[unsure])
        matches[unsure] = wanted[unsure].gather(1, squared.sort(dim=1, stable=True).indices)
    return matches


def precisions_of(matches: Bool[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
    """AP and AP@R of rankings, given which places match."""
    size = matches.sum(1, keepdim=True).clamp(min=1)  # R
    places = torch.arange(1, matches.shape[1] + 1, device=matches.device)
    precision = matches.cumsum(1).double().div_(places).mul_(matches)  # (b, n)
    return torch.stack([precision.sum(1), (precision * (places <= size)).sum(1)], dim=1) / size


def _matches(
    squared: Float[Tensor, "b n"], wanted: Bool[Tensor, "b n"], slack: Float[Tensor, "b 1"]
) -> tuple[Bool[Tensor, "b n"], Int[Tensor, " u"]]:
    """Which places of each ranking hold a wanted item, and the rankings in which that is not certain.

    Args:
        slack: how much two squared lengths must differ for their order to be certain.
    """
    rows, columns = wanted.nonzero(as_tuple=True)
    slots = (wanted.cumsum(1) - 1)[rows, columns]
    to_class = squared.new_full((len(wanted), max(1, int(wanted.sum(1).max()))), math.inf)  # (b, most wanted)
    to_class[rows, slots] = squared[rows, columns]
    ordered = sort_rows(squared.clone())
    places = torch.searchsorted(ordered, to_class - slack)
    after = torch.searchsorted(ordered, to_class + slack, right=True)
    matches = torch.zeros_like(wanted)
    matches[rows, places[rows, slots]] = True
    return matches, ((after - places > 1) & to_class.isfinite()).any(1).nonzero()[:, 0]
