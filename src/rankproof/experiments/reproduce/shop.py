"""What one process has to make models and cells: data, models, the bench and the journal."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankproof.console import say
from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.cells import model_specs
from rankproof.experiments.reproduce.journal import CompletedCells, Record, identity
from rankproof.experiments.reproduce.measure import Bench
from rankproof.experiments.reproduce.measured import Measured
from rankproof.experiments.reproduce.model_cache import Models, Planned, Say
from rankproof.experiments.reproduce.order import Order
from rankproof.experiments.reproduce.plan import Step, Task
from rankproof.experiments.reproduce.recipe import Recipe, find_recipe, read_recipe
from rankproof.target import Stage, silent
from rankproof.training.health import TrainingFailedError
from rankproof.versions import versions

OUT = Path("runs/reproduce")


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a step.

    Args:
        records: of its cells, all of them on disk.
        failure: why there are none, where a training failed.
    """

    records: tuple[Record, ...] = ()
    failure: str | None = None


class Workshop:
    """One process at work on an order.

    Args:
        order: what is asked for.
        say: told one line at a time what is going on.
        stage: given a name, opens a display of progress.
    """

    def __init__(self, order: Order, *, say: Say, stage: Stage) -> None:
        self.order, self.stage = order, stage
        self.recipe: Recipe = read_recipe(find_recipe(order.word, order.recipes))
        self.bench = Bench(seed=order.seed)
        self.part = f"{self.recipe.paper}/{self.recipe.part}"
        self.records = CompletedCells(order.records)
        self.models = Models(
            specs=model_specs(self.recipe),
            folder=order.models,
            paths=order.paths,
            given=order.given,
            root=order.root,
            device=order.device,
            published_schedule=order.published_schedule,
            precision=order.precision,
            say=say,
            stage=stage,
        )

    @property
    def out(self) -> Path:
        """Where the table or figure goes."""
        return self.order.out or OUT / self.recipe.name

    def plans(self, cell: Cell) -> tuple[Planned, Planned] | None:
        """The models of a cell, the one examples are made on first; None without their data."""
        source, target = (self.models.planned(name) for name in (cell.source or cell.model, cell.model))
        return None if source is None or target is None else (source, target)

    def same(self, cell: Cell, plans: tuple[Planned, Planned]) -> str:
        """The identity of a cell with these models."""
        named = dict(zip(("source", "model"), plans, strict=True))
        models = {name: [planned.key, planned.splits.sha256] for name, planned in named.items()}
        return identity(cell, models, self.order.seed)

    def do(self, step: Step) -> Done:
        """Train a model, or run cells; each is kept as soon as it is done."""
        try:
            if step.training is not None:
                planned = self.models.planned(step.training.model)
                assert planned is not None
                self.models.target(planned)
            return Done(records=tuple(self._measured(task) for task in step.tasks))
        except TrainingFailedError as error:
            return Done(failure=str(error))

    def _measured(self, task: Task) -> Record:
        """Run a cell and keep its record."""
        plans = self.plans(task.cell)
        assert plans is not None
        source, target = (self.models.target(planned) for planned in plans)
        begin = time.monotonic()
        with self.stage(task.cell.name) as tell:
            measured = self.bench.measure(task.cell, target, source, tell)
        if self.order.save:
            for name, attack in measured.attacks.items():
                attack.save(self.out / "attacks" / task.cell.name / name, data=target.dataset.name)
        seconds = {"wall_seconds": round(time.monotonic() - begin, 3)}
        record = self._record(task, plans, measured) | seconds
        self.records.keep(self.part, task.cell.name, record)
        return record

    def _record(self, task: Task, plans: tuple[Planned, Planned], measured: Measured) -> Record:
        cell = task.cell
        models = {planned.spec.name: planned for planned in plans}
        drawing: dict[str, Any] = {} if measured.drawing is None else {"drawing": measured.drawing}
        return {
            "cell": cell.name,
            "identity": task.same,
            **{name: getattr(cell, name) for name in ("run", "model", "source", "goal", "eps", "letter")},
            **{name: getattr(cell, name) for name in ("count", "xi", "method", "visible", "budget", "grid")},
            "published": {each.name: each.printed for each in cell.figures}
            | {each.beside: each.beside_printed for each in cell.figures if each.beside is not None},
            "published_trials": cell.published_trials,
            "trials_asked": cell.trials,
            "trials": max(map(len, measured.values.values()), default=0),
            "seed": self.order.seed,
            "figures": {name: list(values) for name, values in measured.figures.items()},
            "steps": measured.steps,
            "seconds": round(measured.seconds, 6),
            "model_seconds": round(measured.model_seconds, 6),
            "gallery_size": measured.gallery_size,
            "device": measured.device,
            "data_sha256": plans[1].splits.sha256,
            "models": [self.models.sheet(planned) for planned in models.values()],
            "notes": list(measured.notes),
            "versions": versions(),
            "command": self.order.command,
            "values": _kept(cell, measured.values),
            **drawing,
        }


def _kept(cell: Cell, values: dict[str, list[float]]) -> dict[str, list[float]]:
    """The values of each attack behind the printed figures; all where none is printed.

    The start of an attack and what it did to C_SP are kept as means: the records of a table stay small.
    """
    printed = {figure.name for figure in cell.figures}
    return {name: each for name, each in values.items() if name in printed or not printed}


def hired(order: Order) -> Callable[[Step], Done]:
    """What one of several processes does with a step; it speaks for itself and has no display."""
    return Workshop(order, say=say, stage=silent).do
