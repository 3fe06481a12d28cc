"""Reasons to doubt a figure: an attack that fails silently looks like a robust model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.goals.base import GoalSpec
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import mean_interval
from rankproof.report.page import Flag

SAMPLE = 200  # gallery items looked at
COLLAPSED = 1e-3  # spread of all embeddings relative to their length
SAME = 1e-12  # squared length between the embeddings of a duplicate, relative to the median
TIES = 0.01
WIDE = {"rank": 3.0, "tau": 0.05}  # half widths of a 95 % interval; other figures have no scale of their own
ENOUGH = 6  # attacks that are compared: the chance that fewer all differ in one direction is above 5 %
LEAST = {"rank": 0.05, "tau": 0.01}  # differences below are real perhaps, but no reason to doubt a figure
WIDE_BLACK_BOX = 0.15  # of tau_S: a black-box attack costs so much that there are fewer of them


@dataclass(frozen=True, kw_only=True)
class AttackFigures:
    """The figures of each attack of a task, which its mean does not show.

    Args:
        values: the headline figure of each attack.
        sp_rank: the mean rank of each attack's C_SP; empty where none is preserved.
        targets: the chosen items of each attack.
        preserved: C_SP of each attack.
    """

    values: Sequence[float]
    sp_rank: Sequence[float] = ()
    targets: Sequence[Sequence[int]] = ()
    preserved: Sequence[Sequence[int]] = ()

    @classmethod
    def of(cls, result: AttackResult) -> "AttackFigures":
        """Those of a result."""
        return cls(
            values=result.headline().tolist(),
            sp_rank=result.sp_rank.mean(1).tolist() if "sp_rank" in result.after else [],
            targets=result.targets.tolist(),
            preserved=result.preserved.tolist(),
        )


def check_gallery(gallery: Gallery, gallery_ids: torch.Tensor | None) -> list[Flag]:
    """Collapse, ties and duplicates, on a sample of the gallery.

    Args:
        gallery_ids: (b,) gallery positions of the attacked images, or None.
    """
    rows = gallery_ids if gallery_ids is not None else torch.arange(len(gallery))
    rows = rows[:SAMPLE].to(gallery.embeddings.device)
    z = gallery.embeddings[rows]
    squared = gallery.squared_lengths(z)  # (s, n), or the values of any other distance
    flags = []
    spread = gallery.frame.relative(squared.quantile(0.95, dim=1).median(), z)
    if spread < COLLAPSED:
        text = (
            f"nearly all images have the same embedding (95 % differ by less than {spread:.1e} "
            "of its length): such a model looks robust because nothing can move, not because it is"
        )
        flags.append(Flag(kind="collapsed", text=text))
    ordered = squared.sort(dim=1).values
    ties = float((ordered[:, 1:] == ordered[:, :-1]).double().mean())
    if ties > TIES:
        text = (
            f"{100 * ties:.1f} % of neighbouring distances are equal: ranks count strictly "
            "nearer items, so tied items share the better rank"
        )
        flags.append(Flag(kind="ties", text=text))
    duplicates = int(((squared <= SAME * squared.median()).sum(1) > 1).sum())
    if gallery_ids is not None and duplicates:
        text = (
            f"{duplicates} of {len(rows)} images looked at have an exact duplicate in "
            "the gallery: their own rank is shared and R@1 counts the copy as found"
        )
        flags.append(Flag(kind="duplicates", text=text))
    return flags


def check_attack(result: AttackResult, label: str, *, headline: bool) -> list[Flag]:
    """What one attack's own values show.

    Args:
        label: how the flag calls it.
        headline: whether the figure is one of the headline figures, whose interval must be narrow.
    """
    flags = []
    if text := result.gradient_note():
        flags.append(Flag(kind="silent-gradient", cell=label, text=text))
    limit = WIDE.get(result.metric, math.inf) if result.log is None else WIDE_BLACK_BOX
    if headline and not result.mean.half_width <= limit:
        unit = " points" if result.metric == "rank" else ""
        remedy = "more trials make it narrower"
        if result.gallery_size and len(result) >= result.gallery_size:
            remedy = "every item of the gallery is attacked; only a larger one makes it narrower"
        text = f"the 95 % interval is wider than ±{limit:g}{unit}; {remedy}"
        flags.append(Flag(kind="wide-interval", cell=label, text=text))
    return flags


def check_reference(
    main: AttackFigures,
    reference: AttackFigures,
    goal: GoalSpec,
    label: str,
    names: tuple[str, str] = ("the strong method", "plain PGD"),
) -> list[Flag]:
    """Whether a method loses to the published one on the same attacks.

    Args:
        main, reference: the figures of both; a weaker headline figure is no loss where C_SP was kept better.
        goal: says whether a larger figure is a stronger attack.
        names: how the flag calls the two methods.
    """
    if len(main.values) < ENOUGH:
        return []
    main_values, reference_values = (
        torch.tensor(each.values, dtype=torch.float64) for each in (main, reference)
    )
    gain = mean_interval(_sign(goal) * (main_values - reference_values))
    if gain.high >= 0 or -gain.mean < LEAST.get(goal.metric, 0.0):
        return []
    if main.sp_rank and mean_interval(torch.tensor(main.sp_rank) - torch.tensor(reference.sp_rank)).high < 0:
        return []
    text = (
        f"{names[0]} does worse than {names[1]} on the same attacks: its figure understates the danger; "
        "take the other one"
    )
    return [Flag(kind="strong-loses", cell=label, text=text)]


def check_knowledge(black_box: AttackFigures, white_box: AttackFigures, label: str) -> list[Flag]:
    """Whether an order attack that only sees the first results beats the one that knows the weights.

    tau_S counts a result out of sight as lost, so that it is never above Kendall's tau of the same image:
    where it is significantly above the white box's tau, the white-box search failed. Attacks on the same
    images with the same wanted order are compared.
    """
    pairs = zip(black_box.values, white_box.values, black_box.targets, white_box.targets, strict=False)
    gains = [black - white for black, white, wanted, other in pairs if wanted == other]
    if len(gains) < ENOUGH:
        return []
    gain = mean_interval(torch.tensor(gains, dtype=torch.float64))
    if not (gain.low > 0 and gain.mean >= LEAST["tau"]):
        return []
    text = (
        "the black box goes further than the white-box attack on the same images, which knows more: "
        "the white-box figure of OA understates the danger"
    )
    return [Flag(kind="black-box-beats-white-box", cell=label, text=text)]


def check_baseline(before: Tensor, goal: GoalSpec, label: str, gallery_size: int) -> list[Flag]:
    """Whether the figure of the untouched images is the one it must be.

    Args:
        before: (b,) the headline figures of the untouched images.
        gallery_size: |X|; 0 where it is unknown.
    """
    expected = goal.clean_value
    if expected is None or len(before) < ENOUGH:
        return []
    mean = mean_interval(before)
    slack = 2.1 * mean.half_width + 1e-6
    if goal.metric == "rank":
        slack += 100 / (gallery_size or 1)
    if abs(mean.mean - expected) <= slack:
        return []
    text = (
        f"without any change the figure is {mean.mean:.2f} where {expected:g} is expected: "
        "ranks are not what they should be"
    )
    return [Flag(kind="baseline", cell=label, text=text)]


def _sign(goal: GoalSpec) -> int:
    """1 where a stronger attack has a larger figure, else -1."""
    return 1 if goal.larger_is_stronger else -1
