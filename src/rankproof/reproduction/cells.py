"""The cells of a recipe: what is run for each printed figure, part of a drawing or own measurement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, cast

from rankproof.errors import RankproofError
from rankproof.goals import registry as goals
from rankproof.goals.base import Goal
from rankproof.goals.order import Reorder
from rankproof.methods import SPSA, Beta, MomentumPGD, Rand, ThompsonSampling
from rankproof.methods import registry as methods
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.nes import NES
from rankproof.methods.black_box.subspace import Subspace
from rankproof.methods.defaults import published
from rankproof.methods.white_box.base import Method
from rankproof.reproduction.recipe import ExperimentRecipe, FigureRecipe, ModelSpec, Recipe, TableRecipe
from rankproof.reproduction.schema import (
    METHODS,
    NOT_PRINTED,
    UNREADABLE,
    AttackBlock,
    BlackBoxBlock,
    Block,
    CurveBlock,
    EpsBlock,
    LossBlock,
    OrderBlock,
    OrderStripBlock,
    SearchBlock,
    SecondsBlock,
    ServiceBlock,
    SmallestBlock,
    StripBlock,
    TrainingBlock,
    TransferBlock,
    Typed,
    UniversalBlock,
    WeightBlock,
    XiBlock,
)

Run = (
    Literal["white-box", "transfer", "universal", "black-box", "seconds", "src", "service"]
    | Literal["strip", "order-strip", "losses", "weights", "saved", "pipeline", "training", "smallest"]
)
STRONG = MomentumPGD.name  # our own search with gradients
ORDER = Reorder.SPEC.name
BILINEAR = Subspace("bilinear", 7)
VARIANTS: dict[str, tuple[BlackBoxMethod, Subspace | None, bool]] = {
    "none": (Rand(), None, False),  # one query allows no second, so any search will do
    "spsa-on-grid": (SPSA(), None, True),
    "spsa-bilinear7": (SPSA(), BILINEAR, False),
    "nes-bilinear7": (NES(), BILINEAR, False),
    "auto-bilinear7": (ThompsonSampling(), BILINEAR, True),
    "auto-off-grid": (ThompsonSampling(), None, False),
    "auto-side7": (ThompsonSampling(side=7), None, True),
    "auto-side20": (ThompsonSampling(side=20), None, True),
    "auto-flat-prior": (ThompsonSampling(decay=0.0), None, True),
    "auto-steep-prior": (ThompsonSampling(decay=3.0), None, True),
    "auto-noise2": (ThompsonSampling(noise=2.0), None, True),
    "auto-whole-ball": (ThompsonSampling(first=1.0), None, True),
    "auto-rounds-of-25": (ThompsonSampling(population=25), None, True),
    "auto-steps6": (ThompsonSampling(steps=6), None, True),
    "beta-rate6": (Beta(rate=6.0), None, False),
}
"""Searches beside the registered ones, where they search (None: their own rule), whether on 8-bit images."""
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
"""The model that is attacked where the paper attacked a commercial service, whose model is not available."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A printed figure of a cell, and the one that stands beside it.

    Args:
        name: what is measured: "rank", "seen", "unseen", "tau", "seconds", "mean" and so on.
        printed: its value; None where the print cannot be read.
        beside: name of its companion: the rank of C_SP, the start, mR; None without one.
        beside_printed: value of the companion; None where it is unreadable.
    """

    name: str
    printed: float | None
    beside: str | None = None
    beside_printed: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """What is run for one printed figure or pair, for a part of a drawing, or for ourselves.

    Args:
        name: names its record; the same in every run.
        run: how it is measured.
        model: what is attacked, or ranks what was made on `source`.
        source: the model examples are made on, in a transfer.
        goal: as "ca+", "sp-qa-", "ca+-distance", "oa"; empty where nothing is attacked.
        eps: perturbation budget in [0, 1].
        letter, count: w, m or k and its value; none of a goal that chooses nothing.
        xi: weight of preserving, or of staying in sight; None where nothing is weighed.
        method: "published", "strong", or the name of a black-box search.
        visible, budget: N and Q of a black box.
        grid: whether only 8-bit images are sent.
        exclude_self: whether a query's own item counts nowhere.
        trials: T, attacks; of a universal cell its targets.
        published_trials: T of the paper.
        figures: what is printed; nothing of a cell that is drawn, or measured for ourselves.
        attacks: of a training, whether the papers' attacks are run.
        robustness: of a training, T of the robustness score, or 0.
    """

    name: str
    run: Run
    model: str
    source: str | None = None
    goal: str = ""
    eps: float = 0.0
    letter: str = ""
    count: int = 0
    xi: float | None = None
    method: str = "published"
    visible: int | str | None = None
    budget: int | None = None
    grid: bool = False
    exclude_self: bool = False
    trials: int
    published_trials: int = 0
    figures: tuple[Figure, ...] = ()
    attacks: bool = False
    robustness: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The models it needs."""
        return (self.model,) if self.source in (None, self.model) else (str(self.source), self.model)

    @property
    def comparable(self) -> bool:
        """Whether the printed figure is of something that can be set up here."""
        return self.run not in ("seconds", "src", "service")

    @property
    def made_once(self) -> tuple[object, ...]:
        """Equal for cells that share their examples.

        In a transfer those of a "+" goal are the same for every model that ranks them.
        """
        if self.run != "transfer" or lowers(self.goal):
            return (self.name,)
        return (self.source, self.goal, self.eps, self.count, self.xi, self.trials, self.method)


