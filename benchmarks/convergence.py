"""How near `strong` and `converged` come to a search that takes far longer.

    python benchmarks/convergence.py reference     search, piece by piece, and go on where it was ended
    python benchmarks/convergence.py methods       run `strong` and `converged` on the same attacks
    python benchmarks/convergence.py record        write what is there to records/benchmarks/convergence.json

The reference is the search of `strong` with 2,000 evaluations from each of five starts - the clean image and
four random ones in the ball - of which the image that is best by the goal's own figure counts. It is written
here a second time, so that it shares no loop with what it judges. Every piece (a model, a goal, some attacks,
one start) is kept in runs/convergence as it ends; several of these commands may run side by side.
"""

import argparse
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rankproof.attacks import attack_batch
from rankproof.attacks.batch import AttackBatch, make_batch
from rankproof.goals.base import BoundGoal, Goal
from rankproof.goals.registry import parse
from rankproof.io import read_arrays, versions, write_arrays, write_atomically
from rankproof.methods.defaults import strong
from rankproof.methods.registry import parse as parse_method
from rankproof.methods.white_box.pgd import ascend
from rankproof.parallel import keep_freed_memory
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.metrics import mean_interval
from rankproof.rng import uniforms
from rankproof.system import RetrievalSystem, SystemOptions, open_system
from rankproof.threat import Threat, format_eps
from rankproof.types import Evaluation, Objective

FOLDER = Path("runs/convergence")
RECORD = Path("records/benchmarks/convergence.json")
METHODS = ("strong", "converged")
FIGURES = ("fitness", "rank", "tau", "sp_rank", "mean_rank")
STEPS, STARTS, SEED = 2000, 5, 0
MARKS = (30, 60, 125, 250, 500, 1000, 1500, 2000)  # evaluations after which the best fitness is noted
LOOK = 20  # evaluations between two looks for attacks that can become no better


@dataclass(frozen=True)
class Subject:
    """A model, its data and the budgets, in 1/255, at which its figures are in the middle of their range."""

    model: str
    data: str
    levels: dict[str, float]
    pieces: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """What files and tables call it."""
        return self.model.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Piece:
    """Some attacks from one start."""

    subject: Subject
    goal: str
    first: int
    last: int
    start: int

    @property
    def path(self) -> Path:
        """Where it is kept."""
        level = f"{self.subject.levels[self.goal]:g}"
        rows = f"{self.first:03d}-{self.last:03d}"
        return FOLDER / "reference" / f"{self.subject.name}_{self.goal}_{level}_{rows}_{self.start}.npz"


ZOO = ((0, 10), (10, 25), (25, 50), (50, 100))
PHOTOS = {"ca+": 1.0, "ca-": 1.0, "qa+": 1.0, "qa-": 1.0, "sp-qa+": 1.0, "oa": 0.5}
PLAIN = {"ca+": 8.0, "ca-": 12.0, "qa+": 8.0, "qa-": 12.0, "sp-qa+": 8.0, "sp-qa-": 16.0, "oa": 4.0}
DEFENDED = dict.fromkeys(PLAIN, 76.5) | {"oa": 32.0}
SUBJECTS = (
    Subject("efficientnet-lite0", "groceries", PHOTOS, ((0, 5), (5, 10), (10, 25))),
    Subject("zoo:fashion-mnist/c2f1-ct", "fashion-mnist", PLAIN, ZOO),
    Subject("zoo:fashion-mnist/c2f1-ctd", "fashion-mnist", DEFENDED, ZOO),
)


def all_pieces() -> Iterator[Piece]:
    """Every piece, a whole set of a few attacks before more of them."""
    for number in range(max(len(subject.pieces) for subject in SUBJECTS)):
        for start in range(STARTS):
            for goal in SUBJECTS[1].levels:
                for subject in SUBJECTS:
                    if number < len(subject.pieces) and goal in subject.levels:
                        yield Piece(subject, goal, *subject.pieces[number], start)


def make_goal(name: str) -> Goal:
    """The goal of a name; ten results are put into order."""
    return parse(name, k=10) if name == "oa" else parse(name)


@cache
def opened(model: str, data: str) -> RetrievalSystem:
    """A model and its data, embedded."""
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    return open_system(model, data, SystemOptions(root=root))


