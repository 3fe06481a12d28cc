"""The smallest budget of a wish that is a handful of inequalities, such as an order, by linear programmes."""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods.white_box.budget_search import BudgetOutput, BudgetProblem
from rankproof.methods.white_box.linear_budget import least_change
from rankproof.methods.white_box.pgd import normalised
from rankproof.parameters import Checked, Count, Momentum, Positive, PositiveShare, Share

FASTER, SHORTER = 2.0, 0.4  # factors on how far a linear picture is trusted
GOOD, BAD, TAKEN = 0.7, 0.25, 0.05  # share of a promise that must come true to trust more, not less, and go
SAFER = 1.5  # times the price of an inequality
DEAREST = 1e3  # weight of an inequality, at most
NEAR = 0.5  # share of what a trusted step can bring: an inequality further off cannot matter
NOTHING = 0.1  # share of `settled` below which a promise is not worth an evaluation
SMALL = 1e-9  # below any pixel's rounding


@dataclass(frozen=True, kw_only=True)
class OrderBudget(Checked):
    """Follow a growing ball until the wish holds, then need less and less by a chain of linear programmes.

    A wish of p inequalities m_1 <= 0, .., m_p <= 0 of the embedding has a linear picture at every point, of p
    gradients, and in it the smallest budget is a linear programme (`linear_budget`).

    1. The picture at the clean image gives a first budget, which is right for a small one.
    2. Sign steps on the momentum of sum [m_j + margin]+ in a ball that grows until all hold, slower the
       nearer they are, and shrinks from there. An order has bad minima far out: it is sought from the small
       side.
    3. From the best point: the picture there is trusted within a distance that grows and shrinks with how
       well it foretold the last step (a trust region). A step that fails costs one evaluation; its error is
       taken off the inequalities once before the distance is shortened (a second-order correction).

    Args:
        evaluations: the most forward and gradient evaluations of an attack; every gradient counts. The first
            picture is taken in any case.
        share: part of the evaluations that the growing ball takes.
        growth: how much the ball grows at first with each evaluation, as a share.
        shrink: how much it shrinks after a success.
        momentum: mu in [0, 1).
        first, last: the first and the last step as a share of the ball.
        margin: by how much inequalities are exceeded, as a share of their size at the clean image.
        trust: first distance within which a linear picture is trusted, as a share of the budget.
        spare: by how much a linear step exceeds the inequalities, as a share of the budget.
        settled: an attack ends where less than this share of the budget is trusted, or a tenth of it
            is promised.
    """

    evaluations: Count = 185
    share: Share = 0.5
    growth: Positive = 0.08
    shrink: Positive = 0.1
    momentum: Momentum = 0.75
    first: PositiveShare = 0.2
    last: PositiveShare = 0.05
    margin: Share = 0.05
    trust: Positive = 1.0
    spare: Share = 0.002
    settled: Share = 0.001

    def run(self, problem: BudgetProblem) -> BudgetOutput:
        """Search for every attack."""
        if problem.margins is None:
            raise RankproofError("OrderBudget needs a wish of a few inequalities; take ShrinkingBudget")
        state = _State.begin(problem)
        open_rows = (~state.reached).nonzero()[:, 0]
        if len(open_rows):
            part = problem.take(open_rows)
            opened = state.take(open_rows)
            self._grow(part, opened)
            if self.evaluations > int(opened.spent.max()) + opened.margins.shape[1]:
                self._polish(part, opened)
            state.put(open_rows, opened)
        images = torch.where(state.found[:, None], state.best, 0.0).view_as(problem.original)
        return BudgetOutput((problem.original + images).clamp(0, 1), state.spent)

    def _grow(self, problem: BudgetProblem, state: "_State") -> None:
        """Sign steps in a ball that grows until the wish holds."""
        pixels = problem.original.flatten(1)
        step = state.linear_step(pixels, largest=torch.ones_like(state.size), spare=0.0)
        eps, point, velocity = step.eps, step.change, torch.zeros_like(pixels)
        unit = state.margins.abs().mean(1, keepdim=True)
        farthest = (state.margins / unit).relu().sum(1)
        rounds = int(self.share * (self.evaluations - state.margins.shape[1]))
        for number in range(rounds):
            images = _image(problem, point).requires_grad_(True)
            margins = _margins(problem, images)
            missing = (margins / unit + self.margin).relu().sum(1)
            gradient = _gradient(missing, images)
            state.spent += 1
            held = state.consider(margins.detach(), point)
            off = ((margins.detach() / unit).relu().sum(1) / farthest).clamp(max=1)
            grown = eps * (1 + self.growth * off.sqrt())
            eps = torch.where(held, eps / (1 + self.shrink), grown).clamp(max=1)
            velocity = self.momentum * velocity + normalised(gradient)
            share = self.first + (self.last - self.first) * number / rounds
            ball = eps[:, None]
            point = (point - share * ball * velocity.sign()).clamp(-ball, ball)
            point = (pixels + point).clamp(0, 1) - pixels
        state.point = torch.where(state.found[:, None], state.best, point)

    def _polish(self, problem: BudgetProblem, state: "_State") -> None:
        """Linear programmes from the best point of each attack; finished attacks leave."""
        count = state.margins.shape[1]
        margins, slopes = _linearise(problem, _image(problem, state.point))
        state.move(margins, slopes, state.point, torch.ones_like(state.found))
        state.spent += count
        state.trusted = self.trust * state.size
        rows = torch.arange(len(state.spent), device=state.spent.device)
        part, active = problem, state
        while True:
            going = active.spent + count <= self.evaluations
            going &= active.trusted > self.settled * active.size
            if not bool(going.all()):
                state.put(rows, active)
                rows = rows[going]
                if not len(rows):
                    return
                part, active = problem.take(rows), state.take(rows)
            self._step(part, active)

    def _step(self, problem: BudgetProblem, state: "_State") -> None:
        """One linear programme, tried on the encoder."""
        pixels = problem.original.flatten(1)
        step = state.linear_step(pixels, largest=state.size + state.trusted, spare=self.spare)
        state.multipliers = step.multipliers
        foretold = state.margins + torch.einsum("bpn,bn->bp", state.slopes, step.change - state.point)
        images = _image(problem, step.change).requires_grad_(True)
        differentiable = _margins(problem, images)
        margins = differentiable.detach()
        state.consider(margins, step.change)
        promised, kept = state.gains(step.price, step.change, foretold, margins, self.spare)
        quality = kept / promised.clamp_min(SMALL * state.size)
        taken = (quality > TAKEN) & (promised > 0)
        corrected = ~taken & ~state.corrected
        state.error = torch.where(corrected[:, None], margins - foretold, 0.0)
        state.corrected = corrected
        wider = torch.where(taken & (quality > GOOD), FASTER, 1.0)
        wider = torch.where((quality < BAD) & ~corrected, SHORTER, wider)
        settled = state.found & (promised.abs() < NOTHING * self.settled * state.size)
        state.trusted = torch.where(settled, 0.0, state.trusted * wider)
        needed = taken[:, None] & state.near(margins)
        state.spent += needed.sum(1).clamp_min(1)
        slopes = [
            torch.where(column[:, None], _gradient(differentiable[:, j], images), state.slopes[:, j])
            if bool(column.any())
            else state.slopes[:, j]
            for j, column in enumerate(needed.unbind(1))
        ]
        state.move(margins, torch.stack(slopes, 1), step.change, taken)


