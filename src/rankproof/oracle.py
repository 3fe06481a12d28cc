"""What the attacker may see: where some items stand among the first N results, and nothing else."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.ranking.distances import Cosine, Euclidean
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import places_in
from rankproof.types import Ids, Images, Pictures, Places, Rows

PASS = 200  # images in one forward pass: their activations still fit the caches of a processor
SLACK = 3e-3  # of single-precision distances that only decide which items are looked at exactly

Search = Callable[[Images], Sequence[Sequence[Hashable]] | Tensor]


class BudgetExhaustedError(RankproofError):
    """A query beyond the budget was refused; it was not sent."""


@dataclass(frozen=True)
class Watch:
    """What is looked for in the lists of some attacks.

    Args:
        attacks: (b,) which attacks of the batch these are.
        ids: (b, k) the watched items.
        ignored: (b,) an item each that does not count, such as the query's own clean copy; None: all count.
    """

    attacks: Rows
    ids: Ids
    ignored: Rows | None = None

    def to(self, device: torch.device) -> "Watch":
        """The same on a device."""
        ignored = None if self.ignored is None else self.ignored.to(device)
        return Watch(self.attacks.to(device), self.ids.to(device), ignored)


@runtime_checkable
class Oracle(Protocol):
    """A search system seen from outside."""

    @property
    def visible(self) -> int | None:
        """N, how many results are shown; None shows the whole ranking."""
        ...

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """The ids (b, count) of the first results of one picture (b, c, h, w) per attack, nearest first."""
        ...

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """Positions (b, p, k) of the watched items for p pictures per attack; `visible` where unseen."""
        ...


@dataclass(frozen=True)
class LocalOracle:
    """A gallery behind a curtain: positions among its first N results.

    Positions are counted in double precision, equal distances in gallery order. Only items that can stand
    before a watched one are counted: with all pictures of an attack within r of their mean embedding m, an
    item x comes before c for none of them where |m - x| > max d(q, c) + r (triangle inequality).

    Args:
        gallery: the database.
        visible: N, how many results are shown; None shows the whole ranking.
    """

    gallery: Gallery
    visible: int | None = None

    def __post_init__(self) -> None:
        if self.visible is not None and not 1 <= self.visible <= len(self.gallery):
            raise RankproofError(
                f"visible must be between 1 and the gallery's {len(self.gallery)} items, got {self.visible}"
            )

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """The first results, the ignored item left out."""
        z = self._embed(images)
        return self.gallery.search(z, count, dropped=watch.to(z.device).ignored).to(images.device)

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """Positions of the watched items, at most `visible`."""
        z = self._embed(images.flatten(0, 1)).view(*images.shape[:2], -1)  # (b, p, d)
        watch = watch.to(z.device)
        places = self._pruned(z, watch) if self._is_metric else self._counted(z, watch)
        places = places if self.visible is None else places.clamp(max=self.visible)
        return places.to(images.device)

    @property
    def _is_metric(self) -> bool:
        return isinstance(self.gallery.ranker.distance, Cosine | Euclidean)

    def _embed(self, images: Images) -> Tensor:
        ranker = self.gallery.ranker
        with ranker.frozen(), torch.inference_mode():
            return torch.cat([ranker.embed(ranker.as_input(part)) for part in images.split(PASS)])

    def _counted(self, z: Tensor, watch: Watch) -> Tensor:
        """Positions by comparing with the whole gallery."""
        pictures = z.shape[1]
        ignored = None if watch.ignored is None else watch.ignored.repeat_interleave(pictures)
        chosen = watch.ids.repeat_interleave(pictures, 0)
        places = self.gallery.rank_of(z.flatten(0, 1), chosen, ties="order", dropped=ignored)
        if ignored is not None:
            places = places.masked_fill(chosen == ignored[:, None], len(self.gallery))
        return places.view(*z.shape[:2], -1)

    def _pruned(self, z: Tensor, watch: Watch) -> Tensor:
        """Positions by comparing with the items that can matter; both distances grow with |a - b|."""
        database = self.gallery.embeddings
        centres = z.mean(1)  # (b, d)
        radii = (z - centres[:, None]).norm(dim=2).amax(1)  # (b,)
        far = self._lengths(centres)  # (b, n)
        chosen = database[watch.ids]  # (b, k, d)
        lengths = z.square().sum(2)[:, :, None] + chosen.square().sum(2)[:, None]
        watched = torch.baddbmm(lengths, z, chosen.mT, alpha=-2).clamp_(min=0).sqrt_()  # (b, p, k)
        limits = watched.amax((1, 2)) + radii
        if self.visible is not None:
            # The first N for any of the pictures lie within the N-th length from the centre plus twice r.
            places = min(len(database), self.visible + (watch.ignored is not None))
            limits = torch.minimum(limits, far.topk(places, dim=1, largest=False).values[:, -1] + 2 * radii)
        near = far <= (limits * (1 + SLACK) + SLACK * z.norm(dim=2).amax(1))[:, None]
        ignored = watch.ignored.tolist() if watch.ignored is not None else [None] * len(z)
        return torch.stack([
            self._exact(rows, ids, mask.nonzero()[:, 0], skip)
            for rows, ids, mask, skip in zip(z, watch.ids, near, ignored, strict=True)
        ])  # fmt: skip

    @cached_property
    def _squares(self) -> Tensor:
        """(n,) squared lengths of the gallery's embeddings."""
        return self.gallery.embeddings.square().sum(1)

    def _lengths(self, centres: Tensor) -> Tensor:
        """(b, n) lengths |m - x| from points (b, d), in single precision."""
        squares = torch.addmm(self._squares, centres, self.gallery.embeddings.t(), alpha=-2)
        return squares.add_(centres.square().sum(1)[:, None]).clamp_(min=0).sqrt_()

    def _exact(self, z: Tensor, watched: Tensor, items: Tensor, ignored: int | None) -> Tensor:
        """Positions (p, k) for the pictures of one attack (p, d) among some items; n where not among them."""
        items = items if ignored is None else items[items != ignored]
        block = self.gallery.embeddings[items].double()
        distances = self.gallery.ranker.distance.pairwise(z.double(), block)  # (p, m)
        columns = torch.searchsorted(items, watched)
        places = z.new_full((len(z), len(watched)), len(self.gallery), dtype=torch.int64)
        for number, column in enumerate(columns.tolist()):
            if column < len(items) and items[column] == watched[number]:
                own = distances[:, column, None]
                places[:, number] = (distances < own).sum(1) + (distances[:, :column] == own).sum(1)
        return places


