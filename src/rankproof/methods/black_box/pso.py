"""Particle swarm optimisation, as published (ICCV section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import Latents
from rankproof.parameters import Checked, Count, Positive, Weight
from rankproof.types import Feedback


@dataclass(frozen=True)
class Swarm(AttackTensors):
    """Particles and the best that each of them and all of them found.

    Args:
        places, speeds: (b, p, c, s, s) of the particles.
        own: (b, p, c, s, s) where each particle was best, own_score (b, p) how good that was.
        best: (b, c, s, s) where any particle, or the clean image, was best, best_score (b,) how good.
    """

    places: Tensor
    speeds: Tensor
    own: Tensor
    own_score: Tensor
    best: Tensor
    best_score: Tensor


@dataclass(frozen=True, kw_only=True)
class PSO(Checked, BlackBoxMethod):
    """Particle swarm: each particle keeps its speed and is drawn to its own best and to the best of all.

    u <- inertia u + pull_own rho_1 (own - v) + pull_best rho_2 (best - v),  rho ~ U(0, 1);  v <- clip(v + u)

    Args:
        particles: in the swarm; each is scored at the start and after every move.
        inertia: how much of the speed is kept.
        pull_own, pull_best: weights of the two pulls.
    """

    particles: Count = 40
    inertia: Positive = 1.10
    pull_own: Weight = 0.57
    pull_best: Weight = 0.44

    name = "pso"

    def begin(self, problem: Problem, clean: Feedback) -> Swarm:
        """Anywhere in the ball, with speeds of up to its width; the clean image is the best so far."""
        places = problem.clip(problem.eps * problem.uniform(0, "pso-place", self.particles))
        speeds = 2 * problem.eps * problem.uniform(0, "pso-speed", self.particles)
        score = clean.score.to(places)
        own = torch.full_like(score, -torch.inf).expand(-1, self.particles)
        return Swarm(places, speeds, places, own.contiguous(), torch.zeros_like(problem.low), score[:, 0])

    def ask(self, problem: Problem, state: Swarm, number: int) -> Latents:
        """Where the particles are."""
        return state.places

    def tell(self, problem: Problem, state: Swarm, number: int, points: Latents, feedback: Feedback) -> Swarm:
        """Remember what is better, then move."""
        score = feedback.score.to(state.places)
        better = score > state.own_score
        own = torch.where(better[:, :, None, None, None], state.places, state.own)
        top, leader = score.max(1)
        first = top > state.best_score
        ahead = state.places[torch.arange(len(score)), leader]
        best = torch.where(first[:, None, None, None], ahead, state.best)
        pulls = problem.draw(
            number,
            "pso-pull",
            lambda source: torch.rand(2, self.particles, *[1] * len(problem.shape), generator=source),
        )
        speeds = (
            self.inertia * state.speeds
            + self.pull_own * pulls[:, 0] * (own - state.places)
            + self.pull_best * pulls[:, 1] * (best[:, None] - state.places)
        )
        return Swarm(
            problem.clip(state.places + speeds),
            speeds,
            own,
            torch.where(better, score, state.own_score),
            best,
            torch.where(first, top, state.best_score),
        )
