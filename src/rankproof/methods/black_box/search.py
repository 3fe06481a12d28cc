"""The search loop: the only place where queries are spent."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import Latents, Subspace
from rankproof.threat import Threat
from rankproof.types import Feedback, Images, PerAttack, QueryFn, Rows

PERFECT = 1 - 1e-9


@dataclass(frozen=True)
class SearchHistory(AttackTensors):
    """The best images and all scores of a search so far.

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
class SearchState:
    """A search between two rounds: all that is needed to go on.

    Args:
        history: images and scores so far.
        method_state: the method's own, of the attacks that still run.
        running: (a,) which attacks these are.
        number: the next round.
    """

    history: SearchHistory
    method_state: AttackTensors
    running: Tensor
    number: int


class SearchInterruptedError(RankproofError):
    """The oracle failed in the middle of a search; `state` is that of the last finished round."""

    def __init__(self, message: str, state: SearchState) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True, kw_only=True)
class Search:
    """A method at work on a batch of attacks.

    Args:
        method: how to search.
        original: (b, c, h, w) centres of the threat sets.
        threat: what may be changed.
        subspace: where to search.
        query: sends images and returns what was seen.
        rng_keys: (b,) names the random numbers of each attack.
        seed: all random numbers come from it.
        budget: Q, queries of each attack, the clean one included.
        visible, k: N, and how many items are chosen.
    """

    method: BlackBoxMethod
    original: Images
    threat: Threat
    subspace: Subspace
    query: QueryFn
    rng_keys: Rows
    seed: int
    budget: int
    visible: int | None
    k: int

    def begin(self, clean: Feedback) -> SearchState:
        """The state after the clean query, whose feedback is `clean` (b, 1) and which counts as spent."""
        count = len(self.original)
        scores = torch.full((count, self.budget), math.nan)
        scores[:, 0] = clean.score[:, 0]
        score = clean.score[:, 0].clone()
        running = self._running(score)
        state = self.method.begin(self._problem, clean).take(running)
        history = SearchHistory(self.original, score, torch.ones(count, dtype=torch.int64), scores)
        return SearchState(history, state, running, 0)

    def done(self, state: SearchState) -> bool:
        """Whether no query is left to be spent."""
        return len(state.running) == 0 or int(state.history.spent[state.running[0]]) >= self.budget

    def step(self, state: SearchState) -> SearchState:
        """One round of all running attacks; the last round sends what the budget still allows."""
        running, history = state.running, state.history
        problem = self._problem.take(running)
        spent = int(history.spent[running[0]])
        points = self.method.ask(problem, state.method_state, state.number)[:, : self.budget - spent]
        images = self._images(points, running)
        try:
            feedback = self.query(images, running)
        except Exception as error:
            reached = f"after {spent} of {self.budget} queries"
            raise SearchInterruptedError(f"the search system failed {reached}: {error}", state) from error
        history = _extended(history, running, images, feedback, spent)
        if spent + points.shape[1] >= self.budget:
            return SearchState(history, state.method_state, running[:0], state.number + 1)
        method_state = self.method.tell(problem, state.method_state, state.number, points, feedback)
        left = self._running(history.score[running])
        return SearchState(history, method_state.take(left), running[left], state.number + 1)

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.original.shape
        return channels, height, width

    @property
    def _problem(self) -> Problem:
        """All attacks; in full resolution the bounds keep pixels in [0, 1], else `project` does."""
        full = self.subspace.kind == "full"
        shape = self.subspace.shape(self._image_shape)
        ball = self.original.new_full((len(self.original), *shape), self.threat.eps)
        return Problem(
            low=torch.maximum(-ball, -self.original) if full else -ball,
            high=torch.minimum(ball, 1 - self.original) if full else ball,
            eps=self.threat.eps,
            rng_keys=self.rng_keys,
            seed=self.seed,
            budget=self.budget,
            visible=self.visible,
            k=self.k,
        )

    def _images(self, points: Latents, running: Rows) -> Tensor:
        """The images (a, p, c, h, w) that are really sent."""
        original = self.original[running][:, None]
        return self.threat.project(original + self.subspace.expand(points, self._image_shape), original)

    def _running(self, score: PerAttack) -> Tensor:
        """Those whose order is not perfect yet, unless nothing may be spent."""
        if self.budget < 2 or self.threat.eps == 0:
            return torch.empty(0, dtype=torch.int64)
        return (score < PERFECT).nonzero()[:, 0]


def _extended(
    history: SearchHistory, running: Rows, images: Tensor, feedback: Feedback, spent: int
) -> SearchHistory:
    """The history after a round; the first of equally good images is kept."""
    count = images.shape[1]
    scores, best, best_images, total = (
        tensor.clone() for tensor in (history.scores, history.score, history.images, history.spent)
    )
    scores[running, spent : spent + count] = feedback.score.to(scores)
    value, place = feedback.score.to(best).max(1)
    better = value > best[running]
    best[running] = torch.where(better, value, best[running])
    candidates = images[torch.arange(len(running)), place]
    best_images[running] = torch.where(better[:, None, None, None], candidates, best_images[running])
    total[running] += count
    return SearchHistory(best_images, best, total, scores)
