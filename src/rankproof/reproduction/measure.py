"""One cell: the attacks as the papers describe them, and one value for each attack."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from rankproof.attacks import attack
from rankproof.attacks.cost import bare_seconds, query_seconds
from rankproof.attacks.result import AttackResult
from rankproof.attacks.smallest_budget import smallest_budget
from rankproof.attacks.transfer import choose, transfer
from rankproof.attacks.white_box import chunk_rows
from rankproof.evaluation import accuracy, robustness_score
from rankproof.goals import Goal, MaxShift, Reorder
from rankproof.goals.registry import parse
from rankproof.io import JsonObject
from rankproof.methods import PGD
from rankproof.methods import registry as methods
from rankproof.oracles import LocalOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.reproduction.cells import (
    STRONG,
    TableCell,
    descent_of,
    eps_name,
    goal_of,
    lowers,
    search_of,
)
from rankproof.reproduction.figures import attack_strips, best_order, strip_values
from rankproof.reproduction.protocols import (
    losses_over_steps,
    saved_and_read,
    searched_alone,
    sent_again,
    universal_values,
    weight_spread,
)
from rankproof.reproduction.records import Interval, Measurement, mean_and_interval, means
from rankproof.system import RetrievalSystem as System
from rankproof.threat import Threat
from rankproof.training.divergence import chance_recall
from rankproof.types import ProgressCallback as Progress
from rankproof.types import no_progress

PIECE = 50  # attacks of which one time is taken, or that are searched again at once
DIGITS = 6  # of the values that are kept
FOUR = ("ca+", "ca-", "sp-qa+", "sp-qa-")  # the papers' tables say QA and mean SP-QA
DEFENDED_EPS, DEFENDED_TRIALS = 0.3, 1000
WITHIN = tuple(level / 255 for level in (0.5, 1, 2, 4, 8, 16, 32))  # budgets whose success is recorded


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """The figures of a cell that was run.

    Args:
        values: one value per attack by the name of the figure; per target of a universal cell.
        figures: mean and 95 % interval of each, None for the ends where there is none.
        steps: evaluations or queries of each attack.
        seconds: time of the attacks alone.
        model_seconds: the bare work they cannot avoid.
        gallery_size: |X|.
        device: where it ran.
        notes: what a reader should know.
        attacks: the attacks themselves, by the folder below the cell's where each is saved: "" of a single
            one; none of timed cells.
        drawing: of a figure's cell, what is drawn, as plain values.
        curve: of a black box, the mean of the best figure so far after so many queries.
        training: of a training, what was measured of its model, as plain values.
    """

    values: Mapping[str, Sequence[int | float]] = field(default_factory=dict)
    figures: Mapping[str, Interval] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    gallery_size: int = 0
    device: str = "cpu"
    notes: tuple[str, ...] = ()
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)
    drawing: Any = None
    training: Any = None
    curve: Sequence[Sequence[int | float]] | None = None


@dataclass
class Bench:
    """Measures cells, and remembers what several of them share.

    Args:
        seed: all choices and random numbers come from it.
    """

    seed: int = 0
    _passes: dict[tuple[Any, ...], float] = field(default_factory=dict)
    _last: tuple[tuple[Any, ...], AttackResult] | None = None

    def measure(
        self,
        cell: TableCell,
        target: System,
        source: System,
        progress: Progress,
        first: int = 0,
    ) -> CellOutcome:
        """Run one cell.

        Args:
            target: the model that is attacked, or ranks what was made on `source`.
            source: the model examples are made on; the target itself but in a transfer.
            progress: called with evaluations or queries done and in all.
            first: number of the first attack of a black-box cell, where those before it are recorded.
        """
        match cell.run:
            case "white-box":
                return self._outcome(cell, target, self._attacked(cell, target, progress))
            case "transfer":
                return self._transferred(cell, target, source, progress)
            case "universal":
                return self._universal(cell, target, progress)
            case "black-box":
                return self._searched(cell, target, progress, first)
            case "service":
                return _over_attacks(self._searched(cell, target, progress))
            case "seconds":
                return self._timed(cell, target, progress)
            case "src":
                return self._correlated(cell, target)
            case "strip":
                return self._shown(cell, target, progress)
            case "order-strip":
                return self._order_shown(cell, target, progress)
            case "losses":
                return self._watched(cell, target, progress)
            case "weights":
                return _weighed(target)
            case "saved":
                return self._saved(cell, target, progress)
            case "pipeline":
                return self._sent_again(cell, target)
            case "training":
                return self._trained(cell, target)
            case "smallest":
                return self._smallest(cell, target, progress)

    def _attacked(
        self,
        cell: TableCell,
        target: System,
        progress: Progress,
        ranked_by: System | None = None,
    ) -> AttackResult:
        """The attack of a cell with gradients; if given, `ranked_by` chooses its items."""
        goal, index = goal_of(cell), target.draw(cell.trials, self.seed)
        images, chosen = target.dataset.one_size().take(index), None
        if ranked_by is not None:
            chosen = choose(ranked_by.gallery, images, goal, gallery_ids=index, seed=self.seed)
        return attack(
            target.gallery,
            images,
            goal,
            Threat(cell.eps),
            method=descent_of(cell),
            seed=self.seed,
            gallery_ids=index,
            targets=None if chosen is None else chosen.targets,
            preserved=None if chosen is None or not chosen.preserved.shape[1] else chosen.preserved,
            progress=progress,
        )

    def _transferred(
        self, cell: TableCell, target: System, source: System, progress: Progress
    ) -> CellOutcome:
        """Made on one model, ranked by another (ECCV section 5.1).

        As published, the items of the "-" goals, C_SP of SP-QA- included, come from the target's distances;
        those of the "+" goals are random, and C_SP of SP-QA+ comes from the source's.
        """
        lowering = lowers(cell.goal)
        key = (id(source), id(target) if lowering else None, cell.made_once)
        if self._last is None or self._last[0] != key:
            self._last = key, self._attacked(cell, source, progress, target if lowering else None)
        made = self._last[1]
        result = made if source is target else transfer(made, target.gallery, goal_of(cell))
        return replace(self._outcome(cell, target, result, source), seconds=made.seconds)

    def _outcome(
        self,
        cell: TableCell,
        target: System,
        result: AttackResult,
        source: System | None = None,
    ) -> CellOutcome:
        """The figures of an attack."""
        values = {result.metric: result.headline(), "before": result.headline(after=False)}
        for name in ("sp_rank", "mean_rank"):
            if name in result.after and not (name == "mean_rank" and bool(result.after[name].isnan().any())):
                figure = result.after[name]
                values[name] = figure.mean(1) if figure.dim() == 2 else figure
        if result.log is not None:
            values["queries"] = result.log.spent
        recorded = {name: rounded(each) for name, each in values.items()}
        return CellOutcome(
            values=recorded,
            figures=means(recorded),
            steps=result.steps,
            seconds=result.seconds,
            model_seconds=self._bare(source or target, goal_of(cell), result),
            gallery_size=result.gallery_size,
            device=result.device,
            notes=(*result.notes, *target.notes, *filter(None, [result.gradient_note(tolerated=0.0)])),
            attacks={"": result},
            curve=None if result.log is None else result.log.curve(),
        )

    def _universal(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """One perturbation for many images, once for each target."""
        begin = time.perf_counter()
        shared = universal_values(target, goal_of(cell), cell.eps, cell.trials, self.seed, progress)
        seconds = time.perf_counter() - begin
        return CellOutcome(
            values=shared.values,
            figures=means(shared.values),
            steps=shared.steps,
            seconds=seconds,
            model_seconds=cell.trials
            * self._pass_seconds(target, goal_of(cell), shared.images)
            * shared.steps,
            gallery_size=len(target.gallery),
            device=target.gallery.ranker.device.type,
            notes=(*shared.notes, *target.notes),
            attacks=shared.attacks,
        )

    def _searched(self, cell: TableCell, target: System, progress: Progress, first: int = 0) -> CellOutcome:
        """The order attack in a black box."""
        index = target.draw(cell.trials, self.seed)[first:]
        return self._outcome(cell, target, self._search(cell, target, index, progress))

    def _search(self, cell: TableCell, target: System, index: Tensor, progress: Progress) -> AttackResult:
        method, subspace, _ = search_of(cell.method)
        return attack(
            LocalOracle(target.gallery, shown(cell, len(target.gallery))),
            target.dataset.one_size().take(index),
            goal_of(cell),
            Threat(cell.eps, grid=cell.grid),
            method=method,
            subspace=subspace,
            # Where the table has no search at all, the clean image is sent and nothing else.
            budget=max(1, cell.budget or 0),
            seed=self.seed,
            gallery_ids=index,
            exclude_self=cell.exclude_self,
            progress=progress,
        )

    def _saved(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """Adversarial images written as PNG files, read back and searched again, each by itself."""
        oracle, parts, again = LocalOracle(target.gallery, shown(cell, len(target.gallery))), [], []
        for index in target.draw(cell.trials, self.seed).split(PIECE):
            parts.append(self._search(cell, target, index, no_progress))
            images = saved_and_read(parts[-1].adversarial)
            again += searched_alone(oracle, images, parts[-1].targets).tolist()
            progress(len(again), cell.trials)
        values = {"tau": [tau for part in parts for tau in part.tau.tolist()], "tau_saved": again}
        return replace(
            self._outcome(cell, target, parts[-1]),
            values=values,
            figures=means(values),
            seconds=sum(part.seconds for part in parts),
            attacks={},
        )

    def _sent_again(self, cell: TableCell, target: System) -> CellOutcome:
        """An attack over HTTP on a service that makes JPEG files of uploads, and its images sent anew."""
        result, again = sent_again(cell, target, self.seed)
        outcome = self._outcome(cell, target, result)
        figures = {"tau_before": result.tau_before, "tau": result.tau, "again": again}
        values = {name: rounded(each) for name, each in figures.items()}
        return replace(outcome, values=values, figures=means(values))

    def _trained(self, cell: TableCell, target: System) -> CellOutcome:
        """How well a trained model retrieves, and what attacks leave of it."""
        begin, gallery = time.perf_counter(), target.gallery
        measured: JsonObject = {
            "failure": None,
            "chance": chance_recall(target.dataset.require_labels()),
            "model": target.record,
            "accuracy": accuracy(gallery).as_dict(),
        }
        if cell.attacks:
            measured["attacks"] = [
                self._defended(target, goal, how) for how in (PGD.name, STRONG) for goal in FOUR
            ]
            measured["shift"] = self._defended(target, MaxShift.SPEC.name, PGD.name)
        if cell.robustness:
            score = robustness_score(gallery, target.dataset.one_size().images, trials=cell.robustness)
            measured["robustness"] = score.as_dict()
        return CellOutcome(
            seconds=time.perf_counter() - begin,
            gallery_size=len(gallery),
            device=gallery.ranker.device.type,
            notes=target.notes,
            training=measured,
        )

    def _defended(self, target: System, name: str, method: str) -> JsonObject:
        """One of the papers' attacks on a defended model, with the names of `rankproof attack --json`."""
        index, goal = target.draw(DEFENDED_TRIALS, self.seed), parse(name)
        result = attack(
            target.gallery,
            target.dataset.one_size().take(index),
            goal,
            Threat(DEFENDED_EPS),
            method=methods.parse(method, goal.metric),
            gallery_ids=index,
        )
        summary = replace(result.summary, model=target.gallery.ranker.name, data=target.dataset.name)
        return summary.to_json()

    def _smallest(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """The smallest budget of each attack, and their median; null where nothing was reached."""
        index = target.draw(cell.trials, self.seed)
        result = smallest_budget(
            target.gallery,
            target.dataset.one_size().take(index),
            goal_of(cell),
            seed=self.seed,
            gallery_ids=index,
            progress=progress,
        )
        summary = result.summary
        # null in the file where nothing was reached: no number says so
        budgets = [
            cast(float, None) if math.isnan(eps) else round(eps, DIGITS + 2)
            for eps in result.eps_star.tolist()
        ]
        shares = {f"within-{eps_name(eps)}": summary.success(eps) for eps in WITHIN}
        counts = {"free": summary.free, "reached": summary.reached, "saved": summary.saved}
        singles = {
            name: (value, None, None) for name, value in (shares | counts).items() if value is not None
        }
        median = {} if summary.eps_star is None else {"eps_star": (summary.eps_star, *summary.eps_star_ci95)}
        return CellOutcome(
            values={"eps_star": budgets, "evaluations": result.evaluations.tolist()},
            figures={**median, **singles, "evaluations": (summary.evaluations, None, None)},
            steps=summary.evaluations_max,
            seconds=result.seconds,
            gallery_size=result.gallery_size,
            device=result.device,
            notes=(*result.notes, *target.notes),
        )

    def _timed(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """Seconds of one attack, from attacks that run side by side."""
        pieces = target.draw(cell.trials, self.seed).split(PIECE)
        times, work, result = [], 0.0, None
        for number, index in enumerate(pieces, 1):
            result = self._search(cell, target, index, no_progress)
            times.append(result.seconds / len(index))
            work += self._bare(target, Reorder(k=cell.count), result)
            progress(number, len(pieces))
        assert result is not None
        return CellOutcome(
            values={"seconds": [round(value, DIGITS) for value in times]},
            figures={"seconds": mean_and_interval(times)},
            steps=result.steps,
            seconds=sum(one * len(index) for one, index in zip(times, pieces, strict=True)),
            model_seconds=work,
            gallery_size=result.gallery_size,
            device=result.device,
            notes=(*result.notes, f"timed in pieces of up to {PIECE} attacks side by side"),
        )

    def _correlated(self, cell: TableCell, target: System) -> CellOutcome:
        """Seconds that tau_S alone takes for all queries of one attack."""
        size = len(target.gallery)
        visible, budget = shown(cell, size), cell.budget or 1
        random = torch.Generator().manual_seed(self.seed)
        times = []
        for _ in range(min(cell.trials, PIECE)):
            places = torch.rand(1, budget, size if size < 200 else 200, generator=random)
            places = places.argsort(2)[:, :, : cell.count]
            begin = time.perf_counter()
            short_range_tau(places, visible)
            times.append(time.perf_counter() - begin)
        return CellOutcome(
            values={"seconds": times},
            figures={"seconds": mean_and_interval(times)},
            seconds=sum(times),
            gallery_size=size,
            notes=("of random places",),
        )

    def _shown(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """Attacks as image strips."""
        result = self._attacked(cell, target, progress)
        strips = attack_strips(result, target.gallery, target.dataset.classes)
        return replace(
            self._outcome(cell, target, result), drawing={"strips": [strip_values(strip) for strip in strips]}
        )

    def _order_shown(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """The best of some black-box order attacks as image strips."""
        result = self._search(cell, target, target.draw(cell.trials, self.seed), progress)
        strip = best_order(result, target.gallery, shown(cell, len(target.gallery)), cell.budget)
        assert strip is not None  # a system has its images
        measured = self._outcome(cell, target, result)
        mean = measured.figures["tau"][0]
        note = f"shown is the best of {len(result)} attacks, their mean tau_S is {mean:.3f}"
        return replace(measured, drawing={"strips": [strip_values(strip)]}, notes=(*measured.notes, note))

    def _watched(self, cell: TableCell, target: System, progress: Progress) -> CellOutcome:
        """The losses of order attacks over their steps."""
        begin, index = time.perf_counter(), target.draw(cell.trials, self.seed)
        goal = Reorder(k=cell.count, xi=float(cell.xi or 0.0))
        losses = losses_over_steps(target, goal, cell.eps, index, self.seed, progress)
        seconds, steps = time.perf_counter() - begin, losses.total.shape[1] - 1
        values = {"tau": rounded(losses.tau), "mean_rank": rounded(losses.mean_rank)}
        curves = {"total": losses.total, "keep": losses.keep}
        return CellOutcome(
            values=values,
            figures=means(values),
            steps=steps,
            seconds=seconds,
            model_seconds=steps * self._pass_seconds(target, goal, len(index)),
            gallery_size=len(target.gallery),
            device=target.gallery.ranker.device.type,
            notes=target.notes,
            drawing={
                name: [mean_and_interval(column) for column in each.T.tolist()]
                for name, each in curves.items()
            },
        )

    def _bare(self, target: System, goal: Goal, result: AttackResult) -> float:
        """The bare work of a result; how long a pass takes is timed once for each model and kind of goal."""
        if result.log is not None:
            key = (id(target), "query")
            if key not in self._passes:
                self._passes[key] = query_seconds(target.gallery, result.original, 1)
            return self._passes[key] * int(result.log.spent.sum())
        return result.steps * self._pass_seconds(target, goal, len(result)) if result.steps else 0.0

    def _pass_seconds(self, target: System, goal: Goal, images: int) -> float:
        """Seconds of one pass of so many images, in the attack's own chunks."""
        whole, chunk = goal.whole_gallery, chunk_rows(target.gallery, goal)
        key = (id(target), whole, chunk, images)
        if key not in self._passes:
            sample = target.dataset.one_size().take(torch.arange(min(images, len(target.gallery))))
            self._passes[key] = bare_seconds(target.gallery, sample, 1, whole_gallery=whole, chunk=chunk)
        return self._passes[key]


def shown(cell: TableCell, size: int) -> int | None:
    """N as a number; None shows everything. A small gallery cannot show more than it holds."""
    match cell.visible:
        case "inf" | None:
            return None
        case "k":
            return cell.count
        case number:
            return min(int(number), size)


def _over_attacks(measured: CellOutcome) -> CellOutcome:
    """Mean, deviation and extremes over the attacks, as the papers report of a service."""
    tau = torch.tensor(measured.values["tau"], dtype=torch.float64)
    single = {
        "stdev": float(tau.std()) if len(tau) > 1 else 0.0,
        "max": float(tau.max()),
        "min": float(tau.min()),
        "median": float(tau.median()),
    }
    note = (
        "a stand-in: the published system is not to be had; asked as a service, 8-bit images, first N shown"
    )
    figures = {name: (value, None, None) for name, value in single.items()}
    return replace(
        measured,
        values={"mean": measured.values["tau"]},
        figures={"mean": measured.figures["tau"], **figures},
        notes=(*measured.notes, note),
    )


def _weighed(target: System) -> CellOutcome:
    """The weights of a model; no attack is run."""
    ranker = target.gallery.ranker
    return CellOutcome(
        gallery_size=len(target.gallery),
        device=ranker.device.type,
        drawing={"layers": weight_spread(ranker.encoder)},
    )


def joined(before: Measurement, more: CellOutcome) -> CellOutcome:
    """The attacks of a measurement and those that were missing, as one."""
    values = {
        name: [*before.values[name], *each] for name, each in more.values.items() if name in before.values
    }
    share = before.trials / (before.trials + max(map(len, more.values.values())))
    curve = [
        [queries, share * old + (1 - share) * new]
        for (queries, old), (_, new) in zip(before.curve or (), more.curve or (), strict=True)
    ]
    return replace(
        more,
        values=values,
        figures=means(values),
        seconds=before.seconds + more.seconds,
        model_seconds=before.model_seconds + more.model_seconds,
        notes=tuple(dict.fromkeys((*before.notes, *more.notes))),
        curve=curve,
    )


def rounded(values: Tensor) -> list[float]:
    """Values as they are recorded."""
    return [round(value, DIGITS) for value in values.double().tolist()]