def cells_of(recipe: Recipe, *, trials: int | None = None) -> tuple[TableCell, ...]:
    """All cells of a recipe, in the order of print.

    Args:
        trials: T of every cell instead of the recipe's.
    Raises:
        RankproofError: two cells have the same name.
    """
    every = [cell for number in range(len(recipe.blocks)) for cell in cells_of_block(recipe, number)]
    names = {cell.name: cell for cell in sorted(every, key=lambda cell: cell.trials)}
    if len(names) != len(every) and not isinstance(recipe, ExperimentRecipe):
        raise RankproofError(f"{recipe.name}: two blocks print the same cell")
    # What several blocks of an experiment need is run once, with the most attacks any of them wants.
    chosen = [names[name] for name in dict.fromkeys(cell.name for cell in every)]
    if trials is not None:
        most = {"universal": min(trials, TARGETS)}
        chosen = [replace(cell, trials=most.get(cell.run, trials)) for cell in chosen]
    return tuple(chosen)


def cells_of_block(recipe: Recipe, number: int) -> Iterator[TableCell]:
    """The cells of one block of a recipe."""
    published = 0
    if isinstance(recipe, TableRecipe):
        several = len(recipe.published_trials) > 1
        published = recipe.published_trials[number if several else 0]
    for cell in _of_block(recipe, recipe.blocks[number]):
        name = "-".join((recipe.name, cell.name))
        yield replace(cell, name=name, published_trials=cell.published_trials or published)


def strong_cells(cells: Sequence[TableCell]) -> tuple[TableCell, ...]:
    """The cells with our own search as their method; those without one are left out."""
    return tuple(
        replace(cell, method=STRONG, name=f"{cell.name}-{STRONG}")
        for cell in cells
        if cell.run in CAN_BE_STRONG and cell.method != STRONG
    )


def by_published_schedule(recipe: Recipe, cells: Sequence[TableCell]) -> tuple[TableCell, ...]:
    """The cells, those of defended models under the names they have when trained as published."""
    defended = {spec.name for spec in recipe.models if spec.defense != "none"}
    return tuple(
        replace(cell, name=f"{cell.name}-published-schedule") if defended & set(cell.models) else cell
        for cell in cells
    )


