"""The cells of a figure: what is run for each of its parts."""

from collections.abc import Iterator

from rankproof.experiments.reproduce.cell import Cell, letter_of, level_word, named
from rankproof.experiments.reproduce.figure_blocks import (
    SHIFT,
    CurveBlock,
    FigureBlock,
    LossBlock,
    OrderStripBlock,
    StripBlock,
    WeightBlock,
)
from rankproof.experiments.reproduce.recipe import FigureRecipe


def figure_cells(recipe: FigureRecipe) -> Iterator[Cell]:
    """All cells of a figure."""
    for block in recipe.blocks:
        yield from _of_block(recipe, block)


def _of_block(recipe: FigureRecipe, block: FigureBlock) -> Iterator[Cell]:
    match block:
        case CurveBlock():
            return _curve(recipe, block)
        case StripBlock():
            return _strip(recipe, block)
        case OrderStripBlock():
            return _order_strip(recipe, block)
        case LossBlock():
            return _losses(recipe, block)
        case WeightBlock():
            return _weights(recipe, block)


def _curve(recipe: FigureRecipe, block: CurveBlock) -> Iterator[Cell]:
    letter, count = _knob(block.goal, 1)
    for eps in block.eps:
        parts = (block.goal, *_word(letter, count), f"eps{level_word(eps)}")
        yield Cell(
            name=named(recipe, block.model, *parts),
            run="white-box",
            model=block.model,
            goal=block.goal,
            eps=eps,
            letter=letter,
            count=count,
            xi=block.xi,
            trials=recipe.trials,
        )


def _strip(recipe: FigureRecipe, block: StripBlock) -> Iterator[Cell]:
    letter, count = _knob(block.goal, block.count)
    parts = (block.goal, *_word(letter, count), f"eps{level_word(block.eps)}")
    yield Cell(
        name=named(recipe, block.model, *parts),
        run="strip",
        model=block.model,
        goal=block.goal,
        eps=block.eps,
        letter=letter,
        count=count,
        xi=block.xi,
        trials=recipe.trials,
    )


def _order_strip(recipe: FigureRecipe, block: OrderStripBlock) -> Iterator[Cell]:
    parts = (block.method, f"k{block.k}", f"N{block.visible}", f"eps{level_word(block.eps)}")
    yield Cell(
        name=named(recipe, block.model, "oa", *parts),
        run="order-strip",
        model=block.model,
        goal="oa",
        eps=block.eps,
        letter="k",
        count=block.k,
        method=block.method,
        visible=block.visible,
        budget=block.budget,
        grid=True,
        trials=recipe.trials,
    )


def _losses(recipe: FigureRecipe, block: LossBlock) -> Iterator[Cell]:
    parts = (f"k{block.k}", f"eps{level_word(block.eps)}", f"xi{block.xi:g}")
    yield Cell(
        name=named(recipe, block.model, "oa", *parts),
        run="losses",
        model=block.model,
        goal="oa",
        eps=block.eps,
        letter="k",
        count=block.k,
        xi=block.xi,
        trials=recipe.trials,
    )


def _weights(recipe: FigureRecipe, block: WeightBlock) -> Iterator[Cell]:
    yield Cell(
        name=named(recipe, block.model, "weights"),
        run="weights",
        model=block.model,
        goal="",
        eps=0.0,
        letter="",
        count=0,
        trials=1,
    )


def _knob(goal: str, count: int) -> tuple[str, int]:
    """Letter and value of what a goal chooses."""
    if goal == SHIFT:
        return "", 0
    return letter_of(goal), count


def _word(letter: str, count: int) -> tuple[str, ...]:
    return (f"{letter}{count}",) if letter else ()
