"""The standard audit: every attack on one gallery, without further parameters."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankproof.attacks import attack
from rankproof.attacks.batch import count_foreign, foreign_text
from rankproof.attacks.cost import measure_result
from rankproof.attacks.summary import AttackSummary
from rankproof.audit.completed_tasks import CompletedTask, CompletedTasks, Example
from rankproof.audit.diagnostics import (
    AttackFigures,
    check_attack,
    check_baseline,
    check_curve,
    check_gallery,
    check_knowledge,
    check_reference,
)
from rankproof.audit.plan import AuditTask, Plan, plan
from rankproof.audit.result import AuditResult
from rankproof.checks import check_ids, check_images, check_kind
from rankproof.errors import RankproofError
from rankproof.io import versions
from rankproof.modes import ordinary_modes
from rankproof.parameters import Checked, Percent, Weight, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.report.page import Flag
from rankproof.report.strip import Strip, order_strip, strip_of
from rankproof.rng import draw
from rankproof.threat import Threat, format_eps
from rankproof.types import ImagesLike, IntegersLike, ProgressCallback, no_progress

WHITE_BOX_METHODS = "the strong method", "plain PGD"
SAMPLE = 64  # images compared with the gallery items they are said to be
BLACK_BOX_METHODS = "the search of this audit", "SPSA"

ShareCallback = Callable[[float, float], None]
"""Called with the share done and 1."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Checked):
    """How an audit runs, and what its report says of the model and the data.

    Args:
        time_limit: seconds; picks the trials instead of `trials`.
        prepared: what `plan` returned, where it was called before.
        journal: a file that finished figures are saved in; the same audit resumes from there.
        progress: called with the share done and 1.
        model, data_note, classes, command, model_record: what the report says of them.
        recall_at_1: R@1 in % where it is measured by queries that are no gallery items; None measures it
            leave-one-out.
    """

    time_limit: Weight | None = None
    prepared: Plan | None = None
    journal: str | Path | None = None
    progress: ShareCallback = no_progress
    model: str = ""
    data_note: str = ""
    classes: tuple[str, ...] = ()
    command: str = ""
    model_record: Mapping[str, Any] | None = None
    recall_at_1: Percent | None = None


DEFAULTS = AuditOptions()