def selected(cells: Sequence[TableCell], words: Sequence[str]) -> tuple[TableCell, ...]:
    """The cells whose names have every word as a part; "ct,ctd" is one of several.

    Raises:
        RankproofError: there are none.
    """

    def fits(cell: TableCell, word: str) -> bool:
        return any(f"-{part}-" in f"-{cell.name}-" for part in word.split(","))

    chosen = tuple(cell for cell in cells if all(fits(cell, word) for word in words))
    if not chosen:
        if not cells:
            raise RankproofError("no cell of this table has a stronger search; leave --method out")
        examples = ", ".join(cell.name for cell in cells[:3])
        raise RankproofError(f"--cells {' '.join(words)}: no cell has such a name; there are {examples}, ...")
    return chosen


def model_specs(recipe: Recipe) -> tuple[ModelSpec, ...]:
    """The models of a recipe, and the stand-in where it asks a service."""
    service = any(isinstance(block, ServiceBlock) for block in recipe.blocks)
    return (*recipe.models, STAND_IN) if service else recipe.models


def is_order(goal: str) -> bool:
    """Whether a goal is an order attack, whose figure is tau; an empty name is no goal at all."""
    return bool(goal) and goals.spec(goal).family == "order"


def lowers(goal: str) -> bool:
    """Whether a goal is to lower ranks."""
    return goals.spec(goal).direction == "lower"


def goal_of(cell: TableCell) -> Goal:
    """What the attacker of a cell wants; xi weighs means (docs/definitions.md)."""
    spec = goals.spec(cell.goal)
    if spec.keeps and cell.xi is None:
        raise RankproofError(f"{cell.name}: {cell.goal} needs xi in the recipe")
    chosen = {spec.letter: cell.count} if spec.letter else {}
    # ICCV figure 1: p = [1, 5, 4, 3, 2]
    order = (0, *range(cell.count - 1, 0, -1)) if cell.run == "order-strip" else None
    return goals.parse(cell.goal, **chosen, xi=cell.xi, order=order)


def descent_of(cell: TableCell) -> Method:
    """The search with gradients of a cell: as published, or ours with as many evaluations."""
    metric = goals.spec(cell.goal).metric
    if cell.method == "published":
        return published(metric)
    found = methods.parse(cell.method, metric)
    if isinstance(found, BlackBoxMethod):
        raise RankproofError(f"method {cell.method!r} sees places alone; use it in a black-box block")
    return found


def search_of(method: str) -> tuple[BlackBoxMethod, Subspace | None, bool]:
    """A black-box search by its name, where it searches (None: its own rule), and whether on 8-bit images."""
    if method in VARIANTS:
        return VARIANTS[method]
    search = methods.spec(method).build("tau", None)
    if not isinstance(search, BlackBoxMethod):
        raise RankproofError(f"method {method!r} needs gradients; a black box has none")
    return search, None, search.grid


def _of_block(recipe: Recipe, block: Block) -> Iterator[TableCell]:
    match block:
        case EpsBlock() | XiBlock():
            return _grid_cells(recipe, block)
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
            return _service_cells(block)
        case AttackBlock():
            return _attack_cells(recipe, block)
        case SmallestBlock():
            return _smallest_cells(recipe, block)
        case SearchBlock():
            return _search_cells(recipe, block)
        case TrainingBlock():
            return _training_cells(block)
        case _:
            assert isinstance(recipe, FigureRecipe)
            return _drawn_cells(recipe, block)


def _attack(model: str, goal: str, count: int, eps: float, xi: float | None) -> TableCell:
    """An attack with gradients, named by what it is; T and what is printed are its recipe's."""
    letter = goals.spec(goal).letter
    return TableCell(
        name=_name(model, goal, f"{letter}{count}" if letter else "", eps_name(eps)),
        run="white-box",
        model=model,
        goal=goal,
        eps=eps,
        letter=letter,
        count=count if letter else 0,
        xi=xi,
        trials=0,
    )


def _search(model: str, method: str, eps: float, k: int, visible: int | str, budget: int) -> TableCell:
    """A black-box order attack, named by what it is."""
    return TableCell(
        name=_name(model, ORDER, method, f"k{k}", f"N{visible}", eps_name(eps)),
        run="black-box",
        model=model,
        goal=ORDER,
        eps=eps,
        letter="k",
        count=k,
        method=method,
        visible=visible,
        budget=budget,
        trials=0,
    )


