"""White-box attacks: the attacker has the encoder's gradients, every embedding and every distance."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from rankproof.attacks.batch import AttackBatch, check_queries, count_foreign, foreign_text
from rankproof.attacks.result import AttackResult
from rankproof.errors import RankproofError
from rankproof.goals.base import BoundGoal, Goal
from rankproof.methods.white_box.base import Method, MethodOutput, random_start
from rankproof.methods.white_box.universal import Universal
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat, format_eps
from rankproof.types import Evaluation, ProgressCallback

MEMORY = 250_000_000  # values a goal may hold at once for the attacks of one chunk
NUDGE = 1 / 255  # size of the random start where the clean image is stationary


def run(
    gallery: Gallery,
    batch: AttackBatch,
    goal: Goal,
    threat: Threat,
    method: Method,
    *,
    seed: int,
    progress: ProgressCallback,
) -> AttackResult:
    """Attack every image of a batch with gradients; the arguments are those of `rankproof.attack`."""
    check_queries(goal, batch)
    _check_shared(threat, method, batch.targets)
    if threat.eps > 0:
        gallery.ranker.check_gradient()
    counter = Counter(len(batch) * method.passes(threat.eps), progress)
    job = _Job(gallery, goal, threat, method, seed, counter)
    rows = torch.arange(len(batch))
    chunks = rows.split(len(batch) if threat.shared else chunk_rows(gallery, goal))
    parts = [_attack_chunk(job, batch.take(chunk)) for chunk in chunks]
    result = AttackResult.concat([part.result for part in parts])
    notes = _notes(job, batch, result, stationary=parts[0].stationary)
    if foreign := sum(part.foreign for part in parts):
        notes = (*notes, foreign_text(foreign, len(batch)))
    return replace(result, notes=notes)


@dataclass(frozen=True)
class _Job:
    """What all chunks of an attack share."""

    gallery: Gallery
    goal: Goal
    threat: Threat
    method: Method
    seed: int
    counter: "Counter"


@dataclass(frozen=True)
class _Part:
    """The result of one chunk.

    Args:
        stationary: whether its clean images have no usable gradient.
        foreign: number of its images that are not the gallery items they are said to be.
    """

    result: AttackResult
    stationary: bool
    foreign: int


def _attack_chunk(job: _Job, batch: AttackBatch) -> _Part:
    """Attack the images of one chunk: embed, bind the goal, search, check, measure."""
    ranker, threat = job.gallery.ranker, job.threat
    begin = time.perf_counter()
    original = threat.start(ranker.as_input(batch.images))
    with ranker.frozen():
        with torch.no_grad():
            clean = ranker.embed(original)
            bound = batch.bind(job.goal, job.gallery, clean, job.seed)
        search = partial(_search, job, batch, bound, original, clean)
        output = _allowed(search(), original, threat)
        if threat.eps > 0 and not ranker.graph_holds(original, output.images):  # another function there
            output = _allowed(search(), original, threat)
        job.counter.end(len(batch) * job.method.passes(threat.eps))
        seconds = time.perf_counter() - begin
        zero_gradient = output.zero_gradient & ~_fulfilled(job, bound, original, output, batch)
        with torch.no_grad():
            before, after = bound.metrics(clean), bound.metrics(ranker.embed(output.images))
            unchanged = bound.metrics(ranker.embed(original)) if ranker.random else {}
    result = AttackResult(
        goal=job.goal.spec.name,
        metric=job.goal.metric,
        method=job.method.name,
        eps=threat.eps,
        parameters=job.goal.parameters,
        steps=output.passes,
        seed=job.seed,
        original=original,
        adversarial=output.images,
        gallery_ids=batch.gallery_ids,
        targets=bound.targets,
        preserved=bound.preserved,
        before={name: values.cpu() for name, values in before.items()},
        after={name: values.cpu() for name, values in after.items()},
        unchanged={name: values.cpu() for name, values in unchanged.items()},
        zero_gradient=zero_gradient,
        gallery_size=len(job.gallery),
        device=ranker.device.type,
        seconds=seconds,
        perturbation=output.perturbation,
        evaluations=output.evaluations_of_each,
    )
    return _Part(result, bound.stationary, count_foreign(job.gallery, batch.gallery_ids, clean))


def _search(job: _Job, batch: AttackBatch, bound: BoundGoal, original: Tensor, clean: Tensor) -> MethodOutput:
    """Let the method look for better images; at eps = 0 there are none."""
    threat = job.threat
    if threat.eps == 0:
        untouched = torch.zeros(len(original), dtype=torch.bool, device=original.device)
        return MethodOutput(original, 0, untouched)
    keys = batch.rng_keys.tolist()
    initial = beginning(bound, original, threat, job.seed, keys)
    objective = _BatchObjective(job, batch, clean, bound)
    return job.method.run(original, initial, objective, threat, seed=job.seed, rng_keys=keys)


class _BatchObjective:
    """How near the images of a batch's attacks are to their goal; every image counts as an evaluation."""

    def __init__(self, job: _Job, batch: AttackBatch, clean: Tensor, bound: BoundGoal) -> None:
        self._job, self._batch, self._clean, self._bound = job, batch, clean, bound
        self._embed = job.gallery.ranker.for_search().embed

    def __call__(self, images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
        evaluation = self._bound.evaluate(self._embed(images), penalty_weight)
        self._job.counter.add(len(images))
        return evaluation

    def take(self, rows: Tensor) -> "_BatchObjective":
        """The objective of some attacks: bound anew, their items are the same as those of the batch."""
        job, batch, clean = self._job, self._batch.take(rows), self._clean[rows]
        return _BatchObjective(job, batch, clean, batch.bind(job.goal, job.gallery, clean, job.seed))


def beginning(
    bound: BoundGoal, original: Tensor, threat: Threat, seed: int, rng_keys: Sequence[int]
) -> Tensor:
    """Where a search starts: the clean images, or beside them where these are stationary."""
    if not bound.stationary:
        return original
    size = min(NUDGE, threat.eps)
    return random_start(original, threat, size, seed=seed, rng_keys=rng_keys, purpose="start")


def _fulfilled(
    job: _Job, bound: BoundGoal, original: Tensor, output: MethodOutput, batch: AttackBatch
) -> Tensor:
    """(b,) attacks whose goal holds where the search starts, so that a gradient of 0 is the right one.

    Such a loss is 0 with a gradient of 0. So is the loss of an encoder that gives all images one embedding;
    there the embedding has no gradient either, and the figure is to be doubted.
    """
    nowhere = torch.zeros_like(output.zero_gradient)
    if not bool(output.zero_gradient.any()):
        return nowhere
    images = beginning(bound, original, job.threat, job.seed, batch.rng_keys.tolist())
    images = images.detach().requires_grad_(True)
    z = job.gallery.ranker.embed(images)
    if not z.requires_grad:
        return nowhere
    directions = torch.arange(1, z.shape[1] + 1, device=z.device).cos().to(z)  # (d,) any that is not special
    (gradient,) = torch.autograd.grad((z * directions).sum(), images, materialize_grads=True)
    usable = (torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0) != 0).flatten(1).any(1)
    with torch.no_grad():
        loss = bound.evaluate(z.detach(), None).loss
    return usable & (loss == 0)


