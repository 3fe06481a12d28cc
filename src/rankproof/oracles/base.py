"""What the attacker may see: where some items stand among the first N results, and nothing else."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from rankproof.types import Ids, Images, ImageSets, Places, Rows


@dataclass(frozen=True)
class TrackedItems:
    """What is looked for in the lists of some attacks.

    Args:
        attacks: (b,) which attacks of the batch these are.
        ids: (b, k) the tracked_items items.
        excluded: (b,) an item each that does not count, such as the query's own clean copy; None: all count.
    """

    attacks: Rows
    ids: Ids
    excluded: Rows | None = None

    def to(self, device: torch.device) -> "TrackedItems":
        """The items on a device."""
        excluded = None if self.excluded is None else self.excluded.to(device)
        return TrackedItems(self.attacks.to(device), self.ids.to(device), excluded)


@runtime_checkable
class Oracle(Protocol):
    """A search system seen from outside."""

    @property
    def visible(self) -> int | None:
        """N, how many results are shown; None shows the whole ranking."""
        ...

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """The ids (b, count) of the first results of one image (b, c, h, w) per attack, nearest first."""
        ...

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """Positions (b, p, k) of the tracked items for p images per attack; `visible` where unseen."""
        ...


@runtime_checkable
class RepeatableOracle(Protocol):
    """An oracle that stores answers and can be asked past them; others are simply called again."""

    def repeat(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """As a call of the oracle, for images that it has answered before."""
        ...
