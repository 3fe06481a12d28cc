"""A whole table: its models, its cells, and the table with our figures."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankproof.console import spoken
from rankproof.experiments.reproduce.cells import STRONG, Cell, cells_of, model_specs, selected, strong_cells
from rankproof.experiments.reproduce.estimate import Pace, cell_seconds, pace_of, training_seconds
from rankproof.experiments.reproduce.journal import Journal, Record, identity
from rankproof.experiments.reproduce.measure import Bench, Measured
from rankproof.experiments.reproduce.model_cache import Models, Planned, Say, Stage
from rankproof.experiments.reproduce.recipe import TableRecipe, find_recipe, read_recipe
from rankproof.experiments.reproduce.table import Table
from rankproof.experiments.reproduce.verdict import Mark, Row, row_of
from rankproof.target import Target, find_device
from rankproof.training.health import TrainingFailedError
from rankproof.versions import versions

RECORDS, MODELS, OUT = Path("records"), Path("runs/models"), Path("runs/reproduce")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Args:
        word: paper and table, such as "eccv20/table3".
        recipes: folder of recipes; None looks for it.
        trials: T of every cell instead of the recipe's.
        words: parts of the names of the cells that are run; empty runs all.
        method: "published" or "strong".
        out: folder of the table; None is one below runs/reproduce.
        device: "auto", "cpu" or "cuda".
        published_schedule: train defended models as published.
        paths: data sets that lie elsewhere, by name.
        given: checkpoints that are taken as they are, by the name of the model.
        root: folder that holds data sets.
        records, models: where finished cells and trained models are kept.
        seed: of all attacks.
        save: whether the attacks of each cell that is run are kept beside the table.
        command: what the user typed.
    """

    word: str
    recipes: Path | None = None
    trials: int | None = None
    words: Sequence[str] = ()
    method: str = "published"
    out: Path | None = None
    device: str = "auto"
    published_schedule: bool = False
    paths: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    records: Path = RECORDS
    models: Path = MODELS
    seed: int = 0
    save: bool = False
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell that is yet to be measured.

    Args:
        cell: which.
        same: its identity.
        source, target: the models.
        seconds: an estimate.
    """

    cell: Cell
    same: str
    source: Planned
    target: Planned
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is to be done, and how long it takes, roughly.

    Args:
        trainings: models to train, by name, with seconds.
        tasks: cells to run.
        finished: cells that are on disk, of this table or another one that measures the same.
        absent: cells without data.
    """

    trainings: Mapping[str, float]
    tasks: Sequence[Task]
    finished: Sequence[tuple[Cell, Record]]
    absent: int

    @property
    def seconds(self) -> float:
        """Of everything."""
        return sum((*self.trainings.values(), *(task.seconds for task in self.tasks)), 0.0)

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for name, seconds in self.trainings.items():
            yield f"train {name}: roughly {spoken(seconds)}"
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(" to ".join(task.cell.models), []).append(task)
        for name, tasks in groups.items():
            yield f"attack {name}: {len(tasks)} cells, roughly {spoken(sum(task.seconds for task in tasks))}"
        absent = f", {self.absent} without data" if self.absent else ""
        counts = f"{len(self.tasks)} cells to run, {len(self.finished)} finished{absent}"
        yield f"{counts}: roughly {spoken(self.seconds) if self.seconds else 'nothing'} in all"

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "trainings": dict(self.trainings),
            "cells": {task.cell.name: task.seconds for task in self.tasks},
            "finished": [cell.name for cell, _ in self.finished],
            "no_data": self.absent,
            "seconds": self.seconds,
        }


