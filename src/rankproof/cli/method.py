"""How the attacker gets there: the options that say it, and the method and the space they stand for."""

from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.methods import BlackBox, Method
    from rankproof.methods.space import Space

METHODS = "pgd|strong|auto|rand|beta|pso|nes|spsa"

MethodName = Annotated[
    str | None,
    typer.Option(
        metavar=METHODS,
        help="How the attacker gets there. With gradients: pgd, as published, or strong, ours. As a "
        "black box: auto, ours, or the published others. Left out: pgd; auto with --visible or --budget.",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Forward and gradient evaluations of each attack. Left out: as published.",
        show_default=False,
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        metavar="auto|full|blocks:32|bilinear:7|cosine:16",
        help="Black box: search every pixel, or fewer variables along each side that are enlarged. "
        "Left out: auto, the method's own rule.",
        show_default=False,
    ),
]


def method_of(word: str, goal: str, steps: int | None = None) -> "Method | BlackBox":
    """The method a word stands for; with gradients it takes the goal's own steps unless `steps` are given."""
    from rankproof.methods import NES, PSO, SPSA, Beta, Rand
    from rankproof.methods.presets import automatic, published, strong

    metric = {"oa": "tau", "shift": "shift"}.get(goal, "rank")
    match word:
        case "pgd":
            return published(metric, steps)
        case "strong":
            return strong(metric, steps)
        case "auto":
            return automatic()
        case "rand":
            return Rand()
        case "beta":
            return Beta()
        case "pso":
            return PSO()
        case "nes":
            return NES()
        case "spsa":
            return SPSA()
        case _:
            raise RankproofError(f"--method {word!r} is unknown; known: {METHODS.replace('|', ', ')}")


def space_of(text: str | None) -> "Space | None":
    """Where to search; None is the method's own rule."""
    from rankproof.methods.space import parse_space

    return None if text in (None, "auto") else parse_space(text)
