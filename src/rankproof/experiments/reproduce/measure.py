"""One cell: the attacks as the papers describe them, and one value for each attack."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rankproof.attack import attack, chunk_rows
from rankproof.cost import bare_seconds, look_seconds
from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.losses import losses_over_steps
from rankproof.experiments.reproduce.measured import DIGITS, Measured, plain, summary
from rankproof.experiments.reproduce.strips import as_values, attack_strips, best_order
from rankproof.experiments.reproduce.universal import shared_values
from rankproof.experiments.reproduce.weights import spread
from rankproof.experiments.reproduce.words import descent_of, goal_of, search_of
from rankproof.goals import Goal, Reorder, Sum
from rankproof.oracle import LocalOracle
from rankproof.ranking.metrics import short_range_tau
from rankproof.result import AttackResult
from rankproof.target import Target
from rankproof.threat import Threat
from rankproof.transfer import choose, transfer

Tell = Callable[[int, int], None]
PIECE = 50  # attacks of which one time is taken


@dataclass
class Bench:
    """Measures cells, and remembers what several of them share.

    Args:
        seed: all choices and random numbers come from it.
    """

    seed: int = 0
    _paces: dict[tuple[Any, ...], float] = field(default_factory=dict)
    _last: tuple[tuple[Any, ...], AttackResult] | None = None

    def measure(self, cell: Cell, target: Target, source: Target, tell: Tell) -> Measured:
        """Run one cell.

        Args:
            target: the model that is attacked, or ranks what was made on `source`.
            source: the model examples are made on; the target itself but in a transfer.
            tell: called with evaluations or queries done and in all.
        """
        match cell.run:
            case "white-box":
                return self._told(cell, target, self._attacked(cell, target, tell))
            case "transfer":
                return self._transferred(cell, target, source, tell)
            case "universal":
                return self._universal(cell, target, tell)
            case "black-box":
                return self._searched(cell, target, tell)
            case "service":
                return _spread(self._searched(cell, target, tell))
            case "seconds":
                return self._timed(cell, target, tell)
            case "src":
                return self._correlated(cell, target)
            case "strip":
                return self._shown(cell, target, tell)
            case "order-strip":
                return self._order_shown(cell, target, tell)
            case "losses":
                return self._watched(cell, target, tell)
            case "weights":
                return _weighed(target)

    def _attacked(
        self, cell: Cell, target: Target, tell: Tell, ranked_by: Target | None = None
    ) -> AttackResult:
        """The attack of a cell with gradients; if given, `ranked_by` chooses its items."""
        goal, index = goal_of(cell), target.draw(cell.trials, self.seed)
        images, chosen = target.dataset.take(index), None
        if ranked_by is not None:
            chosen = choose(ranked_by.gallery, images, goal, index=index, seed=self.seed)
        return attack(
            target.gallery,
            images,
            goal,
            Threat(cell.eps),
            method=descent_of(cell),
            seed=self.seed,
            index=index,
            targets=None if chosen is None else chosen.targets,
            preserved=None if chosen is None or not chosen.preserved.shape[1] else chosen.preserved,
            progress=tell,
        )

    def _transferred(self, cell: Cell, target: Target, source: Target, tell: Tell) -> Measured:
        """Made on one model, ranked by another (ECCV section 5.1).

        As published, the items of the "-" goals, C_SP of SP-QA- included, come from the target's distances;
        those of the "+" goals are random, and C_SP of SP-QA+ comes from the source's.
        """
        lowers = "-" in cell.goal.removeprefix("sp-")
        key = (id(source), id(target) if lowers else None, cell.made_once)
        if self._last is None or self._last[0] != key:
            self._last = key, self._attacked(cell, source, tell, target if lowers else None)
        made = self._last[1]
        result = made if source is target else transfer(made, target.gallery, goal_of(cell))
        return replace(self._told(cell, target, result, source), seconds=made.seconds)

    def _told(
        self, cell: Cell, target: Target, result: AttackResult, source: Target | None = None
    ) -> Measured:
        """The figures of an attack."""
        values = {result.metric: result.headline(), "before": result.headline(after=False)}
        for name in ("sp_rank", "mean_rank"):
            if name in result.after and not (name == "mean_rank" and bool(result.after[name].isnan().any())):
                found = result.after[name]
                values[name] = found.mean(1) if found.dim() == 2 else found
        rounded = {name: plain(each) for name, each in values.items()}
        return Measured(
            values=rounded,
            figures={name: summary(each) for name, each in rounded.items()},
            steps=result.steps,
            seconds=result.seconds,
            model_seconds=self._bare(source or target, goal_of(cell), result),
            gallery_size=result.gallery_size,
            device=result.device,
            notes=(*result.notes, *target.notes, *_silent(result)),
            attacks={"": result},
        )

    def _universal(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """One perturbation for many images, once for each target."""
        begin = time.perf_counter()
        shared = shared_values(target, goal_of(cell), cell.eps, cell.trials, self.seed, tell)
        seconds = time.perf_counter() - begin
        return Measured(
            values=shared.values,
            figures={name: summary(each) for name, each in shared.values.items()},
            steps=shared.steps,
            seconds=seconds,
            model_seconds=cell.trials * self._pace(target, goal_of(cell), shared.images) * shared.steps,
            gallery_size=len(target.gallery),
            device=target.gallery.ranker.device.type,
            notes=(*shared.notes, *target.notes),
            attacks=shared.attacks,
        )

    def _searched(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """The order attack of a stranger."""
        return self._told(cell, target, self._search(cell, target, target.draw(cell.trials, self.seed), tell))

    def _search(self, cell: Cell, target: Target, index: Tensor, tell: Tell) -> AttackResult:
        return attack(
            LocalOracle(target.gallery, shown(cell, len(target.gallery))),
            target.dataset.take(index),
            goal_of(cell),
            Threat(cell.eps, grid=cell.grid),
            method=search_of(cell),
            # Where the table has no search at all, the clean picture is sent and nothing else.
            budget=max(1, cell.budget or 0),
            seed=self.seed,
            index=index,
            progress=tell,
        )

    def _timed(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """Seconds of one attack, from attacks that run side by side."""
        pieces = target.draw(cell.trials, self.seed).split(PIECE)
        times, work, result = [], 0.0, None
        for number, index in enumerate(pieces, 1):
            result = self._search(cell, target, index, lambda done, total: None)
            times.append(result.seconds / len(index))
            work += self._bare(target, Reorder(k=cell.count), result)
            tell(number, len(pieces))
        assert result is not None
        return Measured(
            values={"seconds": [round(value, DIGITS) for value in times]},
            figures={"seconds": summary(times)},
            steps=result.steps,
            seconds=sum(one * len(index) for one, index in zip(times, pieces, strict=True)),
            model_seconds=work,
            gallery_size=result.gallery_size,
            device=result.device,
            notes=(*result.notes, f"timed in pieces of up to {PIECE} attacks side by side"),
        )

    def _correlated(self, cell: Cell, target: Target) -> Measured:
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
        return Measured(
            values={"seconds": times},
            figures={"seconds": summary(times)},
            steps=0,
            seconds=sum(times),
            model_seconds=0.0,
            gallery_size=size,
            device="cpu",
            notes=("of random places",),
        )

    def _shown(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """Attacks in pictures."""
        result = self._attacked(cell, target, tell)
        strips = attack_strips(result, target.gallery, target.dataset.classes)
        return replace(
            self._told(cell, target, result), drawing={"strips": [as_values(strip) for strip in strips]}
        )

    def _order_shown(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """The best of some black-box order attacks in pictures."""
        result = self._search(cell, target, target.draw(cell.trials, self.seed), tell)
        strip = best_order(result, target.gallery, shown(cell, len(target.gallery)), cell.budget)
        assert strip is not None  # a target has its pictures
        measured = self._told(cell, target, result)
        mean = measured.figures["tau"][0]
        note = f"shown is the best of {len(result)} attacks, their mean tau_S is {mean:.3f}"
        return replace(measured, drawing={"strips": [as_values(strip)]}, notes=(*measured.notes, note))

    def _watched(self, cell: Cell, target: Target, tell: Tell) -> Measured:
        """The losses of order attacks over their steps."""
        begin, index = time.perf_counter(), target.draw(cell.trials, self.seed)
        goal = Reorder(k=cell.count, xi=float(cell.xi or 0.0))
        found = losses_over_steps(target, goal, cell.eps, index, self.seed, tell)
        seconds, steps = time.perf_counter() - begin, found.total.shape[1] - 1
        values = {"tau": plain(found.tau), "mean_rank": plain(found.mean_rank)}
        curves = {"total": found.total, "keep": found.keep}
        return Measured(
            values=values,
            figures={name: summary(each) for name, each in values.items()},
            steps=steps,
            seconds=seconds,
            model_seconds=steps * self._pace(target, goal, len(index)),
            gallery_size=len(target.gallery),
            device=target.gallery.ranker.device.type,
            notes=target.notes,
            drawing={name: [summary(column) for column in each.T.tolist()] for name, each in curves.items()},
        )

    def _bare(self, target: Target, goal: Goal | Sum, result: AttackResult) -> float:
        """The bare work of a result; how long a pass takes is timed once for each model and kind of goal."""
        if result.queries is not None:
            key = (id(target), "query")
            if key not in self._paces:
                self._paces[key] = look_seconds(target.gallery, result.original, 1)
            return self._paces[key] * int(result.queries.sum())
        return result.steps * self._pace(target, goal, len(result)) if result.steps else 0.0

    def _pace(self, target: Target, goal: Goal | Sum, images: int) -> float:
        """Seconds of one pass of so many images, in the attack's own chunks."""
        whole, chunk = goal.whole_gallery, chunk_rows(target.gallery, goal)
        key = (id(target), whole, chunk, images)
        if key not in self._paces:
            pictures = target.dataset.take(torch.arange(min(images, len(target.gallery))))
            self._paces[key] = bare_seconds(target.gallery, pictures, 1, whole_gallery=whole, chunk=chunk)
        return self._paces[key]


