"""Our black-box search: learn how every chosen item moves, and try what the belief may still hope for.

An embedding of an image moves almost linearly with a small change of the image, and so does the place of each
chosen item once it is put on a scale on which distances grow evenly. A Bayesian linear model of the k places
is learned from all queries of an attack, with smooth changes expected to matter more than fine ones. Each new
query is the best answer to one draw from that belief (Thompson sampling): as long as something is uncertain
the draws differ and explore; when all is known they agree and exploit.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.methods.black_box.base import AttackTensors, BlackBoxMethod, Problem
from rankproof.methods.black_box.subspace import Latents, frequencies
from rankproof.parameters import Checked, Count, Momentum, Positive, Weight
from rankproof.types import Feedback

Features = Float[Tensor, "b p f"]
"""Weighted frequencies of a change, its mean square, and 1."""

MODELLED = 200  # frequencies in the model, over all channels
LEAST_SPREAD = 0.05  # variance of the scaled places below which nothing is known of them yet
TOGETHER = 8  # attacks whose answers are sought side by side: they fit the caches of a processor
FREE = 1e-3  # precision of the prior of what is not a frequency
UNHURRIED = 1000  # queries that leave time for all the exploring the belief asks for
NOISE = "auto"  # names the random numbers of a round: another word would give other numbers


@dataclass(frozen=True)
class Belief(AttackTensors):
    """Sufficient statistics of the linear model of each attack.

    Args:
        gram: (b, f, f) sum of phi phi^T.
        cross: (b, f, k) sum of phi y.
        squares: (b, k) sum of y^2.
        best: (b,) the best score so far.
        share: (b,) the amplitude of the change that had it, as a share of eps.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    best: Tensor
    share: Tensor


