"""The cells of a table: what is run for each printed figure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rankproof.errors import RankproofError
from rankproof.experiments.reproduce.blocks import (
    METHODS,
    BlackBoxBlock,
    Block,
    EpsBlock,
    Line,
    OrderBlock,
    SecondsBlock,
    ServiceBlock,
    TransferBlock,
    UniversalBlock,
    XiBlock,
)
from rankproof.experiments.reproduce.cell import STRONG, Cell, Figure, letter_of, level_word, named
from rankproof.experiments.reproduce.figure_cells import figure_cells
from rankproof.experiments.reproduce.readers import ABSENT, LOST, Typed
from rankproof.experiments.reproduce.recipe import ModelSpec, Recipe, TableRecipe

CAN_BE_STRONG = ("white-box", "transfer")  # runs with gradients and one perturbation for each image
TARGETS = 10  # of a universal cell; the paper has one for every ten images
STAND_IN = ModelSpec(
    name="stand-in",
    data="fashion-mnist",
    arch="c2f1",
    distance="cosine",
    loss="triplet",
    defense="none",
    sampler="from-set",
    epochs=32,
)
"""What is asked where the paper asked a service of strangers: their model is not to be had."""


def cells_of(recipe: Recipe, *, trials: int | None = None) -> tuple[Cell, ...]:
    """All cells of a table or figure, in the order of print.

    Args:
        trials: T of every cell instead of the recipe's.
    Raises:
        RankproofError: two cells have the same name.
    """
    found = list(_of_table(recipe) if isinstance(recipe, TableRecipe) else figure_cells(recipe))
    if len({cell.name for cell in found}) != len(found):
        raise RankproofError(f"{recipe.name}: two blocks print the same cell")
    if trials is not None:
        found = [replace(cell, trials=_most(cell, trials)) for cell in found]
    return tuple(found)


def strong_cells(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The same cells by our own search; those that have none are left out."""
    return tuple(
        replace(cell, method=STRONG, name=f"{cell.name}-{STRONG}")
        for cell in cells
        if cell.run in CAN_BE_STRONG
    )


