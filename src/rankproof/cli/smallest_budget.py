"""`rankproof attack --eps smallest`: by how much pixels must change for a goal's wish to come true."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankproof.cli.output import echo
from rankproof.cli.terminal import print_json, progress, say
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.attacks.budget_summary import BudgetSummary
    from rankproof.cli.options import SearchedArguments
    from rankproof.goals.base import Goal

SMALLEST = "smallest"
SHOWN = (0.5, 1, 2, 4, 8, 16)  # grey levels at which the curve is printed


def attack_smallest(
    goal: "Goal",
    system: "SearchedArguments",
    *,
    trials: int,
    seed: int,
    given: Mapping[str, object],
    as_json: bool,
    save: Path | None,
) -> None:
    """Find the smallest budgets and print them.

    Args:
        given: options that do not go with it, by name; None where left out.
    """
    from rankproof.attacks.smallest_budget import smallest_budget
    from rankproof.ranking.mixed_images import MixedImages

    if options := [name for name, value in given.items() if value is not None]:
        raise RankproofError(
            f"--{options[0]} does not go with --eps {SMALLEST}, which has a search of its own; leave it out"
        )
    target = system.embed()
    index = target.draw(trials, seed)
    images = target.attacked.take(index)
    if isinstance(images, MixedImages):
        raise RankproofError(f"--eps {SMALLEST} takes images of one size; leave out --size keep")
    with progress("attacking") as tell:
        result = smallest_budget(
            target.gallery, images, goal, seed=seed, gallery_ids=target.gallery_ids(index), progress=tell
        )
    result = replace(result, notes=(*result.notes, *target.notes))
    summary = replace(result.summary, model=system.model, data=system.data or target.dataset.name)
    if save is not None:
        result.save(save, summary)
    if len(index) < trials:
        say(f"all {len(index)} items are attacked")
    if as_json:
        print_json(summary.to_json())
    else:
        for line in lines(summary):
            echo(line)


def lines(summary: "BudgetSummary") -> list[str]:
    """What is printed of the smallest budgets."""
    paid = summary.trials - summary.free
    told = [
        f"{summary.spec.title}: {summary.sentence}",
        f"{summary.trials} attacks, {summary.evaluations_max} evaluations at most",
    ]
    if summary.free:
        told.append(f"{summary.free} had it before anything was changed and are counted apart")
    if not paid:
        return told
    median = f"more than half of {paid} attacks did not reach it"
    if summary.eps_star is not None:
        low, high = (None if end is None else _levels(end) for end in summary.eps_star_ci95)
        between = (
            ""
            if low is None and high is None
            else f", 95 % interval {low or '0'} to {high or 'out of reach'}"
        )
        median = f"half of {paid} attacks reach it within {_levels(summary.eps_star)}/255{between}"
    told.append(median)
    shares = ", ".join(
        f"{100 * (summary.success(level / 255) or 0):.0f} % within {level:g}/255" for level in SHOWN
    )
    told.append(f"{shares}; {paid - summary.reached} not at any budget that was tried")
    if summary.below_8bit:
        told.append(f"{summary.below_8bit} need less than 0.5/255, which an 8-bit file cannot hold")
    told.append(
        f"{summary.saved} of {summary.reached} hold as an 8-bit file, read again, in whole grey levels"
    )
    return told + [f"note: {note}" for note in summary.notes]


def _levels(eps: float) -> str:
    """A budget in grey levels."""
    return f"{255 * eps:.3g}"