@dataclass(frozen=True, kw_only=True)
class ThompsonSampling(Checked, BlackBoxMethod):
    """Thompson sampling with a Bayesian linear model of the places of the chosen items.

    y_c(r) = w_c . phi(r) + e,   y = place^(1/2),   phi(r) = ( a_f DCT(r / eps)_f, mean (r / eps)^2, 1 )
    r_n = arg max over |r| <= share eps of  sum over i < j of s((y_j - y_i) / T) s((y_N - y_j) / T),
          for one draw of w from the belief

    where a_f falls with the frequency f, s is the logistic function, and the second factor, which is only
    there where N is finite, keeps the later item of each pair in sight (y_N = (N - 1/2)^(1/2)). The maximum
    is sought with sign steps, which end at corners wherever the model has no reason to stay inside. Half of a
    round may use the whole ball; the other half less, since what leaves the visible list teaches nothing.
    Where Q is below 1,000, draws keep to (Q / 1000)^(1/2) of the belief's deviation: what is explored late
    cannot be used any more.

    Args:
        population: most queries of a round, the first few are smaller; None is a twentieth of the budget,
            from 10 to 50.
        side: frequencies along each side in the model; None is as many as 200 over all channels allow.
        smooth: frequency from which the prior falls.
        decay: exponent of the prior's fall with the frequency.
        noise: variance of a place that the model does not explain, as a share of what it may explain.
        steps: sign steps of each maximisation.
        momentum: of these steps, in [0, 1).
        temperature: T, on the scale of y.
        first: the least amplitude, as a share of eps.
        wander: how far a quarter of the amplitudes spreads around the best one's, in powers of 2.
    """

    population: Count | None = None
    side: Count | None = None
    smooth: Positive = 3.0
    decay: Weight = 1.5
    noise: Positive = 0.15
    steps: Count = 16
    momentum: Momentum = 0.8
    temperature: Positive = 0.6
    first: Weight = 0.1
    wander: Weight = 0.25

    name = "thompson"
    grid = True

    def begin(self, problem: Problem, clean: Feedback) -> Belief:
        """What the clean image tells."""
        count = problem.shape[0] * self._waves(problem).weights.numel() + 2
        zero = problem.low.new_zeros
        size = len(problem.low)
        empty = Belief(
            zero(size, count, count),
            zero(size, count, problem.k),
            zero(size, problem.k),
            zero(size) - torch.inf,
            zero(size) + 1,
        )
        return self.tell(problem, empty, 0, torch.zeros_like(problem.low)[:, None], clean)

    def tell(
        self, problem: Problem, state: Belief, number: int, points: Latents, feedback: Feedback
    ) -> Belief:
        """Add a round of queries to the statistics."""
        phi = self._waves(problem).features(points)
        y = _scaled(feedback.places).to(phi)
        score, place = feedback.score.to(phi).max(1)
        shares = points.abs().amax((2, 3, 4)) / problem.eps
        share = shares.gather(1, place[:, None])[:, 0].clamp(self.first, 1)
        better = score > state.best
        return Belief(
            gram=state.gram + phi.mT @ phi,
            cross=state.cross + phi.mT @ y,
            squares=state.squares + y.square().sum(1),
            best=torch.where(better, score, state.best),
            share=torch.where(better, share, state.share),
        )

    def ask(self, problem: Problem, state: Belief, number: int) -> Latents:
        """The best answers to draws from the belief, each within its own share of the ball."""
        parts = []
        for rows in torch.arange(len(problem.rng_keys)).split(TOGETHER):
            some, belief = problem.take(rows), state.take(rows)
            draws, shares = self._draws(some, belief, number), self._shares(some, belief, number)
            parts.append(self._answers(some, draws, shares))
        return torch.cat(parts)

    def _shares(self, problem: Problem, state: Belief, number: int) -> Float[Tensor, "b p"]:
        """How much of the ball each query may use: all sizes first, then about as much as the best one."""
        count = self._round(problem, number)
        steps = torch.linspace(0, 1, count).to(state.share)
        near = state.share[:, None] * 2 ** (self.wander * (8 * steps - 1))  # a quarter around the best
        up = state.share[:, None] ** (2 - 4 * steps)  # a quarter from there to the whole ball
        some = (
            self.first ** (1 - 2 * steps).expand_as(up)
            if number == 0
            else torch.where(steps < 0.25, near, up)
        )
        return torch.where(steps < 0.5, some, 1.0).clamp(self.first, 1)

    def _round(self, problem: Problem, number: int) -> int:
        """Queries of a round: small ones first, when every answer still teaches much."""
        most = self.population or min(50, max(10, problem.budget // 20))
        return min(most, 10 * (number + 1))

    def _draws(self, problem: Problem, state: Belief, number: int) -> "_Draws":
        """Weights of the model, drawn from the belief."""
        count = self._round(problem, number)
        precision, deviation = self._precision(state)
        factor = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(state.cross, factor)  # (b, f, k)
        noise = problem.draw(
            number,
            NOISE,
            lambda source: torch.randn(mean.shape[1], count * problem.k, generator=source),
        )
        spread: Tensor = torch.linalg.solve_triangular(factor.mT, noise, upper=True)
        boldness = min(1.0, math.sqrt(problem.budget / UNHURRIED))
        spread = spread * (boldness * deviation)[:, None, None]
        draws: Tensor = mean[:, :, None] + spread.view(*mean.shape[:2], count, problem.k)
        return _Draws(draws.transpose(1, 2).contiguous(), draws.permute(0, 2, 3, 1).contiguous())

    def _precision(self, state: Belief) -> tuple[Tensor, Tensor]:
        """phi^T phi with the prior added (b, f, f), and the deviation of the noise (b,)."""
        count = state.gram[:, -1, -1, None]  # (b, 1) queries so far; the last feature is 1
        variance = state.squares / count - (state.cross[:, -1] / count).square()  # (b, k)
        spread = variance.mean(1).clamp(min=LEAST_SPREAD)
        length = state.gram.diagonal(dim1=1, dim2=2)[:, :-2].sum(1) / count[:, 0]  # mean |phi|^2
        # The weights' prior variance is spread / |phi|^2: a typical change explains a typical spread.
        prior = self.noise * length.clamp(min=0.3)
        added = torch.full_like(state.gram[:, 0], FREE)
        added[:, :-2] = prior[:, None]
        return state.gram + torch.diag_embed(added), (self.noise * spread).sqrt()

    def _answers(self, problem: Problem, draws: "_Draws", shares: Float[Tensor, "b p"]) -> Latents:
        """The points that put the chosen into the wanted order if a draw is the truth."""
        bound = problem.eps * shares[:, :, None, None, None]
        low, high = torch.maximum(problem.low[:, None], -bound), torch.minimum(problem.high[:, None], bound)
        point, velocity = torch.zeros_like(low), torch.zeros_like(low)
        waves = self._waves(problem)
        for step in range(self.steps):
            slope = self._slope(problem, waves, point, draws)
            scale = slope.abs().mean((2, 3, 4), keepdim=True).clamp_min_(torch.finfo(slope.dtype).tiny)
            velocity = velocity.mul_(self.momentum).add_(slope.div_(scale))
            length = 2 - 2 * step / self.steps if step else 1
            point = torch.clamp(point.addcmul_(velocity.sign(), bound, value=length), low, high)
        return point

    def _slope(self, problem: Problem, waves: "_Waves", point: Latents, draws: "_Draws") -> Tensor:
        """The gradient of the smoothed goal with respect to the points (b, p, c, s, s)."""
        phi = waves.features(point)
        y = (phi[:, :, None] @ draws.forward)[:, :, 0]  # (b, p, k)
        back = (self._goal_slope(y, problem.visible)[:, :, None] @ draws.backward)[:, :, 0]  # (b, p, f)
        return waves.slope(back, point)

    def _goal_slope(self, y: Float[Tensor, "b p k"], visible: int | None) -> Tensor:
        """The gradient of the smoothed goal with respect to the scaled places (b, p, k)."""
        ahead = torch.sigmoid((y[..., None, :] - y[..., :, None]) / self.temperature)  # (b, p, i, j)
        order = torch.ones(y.shape[-1], y.shape[-1], dtype=y.dtype, device=y.device).triu(1)
        bend = ahead * (1 - ahead) * order / self.temperature
        if visible is None:
            return bend.sum(-2) - bend.sum(-1)
        limit = _scaled(torch.tensor(visible - 0.5))
        sight = torch.sigmoid((limit - y) / self.temperature)  # (b, p, j)
        bend = bend * sight[..., None, :]
        fading = (ahead * order).sum(-2) * sight * (1 - sight) / self.temperature
        return bend.sum(-2) - bend.sum(-1) - fading

    def _waves(self, problem: Problem) -> "_Waves":
        """The frequencies in the model and the prior's weight of each."""
        channels, height, width = problem.shape
        side = self.side or max(1, math.isqrt(MODELLED // channels))
        rows, columns = (frequencies(size, min(side, size), problem.low) for size in (height, width))
        across = torch.arange(rows.shape[1])[:, None].square() + torch.arange(columns.shape[1]).square()
        weights = (1 + across / self.smooth**2) ** (-self.decay / 2)
        weights = weights / (channels * weights.square().sum()).sqrt()
        return _Waves(rows, columns, weights.to(problem.low), problem.eps)


@dataclass(frozen=True)
class _Draws:
    """Weights drawn from the belief in the two layouts that their products want."""

    forward: Float[Tensor, "b p f k"]
    backward: Float[Tensor, "b p k f"]


@dataclass(frozen=True)
class _Waves:
    """Cosines along the rows (h, s) and the columns (w, s), and the weight of each pair (s, s)."""

    rows: Tensor
    columns: Tensor
    weights: Tensor
    eps: float

    def features(self, point: Latents) -> Features:
        """phi of points of the search subspace."""
        change = point / self.eps
        waves = (self.rows.t() @ change @ self.columns) * self.weights
        power = change.square().mean((2, 3, 4))
        return torch.cat([waves.flatten(2), power[..., None], torch.ones_like(power)[..., None]], dim=2)

    def slope(self, upstream: Features, point: Latents) -> Latents:
        """The gradient with respect to the points from the one with respect to phi."""
        shape = (*upstream.shape[:2], point.shape[2], *self.weights.shape)
        waves = self.rows @ (upstream[..., :-2].reshape(shape) * self.weights) @ self.columns.t()
        bend = upstream[..., -2, None, None, None] * 2 / (math.prod(point.shape[2:]) * self.eps)
        return waves.addcmul_(bend, point).div_(self.eps)


def _scaled(places: Tensor) -> Tensor:
    """Places on a scale on which the distances of the nearest items grow evenly."""
    return places.to(torch.float32).sqrt()