class Reproduction:
    """One table in work.

    Args:
        order: what is asked for.
        say: told one line at a time what is going on.
        stage: given a name, opens a display of progress.
    """

    def __init__(self, order: Order, *, say: Say, stage: Stage) -> None:
        self.order, self.say, self.stage = order, say, stage
        self.recipe: TableRecipe = read_recipe(find_recipe(order.word, order.recipes))
        self.printed = self._with_schedule(cells_of(self.recipe, trials=order.trials))
        stronger = order.method == STRONG
        self.chosen = selected(strong_cells(self.printed) if stronger else self.printed, order.words)
        self.journal = Journal(order.records, self.recipe.paper, self.recipe.table)
        self.models = Models(
            specs=model_specs(self.recipe),
            folder=order.models,
            paths=order.paths,
            given=order.given,
            root=order.root,
            device=order.device,
            published_schedule=order.published_schedule,
            say=say,
            stage=stage,
        )
        self._paces: dict[tuple[str, int], Pace] = {}

    def estimate(self) -> Estimate:
        """What is left to do; one pass of each kind of encoder is timed."""
        tasks, absent = [], 0
        finished: list[tuple[Cell, Record]] = []
        for cell in self.chosen:
            plans = self._plans(cell)
            if plans is None:
                absent += 1
            elif (record := self.journal.find(cell, self._same(cell, plans))) is not None:
                finished.append((cell, record))
            else:
                tasks.append(self._task(cell, *plans))
        trainings = {}
        for task in tasks:
            for planned in (task.source, task.target):
                if self.models.source(planned) is None and self.models.failure(planned) is None:
                    trainings[planned.spec.name] = training_seconds(planned, self._pace(planned))
        return Estimate(trainings=trainings, tasks=tasks, finished=finished, absent=absent)

    def run(self, todo: Estimate) -> Table:
        """Do what is left, model by model, and write the table."""
        for cell, record in todo.finished:
            if record["cell"] != cell.name:
                self.journal.keep(cell, {**record, "cell": cell.name, "measured_as": record["cell"]})
        bench, failed = Bench(seed=self.order.seed), set[str]()
        total, done, spent = sum((task.seconds for task in todo.tasks), 0.0), 0.0, 0.0
        for number, task in enumerate(_model_by_model(todo.tasks), 1):
            place = f"{number}/{len(todo.tasks)} {task.cell.name}"
            done += task.seconds
            try:
                source, target = self.models.target(task.source), self.models.target(task.target)
            except TrainingFailedError as error:
                if str(error) not in failed:
                    self.say(f"{place}: {error}")
                failed.add(str(error))
                continue
            with self.stage(place) as tell:
                record = self._measured(task, bench, source, target, tell)
            spent += record["wall_seconds"]
            left = (total - done) * spent / max(done, 1e-9)
            self.say(f"{place}: {_told(record, task.cell)}, {_left(left)}")
        return self.table()

    def table(self) -> Table:
        """The table with what is on disk, written to the folder of the order."""
        rows = [row for cell in (*self.printed, *strong_cells(self.printed)) for row in self._rows(cell)]
        table = Table(recipe=self.recipe, rows=rows, models=self._facts(), command=self.order.command)
        table.save(self.out)
        return table

    @property
    def out(self) -> Path:
        """Where the table goes."""
        return self.order.out or OUT / self.recipe.name

    def _rows(self, cell: Cell) -> Iterator[Row]:
        plans = self._plans(cell)
        # Fewer attacks than asked for are better than none; the table tells their number.
        record = None
        if plans is not None:
            record = self.journal.find(replace(cell, trials=1), self._same(cell, plans))
        if record is None and cell.method == STRONG:
            return  # the published search is what must be run; ours is shown where it was
        missing: Mark = "not run"
        if plans is None:
            missing = "no data"
        elif any(self.models.failure(planned) for planned in plans):
            missing = "training failed"
        for figure in cell.figures:
            yield row_of(cell, figure, record, self.recipe.tolerance, missing)

    def _with_schedule(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """Figures of defended models by another schedule have files of their own."""
        if not self.order.published_schedule:
            return tuple(cells)
        defended = {spec.name for spec in self.recipe.models if spec.defense != "none"}
        return tuple(
            replace(cell, name=f"{cell.name}-published-schedule") if defended & set(cell.models) else cell
            for cell in cells
        )

    def _facts(self) -> dict[str, dict[str, Any] | None]:
        names = dict.fromkeys(name for cell in self.printed for name in cell.models)
        plans = {name: self.models.planned(name) for name in names}
        return {
            name: None if planned is None else self.models.sheet(planned) for name, planned in plans.items()
        }

    def _plans(self, cell: Cell) -> tuple[Planned, Planned] | None:
        """The models of a cell, the one examples are made on first; None without their data."""
        source, target = (self.models.planned(name) for name in (cell.source or cell.model, cell.model))
        return None if source is None or target is None else (source, target)

    def _same(self, cell: Cell, plans: tuple[Planned, Planned]) -> str:
        named = dict(zip(("source", "model"), plans, strict=True))
        models = {name: [planned.key, planned.splits.sha256] for name, planned in named.items()}
        return identity(cell, models, self.order.seed)

    def _task(self, cell: Cell, source: Planned, target: Planned) -> Task:
        seconds = cell_seconds(cell, self._pace(target), len(target.splits.test))
        same = self._same(cell, (source, target))
        return Task(cell=cell, same=same, source=source, target=target, seconds=seconds)

    def _pace(self, planned: Planned) -> Pace:
        known = (planned.spec.arch, len(planned.splits.test))
        if known not in self._paces:
            self._paces[known] = pace_of(planned, find_device(self.order.device))
        return self._paces[known]

    def _measured(
        self, task: Task, bench: Bench, source: Target, target: Target, tell: Callable[[int, int], None]
    ) -> Record:
        """Measure a cell and keep its record."""
        begin = time.monotonic()
        measured = bench.measure(task.cell, target, source, tell)
        if self.order.save and measured.result is not None:
            measured.result.save(self.out / "attacks" / task.cell.name, data=target.dataset.name)
        record = self._record(task, measured) | {"wall_seconds": round(time.monotonic() - begin, 3)}
        self.journal.keep(task.cell, record)
        return record

    def _record(self, task: Task, measured: Measured) -> Record:
        cell = task.cell
        plans = {task.source.spec.name: task.source, task.target.spec.name: task.target}
        return {
            "cell": cell.name,
            "identity": task.same,
            **{name: getattr(cell, name) for name in ("run", "model", "source", "goal", "eps", "letter")},
            **{name: getattr(cell, name) for name in ("count", "xi", "method", "visible", "budget", "grid")},
            "published": {each.name: each.printed for each in cell.figures}
            | {each.beside: each.beside_printed for each in cell.figures if each.beside is not None},
            "published_trials": cell.published_trials,
            "trials_asked": cell.trials,
            "trials": max(map(len, measured.values.values())),
            "seed": self.order.seed,
            "figures": {name: list(values) for name, values in measured.figures.items()},
            "steps": measured.steps,
            "seconds": round(measured.seconds, 6),
            "model_seconds": round(measured.model_seconds, 6),
            "gallery_size": measured.gallery_size,
            "device": measured.device,
            "data_sha256": task.target.splits.sha256,
            "models": [self.models.sheet(planned) for planned in plans.values()],
            "notes": list(measured.notes),
            "versions": versions(),
            "command": self.order.command,
            "values": measured.values,
        }


def _model_by_model(tasks: Sequence[Task]) -> list[Task]:
    """The cells of one model together; those of a transfer by what the examples are made on."""
    order = {name: place for place, name in enumerate(dict.fromkeys(t.source.spec.name for t in tasks))}
    return sorted(tasks, key=lambda task: order[task.source.spec.name])


def _told(record: Record, cell: Cell) -> str:
    """The printed figures with their intervals."""
    parts = []
    for figure in cell.figures:
        mean, low, high = record["figures"][figure.name]
        interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        printed = "unreadable" if figure.printed is None else f"{figure.printed:g}"
        parts.append(f"{figure.name} {mean:.3f}{interval}, published {printed}")
    return "; ".join(parts)


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds > 100 else f"about {seconds:.0f} s left"