def shown(cell: Cell, size: int) -> int | None:
    """N as a number; None shows everything. A small gallery cannot show more than it holds."""
    match cell.visible:
        case "inf" | None:
            return None
        case "k":
            return cell.count
        case number:
            return min(int(number), size)


def _spread(measured: Measured) -> Measured:
    """Mean, deviation and extremes over the attacks, as the papers tell of a service."""
    tau = torch.tensor(measured.values["tau"], dtype=torch.float64)
    single = {
        "stdev": float(tau.std()) if len(tau) > 1 else 0.0,
        "max": float(tau.max()),
        "min": float(tau.min()),
        "median": float(tau.median()),
    }
    note = (
        "a stand-in: the published system is not to be had; asked as a service, 8-bit pictures, first N shown"
    )
    figures = {name: (value, None, None) for name, value in single.items()}
    return replace(
        measured,
        values={"mean": measured.values["tau"]},
        figures={"mean": measured.figures["tau"], **figures},
        notes=(*measured.notes, note),
    )


def _weighed(target: Target) -> Measured:
    """The weights of a model; no attack is run."""
    ranker = target.gallery.ranker
    return Measured(
        values={},
        figures={},
        steps=0,
        seconds=0.0,
        model_seconds=0.0,
        gallery_size=len(target.gallery),
        device=ranker.device.type,
        notes=(),
        drawing={"layers": spread(ranker.encoder)},
    )


def _silent(result: AttackResult) -> tuple[str, ...]:
    silent = int(result.silent.sum())
    return (f"{silent} of {len(result)} attacks never saw a usable gradient",) if silent else ()
