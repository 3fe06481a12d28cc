"""What an attack came back with: values per image, no model inside."""

import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.files import write_atomically
from rankproof.ranking.metrics import Summary, summarise
from rankproof.versions import versions

ARRAYS, SUMMARY = "attack.npz", "result.json"
OPTIONAL = ("index", "queries", "scores", "perturbation")  # arrays that not every attack has
MARKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]  # points of a curve over queries
STORED = (
    *("goal", "metric", "method", "eps", "steps", "visible", "budget", "seed", "gallery_size", "device"),
    *("seconds", "versions"),
)


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """One attack on each of b images.

    Args:
        goal: its name in the papers, such as "sp-qa+".
        metric: headline figure, "rank" (normalised, in %), "tau", "shift", "distance", "hit" or "kept".
        method: name of the method.
        eps: perturbation budget in [0, 1].
        knobs: the papers' letters w, m, k, g, xi; None where one does not apply.
        steps: forward and gradient evaluations spent on each attack.
        seed: all choices and random numbers come from it.
        original, adversarial: (b, c, h, w) in [0, 1].
        index: (b,) gallery positions of the images' own clean copies, or None.
        targets: (b, m) chosen items; for an order attack in wanted order.
        preserved: (b, g) items to keep in place.
        before, after: figures by name: "rank" (b, m) and "sp_rank" (b, g) in %, "tau", "mean_rank", "shift",
            "distance" to the target, "hit" (R@1, 0 or 1) and "kept" (in the first 4 others, 0 or 1) (b,).
        silent: (b,) attacks that never saw a usable gradient.
        gallery_size: |X|; 0 where it is unknown, as behind a service.
        device: where it ran.
        seconds: time of the attack alone.
        notes: what a reader should know about how it was done.
        visible: N of a black-box attack, "inf" where the whole ranking is shown; None in a white box.
        budget: Q, queries each attack may spend; None in a white box.
        queries: (b,) queries really spent, the clean one included; None in a white box.
        scores: (b, Q) tau_S of every query in its order, NaN where none was spent; None in a white box.
        perturbation: (1, c, h, w) what all images share in a universal attack, else None.
    """

    goal: str
    metric: str
    method: str
    eps: float
    knobs: dict[str, int | float | None]
    steps: int
    seed: int
    original: Tensor
    adversarial: Tensor
    index: Tensor | None
    targets: Tensor
    preserved: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    silent: Tensor
    gallery_size: int
    device: str
    seconds: float
    notes: tuple[str, ...] = ()
    visible: int | str | None = None
    budget: int | None = None
    queries: Tensor | None = None
    scores: Tensor | None = None
    perturbation: Tensor | None = None
    versions: dict[str, str] = field(default_factory=versions)

    def __len__(self) -> int:
        return len(self.original)

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
        values = self._figure(self.after if after else self.before, self.metric)
        return values.mean(1) if values.dim() == 2 else values

    @property
    def summary(self) -> Summary:
        """The headline figure after the attack with its 95 % interval."""
        return summarise(self.headline())

    def curve(self) -> list[list[int | float]]:
        """The mean best tau_S after so many queries: [[1, tau], [2, tau], [5, tau], ...]."""
        if self.scores is None:
            raise RankproofError(f"{self.method} spends no queries: it has no curve over them")
        best = torch.nan_to_num(self.scores, nan=-math.inf).cummax(1).values  # (b, Q)
        marks = [mark for mark in MARKS if mark < best.shape[1]] + [best.shape[1]]
        return [[mark, float(best[:, mark - 1].double().mean())] for mark in marks]

    def cell(self, **context: Any) -> dict[str, Any]:
        """The result as one flat object, with the names of `rankproof attack --json`.

        Args:
            context: what the result cannot know: model, data, model_seconds, peak_mb.
        """
        summary = self.summary
        means = {f"{name}_before": _mean(values) for name, values in self.before.items()}
        return {
            "goal": self.goal,
            "method": self.method,
            "eps": self.eps,
            **self.knobs,
            "steps": self.steps,
            "visible": self.visible,
            "budget": self.budget,
            "queries_spent": _mean(self.queries),
            "queries_max": None if self.queries is None else int(self.queries.max()),
            "trials": len(self),
            "seed": self.seed,
            "device": self.device,
            "model": context.get("model"),
            "data": context.get("data"),
            "metric": self.metric,
            "before": _mean(self.headline(after=False)),
            "after": summary.mean,
            "ci95": summary.ends,
            "rank_before": means.get("rank_before"),
            "rank_after": _mean(self.after.get("rank")),
            "sp_rank": _mean(self.after.get("sp_rank")),
            "tau_before": means.get("tau_before"),
            "tau": _mean(self.after.get("tau")),
            "mean_rank_before": means.get("mean_rank_before"),
            "mean_rank": _mean(self.after.get("mean_rank")),
            "curve": None if self.scores is None else self.curve(),
            "shift": _mean(self.after.get("shift")),
            "seconds": self.seconds,
            "model_seconds": context.get("model_seconds"),
            "peak_mb": context.get("peak_mb"),
            "versions": self.versions,
            "gallery_size": self.gallery_size or None,
            "notes": list(self.notes),
        }

    def save(self, folder: str | Path, **context: Any) -> Path:
        """Write `attack.npz` and `result.json`, so that anybody can check a figure."""
        arrays: dict[str, Any] = {
            "original": self.original.float().cpu().numpy(),
            "adversarial": self.adversarial.float().cpu().numpy(),
            "targets": self.targets.cpu().numpy(),
            "preserved": self.preserved.cpu().numpy(),
            "silent": self.silent.cpu().numpy(),
        }
        for name in OPTIONAL:
            if (values := getattr(self, name)) is not None:
                arrays[name] = values.cpu().numpy()
        for when, figures in (("before", self.before), ("after", self.after)):
            arrays |= {f"{when}_{name}": values.cpu().numpy() for name, values in figures.items()}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_atomically(Path(folder) / ARRAYS, stream.getvalue())
        text = json.dumps(self.cell(**context), indent=2, allow_nan=False)
        write_atomically(Path(folder) / SUMMARY, f"{text}\n".encode())
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "AttackResult":
        """Read what `save` wrote."""
        try:
            return cls._read(Path(folder))
        except (OSError, ValueError, EOFError, BadZipFile, KeyError, TypeError) as error:
            raise RankproofError(f"{folder}: no saved attack ({error})") from None

    @classmethod
    def _read(cls, folder: Path) -> "AttackResult":
        cell = json.loads((folder / SUMMARY).read_text())
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
        fields: dict[str, Any] = {name: cell[name] for name in STORED}
        fields |= {
            name: arrays[name] for name in ("original", "adversarial", "targets", "preserved", "silent")
        }
        for when in ("before", "after"):
            names = [name for name in arrays if name.startswith(f"{when}_")]
            fields[when] = {name.removeprefix(f"{when}_"): arrays[name] for name in names}
        fields["gallery_size"] = cell["gallery_size"] or 0
        knobs = {letter: cell[letter] for letter in ("w", "m", "k", "g", "xi")}
        fields |= {name: arrays.get(name) for name in OPTIONAL}
        return cls(**fields, knobs=knobs, notes=tuple(cell["notes"]))


def _mean(values: Tensor | None) -> float | None:
    return None if values is None else float(values.double().mean())
