"""What is left to do: models to train, cells to run, and how long it takes, roughly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rankproof.console import spoken
from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.journal import Record
from rankproof.parallel import Job


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that is yet to be trained.

    Args:
        model: its name in the recipe.
        seconds: an estimate.
    """

    model: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell that is yet to be run.

    Args:
        cell: which.
        same: its identity.
        keys: of the models it needs.
        seconds: an estimate.
    """

    cell: Cell
    same: str
    keys: frozenset[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one process does at a stretch: a training, or cells that share their examples."""

    training: Training | None = None
    tasks: tuple[Task, ...] = ()

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.tasks[0].cell.name if self.training is None else f"training {self.training.model}"

    @property
    def seconds(self) -> float:
        """An estimate."""
        return sum((task.seconds for task in self.tasks), self.training.seconds if self.training else 0.0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is to be done, and how long it takes, roughly.

    Args:
        trainings: models to train, by key.
        tasks: cells to run.
        finished: cells that are on disk, of this table or another one that measures the same.
        absent: cells without data.
    """

    trainings: Mapping[str, Training]
    tasks: Sequence[Task]
    finished: Sequence[tuple[Cell, Record]]
    absent: int

    @property
    def seconds(self) -> float:
        """Of everything."""
        trainings = sum((each.seconds for each in self.trainings.values()), 0.0)
        return trainings + sum(task.seconds for task in self.tasks)

    def jobs(self) -> Iterator[Job[Step]]:
        """Model by model: its training, then all its cells."""
        trained = set[str]()
        for tasks in _together(self.tasks):
            needs = tasks[0].keys.intersection(self.trainings)
            for key in sorted(needs - trained):
                yield Job(name=key, what=Step(training=self.trainings[key]))
            trained |= needs
            yield Job(name=tasks[0].cell.name, what=Step(tasks=tasks), needs=needs)

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for training in self.trainings.values():
            yield f"train {training.model}: roughly {spoken(training.seconds)}"
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
            "trainings": {each.model: each.seconds for each in self.trainings.values()},
            "cells": {task.cell.name: task.seconds for task in self.tasks},
            "finished": [cell.name for cell, _ in self.finished],
            "no_data": self.absent,
            "seconds": self.seconds,
        }


def _together(tasks: Sequence[Task]) -> Iterator[tuple[Task, ...]]:
    """The cells of one model one after the other; those that share their examples as one."""
    first = [task.cell.models[0] for task in tasks]
    places = {name: place for place, name in enumerate(dict.fromkeys(first))}
    ordered = sorted(tasks, key=lambda task: places[task.cell.models[0]])
    for _, group in groupby(ordered, key=lambda task: task.cell.made_once):
        yield tuple(group)