def attacks_of(target: RetrievalSystem, first: int, last: int) -> AttackBatch:
    """The attacks of some rows: fewer are the first of more."""
    index = target.draw(100, seed=SEED)[first:last]
    batch = make_batch(target.gallery, target.dataset.take(index), gallery_ids=index)
    target.gallery.ranker.begin(batch.images, SEED)
    return batch


# -- the reference


class Search:
    """The search of `strong` from one start, whose attacks leave as soon as they can become no better."""

    def __init__(self, gallery: Gallery, goal: Goal, batch: AttackBatch, threat: Threat, start: int) -> None:
        ranker = gallery.ranker
        self.gallery, self.goal, self.batch, self.threat = gallery, goal, batch, threat
        self.method = strong(goal.metric, STEPS)
        self.original = ranker.as_input(batch.images)
        self.clean = ranker.embed_all(batch.images)
        noise = uniforms(SEED, batch.rng_keys.tolist(), f"reference/{start}", self.original.shape[1:])
        self.point = threat.project(
            self.original + (threat.eps * noise if start else 0 * noise), self.original
        )
        self.images = self.point.clone()
        self.fitness = self.original.new_full((len(batch),), -torch.inf)
        self.loss = self.original.new_full((len(batch),), torch.inf)
        self.spent = torch.zeros(len(batch), dtype=torch.int64)
        self.curve = self.original.new_full((len(batch), len(MARKS)), torch.nan)

    def run(self, left_out: Tensor) -> None:
        """Search on all attacks but some (b,)."""
        rows = (~left_out).nonzero()[:, 0]
        size, method = len(self.gallery), self.method
        search = self.gallery.ranker.for_search()
        point, velocity = self.point[rows], torch.zeros_like(self.point[rows])
        penalty = self.original.new_full((len(rows),), method.penalty_weight)
        bound = None
        for number in range(STEPS):
            if not len(rows):
                break
            if bound is None:
                bound = self.batch.take(rows).bind(self.goal, self.gallery, self.clean[rows], SEED)
            original = self.original[rows]

            gradient, found = ascend(scored(bound, search), point, penalty)
            self._consider(rows, point, found)
            self.spent[rows] += 1
            if number + 1 in MARKS:
                self.curve[:, MARKS.index(number + 1)] = self.fitness
            if found.constraint_violation is not None:
                penalty = penalty * torch.where(found.constraint_violation > 1, method.tighten, method.relax)
            scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-38)
            velocity = method.momentum * velocity + gradient / scale
            step = min(self.threat.eps, method.longest) * method.share(number, STEPS)
            point = self.threat.project(point - step * velocity.sign(), original)
            if number % LOOK == 0 and bool((perfect := self.perfect(size)[rows]).any()):
                rows, point, velocity = rows[~perfect], point[~perfect], velocity[~perfect]
                penalty, bound = penalty[~perfect], None

    def perfect(self, size: int) -> Tensor:
        """(b,) attacks that can become no better; a candidate never comes before the query's own image."""
        if self.goal.metric == "tau":
            return self.fitness >= 1 - 1e-6
        return self.fitness >= (-1.01 / size if self.goal.spec.name == "ca+" else 0)

    def _consider(self, rows: Tensor, images: Tensor, found: Evaluation) -> None:
        """Keep what is better: within the constraint, then by fitness, then by loss."""
        fitness = eligible(found)
        before = self.fitness[rows]
        better = (fitness > before) | ((fitness == before) & (found.loss < self.loss[rows]))
        chosen = rows[better]
        self.fitness[chosen], self.loss[chosen] = fitness[better], found.loss[better]
        self.images[chosen] = images[better]


def eligible(found: Evaluation) -> Tensor:
    """(b,) the fitness; where a constraint is violated, something lower than any."""
    if found.constraint_violation is None:
        return found.fitness
    return found.fitness.where(found.constraint_violation <= 1, -1e6 - found.constraint_violation)