def _grid_cells(recipe: Recipe, block: EpsBlock | XiBlock) -> Iterator[TableCell]:
    if isinstance(block, EpsBlock):
        lines, trials = [(eps, block.xi, "") for eps in block.eps], block.published_trials or 0
    else:
        lines, trials = [(block.eps, xi, f"xi{xi:g}") for xi in block.xi], 0
    for row, (eps, xi, more) in enumerate(lines):
        for column, count in enumerate(block.columns):
            cell = _attack(block.model, block.goal, count, eps, xi)
            sp_rank = None if block.kept is None else block.kept[row][column]
            yield replace(
                cell,
                name=_name(cell.name, more),
                trials=_trials(recipe, count),
                published_trials=trials,
                figures=_pair("rank", block.published[row][column], "sp_rank", sp_rank),
            )


def _transfer_cells(recipe: Recipe, block: TransferBlock) -> Iterator[TableCell]:
    for row, source in enumerate(block.made_on):
        for column, model in enumerate(block.ranked_by):
            yield replace(
                _attack(model, block.goal, 1, block.eps, block.xi),
                name=_name(f"{source}-to-{model}", block.goal, eps_name(block.eps)),
                run="transfer",
                source=source,
                trials=_trials(recipe, 1),
                figures=_pair("rank", block.published[row][column], "before", block.before[row][column]),
            )


def _universal_cells(recipe: Recipe, block: UniversalBlock) -> Iterator[TableCell]:
    yield replace(
        _attack(block.model, block.goal, 1, block.eps, None),
        name=_name(block.model, block.goal, "universal", eps_name(block.eps)),
        run="universal",
        trials=min(recipe.trials, TARGETS),
        figures=(
            *_pair("seen", block.seen, "seen_before", block.seen_before),
            *_pair("unseen", block.unseen, "unseen_before", block.unseen_before),
        ),
    )


def _order_cells(recipe: Recipe, block: OrderBlock) -> Iterator[TableCell]:
    over_eps = len(block.eps) > 1 or len(block.xi) == 1
    for place in range(len(block.tau)):
        eps = block.eps[place if over_eps else 0]
        xi = block.xi[0 if over_eps else place]
        cell = _attack(block.model, ORDER, block.k, eps, xi)
        name = cell.name if over_eps else _name(cell.name, f"xi{xi:g}")
        figures = _pair("tau", block.tau[place], "mean_rank", block.mean_rank[place])
        yield replace(cell, name=name, trials=recipe.trials, figures=figures)


def _black_box_cells(recipe: Recipe, block: BlackBoxBlock) -> Iterator[TableCell]:
    for place, eps in enumerate(block.eps):
        mean_rank = None if block.mean_rank is None else block.mean_rank[place]
        cell = _search(block.model, block.method, eps, block.k, block.visible, block.budget)
        figures = _pair("tau", block.tau[place], "mean_rank", mean_rank)
        yield replace(cell, trials=recipe.trials, figures=figures)


def _seconds_cells(recipe: Recipe, block: SecondsBlock) -> Iterator[TableCell]:
    for method in (*METHODS, "src"):
        cell = _search(block.model, method, block.eps, block.k, block.visible, block.budget)
        run: Run = "src" if method == "src" else "seconds"
        figures = _pair("seconds", getattr(block, method))
        yield replace(cell, run=run, trials=recipe.trials, figures=figures)


def _service_cells(block: ServiceBlock) -> Iterator[TableCell]:
    names = ("mean", "stdev", "max", "min", "median")
    yield replace(
        _search(STAND_IN.name, block.method, block.eps, block.k, block.visible, block.budget),
        name=_name("service", ORDER, block.method, f"k{block.k}", eps_name(block.eps)),
        run="service",
        grid=True,
        trials=block.trials,
        figures=tuple(figure for name in names for figure in _pair(name, getattr(block, name))),
    )


