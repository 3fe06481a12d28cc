"""The result of an attack: values for each image, without the model; it can be sliced, joined and saved."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.attacks.repeats import Repeats
from rankproof.attacks.summary import AttackSummary
from rankproof.errors import RankproofError
from rankproof.goals.base import LETTERS
from rankproof.io import read_arrays, versions, write_arrays, write_json
from rankproof.ranking.examination import Examination
from rankproof.ranking.metrics import ANYWHERE, SCALES, MeanInterval, mean_interval

ARRAYS, SUMMARY = "attack.npz", "result.json"
MARKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]  # points of a curve over queries
# Arrays of the file by the names they have there; the second group is not in every file.
STORED = {
    **{name: name for name in ("original", "adversarial", "targets", "preserved")},
    "zero_gradient": "silent",
}
OPTIONAL = {"gallery_ids": "index", "perturbation": "perturbation", "evaluations": "evaluations"}
LOGGED = {"spent": "queries", "scores": "scores"}
REPEATED = {
    "count": "checks",
    "before": "check_tau_before",
    "after": "check_tau",
    "differs": "check_differs",
}


@dataclass(frozen=True, kw_only=True)
class QueryLog:
    """What only a black-box attack has.

    Args:
        visible: N, "inf" where the whole ranking is shown.
        budget: Q, queries each attack may spend.
        spent: (b,) queries really spent, the clean one included.
        scores: (b, Q) tau_S of every query in its order, NaN where none was spent.
        repeats: the answers to images that were asked again, outside Q; None where none was.
    """

    visible: int | str
    budget: int
    spent: Tensor
    scores: Tensor
    repeats: Repeats | None = None

    def take(self, rows: Tensor) -> "QueryLog":
        """The attacks at some rows."""
        rows = rows.to(self.spent.device)
        repeats = None if self.repeats is None else self.repeats.take(rows)
        return replace(self, spent=self.spent[rows], scores=self.scores[rows], repeats=repeats)

    @classmethod
    def concat(cls, logs: Sequence["QueryLog"]) -> "QueryLog":
        """One log of several parts of the same attack."""
        spent, scores = ([getattr(log, name) for log in logs] for name in ("spent", "scores"))
        repeats = [log.repeats for log in logs if log.repeats is not None]
        return replace(
            logs[0],
            spent=torch.cat(spent),
            scores=torch.cat(scores),
            repeats=Repeats.concat(repeats) if len(repeats) == len(logs) else None,
        )

    @property
    def best(self) -> Tensor:
        """(b,) the highest score of each attack."""
        return torch.nan_to_num(self.scores, nan=-math.inf).amax(1)

    def curve(self) -> tuple[tuple[int, float], ...]:
        """The mean best score after so many queries: ((1, tau), (2, tau), (5, tau), ...)."""
        best = torch.nan_to_num(self.scores, nan=-math.inf).cummax(1).values  # (b, Q)
        marks = [mark for mark in MARKS if mark < best.shape[1]] + [best.shape[1]]
        return tuple((mark, float(best[:, mark - 1].double().mean())) for mark in marks)


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """One attack on each of b images.

    Args:
        goal: its name in the papers, such as "sp-qa+".
        metric: headline figure, "rank" (normalised, in %), "tau", "shift", "distance", "hit" or "kept".
        method: name of the method.
        eps: perturbation budget in [0, 1].
        parameters: the papers' letters w, m, k, g, xi; None where one does not apply.
        steps: forward and gradient evaluations spent on each attack, the most where they differ.
        seed: all choices and random numbers come from it.
        original, adversarial: (b, c, h, w) in [0, 1].
        gallery_ids: (b,) gallery positions of the images' own clean copies, or None.
        targets: (b, m) chosen items; for an order attack in wanted order.
        preserved: (b, g) items to keep in place.
        before, after: figures by name: "rank" (b, m) and "sp_rank" (b, g) in %, "tau", "mean_rank", "shift",
            "distance" to the target, "hit" (R@1, 0 or 1) and "kept" (in the first 4 others, 0 or 1) (b,).
        unchanged: of a random encoder the same figures of the unperturbed images under new random numbers,
            what `after` would be at eps = 0; else empty.
        zero_gradient: (b,) attacks that never saw a usable gradient, though their goal did not hold from the
            start.
        gallery_size: |X|; 0 where it is unknown, as behind a service.
        device: where it ran.
        seconds: time of the attack alone.
        notes: what a reader should know about how it was done.
        log: what only a black-box attack has, None in a white box.
        perturbation: (1, c, h, w) what all images share in a universal attack, else None.
        examination: what the encoder was found to be; None behind a service.
        evaluations: (b,) forward and gradient evaluations spent on each attack; None in a black box, and in
            files that were saved before they were counted.
    """

    goal: str
    metric: str
    method: str
    eps: float
    parameters: dict[str, int | float | None]
    steps: int
    seed: int
    original: Tensor
    adversarial: Tensor
    gallery_ids: Tensor | None
    targets: Tensor
    preserved: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    zero_gradient: Tensor
    gallery_size: int
    device: str
    seconds: float
    notes: tuple[str, ...] = ()
    log: QueryLog | None = None
    perturbation: Tensor | None = None
    unchanged: dict[str, Tensor] = field(default_factory=dict)
    examination: Examination | None = None
    evaluations: Tensor | None = None
    versions: dict[str, str] = field(default_factory=versions)

    def __len__(self) -> int:
        return len(self.original)

    def __getitem__(self, rows: Tensor | Sequence[int] | slice | int) -> "AttackResult":
        """The attacks at some rows, given as positions, as a mask or as a slice; one row is a result, too."""
        wanted = rows if isinstance(rows, slice) else torch.as_tensor(rows).cpu()
        if isinstance(wanted, Tensor) and wanted.is_floating_point():
            if wanted.numel():
                raise RankproofError("rows of a result are positions, a mask or a slice, got floats")
            wanted = wanted.long()
        chosen = torch.arange(len(self))[wanted].reshape(-1)

        def part(values: Tensor) -> Tensor:
            return values[chosen.to(values.device)]

        own = self.repeat_note()
        return self._with(
            {name: part(getattr(self, name)) for name in STORED},
            notes=tuple(note for note in self.notes if note != own),
            gallery_ids=None if self.gallery_ids is None else part(self.gallery_ids),
            evaluations=None if self.evaluations is None else part(self.evaluations),
            before={name: part(values) for name, values in self.before.items()},
            after={name: part(values) for name, values in self.after.items()},
            unchanged={name: part(values) for name, values in self.unchanged.items()},
            log=None if self.log is None else self.log.take(chosen),
        ).with_repeat_note()

    @classmethod
    def concat(cls, parts: Sequence["AttackResult"]) -> "AttackResult":
        """One result of several parts of the same attack, in their order.

        Raises:
            RankproofError: there is none, or they are not of the same attack.
        """
        if not parts:
            raise RankproofError("no results to join")
        first = parts[0]
        if any(_settings(part) != _settings(first) for part in parts):
            raise RankproofError("these results are of different attacks: they cannot be joined")
        logs = [part.log for part in parts if part.log is not None]
        ids = [part.gallery_ids for part in parts if part.gallery_ids is not None]
        spent = [part.evaluations for part in parts if part.evaluations is not None]
        whole = first._with(
            {name: torch.cat([getattr(part, name) for part in parts]) for name in STORED},
            gallery_ids=torch.cat(ids) if ids else None,
            evaluations=torch.cat(spent) if len(spent) == len(parts) else None,
            before={name: torch.cat([part.before[name] for part in parts]) for name in first.before},
            after={name: torch.cat([part.after[name] for part in parts]) for name in first.after},
            unchanged={name: torch.cat([part.unchanged[name] for part in parts]) for name in first.unchanged},
            log=QueryLog.concat(logs) if logs else None,
        )
        notes = (note for part in parts for note in part.notes if note != part.repeat_note())
        return replace(
            whole,
            steps=max(part.steps for part in parts),
            seconds=sum(part.seconds for part in parts),
            notes=tuple(dict.fromkeys(notes)),
        ).with_repeat_note()

    def without_images(self) -> "AttackResult":
        """The same figures with empty images (b, c, 0, 0), which is what attacks of several sizes share."""
        return replace(self, original=self.original[:, :, :0, :0], adversarial=self.adversarial[:, :, :0, :0])

    def _with(self, arrays: Mapping[str, Tensor], **more: Any) -> "AttackResult":
        """This attack with other rows."""
        values: dict[str, Any] = {**arrays, **more}
        return replace(self, **values)

    @property
    def rank_before(self) -> Tensor:
        """(b, m) normalised ranks of the chosen before the attack, in %."""
        return self._figure(self.before, "rank")

    @property
    def rank_after(self) -> Tensor:
        """(b, m) normalised ranks of the chosen after the attack, in %."""
        return self._figure(self.after, "rank")

    @property
    def sp_rank(self) -> Tensor:
        """(b, g) normalised ranks of C_SP after the attack, in %."""
        return self._figure(self.after, "sp_rank")

    @property
    def tau_before(self) -> Tensor:
        """(b,) Kendall's tau between the wanted and the present order."""
        return self._figure(self.before, "tau")

    @property
    def tau(self) -> Tensor:
        """(b,) Kendall's tau between the wanted order and the one after the attack."""
        return self._figure(self.after, "tau")

    @property
    def mean_rank(self) -> Tensor:
        """(b,) mean rank mR of the chosen after an order attack, counted from 0."""
        return self._figure(self.after, "mean_rank")

    @property
    def shift(self) -> Tensor:
        """(b,) distance between the embeddings before and after the attack."""
        return self._figure(self.after, "shift")

    def _figure(self, figures: dict[str, Tensor], name: str) -> Tensor:
        if name not in figures:
            raise RankproofError(f"{self.goal} has no {name}; it has {', '.join(figures)}")
        return figures[name]

    def headline(self, *, after: bool = True) -> Tensor:
        """(b,) the headline figure of each attack: chosen items averaged, attacks not."""
        return self._headline(self.after if after else self.before)

    def _headline(self, figures: dict[str, Tensor]) -> Tensor:
        values = self._figure(figures, self.metric)
        return values.mean(1) if values.dim() == 2 else values

    @property
    def mean(self) -> MeanInterval:
        """The mean headline figure after the attack with its 95 % interval."""
        return mean_interval(self.headline(), SCALES.get(self.metric, ANYWHERE))

    @property
    def summary(self) -> AttackSummary:
        """The means; what a result cannot know (model, data, cost) is None, for `dataclasses.replace`."""
        mean, log, spent = self.mean, self.log, self.evaluations
        repeats = None if log is None else log.repeats
        before, after = (
            {name: float(values.double().mean()) for name, values in figures.items()}
            for figures in (self.before, self.after)
        )
        low, high = mean.ends
        return AttackSummary(
            goal=self.goal,
            method=self.method,
            eps=self.eps,
            **self.parameters,  # type: ignore[arg-type]
            steps=self.steps,
            evaluations=None if spent is None else float(spent.double().mean()),
            evaluations_max=None if spent is None else int(spent.max()),
            visible=None if log is None else log.visible,
            budget=None if log is None else log.budget,
            queries_spent=None if log is None else float(log.spent.double().mean()),
            queries_max=None if log is None else int(log.spent.max()),
            checks=None if repeats is None else int(repeats.count.sum()),
            checks_differing=None if repeats is None else int(repeats.differs.sum()),
            tau_again=None if repeats is None else float(repeats.after.double().mean()),
            trials=len(self),
            seed=self.seed,
            device=self.device,
            metric=self.metric,
            before=float(self.headline(after=False).double().mean()),
            after=mean.mean,
            unchanged=float(self._headline(self.unchanged).double().mean()) if self.unchanged else None,
            ci95=(low, high),
            rank_before=before.get("rank"),
            rank_after=after.get("rank"),
            sp_rank=after.get("sp_rank"),
            tau_before=before.get("tau"),
            tau=after.get("tau"),
            mean_rank_before=before.get("mean_rank"),
            mean_rank=after.get("mean_rank"),
            curve=None if log is None else log.curve(),
            shift=after.get("shift"),
            seconds=self.seconds,
            versions=self.versions,
            gallery_size=self.gallery_size or None,
            examination=self.examination,
            notes=self.notes,
        )

    def gradient_note(self, tolerated: float = 0.01) -> str | None:
        """A note on the attacks that never saw a usable gradient.

        Args:
            tolerated: share of such attacks up to which there is no note.
        """
        count = int(self.zero_gradient.sum())
        if count <= tolerated * len(self):
            return None
        return f"{count} of {len(self)} attacks never saw a usable gradient: this figure may be false"

    def repeat_note(self) -> str | None:
        """A warning where the same image got different answers; the figure is then too high."""
        if self.log is None or self.log.repeats is None:
            return None
        return self.log.repeats.note(self.log.scores[:, 0], self.log.best)

    def with_repeat_note(self) -> "AttackResult":
        """This result, with `repeat_note` among its notes where there is one."""
        note = self.repeat_note()
        return self if note is None else replace(self, notes=(*self.notes, note))

    def save(
        self, folder: str | Path, summary: AttackSummary | None = None, *, rows: Tensor | None = None
    ) -> Path:
        """Write `attack.npz` and `result.json`, so that anybody can check a figure.

        Args:
            summary: what goes into `result.json` where it knows more than the result itself.
            rows: (b,) which attacks of a larger run these are, stored as "row".
        """
        stored = {key: getattr(self, name) for name, key in {**STORED, **OPTIONAL}.items()}
        if self.log is not None:
            stored |= {key: getattr(self.log, name) for name, key in LOGGED.items()}
            if self.log.repeats is not None:
                stored |= {REPEATED[name]: values for name, values in self.log.repeats.arrays().items()}
        measured = {"before": self.before, "after": self.after, "unchanged": self.unchanged}
        for when, figures in measured.items():
            stored |= {f"{when}_{name}": values for name, values in figures.items()}
        stored |= {"row": rows}
        arrays = {name: values.cpu().numpy() for name, values in stored.items() if values is not None}
        arrays |= {name: arrays[name].astype(np.float32) for name in ("original", "adversarial")}
        write_arrays(Path(folder) / ARRAYS, arrays, compressed=True)
        write_json(Path(folder) / SUMMARY, (summary or self.summary).to_json(), indent=2, allow_nan=False)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "AttackResult":
        """Read what `save` wrote."""
        try:
            return cls._read(Path(folder))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RankproofError) as error:
            raise RankproofError(f"{folder}: no saved attack ({error})") from None

    @classmethod
    def _read(cls, folder: Path) -> "AttackResult":
        summary = AttackSummary.from_json(json.loads((folder / SUMMARY).read_text()))
        arrays = read_arrays(folder / ARRAYS)
        log = None
        if summary.visible is not None and summary.budget is not None:
            more: dict[str, Any] = {name: arrays[key] for name, key in LOGGED.items()}
            if REPEATED["count"] in arrays:
                more["repeats"] = Repeats(**{name: arrays[key] for name, key in REPEATED.items()})
            log = QueryLog(visible=summary.visible, budget=summary.budget, **more)

        def figures(when: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(when): values for name, values in arrays.items() if name.startswith(when)
            }

        alike = ("goal", "metric", "method", "eps", "steps", "seed", "device", "seconds", "notes")
        fields: dict[str, Any] = {name: getattr(summary, name) for name in (*alike, "examination")}
        fields |= {name: arrays[key] for name, key in STORED.items()}
        fields |= {name: arrays.get(key) for name, key in OPTIONAL.items()}
        return cls(
            **fields,
            parameters={letter: getattr(summary, letter) for letter in LETTERS},
            before=figures("before_"),
            after=figures("after_"),
            unchanged=figures("unchanged_"),
            gallery_size=summary.gallery_size or 0,
            log=log,
            versions=dict(summary.versions),
        )


def _settings(result: AttackResult) -> tuple[Any, ...]:
    """What all parts of one attack have in common."""
    names = ("goal", "metric", "method", "eps", "parameters", "seed", "gallery_size")
    log, shared = result.log, result.perturbation
    return (
        *(getattr(result, name) for name in names),
        result.gallery_ids is None,
        log and (log.visible, log.budget),
        None if shared is None else shared.tolist(),
    )
