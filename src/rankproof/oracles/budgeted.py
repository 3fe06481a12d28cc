"""Oracles around an oracle: one with a hard budget, one that asks nothing twice."""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.oracles.base import Oracle, TrackedItems
from rankproof.parameters import check_integer
from rankproof.types import Ids, Images, ImageSets, Places


class BudgetExhaustedError(RankproofError):
    """A query beyond the budget was refused; it was not sent."""


@dataclass
class BudgetedOracle:
    """An oracle with a hard budget for each attack; every image sent counts, the clean one too.

    The two images of an attack that are asked again at most (`Repeats`) are outside the budget.

    Args:
        oracle: what is asked.
        budget: Q, queries each attack may send.
        spent: queries each attack has sent so far, by its number in the batch.
    """

    oracle: Oracle
    budget: int
    spent: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.budget = check_integer("budget", self.budget)
        if self.budget < 1:
            raise RankproofError(f"budget must be at least 1 query, got {self.budget}")

    @property
    def visible(self) -> int | None:
        """As the oracle's."""
        return self.oracle.visible

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """As the oracle's, one query for each attack."""
        self._spend(tracked, 1)
        return self.oracle.top(images, count, tracked)

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """As the oracle's, one query for each image."""
        self._spend(tracked, images.shape[1])
        return self.oracle(images, tracked)

    def _spend(self, tracked: TrackedItems, count: int) -> None:
        """Take the queries from the budget, or refuse all of them before any is sent."""
        after = {number: self.spent.get(number, 0) + count for number in tracked.attacks.tolist()}
        if max(after.values(), default=0) > self.budget:
            raise BudgetExhaustedError(
                f"the budget of {self.budget} queries does not allow {count} more; nothing was sent"
            )
        self.spent.update(after)


@dataclass
class Cached:
    """An oracle that is never asked the same twice: answers are kept by the image's exact pixels.

    Args:
        oracle: what is asked where no answer is kept.
    """

    oracle: Oracle
    _answers: dict[bytes, Tensor] = field(default_factory=dict)

    @property
    def visible(self) -> int | None:
        """As the oracle's."""
        return self.oracle.visible

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """As the oracle's; images that were sent before are answered from memory."""
        keys = [
            _digest(image, torch.tensor([count, skip]), b"top")
            for image, skip in zip(images, _skips(tracked), strict=True)
        ]
        fresh = _fresh(keys, self._answers)
        if fresh:
            answers = self.oracle.top(images[fresh], count, _part(tracked, fresh))
            self._answers |= {keys[row]: answer for row, answer in zip(fresh, answers, strict=True)}
        return torch.stack([self._answers[key] for key in keys])

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """As the oracle's; images that were sent before are answered from memory."""
        result = []
        for row, (own_images, skip) in enumerate(zip(images, _skips(tracked), strict=True)):
            question = torch.cat([tracked.ids[row].cpu(), torch.tensor([skip])])
            keys = [_digest(image, question, b"places") for image in own_images]
            fresh = _fresh(keys, self._answers)
            if fresh:
                answers = self.oracle(own_images[None, fresh], _part(tracked, [row]))[0]
                self._answers |= {keys[column]: answer for column, answer in zip(fresh, answers, strict=True)}
            result.append(torch.stack([self._answers[key] for key in keys]))
        return torch.stack(result)


def _skips(tracked: TrackedItems) -> list[int]:
    """The excluded item of each attack, -1 where there is none."""
    return [-1] * len(tracked.ids) if tracked.excluded is None else tracked.excluded.tolist()


def _part(tracked: TrackedItems, rows: list[int]) -> TrackedItems:
    """The tracked of some of its attacks."""
    excluded = None if tracked.excluded is None else tracked.excluded[rows]
    return TrackedItems(tracked.attacks[rows], tracked.ids[rows], excluded)


def _digest(image: Tensor, question: Tensor, kind: bytes) -> bytes:
    """What names a question: the exact pixels and what is looked for."""
    parts = (kind, image.detach().cpu().contiguous().numpy().tobytes(), question.numpy().tobytes())
    return hashlib.blake2b(b"/".join(parts), digest_size=16).digest()


def _fresh(keys: list[bytes], answers: dict[bytes, Tensor]) -> list[int]:
    """The first position of every key that is not known."""
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    return sorted(position for key, position in first.items() if key not in answers)
