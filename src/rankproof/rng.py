"""Random numbers of one attack do not depend on which other attacks run beside it."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, key: int, purpose: str) -> torch.Generator:
    """The generator of one attack for one purpose; equal arguments give equal numbers anywhere."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{key}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def integers(seed: int, keys: Sequence[int], purpose: str, high: int, count: int) -> Tensor:
    """(b, count) integers in [0, high), uniform and with replacement, one row per key."""
    rows = [torch.randint(high, (count,), generator=generator(seed, key, purpose)) for key in keys]
    return torch.stack(rows) if rows else torch.empty(0, count, dtype=torch.int64)


def permutations(seed: int, keys: Sequence[int], purpose: str, size: int) -> Tensor:
    """(b, size) random permutations of 0 .. size - 1, one row per key."""
    rows = [torch.randperm(size, generator=generator(seed, key, purpose)) for key in keys]
    return torch.stack(rows) if rows else torch.empty(0, size, dtype=torch.int64)


def uniforms(seed: int, keys: Sequence[int], purpose: str, shape: Sequence[int]) -> Tensor:
    """(b, *shape) numbers in [-1, 1), one slice per key."""
    rows = [torch.rand(*shape, generator=generator(seed, key, purpose)) for key in keys]
    return torch.stack(rows) * 2 - 1 if rows else torch.empty(0, *shape)


def draw(size: int, trials: int, seed: int) -> Tensor:
    """(min(trials, size),) random positions without replacement; fewer trials are a prefix of more.

    Where as many trials as items or more are asked for, all items in their own order.
    """
    if trials >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=generator(seed, 0, "trials"))[:trials]


def order(size: int, seed: int) -> Tensor:
    """(size,) the random order of which `draw` takes the first, also where it takes all as they are."""
    return torch.randperm(size, generator=generator(seed, 0, "trials"))
