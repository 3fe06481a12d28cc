"""The blocks of a recipe: what is attacked how, and the figures that are printed of it."""

from dataclasses import dataclass

from rankproof.errors import RankproofError
from rankproof.experiments.reproduce.readers import (
    Kind,
    Typed,
    count,
    level,
    list_of,
    number,
    one_of,
    several,
    text,
    typed,
    visible,
    whole,
)
from rankproof.tables import Read

METHODS = ("rand", "beta", "pso", "nes", "spsa")
SEARCHES = ("none", *METHODS)
GOALS = ("ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-")
DISTANCE = "-distance"

Line = tuple[Typed, ...]
Grid = tuple[Line, ...]
Levels = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EpsBlock:
    """Rows of eps, columns of w or m."""

    model: str
    goal: str
    knob: str
    knobs: tuple[int, ...]
    eps: Levels
    published: Grid
    kept: Grid | None = None
    xi: float | None = None
    published_trials: int | None = None

    def __post_init__(self) -> None:
        for name, grid in (("published", self.published), ("kept", self.kept)):
            _fit(name, grid, len(self.eps), len(self.knobs))


@dataclass(frozen=True, kw_only=True)
class XiBlock:
    """Rows of xi, columns of m."""

    model: str
    goal: str
    eps: float
    knob: str
    knobs: tuple[int, ...]
    xi: Levels
    published: Grid
    kept: Grid

    def __post_init__(self) -> None:
        for name, grid in (("published", self.published), ("kept", self.kept)):
            _fit(name, grid, len(self.xi), len(self.knobs))


@dataclass(frozen=True, kw_only=True)
class TransferBlock:
    """Rows are the models that examples are made on, columns the models that rank them."""

    goal: str
    eps: float
    made_on: tuple[str, ...]
    ranked_by: tuple[str, ...]
    before: Grid
    published: Grid
    xi: float | None = None

    def __post_init__(self) -> None:
        for name, grid in (("before", self.before), ("published", self.published)):
            _fit(name, grid, len(self.made_on), len(self.ranked_by))


@dataclass(frozen=True, kw_only=True)
class UniversalBlock:
    """One perturbation for many images: on those it was made from, and on others."""

    model: str
    goal: str
    eps: float
    seen_before: Typed
    seen: Typed
    unseen_before: Typed
    unseen: Typed


@dataclass(frozen=True, kw_only=True)
class OrderBlock:
    """The order attack over eps or over xi; the other of the two has one value."""

    model: str
    k: int
    eps: Levels
    xi: Levels
    tau: Line
    mean_rank: Line

    def __post_init__(self) -> None:
        if min(len(self.eps), len(self.xi)) != 1:
            raise RankproofError("eps and xi: one of them must be a single value")
        for name, line in (("tau", self.tau), ("mean_rank", self.mean_rank)):
            _fit(name, (line,), 1, max(len(self.eps), len(self.xi)))


@dataclass(frozen=True, kw_only=True)
class BlackBoxBlock:
    """A search that sees places only, over eps; `visible` is a number, "k" or "inf"."""

    model: str
    method: str
    visible: int | str
    budget: int
    k: int
    eps: Levels
    tau: Line
    mean_rank: Line | None = None

    def __post_init__(self) -> None:
        for name, line in (("tau", self.tau), ("mean_rank", self.mean_rank)):
            _fit(name, None if line is None else (line,), 1, len(self.eps))


@dataclass(frozen=True, kw_only=True)
class SecondsBlock:
    """How long one black-box attack takes with each method; `src` is the rank correlation alone."""

    model: str
    data: str
    visible: int | str
    eps: float
    budget: int
    k: int
    rand: Typed
    beta: Typed
    pso: Typed
    nes: Typed
    spsa: Typed
    src: Typed


@dataclass(frozen=True, kw_only=True)
class ServiceBlock:
    """tau_S over the attacks on a service of strangers."""

    method: str
    eps: float
    k: int
    visible: int | str
    budget: int
    trials: int
    mean: Typed
    stdev: Typed
    max: Typed
    min: Typed
    median: Typed


Block = (
    EpsBlock
    | XiBlock
    | TransferBlock
    | UniversalBlock
    | OrderBlock
    | BlackBoxBlock
    | SecondsBlock
    | ServiceBlock
)


def _fit(name: str, grid: Grid | None, rows: int, columns: int) -> None:
    """Raise unless a grid has so many rows and columns."""
    if grid is None:
        return
    shape = {len(line) for line in grid}
    if len(grid) != rows or shape != {columns}:
        got = f"{len(grid)} rows of {' or '.join(map(str, sorted(shape)))}"
        raise RankproofError(f"{name}: expected {rows} rows of {columns} figures, got {got}")


_goal = one_of((*GOALS, *(f"{goal}{DISTANCE}" for goal in GOALS)))
_line, _grid = list_of(typed), list_of(list_of(typed))

_COLUMNS: dict[str, Read] = {
    "model": text,
    "goal": _goal,
    "knob": one_of(("w", "m")),
    "knobs": list_of(count),
}
_SEEN: dict[str, Read] = {"visible": visible, "budget": whole, "k": count}
KINDS: dict[str, Kind] = {
    "eps": (
        EpsBlock,
        {**_COLUMNS, "eps": list_of(level), "published": _grid},
        {"kept": _grid, "xi": number, "published_trials": count},
    ),
    "xi": (
        XiBlock,
        {**_COLUMNS, "eps": level, "xi": list_of(number), "published": _grid, "kept": _grid},
        {},
    ),
    "transfer": (
        TransferBlock,
        {
            **{"goal": _goal, "eps": level, "from": list_of(text), "to": list_of(text)},
            **{"before": _grid, "published": _grid},
        },
        {"xi": number},
    ),
    "universal": (
        UniversalBlock,
        {
            **{"model": text, "goal": _goal, "eps": level},
            **dict.fromkeys(("seen_before", "seen", "unseen_before", "unseen"), typed),
        },
        {},
    ),
    "order": (
        OrderBlock,
        {
            **{"model": text, "k": count, "eps": several(level), "xi": several(number)},
            **{"tau": _line, "mean_rank": _line},
        },
        {},
    ),
    "black-box": (
        BlackBoxBlock,
        {"model": text, "method": one_of(SEARCHES), **_SEEN, "eps": list_of(level), "tau": _line},
        {"mean_rank": _line},
    ),
    "seconds": (
        SecondsBlock,
        {"model": text, "data": text, **_SEEN, "eps": level, **dict.fromkeys((*METHODS, "src"), typed)},
        {},
    ),
    "service": (
        ServiceBlock,
        {
            **{"method": one_of(METHODS), "eps": level, **_SEEN, "trials": count},
            **dict.fromkeys(("mean", "stdev", "max", "min", "median"), typed),
        },
        {},
    ),
}