def _allowed(output: MethodOutput, original: Tensor, threat: Threat) -> MethodOutput:
    """What a method returned, checked against the threat set and brought into it exactly."""
    threat.check(output.images, original)
    if output.perturbation is None:
        return replace(output, images=threat.project(output.images, original))
    perturbation = threat.perturbation(output.perturbation)
    return replace(output, images=threat.apply(perturbation, original), perturbation=perturbation)


class Counter:
    """Counts evaluations and reports them; what was sought a second time does not count beyond the total."""

    def __init__(self, total: int, progress: ProgressCallback) -> None:
        self.done, self.total, self.progress = 0, total, progress
        self.ended = 0  # of the chunks that are done, as if each attack had taken the most it can

    def add(self, count: int) -> None:
        """Some evaluations were done."""
        self.done = min(self.done + count, self.total)
        self.progress(self.done, self.total)

    def end(self, count: int) -> None:
        """A chunk is done that could have taken so many."""
        self.ended += count
        if self.done < self.ended:
            self.add(self.ended - self.done)


def _check_shared(threat: Threat, method: Method, targets: Tensor | None) -> None:
    """Raise unless a shared perturbation is sought by what can share, for items that all images share."""
    if threat.shared != isinstance(method, Universal):
        raise RankproofError(
            f"{method.name}: a threat with shared=True is sought by Universal, any other by any other method"
        )
    if threat.shared and (targets is None or not bool((targets == targets[:1]).all())):
        raise RankproofError(
            "targets: a shared perturbation is made for the same items in all images; give equal rows"
        )


def chunk_rows(gallery: Gallery, goal: Goal) -> int:
    """How many attacks run side by side: as many as the encoder's pass takes and the goal's memory allows."""
    return max(1, min(gallery.ranker.chunk, MEMORY // max(1, goal.memory_per_attack(len(gallery)))))


def _overlapping(result: AttackResult) -> int:
    """How many attacks name an item twice, among the targets, the preserved or both."""
    ordered = torch.cat([result.targets, result.preserved], dim=1).sort(dim=1).values
    return int((ordered[:, 1:] == ordered[:, :-1]).any(1).sum())


def _notes(job: _Job, batch: AttackBatch, result: AttackResult, *, stationary: bool) -> tuple[str, ...]:
    if batch.queries is not None:
        choice = "the queries are given, not gallery items"
    else:
        choice = job.goal.choice_note(len(job.gallery)) if batch.targets is None else ""
    notes = [choice] if choice else []
    notes += job.gallery.ranker.notes
    examination = job.gallery.ranker.examination
    if job.threat.eps > 0 and examination is not None and examination.gradient == "zero":
        notes.append(
            "the encoder's gradient is zero at every pixel of an examined image, as rounding makes it: a "
            "white box finds nothing there, and this figure may be false"
        )
    if stationary and job.threat.eps > 0:
        size = format_eps(min(NUDGE, job.threat.eps))
        notes.append(
            f"random start within {size}, because the clean image itself is stationary for this goal"
        )
    explicit = batch.targets is not None or batch.preserved is not None
    if explicit and (overlapping := _overlapping(result)):
        notes.append(
            f"{overlapping} attacks name an item twice in their explicit targets: wishes that cannot all hold"
        )
    return tuple(notes)
