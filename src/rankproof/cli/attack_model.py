"""An attack on a model: its gallery in full, or a black box in front of it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rankproof.cli.asked import Asked
from rankproof.cli.visible import visible_of
from rankproof.console import progress, say

if TYPE_CHECKING:
    from rankproof.oracle import Oracle
    from rankproof.ranking import Gallery
    from rankproof.result import AttackResult
    from rankproof.target import Target

TRIALS = 1000


def attack_model(
    target: "Target", asked: Asked, trials: int | None, *, order: str | None, own_copy: str
) -> "tuple[AttackResult, dict[str, float]]":
    """Attack pictures of the test split.

    Args:
        target: the model and the test split it ranks.
        asked: the attack.
        trials: T, how many of the pictures are attacked; None is 1000.
        order: the wanted order, as it was written.
        own_copy: "keep" or "drop", of `rankproof.attack`.
    Returns:
        what came of it, and what it cost beside the bare work.
    """
    from rankproof.attack import attack
    from rankproof.cost import measure_result

    gallery, index = target.gallery, target.draw(trials or TRIALS, asked.seed)
    if trials is not None and trials > len(index):
        say(f"{trials} trials were asked for: all {len(index)} items of the gallery are attacked")
    images = target.dataset.take(index)
    with progress("attacking") as tell:
        result = attack(
            _victim(gallery, asked),
            images,
            asked.goal,
            asked.threat,
            method=asked.method,
            budget=asked.budget,
            space=asked.space,
            seed=asked.seed,
            index=index,
            own_copy=own_copy,
            journal=asked.journal,
            progress=tell,
        )
    with progress("timing the bare work") as tell:
        costs = measure_result(gallery, images, asked.goal, result, progress=tell)
    notes = _more_notes(result, asked, order, own_copy)
    return replace(result, notes=(*result.notes, *target.notes, *notes)), costs


def _victim(gallery: "Gallery", asked: Asked) -> "Gallery | Oracle":
    """What is attacked: the gallery, or in a black box no more than its first results."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox
    from rankproof.oracle import LocalOracle

    if not isinstance(asked.method, BlackBox) or not isinstance(asked.goal, Reorder):
        return gallery
    shown = visible_of(asked.visible, asked.goal.k)
    small = asked.visible is None and shown is not None and shown > len(gallery)
    return LocalOracle(gallery, len(gallery) if small else shown)


def _more_notes(result: "AttackResult", asked: Asked, order: str | None, own_copy: str) -> Iterator[str]:
    """What a reader should know beside the notes of the attack itself."""
    if asked.threat.grid and result.queries is None:
        yield "searched among 8-bit images"
    if order is not None:
        yield f"the wanted order is {order} for every query, by present places from 0"
    if own_copy == "drop":
        yield "the own clean copies of the attacked pictures do not count in any ranking"
    if (silent := int(result.silent.sum())) > len(result) // 100:
        yield f"{silent} of {len(result)} attacks never saw a usable gradient: this figure may be false"
