"""The standard audit: by how little, and how far, a ranking can be moved; whole at any moment."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankproof.attacks.batch import count_foreign, foreign_text
from rankproof.audit.counts import counts_of
from rankproof.audit.diagnostics import check_gallery
from rankproof.audit.examples import examples
from rankproof.audit.figures import Measured, figures, octaves
from rankproof.audit.job import Job
from rankproof.audit.journal import FinishedUnits, Unit
from rankproof.audit.measurements import Measurement, protocol_of
from rankproof.audit.missing import missing
from rankproof.audit.plan import Costs, Plan, in_rounds, plan, standing
from rankproof.audit.protocol import DEFAULT_EPS, protocol_hashes
from rankproof.audit.result import AuditResult
from rankproof.audit.schedule import has_breadth, next_measurement
from rankproof.audit.units import run_controls, run_unit
from rankproof.checks import check_ids, check_images, check_kind
from rankproof.errors import RankproofError
from rankproof.goals.wish import FIRST
from rankproof.io import versions
from rankproof.modes import ordinary_modes
from rankproof.parameters import Checked, Count, Percent, Weight, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.report.findings import ProtocolHashes
from rankproof.rng import order
from rankproof.threat import Threat, format_eps
from rankproof.types import ImagesLike, IntegersLike, no_progress

SAMPLE = 64  # images compared with the gallery items they are said to be
EVERY = 60.0  # seconds between two reports of an audit that runs
FIRST_REPORT = 0.25  # of the time: then the first one is written, whatever there is
SLOW_REPORTS = 20  # ... or so many times as long as writing one takes
RESERVE, RESERVED_PASSES = 1.5, 120  # seconds, and passes, for the first report
RESERVED_SHARE = 0.08  # of the time, at most
OVERRUN, OVERRUN_SHARE = 3.0, 0.3  # times its estimate, and of the time: a longer unit is given up
DOUBTFUL = 2.0  # the first unit is begun where its estimate, by one pass, is so many times too long
MARGIN = 1.5  # times the last report took

ShareCallback = Callable[[float, float], None]
"""Called with the share done and 1."""

clock = time.monotonic


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Checked):
    """How an audit runs, and what its report says of the model and the data.

    Args:
        time_limit: seconds from the first attack to the report; None is ten minutes where there are no
            `trials`.
        first: K, how many results count as the first ones.
        prepared: what `plan` returned, where it was called before.
        journal: a file that finished units are saved in; the same audit resumes from there.
        report: called with the audit as far as it has come: every now and then, and when it is interrupted.
        progress: called with the share done and 1.
        model, data_note, classes, model_record: what the report says of them.
        command: the command without its number of trials and its time; the report adds the trials that give
            its figures again.
        recall_at_1: R@1 in % where it is measured by queries that are no gallery items; None measures it
            leave-one-out.
    """

    time_limit: Weight | None = None
    first: Count = FIRST
    prepared: Plan | None = None
    journal: str | Path | None = None
    report: Callable[[AuditResult], object] | None = None
    progress: ShareCallback = no_progress
    model: str = ""
    data_note: str = ""
    classes: tuple[str, ...] = ()
    command: str = ""
    model_record: Mapping[str, Any] | None = None
    recall_at_1: Percent | None = None


DEFAULTS = AuditOptions()


class _OverrunError(Exception):
    """A unit took much longer than expected: there would be no time for anything else."""


@ordinary_modes()
def audit(
    gallery: Gallery,
    queries: ImagesLike,
    threat: Threat | None = None,
    *,
    gallery_ids: IntegersLike | None = None,
    trials: int | str | None = None,
    seed: int = 0,
    data: str = "images",
    options: AuditOptions = DEFAULTS,
) -> AuditResult:
    """Measure by how little a ranking can be moved, and how far at one budget; check the figures.

    For each goal of the standard audit: the smallest budget at which it comes true, and what becomes of the
    ranking at the audited budget, by the published PGD, by the strong search of as many evaluations, and by
    the one that goes on until it has converged; then what a stranger reaches who sees the first results only.
    An own clean copy is left out of every ranking.

    Args:
        gallery: the database whose ranking is audited.
        queries: (b, c, h, w) images to attack, floats in [0, 1] or 8-bit values.
        threat: the audited budget; None is 2/255.
        gallery_ids: (b,) gallery positions of the images' own clean copies; None: they are not in it.
        trials: attacks behind each figure, drawn from `queries` by `seed`, or counts as a text, such as
            "24,at-eps=12,black-box=6x200"; the same audit gives the same figures. None goes by time.
        seed: all choices and random numbers come from it.
        data: what the report calls the images.
        options: time limit, plan, journal, progress, and what else the report says.
    Returns:
        the whole audit; `save` writes the report.
    """
    check_kind("gallery", gallery, Gallery, GALLERY)
    check_kind("threat", threat, Threat | None, "Threat(8 / 255)")
    threat = Threat(DEFAULT_EPS) if threat is None else threat
    queries = check_images("queries", queries)
    ids = (
        None if gallery_ids is None else check_ids("gallery_ids", gallery_ids, (len(queries),), len(gallery))
    )
    seed = check_integer("seed", seed)
    _check_names(gallery, options.classes)
    gallery.ranker.begin(queries, seed)
    gallery.ranker.check_gradient()
    job = Job(
        gallery=gallery,
        images=queries,
        gallery_ids=ids,
        order=order(len(queries), seed),
        threat=threat,
        seed=seed,
        first=options.first,
    )
    if ids is not None:
        _check_foreign(gallery, queries[job.order[:SAMPLE]], ids[job.order[:SAMPLE]])
    planned = options.prepared or plan(
        gallery, queries, threat, own=ids is not None, trials=trials, time_limit=options.time_limit
    )
    return _begin(job, planned, options, data).finish()


def _begin(job: Job, planned: Plan, options: AuditOptions, data: str) -> "_Run":
    """The run of an audit, with the units that its journal has already."""
    path = None if options.journal is None else Path(options.journal)
    journal = FinishedUnits.open(path, _fingerprint(job))
    return _Run(job=job, plan=planned, journal=journal, options=options, data=data)


def _fingerprint(job: Job) -> str:
    """What an audit is of: the units of any other audit do not count."""
    digest = hashlib.sha256()
    for part in (job.gallery.embeddings, job.images):
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    ids = None if job.gallery_ids is None else job.gallery_ids.tolist()
    distance = job.gallery.ranker.distance.name
    labels = None if job.gallery.labels is None else job.gallery.labels.tolist()
    settings = job.threat, job.seed, job.first, versions(), ids, labels, distance, _slope(job)
    digest.update(repr(settings).encode())
    return digest.hexdigest()


def _slope(job: Job) -> str:
    """How steep the encoder is at the first attacked image, to three digits; empty where it is random.

    Encoders with the same embeddings may differ in their gradients, as one does whose rounding lets the
    gradient pass from then on.
    """
    ranker = job.gallery.ranker
    if ranker.random:
        return ""
    image = ranker.as_input(job.images[job.order[:1]]).detach().requires_grad_(True)
    with torch.enable_grad(), ranker.frozen():
        z = ranker.embed(image)
        if not z.requires_grad:
            return "none"
        (gradient,) = torch.autograd.grad(z.square().sum() + z.sum(), image, materialize_grads=True)
    return f"{float(gradient.double().norm()):.2e}"


@dataclass
class _Run:
    """An audit that runs: which units are done, and what the next one is.

    Args:
        values: of each attack of a measurement by its label, for its interval.
        stopped: whether it was interrupted.
    """

    job: Job
    plan: Plan
    journal: FinishedUnits
    options: AuditOptions
    data: str
    stopped: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    _units: dict[str, list[Unit]] = field(default_factory=dict)
    _begin: float = 0.0
    _reported: float = 0.0
    _reserve: float = 0.0
    _until: float | None = None
    _recall: tuple[float | None] | None = None
    _hashes: ProtocolHashes | None = None

    def __post_init__(self) -> None:
        plan = self.plan
        self.rows = (self.journal.rows if plan.counts is None else None) or plan.rows
        self.wanted = plan.wanted
        self.costs = Costs(per_pass=plan.per_pass, eps=plan.threat.eps)
        self._earlier = self.journal.seconds
        for measurement, most in self.wanted:
            self._units[measurement.label], self.values[measurement.label] = [], []
            step = most if measurement.is_control else self.rows
            found = self.journal.of(measurement.label, step, self.plan.images, most)
            if measurement.is_control and plan.counts is None:
                found = self.journal.controls(measurement.label)
            for unit in found:
                self._learn(measurement, unit)

    def finish(self) -> AuditResult:
        """Run, and say what came of it; where somebody interrupts, the report of what is there is written."""
        try:
            self.attack()
        except KeyboardInterrupt:
            self.stopped = True
            self.report()
            raise
        return self.result()

    # -- attacks

    def attack(self) -> None:
        """Run units until the time or the wanted attacks are used up."""
        self._begin = self._reported = clock()
        self._reserve = RESERVE + RESERVED_PASSES * self.plan.per_pass
        if self.plan.time_limit is not None:
            self._reserve = min(self._reserve, RESERVED_SHARE * self.plan.time_limit)
        if self.plan.time_limit is None:
            self._by_counts()
        else:
            self._by_time(self.plan.time_limit)
        self.options.progress(1.0, 1.0)

    def _by_counts(self) -> None:
        todo = in_rounds(self.wanted, self.rows)
        costs = [(end - begin) * each.evaluations(self.plan.threat.eps) for each, begin, end in todo]
        total, done = sum(costs) or 1.0, 0.0
        for (measurement, begin, end), cost in zip(todo, costs, strict=True):
            if (measurement.label, (begin, end)) not in self.journal.units:
                self._unit(measurement, (begin, end), done / total, cost / total)
            done += cost
            self.options.progress(done / total, 1.0)
            self._report_now_and_then(breadth=False)

    def _by_time(self, limit: float) -> None:
        breadth = False
        while True:
            left = limit - self.elapsed - self._reserve
            left *= 1.0 if any(self._units.values()) else DOUBTFUL
            standings = [
                standing(
                    each,
                    self.done(each),
                    most,
                    self.costs,
                    rows=self.rows,
                    values=self.values[each.label],
                )
                for each, most in self.wanted
            ]
            chosen = next_measurement(standings, left, limit)
            if chosen is None:
                break
            rows = chosen.rows, chosen.rows + chosen.step
            most = max(OVERRUN * chosen.cost, OVERRUN_SHARE * limit)
            self._until = min(clock() + most, clock() + max(left, 0.0))
            try:
                self._unit(chosen.measurement, rows, self.elapsed / limit, chosen.cost / limit)
            except _OverrunError:
                self.costs.overrun(chosen.measurement, chosen.step, most)
            self.options.progress(min(1.0, self.elapsed / limit), 1.0)
            now = has_breadth(standings, left, limit) or self.elapsed > FIRST_REPORT * limit
            self._report_now_and_then(breadth=now and not breadth)
            breadth = breadth or now
        if not any(self._units.values()):
            least = min(self.costs.of(each) for each, _ in self.wanted)
            raise RankproofError(f"--time: one attack takes about {least:.2g} s; give more time")

    @property
    def elapsed(self) -> float:
        """Seconds of attacks, those of an earlier run too."""
        return self._earlier + clock() - self._begin

    def done(self, measurement: Measurement) -> int:
        """How many attacks of a measurement are done."""
        units = self._units[measurement.label]
        return units[-1].rows[1] if units else 0

    def _unit(self, measurement: Measurement, rows: tuple[int, int], done: float, share: float) -> None:
        """Run one unit and remember it."""

        def inside(part: int, of: int) -> None:
            if self._until is not None and clock() > self._until:
                raise _OverrunError
            self.options.progress(min(1.0, done + share * part / max(1, of)), 1.0)

        begin = clock()
        if measurement.is_control:
            unit = Unit(rows=rows, seconds=0.0, controls=run_controls(self.job, measurement, rows, inside))
        else:
            unit = Unit(rows=rows, seconds=0.0, parts=run_unit(self.job, measurement, rows, inside))
        self._learn(measurement, self.journal.add(measurement.label, replace(unit, seconds=clock() - begin)))

    def _learn(self, measurement: Measurement, unit: Unit) -> None:
        self._units[measurement.label].append(unit)
        self.costs.add(measurement, unit.rows[1] - unit.rows[0], unit.seconds)
        if unit.parts:
            self.values[measurement.label] += octaves(Measured.of(measurement, [unit]))

    # -- the report

    def _report_now_and_then(self, *, breadth: bool) -> None:
        """Write the report, so that a kill leaves one; and learn how long that takes."""
        if self.options.report is None:
            return
        every = max(EVERY, SLOW_REPORTS * (self._reserve / MARGIN))
        if not breadth and clock() - self._reported < every:
            return
        self.report()

    def report(self) -> None:
        """Hand over the audit as far as it has come, if there is any figure."""
        if self.options.report is None or not any(self._units.values()):
            return
        begin = clock()
        self.options.report(self.result())
        self._reported = clock()
        self._reserve = MARGIN * (self._reported - begin)

    def result(self) -> AuditResult:
        """The audit as far as it has come."""
        job, options, gallery = self.job, self.options, self.job.gallery
        measured = [
            Measured.of(each, self._units[each.label]) for each, _ in self.wanted if self._units[each.label]
        ]
        done = [(each, self.done(each)) for each, _ in self.wanted]
        found = figures(job, measured, options.classes)
        headline = [count for each, count in done if each.kind in ("smallest", "at-eps")]
        why = "before it was stopped" if self.stopped else "for want of time"
        why = why if self.stopped or self.plan.counts is None else "as asked"
        model = options.model or gallery.ranker.name
        return AuditResult(
            model=model,
            data=self.data,
            recall_at_1=self._recall_at_1(),
            cells=tuple(replace(cell, model=model, data=self.data) for cell in found.cells),
            flags=(*check_gallery(gallery, self._sampled()), *found.flags),
            eps=job.threat.eps,
            trials=max(headline, default=0) or max(count for _, count in done),
            seed=job.seed,
            gallery_size=len(gallery),
            data_note=options.data_note,
            command=self._command(done),
            versions=versions(),
            seconds=self.elapsed,
            model_record=options.model_record,
            examination=gallery.ranker.examination,
            strips=tuple(examples(job, measured, options.classes)),
            first=job.first,
            smallest=tuple(replace(each, model=model, data=self.data) for each in found.smallest),
            controls=tuple(each for one in measured for each in one.controls),
            classes=found.classes,
            protocol=self._protocol(),
            missing=missing(done, job.threat.eps, why),
        )

    def _sampled(self) -> Tensor | None:
        """Gallery positions of attacked images, or None."""
        return None if self.job.gallery_ids is None else self.job.gallery_ids[self.job.order]

    def _command(self, done: list[tuple[Measurement, int]]) -> str:
        """What gives exactly these figures again."""
        text = str(counts_of(done, self.rows if self.rows != self.plan.usual_rows else None))
        if self.options.command:
            return f"{self.options.command} --trials {text}"
        trials = text if text.isdigit() else repr(text)
        threat = f"Threat({format_eps(self.job.threat.eps)})"
        return f"rankproof.audit(gallery, queries, {threat}, trials={trials}, seed={self.job.seed})"

    def _protocol(self) -> ProtocolHashes:
        """Under which protocol this audit attacks, and what."""
        if self._hashes is None:
            job = self.job
            protocol = protocol_of(job.threat, job.first, job.seed, job.size)
            self._hashes = protocol_hashes(protocol, job.gallery, job.images, job.order, job.gallery_ids)
        return self._hashes

    def _recall_at_1(self) -> float | None:
        """R@1 of the clean gallery in %, None without labels."""
        if self._recall is None:
            known, labels = self.options.recall_at_1, self.job.gallery.labels
            if known is None and labels is not None:
                known = 100 * float(recall_at(self.job.gallery, 1).mean())
            self._recall = (known,)
        return self._recall[0]


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
