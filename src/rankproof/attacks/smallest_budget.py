"""The smallest budget eps* of each attack: by how much pixels must change for its wish to come true."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.attacks.batch import AttackBatch, count_foreign, foreign_text, make_batch
from rankproof.attacks.budget_summary import BudgetSummary, median_interval
from rankproof.attacks.result import ARRAYS, SUMMARY
from rankproof.attacks.saved_images import saved_images
from rankproof.attacks.white_box import Counter, chunk_rows
from rankproof.checks import check_kind
from rankproof.errors import RankproofError
from rankproof.goals.base import BoundGoal, Goal, Wish
from rankproof.goals.wish import FIRST, OrderWish
from rankproof.io import versions, write_arrays, write_json
from rankproof.methods.defaults import smallest
from rankproof.methods.white_box.budget_search import BudgetProblem, BudgetSearch
from rankproof.modes import ordinary_modes
from rankproof.parameters import AT_LEAST_ONE, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.threat import LEVELS
from rankproof.types import Evaluation, ImagesLike, IntegersLike, ProgressCallback, no_progress

DOUBT = 3e-5  # share of the mean distance that single precision may be off
SAMPLE = 8
GROWTH = (1e-5, 1e-4, 1e-3, 1e-2)  # by which a change is enlarged where the encoder rounds unlike its graph


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
        evaluations: (b,) forward and gradient evaluations spent on the budget, its verification included; not
            the one or two passes in which the 8-bit image is found.
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

    def save(self, folder: str | Path, summary: BudgetSummary | None = None) -> Path:
        """Write `attack.npz` and `result.json`.

        Args:
            summary: what goes into `result.json` where it knows more than the result itself.
        """
        names = ("adversarial", "saved", "original", "eps_star", "saved_eps", "evaluations")
        arrays = {name: getattr(self, name).cpu().numpy() for name in (*names, "targets", "preserved")}
        arrays |= {name: arrays[name].astype(np.float32) for name in ("original", "adversarial", "saved")}
        if self.gallery_ids is not None:
            arrays["index"] = self.gallery_ids.cpu().numpy()
        write_arrays(Path(folder) / ARRAYS, arrays, compressed=True)
        write_json(Path(folder) / SUMMARY, (summary or self.summary).to_json(), indent=2, allow_nan=False)
        return Path(folder)

    @classmethod
    def concat(cls, parts: Sequence["SmallestBudgets"]) -> "SmallestBudgets":
        """One result of several parts of the same search, in their order."""
        changed: dict[str, Any] = {}
        for each in fields(cls):
            values = [getattr(part, each.name) for part in parts]
            if all(isinstance(value, Tensor) for value in values):
                changed[each.name] = torch.cat(values)
        notes = dict.fromkeys(note for part in parts for note in part.notes)
        seconds = sum(part.seconds for part in parts)
        return replace(parts[0], **changed, notes=tuple(notes), seconds=seconds)

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
    check_kind("search", search, BudgetSearch | None, "ShrinkingBudget()")
    first, seed = check_integer("first", first, AT_LEAST_ONE), check_integer("seed", seed)
    batch = make_batch(gallery, images, gallery_ids=gallery_ids, targets=targets)
    batch = replace(batch, exclude_self=batch.gallery_ids is not None)
    ranker = gallery.ranker
    ranker.begin(batch.images, seed)
    ranker.check_gradient()
    ranker.graph_holds(batch.images)  # or else it is searched on the encoder itself
    chosen = search or smallest(goal.metric, goal.spec.direction, goal.spec.family, keeps=goal.spec.keeps)
    counter = Counter(len(batch) * chosen.evaluations, progress)
    job = _Job(gallery, goal, first, chosen, seed, counter)
    parts = [
        job.attack(batch.take(rows)) for rows in torch.arange(len(batch)).split(chunk_rows(gallery, goal))
    ]
    whole = SmallestBudgets.concat([part for part, _ in parts])
    return replace(whole, notes=_notes(job, batch, whole.places, foreign=sum(count for _, count in parts)))


@dataclass(frozen=True)
class _Job:
    """What all chunks share."""

    gallery: Gallery
    goal: Goal
    first: int
    search: BudgetSearch
    seed: int
    counter: Counter

    def attack(self, batch: AttackBatch) -> tuple[SmallestBudgets, int]:
        """Embed the images of one chunk, bind the goal, search, verify, and round to 8-bit images.

        Returns:
            what was found, and how many images are not the gallery items they are said to be.
        """
        begin, ranker = time.perf_counter(), self.gallery.ranker
        original = ranker.as_input(batch.images)
        with ranker.frozen():
            with torch.no_grad():
                clean = ranker.embed(original)
                bound, wish = self.bind(batch, clean)
                free = wish.reached(clean)
            found, evaluations = original.clone(), torch.zeros(len(batch), dtype=torch.int64)
            holds = torch.zeros_like(free)
            if len(rows := (~free).nonzero()[:, 0]):
                paid = _Attacks(self, batch.take(rows), original[rows], clean[rows])
                found[rows], holds[rows], evaluations[rows.cpu()] = paid.smallest()
            with torch.no_grad():
                saved, kept = saved_images(
                    original,
                    found,
                    holds.nonzero()[:, 0],
                    lambda images, rows: self.bind(batch.take(rows), clean[rows])[1].reached(
                        ranker.embed(images)
                    ),
                )
        self.counter.end(len(batch) * self.search.evaluations)
        nowhere = torch.full((len(batch),), math.nan, dtype=torch.float64, device=original.device)
        eps_star, saved_eps = (
            (images - original).flatten(1).abs().amax(1).double() for images in (found, saved)
        )
        foreign = count_foreign(self.gallery, batch.gallery_ids, clean)
        part = SmallestBudgets(
            goal=self.goal.spec.name,
            parameters=self.goal.parameters,
            first=self.first,
            places=wish.places,
            original=original,
            adversarial=found,
            saved=saved,
            eps_star=torch.where(free, 0.0, torch.where(holds, eps_star, nowhere)),
            saved_eps=torch.where(kept, saved_eps, nowhere),
            evaluations=evaluations,
            targets=bound.targets,
            preserved=bound.preserved,
            gallery_ids=batch.gallery_ids,
            seed=self.seed,
            gallery_size=len(self.gallery),
            device=ranker.device.type,
            seconds=time.perf_counter() - begin,
        )
        return part, foreign

    def bind(self, batch: AttackBatch, clean: Tensor) -> tuple[BoundGoal, Wish]:
        """The goal for some attacks, and its wish."""
        bound = batch.bind(self.goal, self.gallery, clean, self.seed)
        wish = self.goal.wish(bound, self.first)
        if wish is None:
            raise RankproofError(
                f"{self.goal.spec.name} has no yes or no, so no smallest budget; take another goal"
            )
        return bound, wish


@dataclass(frozen=True)
class _Attacks:
    """Some attacks of a job that are to be searched; those that are not finished go on as fewer."""

    job: _Job
    batch: AttackBatch
    original: Tensor
    clean: Tensor

    def take(self, rows: Tensor) -> "_Attacks":
        """The attacks at some rows (k,)."""
        rows = rows.to(self.original.device)
        return _Attacks(self.job, self.batch.take(rows), self.original[rows], self.clean[rows])

    def smallest(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images at the smallest budgets, whether the wish holds there by the encoder, and evaluations.

        Where the encoder rounds otherwise than its graph, the change is made larger by a hair.
        """
        ranker, original = self.job.gallery.ranker, self.original
        output = self.job.search.run(self.problem())
        if not ranker.graph_holds(original, output.images):  # another function there
            output = self.job.search.run(self.problem())
        found, evaluations = output.images, output.evaluations.cpu().clone()
        with torch.no_grad():
            wish = self.job.bind(self.batch, self.clean)[1]
            moved = (found != original).flatten(1).any(1)
            images, holds = found, torch.zeros_like(moved)
            for growth in (0.0, *GROWTH):
                left = moved & ~holds
                if not bool(left.any()):
                    break
                grown = (original + (found - original) * (1 + growth)).clamp(0, 1) if growth else found
                images = torch.where(left[:, None, None, None], grown, images)
                holds |= left & wish.reached(ranker.embed(images))
                evaluations += left.cpu()
        return torch.where(holds[:, None, None, None], images, original), holds, evaluations

    def problem(self) -> BudgetProblem:
        """What a search may ask, on the encoder's inference graph."""
        embed = self.job.gallery.ranker.for_search().embed
        wish = self.job.bind(self.batch, self.clean)[1]
        scale = float(self.job.gallery.distances(self.clean[:SAMPLE]).mean())

        def margins(images: Tensor) -> Tensor:
            assert isinstance(wish, OrderWish)
            self.job.counter.add(len(images))
            z = embed(images)
            return _exact_margins(wish.margins(z), wish, z.detach())

        def towards(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
            self.job.counter.add(len(images))
            z = embed(images)
            found = wish.towards(z, penalty_weight)
            return replace(found, fitness=_exact_fitness(found.fitness, wish, z.detach(), scale))

        return BudgetProblem(
            original=self.original,
            margins=margins if isinstance(wish, OrderWish) else None,
            towards=towards,
            take=lambda rows: self.take(rows).problem(),
            seed=self.job.seed,
            rng_keys=self.batch.rng_keys.tolist(),
        )


def _exact_fitness(fitness: Tensor, wish: Wish, z: Tensor, scale: float) -> Tensor:
    """A fitness that is below 0 where the wish does not hold in exact arithmetic, as with ties.

    Args:
        scale: the mean distance; a fitness that is small beside it is in doubt.
    """
    doubtful = (fitness >= 0) & (fitness <= DOUBT * scale)
    if not bool(doubtful.any()):
        return fitness
    return torch.where(doubtful & ~wish.reached(z), -torch.finfo(fitness.dtype).tiny, fitness)


def _exact_margins(margins: Tensor, wish: Wish, z: Tensor) -> Tensor:
    """Margins one of which is above 0 where the wish does not hold in exact arithmetic, as with ties."""
    held = (margins.detach() <= 0).all(1)
    if not bool(held.any()):
        return margins
    wrong = held & ~wish.reached(z)
    last = margins.detach() == margins.detach().amax(1, keepdim=True)
    least = torch.finfo(margins.dtype).tiny
    return torch.where(wrong[:, None] & last, margins - margins.detach() + least, margins)


def _notes(job: _Job, batch: AttackBatch, places: int | None, *, foreign: int) -> tuple[str, ...]:
    """What a reader should know of the attacks of a batch."""
    choice = job.goal.choice_note(len(job.gallery)) if batch.targets is None else ""
    others = len(job.gallery) - (batch.gallery_ids is not None)
    told = (
        choice,
        *job.gallery.ranker.notes,
        foreign_text(foreign, len(batch)) if foreign else "",
        impossible(job.goal, places, others),
    )
    return tuple(filter(None, told))


def impossible(goal: Goal, places: int | None, others: int) -> str:
    """Why no attack can succeed, whatever the model is; empty where one can.

    Args:
        places: N, out of which an item has to sink.
        others: how many items a ranking has.
    """
    if goal.spec.direction != "lower" or places is None or others > places:
        return ""
    return f"no attack can succeed: a ranking of {others} items has no place beyond the first {places}"
