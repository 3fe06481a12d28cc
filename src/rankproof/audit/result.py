"""What an audit found, as plain values: no model inside."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One reason to doubt a figure.

    Args:
        kind: short name of the check, such as "collapsed" or "wide-interval".
        text: what is wrong and what it means, in plain words.
        cell: which figure it concerns, such as "oa at 4/255"; None for the whole audit.
    """

    kind: str
    text: str
    cell: str | None = None


def grouped(flags: Sequence[Flag]) -> list[Flag]:
    """Flags that say the same of several figures as one that names them; those of the whole audit first."""
    cells: dict[tuple[str, str], list[str]] = {}
    for flag in sorted(flags, key=lambda flag: flag.cell is not None):
        cells.setdefault((flag.kind, flag.text), []).extend([flag.cell] if flag.cell else [])
    return [
        Flag(kind=kind, text=text, cell=", ".join(names) or None) for (kind, text), names in cells.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a ranking: the item, where it stands, and whether the attacker chose it.

    Args:
        image: (c, h, w) in [0, 1].
        rank: its place, counted from 0.
        label: its class.
        chosen: whether the attacker chose it.
        attacked: whether it is the changed picture itself.
        mark: a letter that tells it from the other chosen ones; A is the one wanted first.
        unseen: whether it stands where nobody looks.
    """

    image: Float[Tensor, "c h w"]
    rank: int
    label: str | None = None
    chosen: bool = False
    attacked: bool = False
    mark: str | None = None
    unseen: bool = False


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One attack in pictures, in the manner of the papers' figures.

    Args:
        goal: the attack's name, such as "qa+".
        eps: perturbation budget in [0, 1].
        original, adversarial: (c, h, w) in [0, 1].
        query: the query whose ranking is shown; None where it is the attacked picture itself.
        before, after: the ranking as shown before and after the attack, nearest first; a gap in the
            ranks is a cut.
        wanted: one sentence on what the attacker wanted.
        order: the ranking the attacker wanted, shown between before and after; none but for a black box.
        visible: N of a black-box attack; None in a white box.
        budget: Q of a black-box attack; None in a white box.
    """

    goal: str
    eps: float
    original: Float[Tensor, "c h w"]
    adversarial: Float[Tensor, "c h w"]
    query: Float[Tensor, "c h w"] | None
    before: tuple[Tile, ...]
    after: tuple[Tile, ...]
    wanted: str
    order: tuple[Tile, ...] = ()
    visible: int | None = None
    budget: int | None = None

    @property
    def unchanged(self) -> bool:
        """Whether no change did better than none."""
        return bool((self.original == self.adversarial).all())


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """A whole audit.

    Args:
        model, data: as given on the command line or in Python.
        recall_at_1: leave-one-out R@1 of the gallery in %, None without labels.
        cells: one object per attack and eps, with the keys of `rankproof attack --json`.
        flags: reasons to doubt.
        strips: example attacks in pictures.
        eps: the audited budget; cells at other budgets are there for the curves.
        gallery_size: number of items ranked.
        data_note: one sentence on the data.
        command: what gives the same report again.
        versions: software.
        seconds: how long it took.
    """

    model: str
    data: str
    recall_at_1: float | None
    cells: list[dict[str, Any]]
    flags: list[Flag]
    eps: float
    trials: int
    seed: int
    gallery_size: int
    data_note: str
    command: str
    versions: dict[str, str]
    seconds: float
    strips: list[Strip] = field(default_factory=list)
    model_record: dict[str, Any] | None = None

    def save(self, folder: str | Path) -> Path:
        """Write report.html, report.json and the pictures; returns the path of report.html."""
        from rankproof.audit.report import save

        return save(self, Path(folder))
