"""Retrieval by queries that are no items of the gallery, as person re-identification measures it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.evaluation.precision import VALUES, precisions_of, ranked_matches
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import known_labels
from rankproof.ranking.separate_queries import SeparateQueries
from rankproof.types import ProgressCallback, no_progress


@dataclass(frozen=True, kw_only=True)
class QueryRetrieval:
    """How well separate queries retrieve.

    Args:
        recalls: (v, k) one 0 or 1 for each query that has a match, and each k.
        precisions: (v, 2) AP and AP@R of each.
        without_match: number of queries without a match in the gallery, which are left out.
    """

    recalls: Tensor
    precisions: Tensor
    without_match: int


def known_classes(queries: SeparateQueries) -> Tensor:
    """(b,) the class of every query.

    Raises:
        RankproofError: the queries have no labels.
    """
    if queries.labels is None:
        raise RankproofError(
            "queries: they have no classes, so that nobody knows what they should find; put them into one "
            "sub-folder per class"
        )
    return queries.labels


def has_match(gallery: Gallery, queries: SeparateQueries | None) -> bool:
    """Whether retrieval can be measured by queries: these have classes, and the gallery one of them."""
    if queries is None or queries.labels is None or gallery.labels is None:
        return False
    return bool(torch.isin(queries.labels.cpu(), gallery.labels.cpu()).any())


def retrieve(
    gallery: Gallery,
    queries: SeparateQueries,
    ks: Sequence[int],
    progress: ProgressCallback = no_progress,
) -> QueryRetrieval:
    """R@k, AP and AP@R of each query, over the items that count for it.

    R@k(q) = 1 where one of the k nearest items has q's class, else 0      (CMC at rank k)
    AP(q), AP@R(q) as in `average_precisions`

    Items of q's own class and camera do not count: they are neither matches nor mistakes (Zheng et al.,
    Scalable Person Re-identification, ICCV 2015). A query for which no match is left is left out.

    Args:
        ks: numbers of items that are looked at.
        progress: called with queries done and queries in all.
    Raises:
        RankproofError: the gallery or the queries have no labels, its cameras are not one for each item, or
            no query has a match.
    """
    if min(ks) < 1:
        raise RankproofError(f"recall needs k of at least 1, got {min(ks)}")
    labels, size, classes = known_labels(gallery), len(gallery), known_classes(queries)
    if queries.gallery_cameras is not None and len(queries.gallery_cameras) != size:
        raise RankproofError(f"queries: {len(queries.gallery_cameras)} gallery_cameras for {size} items")
    recalls, precisions = [], []
    for rows in torch.arange(len(queries)).split(max(1, VALUES // size)):
        wanted = classes[rows].to(labels.device)[:, None] == labels  # (rows, n)
        ignored = torch.zeros_like(wanted)
        if queries.cameras is not None and queries.gallery_cameras is not None:
            cameras = queries.cameras[rows].to(labels.device)[:, None]
            ignored = wanted & (cameras == queries.gallery_cameras.to(labels.device))
        wanted &= ~ignored
        if bool((found := wanted.any(1)).any()):
            z = queries.embeddings[rows.to(queries.embeddings.device)][found]
            matches = ranked_matches(gallery, z, wanted[found], ignored[found])
            recalls.append(torch.stack([matches[:, :k].any(1) for k in ks], dim=1).double())
            precisions.append(precisions_of(matches))
        progress(int(rows[-1]) + 1, len(queries))
    if not recalls:
        raise RankproofError("queries: none has a match in the gallery; check classes and cameras")
    whole = torch.cat(recalls).cpu()
    return QueryRetrieval(
        recalls=whole, precisions=torch.cat(precisions).cpu(), without_match=len(queries) - len(whole)
    )