def scored(bound: BoundGoal, ranker: Ranker) -> Objective:
    """How near images are to a goal, by a ranker."""

    def objective(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
        return bound.evaluate(ranker.embed(images), penalty_weight)

    return objective


def search_piece(piece: Piece) -> dict[str, np.ndarray]:
    """One piece of the reference: each attack's best fitness, its figures and its image."""
    subject = piece.subject
    target = opened(subject.model, subject.data)
    goal, threat = make_goal(piece.goal), Threat(subject.levels[piece.goal] / 255)
    batch = attacks_of(target, piece.first, piece.last)
    ranker = target.gallery.ranker
    begin = perf_counter()
    with ranker.frozen():
        search = Search(target.gallery, goal, batch, threat, piece.start)
        search.run(done_before(piece, search))
        with torch.no_grad():
            bound = batch.bind(goal, target.gallery, search.clean, SEED)
            figures = bound.metrics(ranker.embed_all(search.images))
    values = {name: value.double().numpy() for name, value in figures.items()}
    return values | {
        "fitness": search.fitness.numpy(),
        "curve": search.curve.numpy(),
        "evaluations": search.spent.numpy(),
        "images": search.images.numpy(),
        "seconds": np.array(perf_counter() - begin),
    }


def done_before(piece: Piece, search: Search) -> Tensor:
    """(b,) attacks that an earlier start has brought where they can become no better."""
    done = torch.zeros(len(search.fitness), dtype=torch.bool)
    for start in range(piece.start):
        path = Piece(piece.subject, piece.goal, piece.first, piece.last, start).path
        if path.exists():
            search.fitness = read_arrays(path)["fitness"].to(search.fitness)
            done |= search.perfect(len(search.gallery))
    search.fitness = torch.full_like(search.fitness, -torch.inf)
    return done


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has a file for itself; given back when it ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not path.exists()


def reference(pieces: int | None) -> None:
    """Search the pieces that are missing, each once however many processes do so."""
    done = 0
    for piece in all_pieces():
        if piece.path.exists():
            continue
        with claimed(piece.path) as free:
            if not free:
                continue
            values = search_piece(piece)
            write_arrays(piece.path, values, compressed=True)
        print(
            piece.path.stem,
            f"{float(values['fitness'].mean()):.4f}",
            f"{values['seconds']:.0f} s",
            flush=True,
        )
        done += 1
        if done == pieces:
            return


# -- what is compared with it


def method_path(piece: Piece, method: str) -> Path:
    """Where the attacks of a method on the images of a piece are kept."""
    return FOLDER / method / f"{piece.path.stem.rsplit('_', 1)[0]}.npz"


def run_method(piece: Piece, name: str) -> dict[str, np.ndarray]:
    """A method of the library on the attacks of a piece."""
    subject = piece.subject
    target, goal = opened(subject.model, subject.data), make_goal(piece.goal)
    batch, gallery = attacks_of(target, piece.first, piece.last), target.gallery
    threat = Threat(subject.levels[piece.goal] / 255)
    result = attack_batch(gallery, batch, goal, threat, method=parse_method(name, goal.metric), seed=SEED)
    with gallery.ranker.frozen(), torch.no_grad():
        bound = batch.bind(goal, gallery, gallery.ranker.embed_all(batch.images), SEED)
        found = scored(bound, gallery.ranker.for_search())(result.adversarial)
    assert result.evaluations is not None
    values = {name: value.double().numpy() for name, value in result.after.items()}
    return values | {
        "fitness": eligible(found).double().numpy(),
        "evaluations": result.evaluations.numpy(),
        "seconds": np.array(result.seconds),
    }


def methods() -> None:
    """Run the methods on all attacks that have a reference."""
    for piece in all_pieces():
        for name in METHODS:
            path = method_path(piece, name)
            if piece.start or not piece.path.exists() or path.exists():
                continue
            with claimed(path) as free:
                if not free:
                    continue
                values = run_method(piece, name)
                write_arrays(path, values, compressed=True)
            spent = f"{values['evaluations'].mean():.0f} evaluations"
            print(path.stem, name, f"{values['fitness'].mean():.4f}", spent, flush=True)


# -- the record


def rows() -> Iterator[dict[str, object]]:
    """For each model and goal what the methods and the reference reached on the same attacks."""
    for subject in SUBJECTS:
        for goal in subject.levels:
            groups = [group for cut in subject.pieces if (group := compared(subject, goal, cut))]
            if groups:
                yield row(subject, goal, groups)


Arrays = dict[str, np.ndarray]


def compared(subject: Subject, goal: str, cut: tuple[int, int]) -> dict[str, Arrays] | None:
    """The arrays of some attacks by each method and of the reference; None where one is missing."""
    first = Piece(subject, goal, *cut, 0)
    found = {name: read(method_path(first, name)) for name in METHODS}
    starts = [part for start in range(STARTS) if (part := read(Piece(subject, goal, *cut, start).path))]
    if not starts or not all(found.values()):
        return None
    best = np.stack([part["fitness"] for part in starts]).argmax(0)
    names = [name for name in FIGURES if name in starts[0]]
    reference = {name: np.stack([part[name] for part in starts])[best, range(len(best))] for name in names}
    reference["starts"] = np.full(len(best), len(starts))
    return {name: part for name, part in found.items() if part} | {"reference": reference}


def read(path: Path) -> Arrays | None:
    """The arrays of a piece by their names, a mean over items where there are several; None if missing."""
    if not path.exists():
        return None
    arrays = {name: value.numpy() for name, value in read_arrays(path).items() if name != "images"}
    return {name: value.mean(1) if value.ndim == 2 else value for name, value in arrays.items()}


def row(subject: Subject, goal: str, groups: list[dict[str, Arrays]]) -> dict[str, object]:
    """One line of the record."""
    metric = make_goal(goal).metric

    def column(method: str, name: str) -> np.ndarray:
        return np.concatenate([group[method][name] for group in groups]).astype(np.float64)

    starts = column("reference", "starts")
    line: dict[str, object] = {
        "model": subject.model,
        "data": subject.data,
        "goal": goal,
        "metric": metric,
        "eps": subject.levels[goal] / 255,
        "attacks": len(starts),
        "starts": int(starts.min()),
    }
    for method in (*METHODS, "reference"):
        names = [name for name in FIGURES if name in groups[0][method]]
        line[method] = {name: column(method, name).mean() for name in names}
    for method in METHODS:
        paired = mean_interval(torch.from_numpy(column(method, metric) - column("reference", metric)))
        fitness = mean_interval(torch.from_numpy(column(method, "fitness") - column("reference", "fitness")))
        spent = column(method, "evaluations")
        line[method] |= {  # type: ignore[operator]
            "difference": paired.mean,
            "difference_ci95": list(paired.ends),
            "fitness_difference": fitness.mean,
            "fitness_difference_ci95": list(fitness.ends),
            "evaluations": spent.mean(),
            "evaluations_max": int(spent.max()),
        }
    weaker = column("converged", "fitness") < column("strong", "fitness") - 1e-6
    return line | {"weaker_than_strong": int(weaker.sum())}


def record() -> None:
    """Write and print the record."""
    found = list(rows())
    table = Table(
        "", "eps", "attacks x starts", "strong", "converged", "reference", "difference", "evaluations"
    )
    for line in found:
        strong_, ours, best = (line[name] for name in (*METHODS, "reference"))
        figures = [f"{part[line['metric']]:.2f}" for part in (strong_, ours, best)]  # type: ignore[index]
        low, high = ours["difference_ci95"]  # type: ignore[index]
        table.add_row(
            f"{str(line['model']).rsplit('/', 1)[-1]} {line['goal']}",
            format_eps(float(str(line["eps"]))),
            f"{line['attacks']} x {line['starts']}",
            *figures,
            f"{ours['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",  # type: ignore[index]
            f"{ours['evaluations']:.0f}, {ours['evaluations_max']}",  # type: ignore[index]
        )
    Console(width=140).print(table)
    command = "python benchmarks/convergence.py record"
    values = {"command": command, "steps": STEPS, "rows": found, "versions": versions()}
    write_atomically(RECORD, (json.dumps(values, indent=2) + "\n").encode())


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("reference", "methods", "record"))
    parser.add_argument("--pieces", type=int, help="end after so many")
    options = parser.parse_args()
    if options.what == "reference":
        reference(options.pieces)
    elif options.what == "methods":
        methods()
    else:
        record()


if __name__ == "__main__":
    main()
