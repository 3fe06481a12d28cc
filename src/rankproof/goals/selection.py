"""Which items an attack is about: the published choice of targets."""

import torch

from rankproof.goals.base import AttackContext
from rankproof.rng import integers, permutations
from rankproof.types import Ids, Kept, Pool

TOP_SHARE = 0.01  # "-" attacks choose among the nearest 1 % (ECCV section 4)


def pool_size(size: int, needed: int, *, own: bool) -> int:
    """How many items the "-" attacks choose from: the nearest 1 % without the own copy, or 3 x `needed`.

    Args:
        size: |X|.
        needed: m + g, how many items one attack takes from the pool.
        own: whether the attacked image's own clean copy is in the gallery, and so among its nearest 1 %.
    """
    return min(max(int(TOP_SHARE * size) - own, 3 * needed), size - own)


def pool_note(size: int, needed: int) -> str:
    """A note where the pool is larger than the published 1 %; else empty."""
    if 3 * needed <= int(TOP_SHARE * size):
        return ""
    pool = min(3 * needed, size - 1)
    return (
        f"chosen among the {pool} nearest ({100 * pool / size:.1f} %), since 1 % of {size} items is too few"
    )


def uniform(context: AttackContext, count: int, purpose: str) -> Ids:
    """(b, count) items drawn uniformly from the whole gallery, with replacement."""
    return integers(context.seed, context.rng_keys, purpose, context.size, count)


def nearest_others(context: AttackContext, count: int) -> Ids:
    """(b, count) the items nearest to each clean image, nearest first, its own copy left out."""
    return context.gallery.search(context.clean, count, excluded=context.gallery_ids)


def from_pool_with_replacement(context: AttackContext, pool: Pool, count: int, purpose: str) -> Ids:
    """(b, count) draws from each row's pool (b, p), uniform and with replacement."""
    return pool.gather(
        1, integers(context.seed, context.rng_keys, purpose, pool.shape[1], count).to(pool.device)
    )


def from_pool_shuffled(context: AttackContext, pool: Pool, count: int, purpose: str) -> Ids:
    """(b, count) the first items of a random permutation of each row's pool (b, p)."""
    order = permutations(context.seed, context.rng_keys, purpose, pool.shape[1])[:, :count].to(pool.device)
    return pool.gather(1, order)


def best_of_rest(ranked: Pool, taken: Kept, count: int) -> Ids:
    """(b, count) the first items of each ranking (b, p) that are not among `taken` (b, m)."""
    free = ~(ranked[:, :, None] == taken[:, None, :]).any(2)  # (b, p)
    order = free.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return ranked.gather(1, order)
