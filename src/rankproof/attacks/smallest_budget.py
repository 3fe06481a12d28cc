"""The smallest budget eps* of each attack: by how much pixels must change for its wish to come true."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rankproof.attacks.batch import make_batch
from rankproof.attacks.budget_summary import BudgetSummary, median_interval
from rankproof.checks import check_kind
from rankproof.errors import RankproofError
from rankproof.goals.base import BoundGoal, Goal, Wish
from rankproof.goals.wish import FIRST
from rankproof.io import versions
from rankproof.methods.defaults import smallest
from rankproof.methods.white_box.budget_search import BudgetProblem, BudgetSearch
from rankproof.modes import ordinary_modes
from rankproof.parameters import AT_LEAST_ONE, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.ranker import Ranker
from rankproof.threat import LEVELS
from rankproof.types import Evaluation, ImagesLike, IntegersLike, ProgressCallback, no_progress


@dataclass(frozen=True, kw_only=True)
class SmallestBudgets:
    """The smallest budgets of b attacks: values for each image, without the model.

    Args:
        goal: its name.
        parameters: the papers' letters w, m, k, g, xi; None where one does not apply.
        first: K, how many results count as the first ones.
        places: the number of results the wish is about where it is not K, else None.
        original: (b, c, h, w) in [0, 1].
        adversarial: (b, c, h, w) the images at the smallest budgets; the originals where nothing was reached.
        saved: (b, c, h, w) 8-bit images, read again, that fulfil the wish, as floats; the originals rounded
            where none does.
        eps_star: (b,) smallest budgets in [0, 1], double precision; 0 where the wish held before, NaN where
            it was not reached.
        saved_eps: (b,) the budget of the saved images, a multiple of 1/255 where the originals are on that
            grid; NaN where none fulfils the wish.
        evaluations: (b,) forward and gradient evaluations spent.
        targets, preserved, gallery_ids: as in `AttackResult`.
        seed, gallery_size, device, seconds, notes, versions: as in `AttackResult`.
    """

    goal: str
    parameters: dict[str, int | float | None]
    first: int
    places: int | None
    original: Tensor
    adversarial: Tensor
    saved: Tensor
    eps_star: Tensor
    saved_eps: Tensor
    evaluations: Tensor
    targets: Tensor
    preserved: Tensor
    gallery_ids: Tensor | None
    seed: int
    gallery_size: int
    device: str
    seconds: float
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=versions)

    def __len__(self) -> int:
        return len(self.original)

    @property
    def free(self) -> Tensor:
        """(b,) whether the wish held before anything was changed."""
        return self.eps_star == 0

    @property
    def reached(self) -> Tensor:
        """(b,) whether a budget above 0 was found."""
        return self.eps_star > 0

    @property
    def summary(self) -> BudgetSummary:
        """The median, its interval and the curve; what a result cannot know (model, data) is None."""
        return summarise(self, self.eps_star.tolist())


def summarise(result: SmallestBudgets, eps_star: Sequence[float]) -> BudgetSummary:
    """The summary of a result whose smallest budgets may have become smaller by other attacks."""
    paid = [math.inf if math.isnan(eps) else eps for eps in eps_star if eps != 0]
    reached = sorted(eps for eps in paid if math.isfinite(eps))
    median, ends = median_interval(paid)
    held = result.saved_eps[result.reached]
    return BudgetSummary(
        goal=result.goal,
        **result.parameters,  # type: ignore[arg-type]
        first=result.first,
        places=result.places,
        trials=len(result),
        free=len(eps_star) - len(paid),
        reached=len(reached),
        eps_star=median,
        eps_star_ci95=ends,
        curve=tuple((eps, (number + 1) / len(paid)) for number, eps in enumerate(reached)),
        below_8bit=sum(eps < 0.5 / LEVELS for eps in reached),
        saved=int((~held.isnan()).sum()),
        evaluations=float(result.evaluations.double().mean()),
        evaluations_max=int(result.evaluations.max()),
        seed=result.seed,
        device=result.device,
        seconds=result.seconds,
        gallery_size=result.gallery_size or None,
        versions=result.versions,
        notes=result.notes,
    )


@ordinary_modes()
def smallest_budget(
    gallery: Gallery,
    images: ImagesLike,
    goal: Goal,
    *,
    first: int = FIRST,
    search: BudgetSearch | None = None,
    seed: int = 0,
    gallery_ids: IntegersLike | None = None,
    targets: IntegersLike | None = None,
    progress: ProgressCallback = no_progress,
) -> SmallestBudgets:
    """Find for each image the smallest budget at which a goal's wish comes true.

    eps* = min { |r|_inf : the wish holds for x + r, x + r in [0, 1] }

    The own clean copy of each image is left out of every ranking.

    Args:
        gallery: what is attacked; the attacker knows it and the encoder (white box).
        images: (b, c, h, w) images to perturb, in [0, 1] or as 8-bit integers.
        goal: what is wanted; one that has a wish.
        first: K, how many results count as the first ones.
        search: how it is sought; None takes what goes with the goal.
        seed: all choices and random numbers come from it; attack i depends on nothing else in the batch.
        gallery_ids: (b,) positions of the images' own clean copies; None: they are not in the gallery.
        targets: (b, m) explicitly chosen items.
        progress: called with evaluations done, and how many there are in all.
    Returns:
        eps* of each image, and the image that needs no more.
    Raises:
        RankproofError: the goal has no yes or no, or an argument does not fit.
    """
    check_kind("gallery", gallery, Gallery, GALLERY)
    check_kind("goal", goal, Goal, "QueryRaise(m=1)")
    first, seed = check_integer("first", first, AT_LEAST_ONE), check_integer("seed", seed)
    batch = make_batch(gallery, images, gallery_ids=gallery_ids, targets=targets)
    batch = replace(batch, exclude_self=batch.gallery_ids is not None)
    begin, ranker = time.perf_counter(), gallery.ranker
    ranker.begin(batch.images, seed)
    ranker.check_gradient()
    original = ranker.as_input(batch.images)
    with ranker.frozen():
        with torch.no_grad():
            bound = batch.bind(goal, gallery, ranker.embed(original), seed)
        wish = goal.wish(bound, first)
        if wish is None:
            raise RankproofError(
                f"{goal.spec.name} has no yes or no, so no smallest budget; take another goal"
            )
        problem = _problem(ranker, bound, wish, original, seed, batch.rng_keys.tolist())
        output = (search or smallest(goal.metric)).run(problem)
        found = output.images
        with torch.no_grad():
            free = wish.reached(ranker.embed(original))
            holds = wish.reached(ranker.embed(found)) & ~free
            rounded = torch.round(found * LEVELS) / LEVELS
            kept = wish.reached(ranker.embed(rounded)) & holds
    eps_star = (found - original).flatten(1).abs().amax(1).double()
    nowhere = torch.full_like(eps_star, math.nan)
    saved = torch.where(kept[:, None, None, None], rounded, torch.round(original * LEVELS) / LEVELS)
    saved_eps = (saved - original).flatten(1).abs().amax(1).double()
    return SmallestBudgets(
        goal=goal.spec.name,
        parameters=goal.parameters,
        first=first,
        places=wish.places,
        original=original,
        adversarial=torch.where(holds[:, None, None, None], found, original),
        saved=saved,
        eps_star=torch.where(free, 0.0, torch.where(holds, eps_star, nowhere)),
        saved_eps=torch.where(kept, saved_eps, nowhere),
        evaluations=output.evaluations,
        targets=bound.targets,
        preserved=bound.preserved,
        gallery_ids=batch.gallery_ids,
        seed=seed,
        gallery_size=len(gallery),
        device=ranker.device.type,
        seconds=time.perf_counter() - begin,
    )


def _problem(
    ranker: Ranker, bound: BoundGoal, wish: Wish, original: Tensor, seed: int, rng_keys: Sequence[int]
) -> BudgetProblem:
    """What a search may ask, on the encoder's inference graph."""
    embed = ranker.for_search().embed

    def wished(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
        return wish.evaluate(embed(images), penalty_weight)

    def goal(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
        return bound.evaluate(embed(images), penalty_weight)

    def take(rows: Tensor) -> BudgetProblem:
        raise NotImplementedError

    return BudgetProblem(original=original, wish=wished, goal=goal, take=take, seed=seed, rng_keys=rng_keys)