def by_published_schedule(recipe: Recipe, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The same cells, those of defended models under the names they have when trained as published."""
    defended = {spec.name for spec in recipe.models if spec.defense != "none"}
    return tuple(
        replace(cell, name=f"{cell.name}-published-schedule") if defended & set(cell.models) else cell
        for cell in cells
    )


def selected(cells: Sequence[Cell], words: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose names have every word as a part; "ct,ctd" is one of several.

    Raises:
        RankproofError: there are none.
    """

    def fits(cell: Cell, word: str) -> bool:
        return any(f"-{part}-" in f"-{cell.name}-" for part in word.split(","))

    found = tuple(cell for cell in cells if all(fits(cell, word) for word in words))
    if not found:
        if not cells:
            raise RankproofError("no cell of this table has a stronger search; leave --method out")
        examples = ", ".join(cell.name for cell in cells[:3])
        raise RankproofError(f"--cells {' '.join(words)}: no cell has such a name; there are {examples}, ...")
    return found


def model_specs(recipe: Recipe) -> tuple[ModelSpec, ...]:
    """The models of a recipe, and the stand-in where it asks a service."""
    service = any(isinstance(block, ServiceBlock) for block in recipe.blocks)
    return (*recipe.models, STAND_IN) if service else recipe.models


def _most(cell: Cell, trials: int) -> int:
    return min(trials, TARGETS) if cell.run == "universal" else trials


def _of_table(recipe: TableRecipe) -> Iterator[Cell]:
    several = len(recipe.published_trials) > 1
    for number, block in enumerate(recipe.blocks):
        published = recipe.published_trials[number if several else 0]
        for cell in _of_block(recipe, block):
            yield replace(cell, published_trials=cell.published_trials or published)


def _of_block(recipe: TableRecipe, block: Block) -> Iterator[Cell]:
    match block:
        case EpsBlock():
            return _eps_cells(recipe, block)
        case XiBlock():
            return _xi_cells(recipe, block)
        case TransferBlock():
            return _transfer_cells(recipe, block)
        case UniversalBlock():
            return _universal_cells(recipe, block)
        case OrderBlock():
            return _order_cells(recipe, block)
        case BlackBoxBlock():
            return _black_box_cells(recipe, block)
        case SecondsBlock():
            return _seconds_cells(recipe, block)
        case ServiceBlock():
            return _service_cells(recipe, block)


def _eps_cells(recipe: TableRecipe, block: EpsBlock) -> Iterator[Cell]:
    for row, eps in enumerate(block.eps):
        for column, count in enumerate(block.knobs):
            kept = None if block.kept is None else block.kept[row][column]
            yield Cell(
                name=named(recipe, block.model, block.goal, f"{block.knob}{count}", f"eps{level_word(eps)}"),
                run="white-box",
                model=block.model,
                goal=block.goal,
                eps=eps,
                letter=block.knob,
                count=count,
                xi=block.xi,
                trials=_trials(recipe, count),
                published_trials=block.published_trials or 0,
                figures=_pair("rank", block.published[row][column], "sp_rank", kept),
            )


def _xi_cells(recipe: TableRecipe, block: XiBlock) -> Iterator[Cell]:
    for row, xi in enumerate(block.xi):
        for column, count in enumerate(block.knobs):
            knob = f"{block.knob}{count}"
            yield Cell(
                name=named(recipe, block.model, block.goal, knob, f"eps{level_word(block.eps)}", f"xi{xi:g}"),
                run="white-box",
                model=block.model,
                goal=block.goal,
                eps=block.eps,
                letter=block.knob,
                count=count,
                xi=xi,
                trials=_trials(recipe, count),
                figures=_pair("rank", block.published[row][column], "sp_rank", block.kept[row][column]),
            )


def _transfer_cells(recipe: TableRecipe, block: TransferBlock) -> Iterator[Cell]:
    for row, source in enumerate(block.made_on):
        for column, model in enumerate(block.ranked_by):
            figures = _pair("rank", block.published[row][column], "before", block.before[row][column])
            yield Cell(
                name=named(recipe, f"{source}-to-{model}", block.goal, f"eps{level_word(block.eps)}"),
                run="transfer",
                model=model,
                source=source,
                goal=block.goal,
                eps=block.eps,
                letter=letter_of(block.goal),
                count=1,
                xi=block.xi,
                trials=_trials(recipe, 1),
                figures=figures,
            )


def _universal_cells(recipe: TableRecipe, block: UniversalBlock) -> Iterator[Cell]:
    yield Cell(
        name=named(recipe, block.model, block.goal, "universal", f"eps{level_word(block.eps)}"),
        run="universal",
        model=block.model,
        goal=block.goal,
        eps=block.eps,
        letter=letter_of(block.goal),
        count=1,
        trials=min(recipe.trials, TARGETS),
        figures=(
            *_pair("seen", block.seen, "seen_before", block.seen_before),
            *_pair("unseen", block.unseen, "unseen_before", block.unseen_before),
        ),
    )


def _order_cells(recipe: TableRecipe, block: OrderBlock) -> Iterator[Cell]:
    over_eps = len(block.eps) > 1 or len(block.xi) == 1
    for place in range(len(block.tau)):
        eps = block.eps[place] if over_eps else block.eps[0]
        xi = block.xi[0] if over_eps else block.xi[place]
        more = () if over_eps else (f"xi{xi:g}",)
        yield Cell(
            name=named(recipe, block.model, "oa", f"k{block.k}", f"eps{level_word(eps)}", *more),
            run="white-box",
            model=block.model,
            goal="oa",
            eps=eps,
            letter="k",
            count=block.k,
            xi=xi,
            trials=recipe.trials,
            figures=_pair("tau", block.tau[place], "mean_rank", block.mean_rank[place]),
        )


def _black_box_cells(recipe: TableRecipe, block: BlackBoxBlock) -> Iterator[Cell]:
    for place, eps in enumerate(block.eps):
        mean_rank: Line | None = block.mean_rank
        parts = (f"k{block.k}", f"N{block.visible}", f"eps{level_word(eps)}")
        yield Cell(
            name=named(recipe, block.model, "oa", block.method, *parts),
            run="black-box",
            model=block.model,
            goal="oa",
            eps=eps,
            letter="k",
            count=block.k,
            method=block.method,
            visible=block.visible,
            budget=block.budget,
            trials=recipe.trials,
            figures=_pair(
                "tau", block.tau[place], "mean_rank", None if mean_rank is None else mean_rank[place]
            ),
        )


def _seconds_cells(recipe: TableRecipe, block: SecondsBlock) -> Iterator[Cell]:
    for word in (*METHODS, "src"):
        parts = (f"k{block.k}", f"N{block.visible}", f"eps{level_word(block.eps)}")
        yield Cell(
            name=named(recipe, block.model, "oa", word, *parts),
            run="src" if word == "src" else "seconds",
            model=block.model,
            goal="oa",
            eps=block.eps,
            letter="k",
            count=block.k,
            method=word,
            visible=block.visible,
            budget=block.budget,
            trials=recipe.trials,
            figures=_pair("seconds", getattr(block, word)),
        )


def _service_cells(recipe: TableRecipe, block: ServiceBlock) -> Iterator[Cell]:
    names = ("mean", "stdev", "max", "min", "median")
    yield Cell(
        name=named(recipe, "service", "oa", block.method, f"k{block.k}", f"eps{level_word(block.eps)}"),
        run="service",
        model=STAND_IN.name,
        goal="oa",
        eps=block.eps,
        letter="k",
        count=block.k,
        method=block.method,
        visible=block.visible,
        budget=block.budget,
        grid=True,
        trials=block.trials,
        figures=tuple(figure for name in names for figure in _pair(name, getattr(block, name))),
    )


def _pair(
    name: str, value: Typed, beside: str | None = None, other: Typed | None = None
) -> tuple[Figure, ...]:
    """A printed figure with its companion; no figure where none is printed."""
    if value == ABSENT:
        return ()
    if other is None or other == ABSENT:
        return (Figure(name=name, printed=_readable(value)),)
    return (Figure(name=name, printed=_readable(value), beside=beside, beside_printed=_readable(other)),)


def _readable(value: Typed) -> float | None:
    return None if value in (LOST, ABSENT) else float(value)


def _trials(recipe: TableRecipe, count: int) -> int:
    return recipe.trials_single or recipe.trials if count == 1 else recipe.trials
