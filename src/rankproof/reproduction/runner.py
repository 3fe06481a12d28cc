"""A whole recipe: its models, its cells, and what is made of them."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rankproof.io import versions
from rankproof.parallel import Job, in_turn, side_by_side
from rankproof.reproduction.cells import (
    STRONG,
    TableCell,
    by_published_schedule,
    cells_of,
    model_specs,
    selected,
    strong_cells,
)
from rankproof.reproduction.compare import Mark, Row, row_of
from rankproof.reproduction.figures import Drawing
from rankproof.reproduction.measure import Bench, CellOutcome, joined
from rankproof.reproduction.models import Models, Planned
from rankproof.reproduction.plan import (
    Estimate,
    PassTimes,
    Step,
    Task,
    Training,
    cell_seconds,
    pass_times,
    training_seconds,
)
from rankproof.reproduction.recipe import ExperimentRecipe, Recipe, TableRecipe, find_recipe, read_recipe
from rankproof.reproduction.records import RECORDS, CompletedCells, Measurement, ModelFacts, identity
from rankproof.reproduction.render import Table
from rankproof.reproduction.results_page import Experiment
from rankproof.system import Stage, find_device, no_display
from rankproof.training.divergence import TrainingFailedError, chance_recall

CELL_FIELDS = (
    *("run", "model", "source", "goal", "eps", "letter", "count", "xi", "method"),
    *("visible", "budget", "grid", "exclude_self"),
)
MODELS, OUT = Path("runs/models"), Path("runs/reproduce")
Made = Table | Drawing | Experiment


@dataclass(frozen=True, kw_only=True)
class ReproductionRequest:
    """A recipe to run, and how.

    Args:
        word: paper and table or figure, such as "eccv20/table3".
        recipes: folder of recipes; None looks for it.
        trials: T of every cell instead of the recipe's.
        words: parts of the names of the cells that are run; empty runs all.
        method: "published" or "strong".
        out: folder of the table or figure; None is one below runs/reproduce.
        workers: processes that train and attack side by side.
        device: "auto", "cpu" or "cuda".
        published_schedule: train defended models as published.
        precision: "single" or "bf16", of the encoder's passes in a training.
        paths: data sets that lie elsewhere, by name.
        checkpoints: checkpoints that are taken as they are, by the name of the model.
        root: folder that holds data sets.
        records, models: where finished cells and trained models are kept.
        seed: of all attacks.
        save: whether the attacks of each cell that is run are kept beside the table.
        command: what the user typed.
        log: takes a line that a user should read; it must be a function of a module, for workers to have it.
    """

    word: str
    recipes: Path | None = None
    trials: int | None = None
    words: Sequence[str] = ()
    method: str = "published"
    out: Path | None = None
    workers: int = 1
    device: str = "auto"
    published_schedule: bool = False
    precision: str = "single"
    paths: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    records: Path = RECORDS
    models: Path = MODELS
    seed: int = 0
    save: bool = False
    command: str = ""
    log: Callable[[str], None] = print


@dataclass(frozen=True, kw_only=True)
class Done:
    """The outcome of a step.

    Args:
        measurements: of its cells, all of them on disk.
        failure: why there are none, where a training failed.
    """

    measurements: tuple[Measurement, ...] = ()
    failure: str | None = None


class Worker:
    """One process at work on a request.

    Args:
        request: what is run, and how.
        stage: given a name, opens a display of progress.
    """

    def __init__(self, request: ReproductionRequest, *, stage: Stage) -> None:
        self.request, self.stage = request, stage
        self.recipe: Recipe = read_recipe(find_recipe(request.word, request.recipes))
        self.bench = Bench(seed=request.seed)
        self.part = f"{self.recipe.paper}/{self.recipe.part}"
        self.records = CompletedCells(request.records)
        self.models = Models(
            specs=model_specs(self.recipe),
            folder=request.models,
            paths=request.paths,
            checkpoints=request.checkpoints,
            root=request.root,
            device=request.device,
            published_schedule=request.published_schedule,
            precision=request.precision,
            log=request.log,
            stage=stage,
        )

    @property
    def out(self) -> Path:
        """Where the table or figure goes."""
        return self.request.out or OUT / self.recipe.name

    def plans(self, cell: TableCell) -> tuple[Planned, Planned] | None:
        """The models of a cell, the one examples are made on first; None without their data."""
        source, target = (self.models.planned(name) for name in (cell.source or cell.model, cell.model))
        return None if source is None or target is None else (source, target)

    def same(self, cell: TableCell, plans: tuple[Planned, Planned]) -> str:
        """The identity of a cell with these models."""
        named = dict(zip(("source", "model"), plans, strict=True))
        models = {name: planned.identity for name, planned in named.items()}
        return identity(cell, models, self.request.seed)

    def do(self, step: Step) -> Done:
        """Train a model, or run cells; each is recorded as soon as it is done."""
        try:
            if step.training is not None:
                planned = self.models.planned(step.training.model)
                assert planned is not None
                self.models.target(planned)
            return Done(measurements=tuple(self._measured(task) for task in step.tasks))
        except TrainingFailedError as error:
            return Done(failure=str(error))

    def _measured(self, task: Task) -> Measurement:
        """Run a cell and record its measurement."""
        plans = self.plans(task.cell)
        assert plans is not None
        begin = time.monotonic()
        try:
            source, target = (self.models.target(planned) for planned in plans)
        except TrainingFailedError as error:
            if task.cell.run != "training":
                raise
            chance = chance_recall(plans[1].splits.test.require_labels())
            outcome = CellOutcome(training={"failure": str(error), "chance": chance, "model": None})
        else:
            begin, before = time.monotonic(), self._before(task)
            first = 0 if before is None else before.trials
            with self.stage(task.cell.name) as progress:
                outcome = self.bench.measure(task.cell, target, source, progress, first)
            outcome = outcome if before is None else joined(before, outcome)
            if self.request.save:
                for name, attack in outcome.attacks.items():
                    summary = replace(attack.summary, data=target.dataset.name)
                    attack.save(self.out / "attacks" / task.cell.name / name, summary)
        wall = round(time.monotonic() - begin, 3)
        measurement = replace(self._measurement(task, plans, outcome), wall_seconds=wall)
        self.records.keep(self.part, measurement)
        return measurement

    def _before(self, task: Task) -> Measurement | None:
        """A measurement with fewer attacks, of which all values are recorded: only the others are missing."""
        if task.cell.run != "black-box" or task.cell.figures:
            return None
        return self.records.find(self.part, replace(task.cell, trials=1), task.same)

    def _measurement(self, task: Task, plans: tuple[Planned, Planned], outcome: CellOutcome) -> Measurement:
        cell = task.cell
        models = {planned.spec.name: planned for planned in plans}
        beside = {each.beside: each.beside_printed for each in cell.figures if each.beside is not None}
        training = outcome.training
        if training is not None:
            training = {**training, "processor_seconds": self.models.processor_seconds(plans[1])}
        return Measurement(
            cell=cell.name,
            identity=task.same,
            **{name: getattr(cell, name) for name in CELL_FIELDS},
            published={each.name: each.printed for each in cell.figures} | beside,
            published_trials=cell.published_trials,
            trials_asked=cell.trials,
            trials=max(map(len, outcome.values.values()), default=0),
            seed=self.request.seed,
            figures=outcome.figures,
            steps=outcome.steps,
            seconds=round(outcome.seconds, 6),
            model_seconds=round(outcome.model_seconds, 6),
            gallery_size=outcome.gallery_size,
            device=outcome.device,
            data_sha256=plans[1].splits.sha256,
            models=[self.models.describe(planned) for planned in models.values()],
            notes=outcome.notes,
            versions=versions(),
            command=self.request.command,
            values=_recorded_values(cell, outcome.values),
            drawing=outcome.drawing,
            training=training,
            curve=None if cell.figures else outcome.curve,
        )


def _recorded_values(
    cell: TableCell, values: Mapping[str, Sequence[int | float]]
) -> dict[str, Sequence[int | float]]:
    """The values of each attack behind the printed figures; all where none is printed.

    The start of an attack and what it did to C_SP are kept as means: the records of a table stay small.
    """
    printed = {figure.name for figure in cell.figures}
    return {name: each for name, each in values.items() if name in printed or not printed}


def start_worker(request: ReproductionRequest) -> Callable[[Step], Done]:
    """What one of several processes does with a step; it has no display."""
    return Worker(request, stage=no_display).do


class Reproduction:
    """The run of one recipe.

    Args:
        request: what is run, and how.
        stage: given a name, opens a display of progress.
    """

    def __init__(self, request: ReproductionRequest, *, stage: Stage) -> None:
        self.request, self.log = request, request.log
        self.worker = Worker(request, stage=stage)
        self.recipe, self.out = self.worker.recipe, self.worker.out
        cells = cells_of(self.recipe, trials=request.trials)
        # Figures of defended models by another schedule have files of their own.
        self.printed = by_published_schedule(self.recipe, cells) if request.published_schedule else cells
        stronger = request.method == STRONG
        self.chosen = selected(strong_cells(self.printed) if stronger else self.printed, request.words)
        self._times: dict[tuple[str, int], PassTimes] = {}

    def estimate(self) -> Estimate:
        """What is left to do; one pass of each kind of encoder is timed."""
        tasks, trainings, absent = [], dict[str, Training](), 0
        finished: list[tuple[TableCell, Measurement]] = []
        for cell in self.chosen:
            plans = self.worker.plans(cell)
            if plans is None:
                absent += 1
                continue
            same = self.worker.same(cell, plans)
            if (record := self.worker.records.find(self.worker.part, cell, same)) is not None:
                finished.append((cell, record))
                continue
            tasks.append(self._task(cell, same, plans))
            for planned in [each for plan in plans for each in (*self.worker.models.beginnings(plan), plan)]:
                if self.worker.models.source(planned) is None and self.worker.models.failure(planned) is None:
                    seconds = training_seconds(planned, self._times_of(planned))
                    before = frozenset(each.key for each in self.worker.models.beginnings(planned))
                    trainings[planned.key] = Training(model=planned.spec.name, seconds=seconds, needs=before)
        return Estimate(trainings=trainings, tasks=tasks, finished=finished, absent=absent)

    def run(self, todo: Estimate) -> Made:
        """Do what is left, model by model, and write what is made of it."""
        for cell, record in todo.finished:
            self.worker.records.refer(self.worker.part, cell, record)
        jobs = list(todo.jobs())
        ahead, number, failures, begin = todo.seconds, 0, set[str](), time.monotonic()
        with closing(self._worked_off(jobs)) as finished:
            for job, done in finished:
                ahead -= job.what.seconds
                left = _left(ahead, todo.seconds - ahead, time.monotonic() - begin)
                for task, record in zip(job.what.tasks, done.measurements, strict=False):
                    number += 1
                    figures = _figures_in_words(record, task.cell)
                    self.log(f"{number}/{len(todo.tasks)} {record.cell}: {figures}, {left}")
                if done.failure is not None and done.failure not in failures:
                    failures.add(done.failure)
                    self.log(f"{job.what.name}: {done.failure}")
        return self.made()

    def made(self) -> Made:
        """The table, figure or experiment from the records, written to the folder of the request."""
        recipe, command = self.recipe, self.request.command
        made: Made
        if isinstance(recipe, TableRecipe):
            rows = [
                row
                for cell in (*self.printed, *strong_cells(self.printed))
                for row in self._rows(recipe, cell)
            ]
            models = self._facts(row.record for row in rows if row.record is not None)
            made = Table(recipe=recipe, rows=rows, models=models, command=command)
        elif isinstance(recipe, ExperimentRecipe):
            measured = {cell.name: self._recorded(cell) for cell in self.printed}
            made = Experiment(recipe=recipe, measured=measured, records=self.worker.records, command=command)
        else:
            parts = [(cell, self._recorded(cell) or self._missing(cell)) for cell in self.printed]
            models = self._facts(part for _, part in parts if not isinstance(part, str))
            made = Drawing(recipe=recipe, parts=parts, models=models, command=command)
        made.save(self.out)
        return made

    def _worked_off(self, jobs: Sequence[Job[Step]]) -> Generator[tuple[Job[Step], Done], None, None]:
        """Every job with its outcome, done here or by several workers."""
        workers = min(self.request.workers, len(jobs))
        if workers < 2:
            return in_turn(jobs, self.worker.do)
        return side_by_side(jobs, partial(start_worker, self.request), workers)

    def _rows(self, recipe: TableRecipe, cell: TableCell) -> Iterator[Row]:
        record = self._recorded(cell)
        if record is None and cell.method == STRONG:
            return  # the published search is what must be run; ours is shown where it was
        for figure in cell.figures:
            yield row_of(cell, figure, record, recipe.tolerance, self._missing(cell))

    def _recorded(self, cell: TableCell) -> Measurement | None:
        """The record of a cell; one of fewer attacks than asked for is better than none."""
        plans = self.worker.plans(cell)
        if plans is None:
            return None
        return self.worker.records.find(
            self.worker.part, replace(cell, trials=1), self.worker.same(cell, plans)
        )

    def _missing(self, cell: TableCell) -> Mark:
        """Why a cell has no record."""
        plans = self.worker.plans(cell)
        if plans is None:
            return "no data"
        failed = any(self.worker.models.failure(planned) for planned in plans)
        return "training failed" if failed else "not run"

    def _facts(self, records: Iterable[Measurement]) -> dict[str, ModelFacts | None]:
        """The facts of each model; for a model that is not here, those that its cells recorded."""
        models = self.worker.models
        plans = {name: models.planned(name) for cell in self.printed for name in cell.models}
        recorded = {model.key: model for record in records for model in record.models}

        def facts_of(name: str, planned: Planned) -> ModelFacts:
            if models.source(planned) is None and planned.key in recorded:
                return replace(recorded[planned.key], name=name)
            return models.describe(planned)

        return {name: None if planned is None else facts_of(name, planned) for name, planned in plans.items()}

    def _task(self, cell: TableCell, same: str, plans: tuple[Planned, Planned]) -> Task:
        target = plans[1]
        seconds = cell_seconds(cell, self._times_of(target), len(target.splits.test))
        keys = frozenset(planned.key for planned in plans)
        return Task(cell=cell, same=same, keys=keys, seconds=seconds)

    def _times_of(self, planned: Planned) -> PassTimes:
        key = (planned.spec.arch, len(planned.splits.test))
        if key not in self._times:
            self._times[key] = pass_times(planned, find_device(self.request.device))
        return self._times[key]


def _figures_in_words(record: Measurement, cell: TableCell) -> str:
    """The printed figures, or those that are drawn, with their intervals."""
    printed = {figure.name: f", published {_readable(figure.printed)}" for figure in cell.figures}
    parts = []
    for name in printed or record.figures:
        mean, low, high = record.figures[name]
        interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        parts.append(f"{name} {mean:.3f}{interval}{printed.get(name, '')}")
    return "; ".join(parts) or "done"


def _readable(printed: float | None) -> str:
    return "unreadable" if printed is None else f"{printed:g}"


def _left(ahead: float, behind: float, took: float) -> str:
    """The time left, from the estimates of the work ahead and behind and the time taken so far."""
    seconds = ahead * took / max(behind, 1e-9)
    return f"about {seconds / 60:.0f} min left" if seconds > 100 else f"about {max(seconds, 0.0):.0f} s left"