@dataclass
class ListOracle:
    """Any function that returns lists of ids, such as a search service, as an oracle.

    Args:
        search: pictures (n, c, h, w) to one list of ids each, nearest first; ids of any hashable kind.
        visible: N, how many results it shows; longer lists are cut, shorter ones are taken as they are.
    """

    search: Search
    visible: int | None
    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.visible is None or self.visible < 1:
            raise RankproofError(f"visible: a service shows at least 1 result, got {self.visible}")

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """The first results as numbers; `name` gives the service's own ids back."""
        lists = self._lists(images, watch.ignored)
        found = [list(dict.fromkeys(numbers))[:count] for numbers in lists]  # repeated ids count once
        shortest = min(map(len, found))
        if shortest < count:
            raise RankproofError(
                f"the service returned {shortest} different ids, {count} are needed; choose a smaller k"
            )
        return torch.tensor(found, dtype=torch.int64, device=images.device)

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """Positions of the watched items in each list."""
        pictures = images.shape[1]
        ignored = None if watch.ignored is None else watch.ignored.repeat_interleave(pictures)
        lists = self._lists(images.flatten(0, 1), ignored)
        rows = [numbers + [-1] * (self._shown - len(numbers)) for numbers in lists]
        found = torch.tensor(rows, dtype=torch.int64, device=images.device)
        return places_in(found.view(*images.shape[:2], -1), watch.ids[:, None])

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

    def _lists(self, images: Images, ignored: Rows | None) -> list[list[int]]:
        """The visible ids of each picture as numbers, the ignored one left out."""
        answers = self.search(images)
        if len(answers) != len(images):
            raise RankproofError(f"the service answered {len(answers)} of {len(images)} pictures")
        # The items of a tensor hash by identity: as numbers of Python equal ids are equal.
        rows = (answer.tolist() if isinstance(answer, Tensor) else answer for answer in answers)
        lists = [[self.number(name) for name in row] for row in rows]
        if ignored is not None:
            skipped = zip(lists, ignored.tolist(), strict=True)
            lists = [[number for number in numbers if number != skip] for numbers, skip in skipped]
        return [numbers[: self._shown] for numbers in lists]


