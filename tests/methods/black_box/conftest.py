import pytest
import torch

from rankproof import Threat
from rankproof.methods.black_box.base import Problem
from rankproof.methods.black_box.search import Search
from rankproof.methods.black_box.subspace import Subspace
from rankproof.types import Feedback


class Bench:
    """What the tests of black-box methods put them to: one small problem, one score, one search."""

    seed = 3
    shape = (1, 4, 4)

    @staticmethod
    def hilly(images):
        """A score in [-1, 1] of any images (..., 1, h, w)."""
        height, width = images.shape[-2:]
        weights = torch.linspace(-3, 4, height * width, dtype=images.dtype).view(1, height, width)
        return (torch.sin(7 * images * weights) * weights).sum((-1, -2, -3)) / 60

    @staticmethod
    def feedback(score):
        """What the oracle shows for scores (b, p)."""
        return Feedback(torch.zeros(*score.shape, 2, dtype=torch.int64), score)

    @staticmethod
    def problem(count=1, eps=0.1, shape=shape):
        """Attacks whose latents may be anything within eps."""
        bound = torch.full((count, *shape), eps, dtype=torch.float64)
        return Problem(
            low=-bound,
            high=bound,
            eps=eps,
            rng_keys=torch.arange(count),
            seed=Bench.seed,
            budget=1000,
            visible=9,
            k=2,
        )

    @staticmethod
    def walk(method, original, score=hilly, *, eps=8 / 255, budget=1000, rng_keys=None, subspace=None):
        """What was sent, round by round, where the method stood before each, and what was found."""
        sent = []

        def query(images, attacks):
            sent.append(images.clone())
            return Bench.feedback(score(images))

        search = Search(
            method=method,
            original=original,
            threat=Threat(eps),
            subspace=subspace or Subspace("full"),
            query=query,
            rng_keys=torch.arange(len(original)) if rng_keys is None else rng_keys,
            seed=Bench.seed,
            budget=budget,
            visible=9,
            k=2,
        )
        state = search.begin(Bench.feedback(score(original[:, None])))
        states = [state.method_state]
        while not search.done(state):
            state = search.step(state)
            states.append(state.method_state)
        return sent, states, state.history


@pytest.fixture(scope="session")
def bench():
    return Bench
