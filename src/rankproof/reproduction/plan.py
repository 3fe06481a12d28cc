"""What is left to do: models to train, cells to run, and how long it takes, roughly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from rankproof.attacks.cost import bare_seconds, query_seconds
from rankproof.goals.base import Goal
from rankproof.io import JsonObject
from rankproof.methods.defaults import smallest
from rankproof.methods.white_box.universal import Universal
from rankproof.models import new_encoder
from rankproof.parallel import Job
from rankproof.ranking import Gallery, Ranker
from rankproof.reproduction.cells import TableCell, descent_of, goal_of
from rankproof.reproduction.models import Planned
from rankproof.reproduction.protocols import SEEN_SHARE
from rankproof.reproduction.records import Measurement

SAMPLE = 50  # images in the pass that is timed
VERDICT_PASSES = 5  # choosing targets and taking the verdict cost about as much as so many passes
TRAINING = 1.5  # one step of learning in passes: gradients of all weights, and the optimiser's step
EVALUATION = 400  # passes of each image in a robustness score
RANKING = 2.0  # a query with its places in queries without


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that is yet to be trained.

    Args:
        model: its name in the recipe.
        seconds: an estimate.
        needs: keys of the models whose weights it begins with.
    """

    model: str
    seconds: float
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell that is yet to be run.

    Args:
        cell: which.
        same: its identity.
        keys: of the models it needs.
        seconds: an estimate.
    """

    cell: TableCell
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
    """The work of a run, with a rough estimate of its time.

    Args:
        trainings: models to train, by key.
        tasks: cells to run.
        finished: cells that are on disk, of this table or another one that measures the same.
        absent: cells without data.
    """

    trainings: Mapping[str, Training]
    tasks: Sequence[Task]
    finished: Sequence[tuple[TableCell, Measurement]]
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
            for key in [key for key in self.trainings if key in needs - trained]:
                training = self.trainings[key]
                before = training.needs.intersection(self.trainings)
                yield Job(name=key, what=Step(training=training), needs=before)
            trained |= needs
            yield Job(name=tasks[0].cell.name, what=Step(tasks=tasks), needs=needs)

    def lines(self) -> Iterator[str]:
        """The estimate in words, a line each."""
        for training in self.trainings.values():
            yield f"train {training.model}: roughly {in_words(training.seconds)}"
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(" to ".join(task.cell.models), []).append(task)
        for name, tasks in groups.items():
            seconds = sum(task.seconds for task in tasks)
            yield f"attack {name}: {len(tasks)} cells, roughly {in_words(seconds)}"
        absent = f", {self.absent} without data" if self.absent else ""
        counts = f"{len(self.tasks)} cells to run, {len(self.finished)} finished{absent}"
        yield f"{counts}: roughly {in_words(self.seconds) if self.seconds else 'nothing'} in all"

    def as_dict(self) -> JsonObject:
        """The estimate as a JSON object."""
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


@dataclass(frozen=True, kw_only=True)
class PassTimes:
    """Seconds of the passes of one image.

    Args:
        encoder: a forward and backward pass.
        evaluation: the same with the comparison with the whole gallery.
        query: an image sent to a black box.
    """

    encoder: float
    evaluation: float
    query: float


def pass_times(planned: Planned, device: str) -> PassTimes:
    """Time an untrained encoder of the same form against a gallery of the same size."""
    ranker = Ranker(new_encoder(planned.spec.arch).to(device), planned.spec.distance)
    images = planned.splits.test.take(torch.arange(min(SAMPLE, len(planned.splits.test))))
    z = ranker.embed_all(images)
    copies = -(-len(planned.splits.test) // len(z))
    gallery = Gallery(ranker, z.repeat(copies, 1)[: len(planned.splits.test)])
    return PassTimes(
        encoder=bare_seconds(gallery, images, 1, whole_gallery=False) / len(images),
        evaluation=bare_seconds(gallery, images, 1, whole_gallery=True) / len(images),
        query=RANKING * query_seconds(gallery, images, 1),
    )


def cell_seconds(cell: TableCell, times: PassTimes, size: int) -> float:
    """An estimate of one cell.

    Args:
        size: |X|.
    """
    if cell.run in ("src", "weights"):
        return 1.0
    if cell.run == "training":
        return EVALUATION * max(cell.robustness, 1) * times.evaluation
    one = times.evaluation if goal_of(cell).whole_gallery else times.encoder
    match cell.run:
        case "universal":
            return cell.trials * Universal().passes(cell.eps) * SEEN_SHARE * size * one
        case "black-box" | "service" | "seconds" | "order-strip" | "saved" | "pipeline":
            return cell.trials * max(1, cell.budget or 0) * times.query
        case "smallest":
            return cell.trials * _budget_passes(goal_of(cell)) * times.evaluation
        case _:
            passes = descent_of(cell).passes(cell.eps) if cell.eps else 0
            return cell.trials * (passes * one + VERDICT_PASSES * times.evaluation)


def _budget_passes(goal: Goal) -> int:
    """The most evaluations of a search for the smallest budget."""
    return smallest(goal.metric, goal.spec.direction, goal.spec.family, keeps=goal.spec.keeps).evaluations


def training_seconds(planned: Planned, times: PassTimes) -> float:
    """An estimate of one training."""
    passes = TRAINING + float(planned.recipe.defense.settings().get("steps", 0))
    return planned.recipe.epochs * len(planned.splits.train) * passes * times.encoder


def in_words(seconds: float) -> str:
    """A length of time, such as "40 s" or "12 min"."""
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{round(seconds / 60)} min"
