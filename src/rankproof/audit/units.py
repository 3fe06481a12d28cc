"""One unit of an audit: a measurement on a few of the images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rankproof.attacks import SearchOptions, attack_batch
from rankproof.attacks.batch import AttackBatch
from rankproof.attacks.result import AttackResult
from rankproof.attacks.smallest_budget import smallest_budget
from rankproof.audit.controls import ControlledAttack, controls
from rankproof.audit.job import Job
from rankproof.audit.measurements import CONTROL_NAMES, Measurement
from rankproof.audit.records import Attacks, image_text
from rankproof.goals.base import Goal
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.oracles import LocalOracle
from rankproof.report.findings import Control
from rankproof.types import ProgressCallback

KEPT = 9  # attacks of each measurement whose images are kept, as examples
SMALLEST = "smallest"  # the method of figures that are those of the images at the smallest budgets


def run_unit(
    job: Job, measurement: Measurement, rows: tuple[int, int], progress: ProgressCallback
) -> tuple[Attacks, ...]:
    """Attack the images at rows a .. b - 1: the attacks of each method."""
    if measurement.kind == "smallest":
        return (_smallest(job, measurement.goal, rows, progress),)
    batch, done = job.batch(slice(*rows)), []
    for number, method in enumerate(measurement.methods):

        def inside(part: int, of: int, number: int = number) -> None:
            progress(number * of + part, len(measurement.methods) * of)

        grid = job.threat.grid or (isinstance(method, BlackBoxMethod) and method.grid)
        gallery, budget = job.gallery, measurement.budget
        result = attack_batch(
            gallery if budget is None else LocalOracle(gallery, measurement.visible),
            batch,
            measurement.goal,
            replace(job.threat, grid=grid),
            method=method,
            search=SearchOptions(budget=budget),
            seed=job.seed,
            progress=inside,
        )
        done.append(_of_result(job, measurement.goal, result, rows))
    return tuple(done)


def run_controls(
    job: Job, measurement: Measurement, rows: tuple[int, int], progress: ProgressCallback
) -> tuple[Control, ...]:
    """Whether the search of a goal at the audited budget can be trusted, tried on the first attacks."""
    (method,) = measurement.methods
    assert not isinstance(method, BlackBoxMethod)
    batch = job.batch(slice(*rows))
    result = attack_batch(
        job.gallery, batch, measurement.goal, job.threat, method=method, seed=job.seed, progress=progress
    )
    made = ControlledAttack(
        gallery=job.gallery,
        goal=measurement.goal,
        threat=job.threat,
        method=method,
        result=result,
        first=job.first,
    )
    return controls(made, CONTROL_NAMES[measurement.kind])


def judged(
    job: Job, goal: Goal, batch: AttackBatch, images: Tensor, *, method: str, eps: float
) -> tuple[AttackResult, Tensor | None]:
    """The figures of given images, and whether what was wanted has come true; nothing is searched.

    Args:
        batch: the untouched images with the items that were chosen for them.
        images: (b, c, h, w) in [0, 1].
        method, eps: what the result calls them.
    """
    ranker = job.gallery.ranker
    with torch.no_grad(), ranker.frozen():
        clean = ranker.embed(batch.images)
        bound = batch.bind(goal, job.gallery, clean, job.seed)
        z = ranker.embed(images)
        before, after = bound.metrics(clean), bound.metrics(z)
        unchanged = bound.metrics(ranker.embed(batch.images)) if ranker.random else {}
        wish = goal.wish(bound, job.first)
        reached = None if wish is None else wish.reached(z).cpu()
    result = AttackResult(
        goal=goal.spec.name,
        metric=goal.metric,
        method=method,
        eps=eps,
        parameters=goal.parameters,
        steps=0,
        seed=job.seed,
        original=batch.images,
        adversarial=images,
        gallery_ids=batch.gallery_ids,
        targets=bound.targets,
        preserved=bound.preserved,
        before={name: values.cpu() for name, values in before.items()},
        after={name: values.cpu() for name, values in after.items()},
        unchanged={name: values.cpu() for name, values in unchanged.items()},
        zero_gradient=torch.zeros(len(images), dtype=torch.bool),
        gallery_size=len(job.gallery),
        device=ranker.device.type,
        seconds=0.0,
    )
    return result, reached


def _smallest(job: Job, goal: Goal, rows: tuple[int, int], progress: ProgressCallback) -> Attacks:
    """The smallest budgets of some images, and the figures of the images they were found with."""
    batch = job.batch(slice(*rows))
    found = smallest_budget(
        job.gallery,
        batch.images,
        goal,
        first=job.first,
        seed=job.seed,
        gallery_ids=batch.gallery_ids,
        targets=_targets(job, goal, batch),
        progress=progress,
    )
    chosen = job.batch(slice(*rows), found.targets, found.preserved)
    result, _ = judged(job, goal, chosen, found.adversarial, method=SMALLEST, eps=job.threat.eps)
    shown = [
        found.saved[i] if bool(torch.isfinite(found.saved_eps[i])) else found.adversarial[i]
        for i in range(len(found))
    ]
    empty = found.original[:, :, :0, :0]
    return Attacks(
        result=result.without_images(),
        size=found.eps_star,
        reached=found.free | found.reached,
        images=_kept(shown, rows),
        smallest=replace(found, original=empty, adversarial=empty, saved=empty),
    )


def _targets(job: Job, goal: Goal, batch: AttackBatch) -> Tensor | None:
    """The items that are chosen for images which are in no gallery: by their rows in the whole audit."""
    if batch.gallery_ids is not None:
        return None
    with torch.no_grad(), job.gallery.ranker.frozen():
        chosen = batch.bind(goal, job.gallery, job.gallery.ranker.embed(batch.images), job.seed).targets
    return chosen if chosen.shape[1] else None


def _of_result(job: Job, goal: Goal, result: AttackResult, rows: tuple[int, int]) -> Attacks:
    """What is kept of attacks at the audited budget."""
    batch = job.batch(slice(*rows), result.targets, result.preserved)
    images = job.gallery.ranker.as_input(result.adversarial)
    exact, reached = judged(job, goal, batch, images, method=result.method, eps=result.eps)
    black_box = result.log is not None
    return Attacks(
        result=result.without_images(),
        size=(images - batch.images).flatten(1).abs().amax(1).double(),
        reached=reached,
        images=_kept(list(result.adversarial), rows) if black_box else (None,) * len(result),
        exact=exact.without_images() if black_box else None,
    )


def _kept(images: Sequence[Tensor], rows: tuple[int, int]) -> tuple[str | None, ...]:
    """The images of the first attacks of an audit as texts."""
    return tuple(
        image_text(image) if row < KEPT else None for row, image in zip(range(*rows), images, strict=True)
    )