def _image(problem: BudgetProblem, change: Tensor) -> Tensor:
    """The images after a change (b, n)."""
    return (problem.original + change.view_as(problem.original)).clamp(0, 1).detach()


def _margins(problem: BudgetProblem, images: Tensor) -> Tensor:
    """(b, p) by how much each inequality is missed."""
    assert problem.margins is not None
    return problem.margins(images)


def _gradient(values: Tensor, images: Tensor) -> Tensor:
    """(b, n) the gradient of each attack's value (b,); not finite values are replaced by 0."""
    if not values.requires_grad:  # an encoder may cut the gradient off
        return torch.zeros_like(images).flatten(1)
    (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=True, materialize_grads=True)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).flatten(1)


def _linearise(problem: BudgetProblem, images: Tensor) -> tuple[Tensor, Tensor]:
    """The inequalities at some images (b, p) and their gradients (b, p, n)."""
    images = images.requires_grad_(True)
    margins = _margins(problem, images)
    return margins.detach(), torch.stack([_gradient(column, images) for column in margins.unbind(1)], 1)


@dataclass
class _State:
    """Where b searches stand.

    Args:
        point: (b, n) the change whose linear picture is known, and `size` (b,) its largest value.
        margins, slopes: (b, p), (b, p, n) the picture.
        best: (b, n) the smallest change at which the wish held, `least` (b,) its size, infinite where none.
        trusted: (b,) how far from the point the picture is trusted.
        multipliers: (b, p) those of the last linear programme; zeros before.
        weight: (b,) how much a missed inequality counts against the size.
        error: (b, p) by how much the last picture was wrong, where that is being corrected (b,).
        spent: (b,) evaluations.
    """

    point: Tensor
    size: Tensor
    margins: Tensor
    slopes: Tensor
    best: Tensor
    least: Tensor
    trusted: Tensor
    multipliers: Tensor
    weight: Tensor
    error: Tensor
    corrected: Tensor
    spent: Tensor

    @classmethod
    def begin(cls, problem: BudgetProblem) -> "_State":
        """At the clean images."""
        images = problem.original.detach().clone()
        margins, slopes = _linearise(problem, images)
        none = torch.zeros_like(images).flatten(1)
        nothing = images.new_zeros(len(images))
        held = (margins <= 0).all(1)
        return cls(
            point=none,
            size=nothing,
            margins=margins,
            slopes=slopes,
            best=none,
            least=torch.where(held, 0.0, math.inf).to(nothing),
            trusted=nothing,
            multipliers=torch.zeros_like(margins),
            weight=nothing,
            error=torch.zeros_like(margins),
            corrected=torch.zeros_like(held),
            spent=torch.full_like(held, margins.shape[1], dtype=torch.int64),
        )

    @property
    def found(self) -> Tensor:
        """(b,) whether the wish has held anywhere."""
        return self.least.isfinite()

    @property
    def reached(self) -> Tensor:
        """(b,) whether it held without any change."""
        return self.least == 0

    def take(self, rows: Tensor) -> "_State":
        """The searches at some rows (k,)."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def put(self, rows: Tensor, part: "_State") -> None:
        """Write searches back that were taken from some rows (k,)."""
        for each in fields(self):
            values = getattr(self, each.name).clone()
            values[rows] = getattr(part, each.name)
            setattr(self, each.name, values)

    def consider(self, margins: Tensor, change: Tensor) -> Tensor:
        """Keep a change (b, n) where the wish holds and nothing smaller was found; (b,) whether it holds."""
        size, held = change.abs().amax(1), (margins <= 0).all(1)
        better = held & (size < self.least)
        self.best = torch.where(better[:, None], change, self.best)
        self.least = torch.where(better, size, self.least)
        return held

    def move(self, margins: Tensor, slopes: Tensor, change: Tensor, taken: Tensor) -> None:
        """Go to a change (b, n) and the picture there, where it is taken (b,)."""
        self.point = torch.where(taken[:, None], change, self.point)
        self.margins = torch.where(taken[:, None], margins, self.margins)
        self.slopes = torch.where(taken[:, None, None], slopes, self.slopes)
        self.size = self.point.abs().amax(1)

    def linear_step(self, pixels: Tensor, *, largest: Tensor, spare: float) -> "_Step":
        """The solution of the linear programme at the point, within what is trusted and within [0, 1]."""
        trusted = (self.trusted if spare else largest)[:, None]
        low = torch.maximum(-pixels, self.point - trusted)
        high = torch.minimum(1 - pixels, self.point + trusted)
        limits = torch.einsum("bpn,bn->bp", self.slopes, self.point) - self.margins - self.error
        limits = limits - self.extra(spare)
        solution = least_change(self.slopes, limits, low, high, largest, self.multipliers)
        return _Step(
            torch.minimum(torch.maximum(solution.change, low), high),
            solution.eps,
            solution.multipliers,
            solution.price,
        )

    def near(self, margins: Tensor) -> Tensor:
        """(b, p) which inequalities may matter to the next step: their slopes have to be taken anew."""
        reach = self.trusted[:, None] * self.slopes.abs().sum(2)
        return (self.multipliers > 0) | (margins > -NEAR * reach)

    def extra(self, spare: float) -> Tensor:
        """(b, p) by how much the inequalities are to be exceeded."""
        size = torch.where(self.found, self.least, self.size)
        return spare * size[:, None] * self.slopes.abs().sum(2)

    def gains(
        self, price: Tensor, change: Tensor, foretold: Tensor, margins: Tensor, spare: float
    ) -> tuple[Tensor, Tensor]:
        """(b,) what the linear picture promised of a change and what came true, in units of eps.

        Counted are the size and, at a weight above their price, the inequalities that are missed.
        """
        scale = self.slopes.abs().sum(2).clamp_min(torch.finfo(margins.dtype).tiny)
        extra, size = self.extra(spare), change.abs().amax(1)
        now, then, truly = (
            ((values + extra) / scale).relu().norm(dim=1) for values in (self.margins, foretold, margins)
        )
        gain = now - then
        weight = torch.maximum(0.8 * self.weight, SAFER * price.clamp(1, 20))
        needed = 2 * (size - self.size) / gain.clamp_min(SMALL)
        weight = torch.where(gain > 0.02 * now, torch.maximum(weight, needed), weight).clamp(max=DEAREST)
        self.weight = weight
        shrunk = self.size - size
        return shrunk + weight * gain, shrunk + weight * (now - truly)


@dataclass(frozen=True)
class _Step:
    """A step of a linear programme; see `LeastChange`."""

    change: Tensor
    eps: Tensor
    multipliers: Tensor
    price: Tensor
