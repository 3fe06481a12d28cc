"""A whole table or figure: its models, its cells, and what is made of them."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from rankproof.experiments.reproduce.cell import STRONG, Cell
from rankproof.experiments.reproduce.cells import (
    by_published_schedule,
    cells_of,
    selected,
    strong_cells,
)
from rankproof.experiments.reproduce.drawing import Drawing
from rankproof.experiments.reproduce.estimate import Pace, cell_seconds, pace_of, training_seconds
from rankproof.experiments.reproduce.journal import Record
from rankproof.experiments.reproduce.model_cache import Planned, Say
from rankproof.experiments.reproduce.order import Order
from rankproof.experiments.reproduce.plan import Estimate, Step, Task, Training
from rankproof.experiments.reproduce.recipe import TableRecipe
from rankproof.experiments.reproduce.shop import Done, Workshop, hired
from rankproof.experiments.reproduce.table import Table
from rankproof.experiments.reproduce.verdict import Mark, Row, row_of
from rankproof.parallel import Job, in_turn, side_by_side
from rankproof.target import Stage, find_device


class Reproduction:
    """One table or figure in work.

    Args:
        order: what is asked for.
        say: told one line at a time what is going on.
        stage: given a name, opens a display of progress.
    """

    def __init__(self, order: Order, *, say: Say, stage: Stage) -> None:
        self.order, self.say = order, say
        self.shop = Workshop(order, say=say, stage=stage)
        self.recipe, self.out = self.shop.recipe, self.shop.out
        cells = cells_of(self.recipe, trials=order.trials)
        # Figures of defended models by another schedule have files of their own.
        self.printed = by_published_schedule(self.recipe, cells) if order.published_schedule else cells
        stronger = order.method == STRONG
        self.chosen = selected(strong_cells(self.printed) if stronger else self.printed, order.words)
        self._paces: dict[tuple[str, int], Pace] = {}

    def estimate(self) -> Estimate:
        """What is left to do; one pass of each kind of encoder is timed."""
        tasks, trainings, absent = [], dict[str, Training](), 0
        finished: list[tuple[Cell, Record]] = []
        for cell in self.chosen:
            plans = self.shop.plans(cell)
            if plans is None:
                absent += 1
                continue
            same = self.shop.same(cell, plans)
            if (record := self.shop.records.find(self.shop.part, cell, same)) is not None:
                finished.append((cell, record))
                continue
            tasks.append(self._task(cell, same, plans))
            for planned in plans:
                if self.shop.models.source(planned) is None and self.shop.models.failure(planned) is None:
                    seconds = training_seconds(planned, self._pace(planned))
                    trainings[planned.key] = Training(model=planned.spec.name, seconds=seconds)
        return Estimate(trainings=trainings, tasks=tasks, finished=finished, absent=absent)

    def run(self, todo: Estimate) -> Table | Drawing:
        """Do what is left, model by model, and write what is made of it."""
        for cell, record in todo.finished:
            self.shop.records.refer(self.shop.part, cell, record)
        jobs = list(todo.jobs())
        ahead, number, failures, begin = todo.seconds, 0, set[str](), time.monotonic()
        with closing(self._worked_off(jobs)) as finished:
            for job, done in finished:
                ahead -= job.what.seconds
                left = _left(ahead, todo.seconds - ahead, time.monotonic() - begin)
                for task, record in zip(job.what.tasks, done.records, strict=False):
                    number += 1
                    self.say(
                        f"{number}/{len(todo.tasks)} {record['cell']}: {_told(record, task.cell)}, {left}"
                    )
                if done.failure is not None and done.failure not in failures:
                    failures.add(done.failure)
                    self.say(f"{job.what.name}: {done.failure}")
        return self.made()

    def made(self) -> Table | Drawing:
        """The table or figure with what is on disk, written to the folder of the order."""
        recipe, command = self.recipe, self.order.command
        made: Table | Drawing
        if isinstance(recipe, TableRecipe):
            rows = [
                row
                for cell in (*self.printed, *strong_cells(self.printed))
                for row in self._rows(recipe, cell)
            ]
            models = self._facts(row.record for row in rows if row.record is not None)
            made = Table(recipe=recipe, rows=rows, models=models, command=command)
        else:
            parts = [(cell, self._kept(cell) or self._missing(cell)) for cell in self.printed]
            models = self._facts(part for _, part in parts if not isinstance(part, str))
            made = Drawing(recipe=recipe, parts=parts, models=models, command=command)
        made.save(self.out)
        return made

    def _worked_off(self, jobs: Sequence[Job[Step]]) -> Generator[tuple[Job[Step], Done], None, None]:
        """Every job with what came of it, done here or by some workers."""
        workers = min(self.order.workers, len(jobs))
        if workers < 2:
            return in_turn(jobs, self.shop.do)
        return side_by_side(jobs, partial(hired, self.order), workers)

    def _rows(self, recipe: TableRecipe, cell: Cell) -> Iterator[Row]:
        record = self._kept(cell)
        if record is None and cell.method == STRONG:
            return  # the published search is what must be run; ours is shown where it was
        for figure in cell.figures:
            yield row_of(cell, figure, record, recipe.tolerance, self._missing(cell))

    def _kept(self, cell: Cell) -> Record | None:
        """The record of a cell; one of fewer attacks than asked for is better than none."""
        plans = self.shop.plans(cell)
        if plans is None:
            return None
        return self.shop.records.find(self.shop.part, replace(cell, trials=1), self.shop.same(cell, plans))

    def _missing(self, cell: Cell) -> Mark:
        """Why a cell has no record."""
        plans = self.shop.plans(cell)
        if plans is None:
            return "no data"
        failed = any(self.shop.models.failure(planned) for planned in plans)
        return "training failed" if failed else "not run"

    def _facts(self, records: Iterable[Record]) -> dict[str, dict[str, Any] | None]:
        """What is known of each model; of one that is not here what its cells recorded."""
        models = self.shop.models
        plans = {name: models.planned(name) for cell in self.printed for name in cell.models}
        recorded = {sheet["key"]: sheet for record in records for sheet in record["models"]}

        def known(name: str, planned: Planned) -> dict[str, Any]:
            if models.source(planned) is None and planned.key in recorded:
                return {**recorded[planned.key], "name": name}
            return models.sheet(planned)

        return {name: None if planned is None else known(name, planned) for name, planned in plans.items()}

    def _task(self, cell: Cell, same: str, plans: tuple[Planned, Planned]) -> Task:
        target = plans[1]
        seconds = cell_seconds(cell, self._pace(target), len(target.splits.test))
        keys = frozenset(planned.key for planned in plans)
        return Task(cell=cell, same=same, keys=keys, seconds=seconds)

    def _pace(self, planned: Planned) -> Pace:
        known = (planned.spec.arch, len(planned.splits.test))
        if known not in self._paces:
            self._paces[known] = pace_of(planned, find_device(self.order.device))
        return self._paces[known]


def _told(record: Record, cell: Cell) -> str:
    """The printed figures, or those that are drawn, with their intervals."""
    printed = {figure.name: f", published {_readable(figure.printed)}" for figure in cell.figures}
    parts = []
    for name in printed or record["figures"]:
        mean, low, high = record["figures"][name]
        interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        parts.append(f"{name} {mean:.3f}{interval}{printed.get(name, '')}")
    return "; ".join(parts) or "done"


def _readable(printed: float | None) -> str:
    return "unreadable" if printed is None else f"{printed:g}"


def _left(ahead: float, behind: float, took: float) -> str:
    """The time left, if what is ahead goes as what is behind; both as they were estimated."""
    seconds = ahead * took / max(behind, 1e-9)
    return f"about {seconds / 60:.0f} min left" if seconds > 100 else f"about {max(seconds, 0.0):.0f} s left"
