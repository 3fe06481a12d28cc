"""Passes of how many pictures round a picture alike, whatever the others are."""

import math
from collections.abc import Sequence

import torch

from rankproof.ranking import Ranker
from rankproof.target import Tell

STEPS = (4, 8, 16)  # pictures: passes are filled up to a multiple of one of them


def steady_step(
    ranker: Ranker, sides: Sequence[int], most: int, tell: Tell = lambda done, total: None
) -> int:
    """The number of pictures of whose multiples all passes, up to `most` pictures, round a picture alike.

    Which passes do depends on the encoder's layers and on the processor, so it is tried: with any pictures,
    because it does not depend on them.

    Args:
        sides: channels, height and width of a picture.
        tell: called with passes done and passes in all.
    """
    largest = math.ceil(most / STEPS[-1]) * STEPS[-1]
    random = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (largest, *sides), dtype=torch.uint8, generator=random)
    whole = ranker.embed_all(pictures)
    counts, other = range(STEPS[0], largest, STEPS[0]), set[int]()
    for done, count in enumerate(counts, 1):
        if not torch.equal(ranker.embed_all(pictures[:count]), whole[:count]):
            other.add(count)
        tell(done, len(counts))
    return next(step for step in (*STEPS, largest) if all(count % step for count in other))
