"""The one loop that spends queries, and what a method that asks and is told must be.

A method is a frozen set of hyper-parameters. Its state is a value: tensors whose first dimension is the
attack. Random numbers of a round come from the seed, the attack's key and the number of the round, which is
part of the state, so that a search stopped anywhere and continued gives the same bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.space import Space, Variables
from rankproof.randomness import generator
from rankproof.threat import Threat
from rankproof.types import Images, Look, PerAttack, Rows, Seen

PERFECT = 1 - 1e-9

Own = TypeVar("Own", bound="Value")


@dataclass(frozen=True)
class Value:
    """Tensors whose first dimension is the attack."""

    def take(self: Own, rows: Tensor) -> Own:
        """The same of some of the attacks."""
        return replace(self, **{name: tensor[rows] for name, tensor in self.arrays().items()})

    def arrays(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a method knows of some attacks.

    Args:
        low, high: (b, c, s, s) bounds of the variables, in changes of a pixel.
        eps: largest change of a pixel, in [0, 1].
        keys: (b,) names the random numbers of each attack.
        seed: all random numbers come from it.
        budget: Q, queries of each attack, the clean one included.
        visible: N, None where the whole ranking is shown.
        k: number of chosen items.
    """

    low: Tensor
    high: Tensor
    eps: float
    keys: Rows
    seed: int
    budget: int
    visible: int | None
    k: int

    def take(self, rows: Tensor) -> "Problem":
        """The same for some of the attacks."""
        return replace(self, low=self.low[rows], high=self.high[rows], keys=self.keys[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, s, s), the shape of the variables of one attack."""
        return tuple(self.low.shape[1:])

    def clip(self, variables: Tensor) -> Tensor:
        """The nearest allowed variables (b, c, s, s) or (b, p, c, s, s)."""
        low, high = (bound if variables.dim() == 4 else bound[:, None] for bound in (self.low, self.high))
        return torch.maximum(torch.minimum(variables, high), low)

    def uniform(self, number: int, purpose: str, count: int) -> Variables:
        """(b, count, c, s, s) numbers uniform in [-1, 1) for one round."""
        return self.draw(
            number, purpose, lambda source: torch.rand(count, *self.shape, generator=source) * 2 - 1
        )

    def normal(self, number: int, purpose: str, count: int) -> Variables:
        """(b, count, c, s, s) standard normal numbers for one round."""
        return self.draw(number, purpose, lambda source: torch.randn(count, *self.shape, generator=source))

    def signs(self, number: int, purpose: str, count: int) -> Variables:
        """(b, count, c, s, s) numbers -1 or 1 for one round."""

        def numbers(source: torch.Generator) -> Tensor:
            return torch.randint(2, (count, *self.shape), generator=source, dtype=torch.int8)

        return self.draw(number, purpose, numbers) * 2 - 1

    def draw(self, number: int, purpose: str, numbers: Callable[[torch.Generator], Tensor]) -> Tensor:
        """What `numbers` draws from each attack's own generator for one round, stacked."""
        sources = (generator(self.seed, key, f"{purpose}/{number}") for key in self.keys.tolist())
        return torch.stack([numbers(source) for source in sources]).to(self.low)


@runtime_checkable
class BlackBox(Protocol):
    """A method that asks for points of its space and is told what was seen there."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in files."""
        ...

    @property
    def grid(self) -> bool:
        """Whether it searches among 8-bit images where nothing else is asked for."""
        ...

    def space(self, picture: tuple[int, int, int]) -> Space:
        """Where it searches where nothing else is asked for."""
        ...

    def begin(self, problem: Problem, clean: Seen) -> Value:
        """The state before the first round; `clean` (b, 1) is what the clean image showed."""
        ...

    def ask(self, problem: Problem, state: Any, number: int) -> Variables:
        """The points (b, p, c, s, s) of round `number`; equal arguments give equal points."""
        ...

    def tell(self, problem: Problem, state: Any, number: int, asked: Variables, seen: Seen) -> Value:
        """The state after round `number`."""
        ...


@dataclass(frozen=True)
class Trace(Value):
    """What a search found so far.

    Args:
        images: (b, c, h, w) the best images.
        score: (b,) their scores.
        spent: (b,) queries spent.
        scores: (b, Q) score of every query in its order, NaN where none was spent.
    """

    images: Images
    score: PerAttack
    spent: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Progress:
    """A search between two rounds: all that is needed to go on.

    Args:
        trace: what was found.
        state: the method's own, of the attacks that still run.
        running: (a,) which attacks these are.
        number: the next round.
    """

    trace: Trace
    state: Value
    running: Tensor
    number: int


class SearchInterruptedError(RankproofError):
    """The oracle failed in the middle of a search; `progress` holds what was found before."""

    def __init__(self, message: str, progress: Progress) -> None:
        super().__init__(message)
        self.progress = progress


@dataclass(frozen=True, kw_only=True)
class Search:
    """A method at work on a batch of attacks.

    Args:
        method: how to search.
        original: (b, c, h, w) centres of the threat sets.
        threat: what may be changed.
        space: where to search.
        look: sends pictures and tells what was seen.
        keys: (b,) names the random numbers of each attack.
        seed: all random numbers come from it.
        budget: Q, queries of each attack, the clean one included.
        visible, k: N, and how many items are chosen.
    """

    method: BlackBox
    original: Images
    threat: Threat
    space: Space
    look: Look
    keys: Rows
    seed: int
    budget: int
    visible: int | None
    k: int

    def begin(self, clean: Seen) -> Progress:
        """After the clean query, which `clean` (b, 1) tells of and which is paid for."""
        count = len(self.original)
        scores = torch.full((count, self.budget), math.nan)
        scores[:, 0] = clean.score[:, 0]
        score = clean.score[:, 0].clone()
        running = self._running(score)
        state = self.method.begin(self._problem, clean).take(running)
        trace = Trace(self.original, score, torch.ones(count, dtype=torch.int64), scores)
        return Progress(trace, state, running, 0)

    def done(self, progress: Progress) -> bool:
        """Whether no query is left to be spent."""
        return len(progress.running) == 0 or int(progress.trace.spent[progress.running[0]]) >= self.budget

    def step(self, progress: Progress) -> Progress:
        """One round of all running attacks; the last round sends what the budget still allows."""
        running, trace = progress.running, progress.trace
        problem = self._problem.take(running)
        asked = self.method.ask(problem, progress.state, progress.number)
        spent = int(trace.spent[running[0]])
        asked = asked[:, : self.budget - spent]
        images = self._images(asked, running)
        try:
            seen = self.look(images, running)
        except Exception as error:
            reached = f"after {spent} of {self.budget} queries"
            raise SearchInterruptedError(f"the search system failed {reached}: {error}", progress) from error
        trace = _extended(trace, running, images, seen, spent)
        if spent + asked.shape[1] >= self.budget:
            return Progress(trace, progress.state, running[:0], progress.number + 1)
        state = self.method.tell(problem, progress.state, progress.number, asked, seen)
        left = self._running(trace.score[running])
        return Progress(trace, state.take(left), running[left], progress.number + 1)

    @property
    def _picture(self) -> tuple[int, int, int]:
        _, channels, height, width = self.original.shape
        return channels, height, width

    @property
    def _problem(self) -> Problem:
        """All attacks; in full resolution the bounds keep pixels in [0, 1], else `project` does."""
        full = self.space.kind == "full"
        shape = self.space.shape(self._picture)
        ball = self.original.new_full((len(self.original), *shape), self.threat.eps)
        return Problem(
            low=torch.maximum(-ball, -self.original) if full else -ball,
            high=torch.minimum(ball, 1 - self.original) if full else ball,
            eps=self.threat.eps,
            keys=self.keys,
            seed=self.seed,
            budget=self.budget,
            visible=self.visible,
            k=self.k,
        )

    def _images(self, asked: Variables, running: Rows) -> Tensor:
        """The pictures (a, p, c, h, w) that are really sent."""
        original = self.original[running][:, None]
        return self.threat.project(original + self.space.expand(asked, self._picture), original)

    def _running(self, score: PerAttack) -> Tensor:
        """Those whose order is not perfect yet, unless nothing may be spent."""
        if self.budget < 2 or self.threat.eps == 0:
            return torch.empty(0, dtype=torch.int64)
        return (score < PERFECT).nonzero()[:, 0]


def _extended(trace: Trace, running: Rows, images: Tensor, seen: Seen, spent: int) -> Trace:
    """The trace after a round; the first of equally good images is kept."""
    count = images.shape[1]
    scores, best, kept, total = (
        tensor.clone() for tensor in (trace.scores, trace.score, trace.images, trace.spent)
    )
    scores[running, spent : spent + count] = seen.score.to(scores)
    value, place = seen.score.to(best).max(1)
    better = value > best[running]
    best[running] = torch.where(better, value, best[running])
    found = images[torch.arange(len(running)), place]
    kept[running] = torch.where(better[:, None, None, None], found, kept[running])
    total[running] += count
    return Trace(kept, best, total, scores)
