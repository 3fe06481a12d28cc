"""A search that goes on until it has converged, each attack for itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rankproof.methods.white_box.base import MethodOutput, random_start
from rankproof.methods.white_box.momentum_pgd import MomentumPGD, Path
from rankproof.parameters import Checked, Count, PositiveShare, Weight
from rankproof.threat import Threat
from rankproof.types import Evaluation, Images, Objective, SplitObjective

NO_ROOM = 1e-6  # of fitness: less cannot be gained by any change of a ranking


@dataclass(frozen=True, kw_only=True)
class Converged(Checked):
    """`MomentumPGD` in blocks that double, until one of them brings next to nothing.

    The first block is `search` itself, with the S evaluations that it takes: no attack is weaker than with
    `search` alone. The others have 2 L, 4 L, 8 L, ... evaluations, L the larger of S and `least`. The second,
    fourth, ... begin at the best image so far with shorter steps, which settles what was found; the third,
    fifth, ... begin at a random point of the ball, which finds something else. An attack ends by itself

    - when its last `patience` blocks, without the first two, made it fitter by no more than
      `tolerance` + `relative` |fitness|,
    - at once where no image can be fitter,
    - after `blocks` blocks.

    Nothing else ends it, so that an attack depends on nothing else in its batch. The best image of all
    evaluations is returned, by the rule of `MomentumPGD`.

    Args:
        search: the search of the first block; its number of evaluations is S.
        tolerance: fitness that a block has to bring if another one is to follow: a share of the gallery for
            ranks, Kendall's tau for an order.
        relative: the same as a share of the fitness itself, for figures that have no fixed scale.
        patience: how many blocks in a row have to bring no more than that.
        least: the smallest L.
        blocks: the most blocks.
        first: first step of a block that begins at the best image, as a share of the first step of `search`.
    """

    search: MomentumPGD = field(default_factory=MomentumPGD)
    tolerance: Weight = 0.001
    relative: Weight = 0.0
    patience: Count = 1
    least: Count = 20
    blocks: Count = 6
    first: PositiveShare = 0.5

    name = "converged"

    def passes(self, eps: float) -> int:
        """The most an attack can take: all blocks."""
        return sum(self.length(number, eps) for number in range(self.blocks))

    def length(self, number: int, eps: float) -> int:
        """Evaluations of block `number`, counted from 0."""
        steps = self.search.passes(eps)
        return max(steps, self.least) << number if number else steps

    def run(
        self,
        original: Images,
        initial: Images,
        objective: Objective,
        threat: Threat,
        *,
        seed: int,
        rng_keys: Sequence[int],
    ) -> MethodOutput:
        """Attack a batch; random numbers are the starts of every other block."""
        whole = Path.begin(original, initial, threat, self.search.penalty_weight)
        evaluations = torch.zeros(len(original), dtype=torch.int64, device=original.device)
        rows = torch.arange(len(original), device=original.device)
        before: list[Tensor] = []  # the fitness before each block
        for number in range(self.blocks):
            before.append(whole.best.fitness.clone())
            if number:
                keys = [rng_keys[row] for row in rows.tolist()]
                whole.put(rows, self._restarted(whole.take(rows), number, seed, keys))
            self._block(whole, rows, objective, evaluations, number)
            after = whole.best.fitness[rows]
            ended = whole.best.room[rows] <= NO_ROOM
            if number > self.patience:
                gain = after - before[number - self.patience + 1][rows]
                ended |= ~(gain > self.tolerance + self.relative * after.abs())  # NaN ends it, too
            rows = rows[~ended]
            if not len(rows):
                break
        most = int(evaluations.max()) if len(evaluations) else 0
        return MethodOutput(whole.best.images, most, whole.zero_gradient, evaluations=evaluations)

    def _restarted(self, path: Path, number: int, seed: int, rng_keys: Sequence[int]) -> Path:
        """At rest, at the best images so far or at random points of the ball."""
        point = path.best.images
        if self._from_random(number):
            eps, purpose = path.threat.eps, f"converged/{number}"
            point = random_start(
                path.original, Threat(eps), eps, seed=seed, rng_keys=rng_keys, purpose=purpose
            )
        return replace(
            path,
            point=point.clone(),
            velocity=torch.zeros_like(path.velocity),
            penalty_weight=torch.full_like(path.penalty_weight, self.search.penalty_weight),
        )

    def _from_random(self, number: int) -> bool:
        """Whether a block begins at a random point: every other one from the third on."""
        return number > 0 and number % 2 == 0

    def _block(
        self, whole: Path, rows: Tensor, objective: Objective, evaluations: Tensor, number: int
    ) -> None:
        """One block of the attacks at some rows; those that can become no fitter leave it at once."""
        steps = self.length(number, whole.threat.eps)
        first = self.first if number % 2 else 1.0
        path, part = whole.take(rows), _part(objective, whole.original, rows)
        for step in range(steps):
            self.search.step(path, part, self.search.share(step, steps, first))
            evaluations[rows] += 1
            ended = path.best.room <= NO_ROOM
            if bool(ended.any()):
                whole.put(rows, path)
                rows = rows[~ended]
                if not len(rows):
                    return
                path, part = path.take(~ended), _part(objective, whole.original, rows)
        whole.put(rows, path)


def _part(objective: Objective, original: Images, rows: Tensor) -> Objective:
    """The objective of the attacks at some rows of a batch."""
    if len(rows) == len(original):
        return objective
    if isinstance(objective, SplitObjective):
        return objective.take(rows)

    def among_all(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
        every = original.index_put((rows,), images)
        if penalty_weight is not None:
            penalty_weight = penalty_weight.new_ones(len(original)).index_put((rows,), penalty_weight)
        found = objective(every, penalty_weight)
        violation, room = (
            None if value is None else value[rows] for value in (found.constraint_violation, found.room)
        )
        return Evaluation(found.loss[rows], found.fitness[rows], violation, room)

    return among_all
