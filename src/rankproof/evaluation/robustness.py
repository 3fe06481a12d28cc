"""The empirical robustness score: nine attacks on the same pictures, ten terms, one figure."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rankproof.attacks import attack
from rankproof.attacks.result import AttackResult
from rankproof.audit.checks import check_attack, check_gallery
from rankproof.audit.result import Flag
from rankproof.errors import RankproofError
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    Goal,
    LeaveTop,
    MaxShift,
    Mismatch,
    Misrank,
    NearestOther,
    QueryLower,
    QueryRaise,
)
from rankproof.methods import PGD
from rankproof.methods.white_box.base import Method
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import Summary, hit, known_labels, mean_interval
from rankproof.rng import draw
from rankproof.threat import Threat

TRIALS, STEPS, STEP = 1000, 32, 3 / 255
SMALL_SIDE, SMALL_EPS, LARGE_EPS = 32, 77 / 255, 8 / 255
GOALS: tuple[Goal, ...] = (
    *(CandidateRaise(w=1), CandidateLower(w=1), QueryRaise(m=1), QueryLower(m=1)),
    *(Mismatch(), MaxShift(), Misrank(), NearestOther(), LeaveTop()),
)
TERMS = (
    *("ca+", "ca-", "qa+", "qa-", "mismatch", "shift"),
    *("shift-recall", "misrank", "nearest-other", "top4"),
)
MOVED = "moved"
UNIT = 1e-3  # how far the length of an embedding may be from 1 on the unit sphere

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The empirical robustness score (ERS) of a gallery, by the terms it is the mean of.

    Args:
        values: (T,) one value per picture in %, not clipped, for each of the ten terms by name.
        moved: (T,) how far the max-shift attack moved each embedding, in the ranker's own distance.
        index: (T,) gallery positions of the attacked pictures.
        eps, method, steps, seed: how they were attacked.
        flags: reasons to doubt; of kind "collapsed" where nearly all embeddings are the same.
        notes: what a reader should know.
        seconds: how long it took.
    """

    values: dict[str, Tensor]
    moved: Tensor
    index: Tensor
    eps: float
    method: str
    steps: int
    seed: int
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def trials(self) -> int:
        """T, how many pictures were attacked."""
        return len(self.index)

    @property
    def collapsed(self) -> bool:
        """Whether nearly all embeddings are the same: such a model cannot be moved and finds nothing."""
        return any(flag.kind == "collapsed" for flag in self.flags)

    @property
    def terms(self) -> dict[str, Summary]:
        """The mean of each term with its 95 % interval, clipped to [0, 100]."""
        return {name: _clipped(mean_interval(values)) for name, values in self.values.items()}

    @property
    def ers(self) -> Summary:
        """The mean of the ten clipped terms; the interval is that of each picture's own mean of ten.

        All terms belong to the same pictures, so that the spread of the pictures' own scores holds what the
        terms have in common. Means are clipped, never single values: half of all 2 CA+ lie above 100.
        """
        mean = sum(term.mean for term in self.terms.values()) / len(self.values)
        half = mean_interval(torch.stack(list(self.values.values())).mean(0)).half_width
        return Summary(mean, mean - half, mean + half)

    @property
    def shift(self) -> Summary:
        """The mean distance moved by the max-shift attack, in the ranker's own distance."""
        return mean_interval(self.moved)

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, their intervals in "ci95", and how they were made."""
        terms = self.terms
        return {
            "shift": self.shift.mean,
            "ers": self.ers.mean,
            "ers_terms": {name: term.mean for name, term in terms.items()},
            "ci95": {
                "shift": self.shift.ends,
                "ers": self.ers.ends,
                "ers_terms": {name: term.ends for name, term in terms.items()},
            },
            "eps": self.eps,
            "method": self.method,
            "steps": self.steps,
            "trials": self.trials,
            "seed": self.seed,
            "collapsed": self.collapsed,
            "flags": [asdict(flag) for flag in self.flags],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def robustness_score(
    gallery: Gallery,
    pictures: Tensor,
    *,
    eps: float | None = None,
    trials: int = TRIALS,
    seed: int = 0,
    method: Method | None = None,
    steps: int = STEPS,
    step: float = STEP,
    progress: Progress = lambda done, total: None,
) -> Robustness:
    """The empirical robustness score (ERS) of a gallery under nine attacks.

    Zhou et al., Adversarial Attack and Defense in Deep Ranking, T-PAMI 2024:

    ERS = mean of ten terms in %, each clipped to [0, 100], with w = m = 1 and nothing preserved:

        2 CA+,  100 - CA-,  2 QA+,  100 - QA-        normalised ranks in %
        100 (1 - cos(q~, c))                         after a targeted mismatch to a random item c
        100 (2 - |q~ - q|) / 2                       after the max shift
        100 R@1                                      after the max shift
        100 R@1                                      after learning to misrank
        100 R@1                                      drawn to the nearest item of another class
        100 [nearest among the first 4]              after a QA- on the clean nearest

    q and q~ are embeddings before and after, scaled to unit length. Own clean copies count in the ranks, as
    published, and are left out of R@1 and the first 4.

    Args:
        gallery: an embedded database with labels.
        pictures: (n, c, h, w) its pictures in the same order, floats in [0, 1] or 8-bit values.
        eps: the budget; None is `default_eps(pictures)`.
        trials: T, how many pictures are attacked, drawn by `seed` as in an audit.
        seed: all choices come from it.
        method: how to search; None is PGD with `steps` of `step`, as published.
        progress: called with evaluations done and evaluations in all.
    Raises:
        RankproofError: no labels, pictures that are not the gallery's, or fewer than one trial.
    """
    begin = time.perf_counter()
    _check(gallery, pictures, trials)
    drawn = draw(len(gallery), trials, seed)
    index = drawn[has_company(gallery)[drawn]]
    if len(index) == 0:
        raise RankproofError("every picture drawn is alone in its class; ERS needs two pictures of a class")
    budget = default_eps(pictures) if eps is None else float(eps)
    how = PGD(steps=steps, step=step) if method is None else method
    values: dict[str, Tensor] = {}
    flags, told = check_gallery(gallery, index), _notes(gallery, len(drawn) - len(index))
    for result in _attacks(gallery, pictures[index], index, Threat(budget), how, seed, progress):
        values |= _terms(gallery, result, index.to(gallery.embeddings.device))
        flags += check_attack(result, result.goal, headline=False)
        told += [f"{result.goal}: {note}" for note in result.notes]
    return Robustness(
        values={name: values[name] for name in TERMS},
        moved=values[MOVED],
        index=index,
        eps=budget,
        method=how.name,
        steps=how.passes(budget) if budget else 0,
        seed=seed,
        flags=tuple(flags),
        notes=tuple(told),
        seconds=time.perf_counter() - begin,
    )


def default_eps(pictures: Tensor) -> float:
    """77/255 for pictures of at most 32 pixels along each side, 8/255 for larger ones, as published."""
    return SMALL_EPS if max(pictures.shape[-2:]) <= SMALL_SIDE else LARGE_EPS


def has_company(gallery: Gallery) -> Tensor:
    """(n,) whether another item has the same class, without which no search can find one."""
    _, classes, counts = known_labels(gallery).unique(return_inverse=True, return_counts=True)
    company: Tensor = (counts > 1)[classes].cpu()
    return company


def _check(gallery: Gallery, pictures: Tensor, trials: int) -> None:
    if pictures.dim() != 4 or len(pictures) != len(gallery):
        raise RankproofError(
            f"pictures: expected the gallery's {len(gallery)} as (n, c, h, w), got {tuple(pictures.shape)}"
        )
    if trials < 1:
        raise RankproofError(f"trials must be at least 1, got {trials}")
    if len(known_labels(gallery).unique()) < 2:
        raise RankproofError("all items are of one class; ERS needs a gallery of several")


def _attacks(
    gallery: Gallery,
    images: Tensor,
    index: Tensor,
    threat: Threat,
    method: Method,
    seed: int,
    progress: Progress,
) -> Iterator[AttackResult]:
    """One attack after the other on the same images; of large pictures no two results fit side by side."""
    work = len(images) * method.passes(threat.eps)
    for number, goal in enumerate(GOALS):

        def tell(done: int, total: int, before: int = number * work) -> None:
            progress(before + done, len(GOALS) * work)

        yield attack(
            gallery, images, goal, threat, method=method, seed=seed, gallery_ids=index, progress=tell
        )


def _terms(gallery: Gallery, result: AttackResult, index: Tensor) -> dict[str, Tensor]:
    """The terms (T,) that an attack decides, in %, not clipped; beside the max shift the distance moved."""
    goal, figure, ranker = result.goal, result.headline(), gallery.ranker
    if goal in ("ca+", "qa+"):
        return {goal: 2 * figure}
    if goal in ("ca-", "qa-"):
        return {goal: 100 - figure}
    if goal == "mismatch":
        target = gallery.embeddings[result.targets[:, 0]]
        return {goal: 100 * (1 - (_unit(ranker.embed_all(result.adversarial)) * _unit(target)).sum(1).cpu())}
    if goal == "shift":
        clean, z = (ranker.embed_all(images) for images in (result.original, result.adversarial))
        moved = (_unit(z) - _unit(clean)).norm(dim=1).cpu()
        return {goal: 50 * (2 - moved), "shift-recall": 100 * hit(gallery, z, index).cpu(), MOVED: figure}
    return {goal: 100 * figure}


def _unit(z: Tensor) -> Tensor:
    """Embeddings (b, d) scaled to unit length, in double precision."""
    return functional.normalize(z.double(), dim=1)


def _notes(gallery: Gallery, lost: int) -> list[str]:
    """What the score itself needs to have told with it."""
    notes = []
    if bool(((gallery.embeddings.norm(dim=1) - 1).abs() > UNIT).any()):
        notes.append(
            "ERS assumes distances on the unit sphere, which this ranker's are not: cos and shift are taken "
            "after scaling to unit length, and each term is clipped to [0, 100]"
        )
    if lost:
        notes.append(f"{lost} of the pictures drawn are alone in their class and were left out")
    return notes


def _clipped(summary: Summary) -> Summary:
    """The same within [0, 100]; an interval that is not known stays so."""
    low, high = (end if math.isinf(end) else min(100.0, max(0.0, end)) for end in (summary.low, summary.high))
    return replace(summary, mean=min(100.0, max(0.0, summary.mean)), low=low, high=high)