@dataclass
class Metered:
    """An oracle with a hard budget for each attack; every image sent counts, the clean one too.

    Args:
        oracle: what is asked.
        budget: Q, queries each attack may send.
        spent: queries each attack has sent so far, by its number in the batch.
    """

    oracle: Oracle
    budget: int
    spent: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise RankproofError(f"budget must be at least 1 query, got {self.budget}")

    @property
    def visible(self) -> int | None:
        """As the oracle's."""
        return self.oracle.visible

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """As the oracle's, one query for each attack."""
        self._spend(watch, 1)
        return self.oracle.top(images, count, watch)

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """As the oracle's, one query for each picture."""
        self._spend(watch, images.shape[1])
        return self.oracle(images, watch)

    def _spend(self, watch: Watch, count: int) -> None:
        """Take the queries from the budget, or refuse all of them before any is sent."""
        after = {number: self.spent.get(number, 0) + count for number in watch.attacks.tolist()}
        if max(after.values(), default=0) > self.budget:
            raise BudgetExhaustedError(
                f"the budget of {self.budget} queries does not allow {count} more; nothing was sent"
            )
        self.spent.update(after)


@dataclass
class Cached:
    """An oracle that is never asked the same twice: answers are kept by the picture's exact pixels.

    Args:
        oracle: what is asked where no answer is kept.
    """

    oracle: Oracle
    _answers: dict[bytes, Tensor] = field(default_factory=dict)

    @property
    def visible(self) -> int | None:
        """As the oracle's."""
        return self.oracle.visible

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """As the oracle's; pictures that were sent before are answered from memory."""
        keys = [
            _digest(image, torch.tensor([count, skip]), b"top")
            for image, skip in zip(images, _skips(watch), strict=True)
        ]
        fresh = _fresh(keys, self._answers)
        if fresh:
            found = self.oracle.top(images[fresh], count, _part(watch, fresh))
            self._answers |= {keys[row]: answer for row, answer in zip(fresh, found, strict=True)}
        return torch.stack([self._answers[key] for key in keys])

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """As the oracle's; pictures that were sent before are answered from memory."""
        result = []
        for row, (pictures, skip) in enumerate(zip(images, _skips(watch), strict=True)):
            question = torch.cat([watch.ids[row].cpu(), torch.tensor([skip])])
            keys = [_digest(picture, question, b"places") for picture in pictures]
            fresh = _fresh(keys, self._answers)
            if fresh:
                found = self.oracle(pictures[None, fresh], _part(watch, [row]))[0]
                self._answers |= {keys[column]: answer for column, answer in zip(fresh, found, strict=True)}
            result.append(torch.stack([self._answers[key] for key in keys]))
        return torch.stack(result)


def _skips(watch: Watch) -> list[int]:
    """The ignored item of each attack, -1 where there is none."""
    return [-1] * len(watch.ids) if watch.ignored is None else watch.ignored.tolist()


def _part(watch: Watch, rows: list[int]) -> Watch:
    """The watch of some of its attacks."""
    ignored = None if watch.ignored is None else watch.ignored[rows]
    return Watch(watch.attacks[rows], watch.ids[rows], ignored)


def _digest(picture: Tensor, question: Tensor, kind: bytes) -> bytes:
    """What names a question: the exact pixels and what is looked for."""
    parts = (kind, picture.detach().cpu().contiguous().numpy().tobytes(), question.numpy().tobytes())
    return hashlib.blake2b(b"/".join(parts), digest_size=16).digest()


def _fresh(keys: list[bytes], known: dict[bytes, Tensor]) -> list[int]:
    """The first position of every key that is not known."""
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    return sorted(position for key, position in first.items() if key not in known)