def _drawn_cells(recipe: FigureRecipe, block: Block) -> Iterator[TableCell]:
    match block:
        case WeightBlock():
            yield TableCell(name=_name(block.model, "weights"), run="weights", model=block.model, trials=1)
        case OrderStripBlock():
            cell = _search(block.model, block.method, block.eps, block.k, block.visible, block.budget)
            yield replace(cell, run="order-strip", grid=True, trials=recipe.trials)
        case LossBlock():
            cell = _attack(block.model, ORDER, block.k, block.eps, block.xi)
            name = _name(cell.name, f"xi{block.xi:g}")
            yield replace(cell, name=name, run="losses", trials=recipe.trials)
        case StripBlock():
            cell = _attack(block.model, block.goal, block.count, block.eps, block.xi)
            yield replace(cell, run="strip", trials=recipe.trials)
        case CurveBlock():
            for eps in block.eps:
                yield replace(_attack(block.model, block.goal, 1, eps, block.xi), trials=recipe.trials)


def _attack_cells(recipe: Recipe, block: AttackBlock) -> Iterator[TableCell]:
    for goal, count, eps in product(block.goals, block.counts, block.eps):
        cell = replace(_attack(block.model, goal, count, eps, block.xi), trials=recipe.trials)
        for method in block.methods:
            more = "" if method == "published" else f"-{method}"
            yield replace(cell, method=method, name=f"{cell.name}{more}")


def _smallest_cells(recipe: Recipe, block: SmallestBlock) -> Iterator[TableCell]:
    for goal, count in product(block.goals, block.counts):
        cell = _attack(block.model, goal, count, 0.0, block.xi)
        name = cell.name.removesuffix(eps_name(0.0)) + "smallest"
        yield replace(cell, name=name, run="smallest", exclude_self=True, trials=recipe.trials)


def _search_cells(recipe: Recipe, block: SearchBlock) -> Iterator[TableCell]:
    for eps, k, visible, budget, method in product(
        block.eps, block.k, block.visible, block.budget, block.methods
    ):
        cell = _search(block.model, method, eps, k, visible, budget)
        run = block.run if block.run != "black-box" else ""
        yield replace(
            cell,
            name=_name(run, cell.name, f"Q{budget}"),
            run=cast(Run, block.run),
            grid=block.grid or search_of(method)[2],
            exclude_self=block.exclude_self,
            trials=block.trials or recipe.trials,
        )


def _training_cells(block: TrainingBlock) -> Iterator[TableCell]:
    for model in block.models:
        yield TableCell(
            name=model,
            run="training",
            model=model,
            trials=1,
            attacks=block.attacks,
            robustness=block.robustness or 0,
        )


def _name(*parts: str) -> str:
    """The name of a cell below its recipe's."""
    return "-".join(filter(None, parts))


def eps_name(eps: float) -> str:
    """eps in a cell's name: eps0.03, or eps4of255 where it is a multiple of 1/255."""
    levels = eps * 255
    whole = eps > 0 and abs(levels - round(levels)) < 1e-9
    return f"eps{round(levels)}of255" if whole else f"eps{eps:g}"


def _pair(
    name: str, value: Typed, beside: str | None = None, other: Typed | None = None
) -> tuple[Figure, ...]:
    """A printed figure with its companion; no figure where none is printed."""
    if value == NOT_PRINTED:
        return ()
    if other is None or other == NOT_PRINTED:
        return (Figure(name=name, printed=_readable(value)),)
    return (Figure(name=name, printed=_readable(value), beside=beside, beside_printed=_readable(other)),)


def _readable(value: Typed) -> float | None:
    return None if value in (UNREADABLE, NOT_PRINTED) else float(value)


def _trials(recipe: Recipe, count: int) -> int:
    single = recipe.trials_single if isinstance(recipe, TableRecipe) else None
    return single or recipe.trials if count == 1 else recipe.trials
