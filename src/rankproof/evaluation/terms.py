"""The ten terms of the empirical robustness score: nine attacks and what each of them leaves, in %."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor
from torch.nn import functional

from rankproof.attacks import AttackResult
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
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import hit
from rankproof.types import Embeddings, PerAttack


@dataclass(frozen=True)
class AttackRun:
    """An attack of the score, and what it was run on."""

    result: AttackResult
    gallery: Gallery
    gallery_ids: Tensor

    @property
    def figure(self) -> PerAttack:
        """(T,) the headline figure of each attack."""
        return self.result.headline()

    @cached_property
    def adversarial(self) -> Embeddings:
        """(T, d) embeddings of the adversarial images."""
        return self.gallery.ranker.embed_all(self.result.adversarial)

    def untouched(self) -> "AttackRun":
        """The same of a random encoder with untouched images, under new random numbers."""
        result = replace(self.result, adversarial=self.result.original, after=self.result.unchanged)
        return replace(self, result=result)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the score.

    Args:
        name: its key in JSON.
        label: what a table calls it.
        goal: the attack that decides it.
        values: (T,) the term of each attack in %, not clipped.
    """

    name: str
    label: str
    goal: Goal
    values: Callable[[AttackRun], Tensor]


def _doubled(outcome: AttackRun) -> Tensor:
    return 2 * outcome.figure


def _left(outcome: AttackRun) -> Tensor:
    return 100 - outcome.figure


def _percent(outcome: AttackRun) -> Tensor:
    return 100 * outcome.figure


def _away_from_target(outcome: AttackRun) -> Tensor:
    """100 (1 - cos(q~, c))."""
    target = _unit(outcome.gallery.embeddings[outcome.result.targets[:, 0]])
    return 100 * (1 - (_unit(outcome.adversarial) * target).sum(1).cpu())


def _not_moved(outcome: AttackRun) -> Tensor:
    """100 (2 - |q~ - q|) / 2."""
    clean = outcome.gallery.ranker.embed_all(outcome.result.original)
    moved: Tensor = (_unit(outcome.adversarial) - _unit(clean)).norm(dim=1).cpu()
    return 50 * (2 - moved)


def _recall(outcome: AttackRun) -> Tensor:
    """100 R@1 of the adversarial images."""
    recall: Tensor = hit(outcome.gallery, outcome.adversarial, outcome.gallery_ids).cpu()
    return 100 * recall


def _unit(z: Tensor) -> Tensor:
    """Embeddings (b, d) scaled to unit length, in double precision."""
    return functional.normalize(z.double(), dim=1)


SHIFT = MaxShift()
ERS_TERMS = (
    Term(name="ca+", label="2 CA+", goal=CandidateRaise(w=1), values=_doubled),
    Term(name="ca-", label="100 − CA−", goal=CandidateLower(w=1), values=_left),
    Term(name="qa+", label="2 QA+", goal=QueryRaise(m=1), values=_doubled),
    Term(name="qa-", label="100 − QA−", goal=QueryLower(m=1), values=_left),
    Term(
        name="mismatch",
        label="targeted mismatch: 100 (1 − cos)",
        goal=Mismatch(),
        values=_away_from_target,
    ),
    Term(name="shift", label="max shift: 100 (2 − shift) / 2", goal=SHIFT, values=_not_moved),
    Term(name="shift-recall", label="R@1 under max shift", goal=SHIFT, values=_recall),
    Term(name="misrank", label="R@1 under learning to misrank", goal=Misrank(), values=_percent),
    Term(
        name="nearest-other",
        label="R@1 drawn to the nearest other class",
        goal=NearestOther(),
        values=_percent,
    ),
    Term(name="top4", label="nearest still among the first 4", goal=LeaveTop(), values=_percent),
)
TERMS = tuple(term.name for term in ERS_TERMS)
GOALS: tuple[Goal, ...] = tuple(dict.fromkeys(term.goal for term in ERS_TERMS))
