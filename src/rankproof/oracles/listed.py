"""Any search that returns lists of ids, seen from outside."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.oracles.base import TrackedItems
from rankproof.parameters import check_integer
from rankproof.ranking.metrics import places_in
from rankproof.types import Ids, Images, ImageSets, Places, Rows

NO_RESULT = -1  # FAISS fills a list with it where it finds no more
SearchFn = Callable[[Images], Sequence[Sequence[Hashable]] | Tensor]


@dataclass
class ListOracle:
    """Any function that returns lists of ids, such as a search service, as an oracle.

    Args:
        search: images (n, c, h, w) to one list of ids each, nearest first; ids of any hashable kind. -1,
            which FAISS returns where it finds no more, is left out. Two images of each attack are asked again
            to see whether the answer is the same: it must not come from a store then.
        visible: N, how many results it shows; longer lists are cut, shorter ones are taken as they are.
    """

    search: SearchFn
    visible: int | None
    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.visible is None or (check_integer("visible", self.visible)) < 1:
            raise RankproofError(f"visible: a service shows at least 1 result, got {self.visible}")

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """The first results as numbers; `name` gives the service's own ids back."""
        lists = self._lists(images, tracked.excluded)
        different = [list(dict.fromkeys(numbers))[:count] for numbers in lists]  # repeated ids count once
        shortest = min(map(len, different))
        if shortest < count:
            raise RankproofError(
                f"the service returned {shortest} different ids, {count} are needed; choose a smaller k"
            )
        return torch.tensor(different, dtype=torch.int64, device=images.device)

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """Positions of the tracked items in each list."""
        count_each = images.shape[1]
        excluded = None if tracked.excluded is None else tracked.excluded.repeat_interleave(count_each)
        lists = self._lists(images.flatten(0, 1), excluded)
        rows = [numbers + [-1] * (self._shown - len(numbers)) for numbers in lists]
        results = torch.tensor(rows, dtype=torch.int64, device=images.device)
        return places_in(results.view(*images.shape[:2], -1), tracked.ids[:, None])

    def name(self, number: int) -> Hashable:
        """The service's own id behind a number."""
        return list(self._numbers)[number]

    def number(self, name: Hashable) -> int:
        """The number that stands for one of the service's ids."""
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def _shown(self) -> int:
        assert self.visible is not None
        return self.visible

    def _lists(self, images: Images, excluded: Rows | None) -> list[list[int]]:
        """The visible ids of each image as numbers, the excluded one left out."""
        answers = self.search(images)
        if len(answers) != len(images):
            raise RankproofError(f"the service answered {len(answers)} of {len(images)} images")
        rows = [_as_ids(answer) for answer in answers]
        lists = [[self.number(name) for name in row if name != NO_RESULT] for row in rows]
        if excluded is not None:
            skipped = zip(lists, excluded.tolist(), strict=True)
            lists = [[number for number in numbers if number != skip] for numbers, skip in skipped]
        return [numbers[: self._shown] for numbers in lists]


def _as_ids(answer: object) -> Sequence[Hashable]:
    """One answer as ids that are equal to themselves in another answer.

    Raises:
        RankproofError: it has no order, is one text, or holds something else than ids: distances, pairs of an
            id and its score, records, objects that are equal to nothing else.
    """
    # The items of a tensor hash by identity: as numbers of Python equal ids are equal.
    row = answer.tolist() if isinstance(answer, Tensor | np.ndarray) else answer
    if isinstance(row, str | bytes) or not isinstance(row, Sequence):
        raise RankproofError(f"the service returned a {type(row).__name__}, not a list of ids, for an image")
    row = [
        value.item() if isinstance(value, Tensor | np.generic) and not value.ndim else value for value in row
    ]
    first = row[0] if row else 0
    if isinstance(first, float):
        raise RankproofError(
            f"the service returned floats such as {first:g} as ids; are these its distances?"
        )
    if not _is_id(first):
        shown = " ".join(repr(first).split())
        raise RankproofError(
            f"the service returned {shown:.60} as an id; return ids alone, such as numbers or names, without "
            f"their scores"
        )
    return row


def _is_id(value: object) -> bool:
    """Whether a value can stand for an item: it is hashed by what it is, and holds no score."""
    if isinstance(value, tuple):
        return all(_is_id(part) for part in value)
    by_identity = value is not None and type(value).__hash__ in (None, object.__hash__)
    return not (by_identity or isinstance(value, float | Tensor | np.floating))