@ordinary_modes()
def audit(
    gallery: Gallery,
    queries: ImagesLike,
    threat: Threat,
    *,
    gallery_ids: IntegersLike | None = None,
    trials: int | None = None,
    seed: int = 0,
    data: str = "images",
    options: AuditOptions = DEFAULTS,
) -> AuditResult:
    """Attack the ranking in every white-box way of the two papers and in a black box; check the figures.

    Args:
        gallery: the database whose ranking is audited.
        queries: (b, c, h, w) images to attack, floats in [0, 1] or 8-bit values.
        threat: the audited budget; the curves run over {0, 1, 2, 4, 8, 16}/255 (finer to 2/255).
        gallery_ids: (b,) gallery positions of the images' own clean copies; None: they are not in it.
        trials: attacks for each headline figure, drawn from `queries` by `seed`; None is up to 1,000. A
            black-box figure gets a tenth of them, but at least 20.
        seed: all choices and random numbers come from it.
        data: what the report calls the images.
        options: time limit, plan, journal, progress, and what else the report says.
    Returns:
        the whole audit; `save` writes the report.
    """
    check_kind("gallery", gallery, Gallery, GALLERY)
    check_kind("threat", threat, Threat, "Threat(8 / 255)")
    queries = check_images("queries", queries)
    ids = (
        None if gallery_ids is None else check_ids("gallery_ids", gallery_ids, (len(queries),), len(gallery))
    )
    seed = check_integer("seed", seed)
    _check_names(gallery, options.classes)
    gallery.ranker.begin(queries, seed)
    gallery.ranker.check_gradient()
    planned = options.prepared or plan(gallery, queries, threat, trials=trials, time_limit=options.time_limit)
    chosen = draw(len(queries), planned.trials, seed)
    if ids is not None:
        _check_foreign(gallery, queries[chosen[:SAMPLE]], ids[chosen[:SAMPLE]])
    job = _Job(
        gallery=gallery,
        images=gallery.ranker.as_input(queries[chosen]),
        gallery_ids=None if ids is None else ids[chosen],
        threat=threat,
        seed=seed,
        plan=planned,
        model=options.model or gallery.ranker.name,
        data=data,
        classes=options.classes,
        recall_at_1=options.recall_at_1,
    )
    journal = None if options.journal is None else Path(options.journal)
    result = _run(job, journal, options.progress)
    return replace(
        result,
        data_note=options.data_note,
        command=options.command or result.command,
        model_record=options.model_record,
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What an audit attacks, and how the report calls it."""

    gallery: Gallery
    images: Tensor
    gallery_ids: Tensor | None
    threat: Threat
    seed: int
    plan: Plan
    model: str
    data: str
    classes: tuple[str, ...]
    recall_at_1: float | None

    def recall(self) -> float | None:
        """R@1 of the clean gallery in %, None without labels."""
        if self.recall_at_1 is not None or self.gallery.labels is None:
            return self.recall_at_1
        return 100 * float(recall_at(self.gallery, 1).mean())

    def completed(self, path: Path | None) -> CompletedTasks:
        """The tasks of this audit that are finished already."""
        digest = hashlib.sha256()
        for part in (self.gallery.embeddings, self.images):
            digest.update(part.detach().float().cpu().numpy().tobytes())
        ids = None if self.gallery_ids is None else self.gallery_ids.tolist()
        distance = self.gallery.ranker.distance.name
        settings = self.threat, self.seed, self.plan.tasks, versions(), ids, distance
        digest.update(repr(settings).encode())
        return CompletedTasks(path, digest.hexdigest(), self.plan)


def _run(job: _Job, journal: Path | None, progress: ShareCallback) -> AuditResult:
    """Run every task that is not finished, check the figures, draw the examples."""
    begin = time.perf_counter()
    gallery, tasks = job.gallery, job.plan.tasks
    completed = job.completed(journal)
    flags = check_gallery(gallery, job.gallery_ids)
    seconds = [task.seconds(job.plan.timing) for task in tasks]
    total = sum(seconds)
    for number, task in enumerate(tasks):
        done = sum(seconds[:number])
        if task.label not in completed:
            share = seconds[number] / max(1, task.trials * task.passes)

            def inside(part: int, of: int, done: float = done, share: float = share) -> None:
                progress((done + part * share) / total, 1.0)

            completed.add(task.label, _run_task(job, task, inside))
        progress(done + seconds[number], total)
    call = f"rankproof.audit(gallery, queries, Threat({format_eps(job.threat.eps)}), seed={job.seed})"
    return AuditResult(
        model=job.model,
        data=job.data,
        recall_at_1=job.recall(),
        cells=tuple(completed[task.label].summary for task in tasks),
        flags=(*flags, *_flags(tasks, completed)),
        eps=job.threat.eps,
        trials=job.plan.trials,
        seed=job.seed,
        gallery_size=len(gallery),
        data_note="",
        command=call,
        versions=versions(),
        examination=gallery.ranker.examination,
        strips=tuple(_strips(job, completed)),
        seconds=time.perf_counter() - begin,
    )


def _run_task(job: _Job, task: AuditTask, progress: ProgressCallback) -> CompletedTask:
    """Attack the images of a task; what the audit keeps of it."""
    images = job.images[: task.trials]
    result = attack(
        task.target(job.gallery),
        images,
        task.goal,
        task.threat(job.threat),
        method=task.method,
        budget=task.budget,
        seed=job.seed,
        gallery_ids=None if job.gallery_ids is None else job.gallery_ids[: task.trials],
        progress=progress,
    )
    cost = measure_result(job.gallery, images, task.goal, result)
    flags = check_attack(result, task.label, headline=task.eps == job.threat.eps)
    return CompletedTask(
        summary=replace(
            result.summary,
            model=job.model,
            data=job.data,
            model_seconds=cost.model_seconds,
            peak_mb=cost.peak_mb,
        ),
        flags=tuple(flags),
        figures=AttackFigures.of(result),
        example=None if task.budget is None else Example.of(result),
    )


def _check_foreign(gallery: Gallery, images: Tensor, ids: Tensor) -> None:
    """Raise where most images are not the gallery items they are said to be, by a look at some of them."""
    if gallery.ranker.random:
        return
    foreign = count_foreign(gallery, ids, gallery.ranker.embed_all(images))
    if 2 * foreign > len(images):
        raise RankproofError(f"gallery_ids: {foreign_text(foreign, len(images))}")


def _check_names(gallery: Gallery, classes: tuple[str, ...]) -> None:
    """Raise unless every label has a name, where the report is to name the classes."""
    if gallery.labels is None or not classes:
        return
    low, high = int(gallery.labels.min()), int(gallery.labels.max())
    if low < 0 or high >= len(classes):
        raise RankproofError(f"classes: {len(classes)} names, but the gallery's labels are {low} .. {high}")


# -- examples --------------------------------------------------------------------------------------


def _strips(job: _Job, completed: CompletedTasks) -> Iterator[Strip]:
    """For each headline figure the attack whose outcome is nearest to the median."""
    for task in job.plan.tasks:
        if task.eps != job.threat.eps or task.reference_method:
            continue
        finished = completed[task.label]
        strip = (
            _white_box_strip(job, task, finished.figures)
            if finished.example is None
            else _black_box_strip(job, task, finished.figures, finished.example)
        )
        if strip is not None:
            yield strip


def _white_box_strip(job: _Job, task: AuditTask, figures: AttackFigures) -> Strip | None:
    """An attack of a task made again; None where nothing is chosen that could be shown."""
    values = torch.tensor(figures.values)
    row = int((values - values.median()).abs().argmin())
    targets, preserved = torch.tensor(figures.targets[row])[None], torch.tensor(figures.preserved[row])[None]
    if targets.numel() == 0:
        return None
    result = attack(
        job.gallery,
        job.images[row, None],
        task.goal,
        job.threat,
        method=task.method,
        seed=job.seed,
        gallery_ids=None if job.gallery_ids is None else job.gallery_ids[row, None],
        targets=targets,
        preserved=preserved if preserved.numel() else None,
    )
    return strip_of(result, job.gallery, job.classes)


def _black_box_strip(job: _Job, task: AuditTask, figures: AttackFigures, example: Example) -> Strip | None:
    """The attack as it was: made again on its own, its thousand queries could take another way."""
    original = task.threat(job.threat).start(job.images[example.row, None])[0].cpu()
    return order_strip(
        original,
        example.image(original),
        torch.tensor(figures.targets[example.row]),
        job.gallery,
        eps=task.eps,
        visible=task.visible,
        budget=task.budget,
    )


# -- reasons to doubt ------------------------------------------------------------------------------


def _flags(tasks: tuple[AuditTask, ...], completed: CompletedTasks) -> list[Flag]:
    """All flags of the tasks, and those that only several tasks together can raise."""
    flags = [flag for task in tasks for flag in completed[task.label].flags]
    references = {_setting(task): task for task in tasks if task.reference_method}
    main = {_setting(task): task for task in tasks if not task.reference_method}
    curves: dict[str, list[AttackSummary]] = {}
    for task in tasks:
        finished = completed[task.label]
        flags += check_baseline(finished.summary)
        if task.reference_method:
            continue
        if task.budget is None:
            curves.setdefault(task.goal.spec.name, []).append(finished.summary)
        elif white_box := main.get((task.goal, task.eps, None)):
            flags += check_knowledge(finished.figures, completed[white_box.label].figures, task.label)
        if reference := references.get(_setting(task)):
            flags += check_reference(
                finished.figures,
                completed[reference.label].figures,
                task.goal.spec,
                task.label,
                WHITE_BOX_METHODS if task.budget is None else BLACK_BOX_METHODS,
            )
    return flags + [flag for attacks in curves.values() for flag in check_curve(attacks)]


def _setting(task: AuditTask) -> tuple[object, ...]:
    """What two tasks share that differ in the method alone."""
    return task.goal, task.eps, task.budget
