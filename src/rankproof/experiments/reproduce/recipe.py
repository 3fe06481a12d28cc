"""A recipe file: one printed table, what was attacked how, and every figure as it is printed."""

import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rankproof.errors import RankproofError
from rankproof.threat import Threat, parse_eps

LOST, ABSENT = "?", ""  # of a figure: not readable in print, not printed at all
METHODS = ("rand", "beta", "pso", "nes", "spsa")
SEARCHES = ("none", *METHODS)
GOALS = ("ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-")
DISTANCE = "-distance"

Typed = float | str  # a figure, LOST or ABSENT
Line = tuple[Typed, ...]
Grid = tuple[Line, ...]
Levels = tuple[float, ...]
Read = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that a table names.

    Args:
        name: as the table calls it.
        data, arch, distance, loss, defense, seed: what is trained on what.
        recall_at_1: the printed R@1 in %, LOST where unreadable, ABSENT where not printed.
        sampler, epochs, batch, margin, learning_rate: where they are not those of `rankproof train`.
        size: side every picture is resized to; None leaves the data's own, or 224 for photographs.
    """

    name: str
    data: str
    arch: str
    distance: str
    loss: str
    defense: str
    seed: int = 0
    recall_at_1: Typed = ABSENT
    sampler: str | None = None
    epochs: int | None = None
    batch: int | None = None
    margin: float | None = None
    learning_rate: float = 1e-3
    size: int | None = None


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


@dataclass(frozen=True, kw_only=True)
class TableRecipe:
    """One printed table.

    Args:
        paper, table, title: which.
        figure: "rank" in %, "tau" or "seconds".
        tolerance: how far from a printed figure a measured one still agrees.
        trials: T of a cell; `trials_single` that of the cells with w = m = 1.
        published_trials: T of the paper, one for all blocks or one for each.
        models, blocks: what is attacked, and the printed figures.
    """

    paper: str
    table: str
    title: str
    figure: str
    tolerance: float
    trials: int
    published_trials: tuple[int, ...]
    models: tuple[ModelSpec, ...]
    blocks: tuple[Block, ...]
    trials_single: int | None = None

    @property
    def name(self) -> str:
        """Such as "eccv20-table3"."""
        return f"{self.paper}-table{self.table}"


def read_recipe(path: Path) -> TableRecipe:
    """A recipe file, checked.

    Raises:
        RankproofError: the file, the block and the key at fault.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RankproofError(f"{path}: cannot be read ({error})") from None
    models = [
        ModelSpec(**_keys(model, f"{path}, model {number}", MODEL, MODEL_MORE))
        for number, model in enumerate(_tables(content.pop("models", None), path, "models"), 1)
    ]
    blocks = [
        _block(block, f"{path}, block {number}")
        for number, block in enumerate(_tables(content.pop("blocks", None), path, "blocks"), 1)
    ]
    head = _keys(content, str(path), HEAD, {"trials_single": _count})
    recipe = TableRecipe(**head, models=tuple(models), blocks=tuple(blocks))
    _check_names(recipe, path)
    return recipe


def find_recipe(word: str, folder: Path | None) -> Path:
    """The file of a table such as "eccv20/table3".

    Args:
        folder: where recipes are; None looks beside the source tree, then where an installation puts them,
            then in ./recipes.
    Raises:
        RankproofError: there is none; the message names those that there are.
    """
    source = Path(__file__).resolve().parents[4] / "recipes"
    installed = Path(sys.prefix) / "share" / "rankproof" / "recipes"
    places = (source, installed, Path("recipes")) if folder is None else (folder,)
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise RankproofError(f"no folder of recipes at {', '.join(map(str, places))}; name one by --recipes")
    known = sorted(str(file.relative_to(place).with_suffix("")) for file in place.glob("*/*.toml"))
    if word not in known:
        raise RankproofError(f"{word}: no such table; known: {', '.join(known) or f'none in {place}'}")
    return place / f"{word}.toml"


def _block(block: Mapping[str, Any], where: str) -> Block:
    values = dict(block)
    kind = values.pop("kind", "eps")  # tables 1 to 4 and 8 to 10 of ECCV have no other kind and do not say it
    if kind not in KINDS:
        raise RankproofError(f"{where}: kind {kind!r} is unknown; known: {', '.join(KINDS)}")
    build, needed, more = KINDS[kind]
    found = _keys(values, f"{where} ({kind})", needed, more)
    # "from" is a word of Python, so these two have other names inside.
    found = {{"from": "made_on", "to": "ranked_by"}.get(key, key): value for key, value in found.items()}
    try:
        return cast(Block, build(**found))
    except RankproofError as error:
        raise RankproofError(f"{where} ({kind}): {error}") from None


def _keys(
    table: Mapping[str, Any], where: str, needed: Mapping[str, Read], more: Mapping[str, Read]
) -> dict[str, Any]:
    """The values of a table, each read by its own reader."""
    known = {**needed, **more}
    if odd := [key for key in table if key not in known]:
        raise RankproofError(f"{where}: {odd[0]!r} is unknown; known: {', '.join(known)}")
    if missing := [key for key in needed if key not in table]:
        raise RankproofError(f"{where}: {missing[0]!r} is missing")
    found = {}
    for key, value in table.items():
        try:
            found[key] = known[key](value)
        except RankproofError as error:
            raise RankproofError(f"{where}: {key}: {error}") from None
    return found


def _tables(value: Any, path: Path, key: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RankproofError(f"{path}: {key} must be a list of tables")
    return value


def _check_names(recipe: TableRecipe, path: Path) -> None:
    """Every model has one name, and every block names models there are."""
    names = [model.name for model in recipe.models]
    if len(set(names)) != len(names):
        raise RankproofError(f"{path}: two models have the same name")
    for number, block in enumerate(recipe.blocks, 1):
        asked = [getattr(block, "model", None), *getattr(block, "made_on", ())]
        for name in filter(None, (*asked, *getattr(block, "ranked_by", ()))):
            if name not in names:
                raise RankproofError(f"{path}, block {number}: model {name!r} is not among {names}")
    if len(recipe.published_trials) not in (1, len(recipe.blocks)):
        raise RankproofError(f"{path}: published_trials must be one number, or one for each block")


def _fit(name: str, grid: Grid | None, rows: int, columns: int) -> None:
    """Raise unless a grid has so many rows and columns."""
    if grid is None:
        return
    shape = {len(line) for line in grid}
    if len(grid) != rows or shape != {columns}:
        got = f"{len(grid)} rows of {' or '.join(map(str, sorted(shape)))}"
        raise RankproofError(f"{name}: expected {rows} rows of {columns} figures, got {got}")


# -- readers: a value as it stands in the file, checked


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RankproofError(f"expected a word, got {value!r}")
    return value


def _one_of(known: Sequence[str]) -> Read:
    def read(value: Any) -> str:
        if value not in known:
            raise RankproofError(f"{value!r} is unknown; known: {', '.join(known)}")
        return str(value)

    return read


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RankproofError(f"expected a number, got {value!r}")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RankproofError(f"expected a whole number, got {value!r}")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 1:
        raise RankproofError(f"must be at least 1, got {value}")
    return int(value)


def _level(value: Any) -> float:
    return parse_eps(value) if isinstance(value, str) else Threat(_number(value)).eps


def _typed(value: Any) -> Typed:
    return str(value) if value in (LOST, ABSENT) else _number(value)


def _several(read: Read) -> Read:
    """A list, or a single value as a list of one."""
    return lambda value: tuple(read(each) for each in (value if isinstance(value, list) else [value]))


def _list(read: Read) -> Read:
    def all_of(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise RankproofError(f"expected a list, got {value!r}")
        return tuple(read(each) for each in value)

    return all_of


def _visible(value: Any) -> int | str:
    return str(value) if value in ("inf", "k") else _count(value)


_goal = _one_of((*GOALS, *(f"{goal}{DISTANCE}" for goal in GOALS)))
_line, _grid = _list(_typed), _list(_list(_typed))

HEAD: dict[str, Read] = {
    **dict.fromkeys(("paper", "table", "title"), _text),
    "figure": _one_of(("rank", "tau", "seconds")),
    "tolerance": _number,
    "trials": _count,
    "published_trials": _several(_count),
}
MODEL: dict[str, Read] = dict.fromkeys(("name", "data", "arch", "distance", "loss", "defense"), _text)
MODEL_MORE: dict[str, Read] = {
    "seed": _whole,
    "recall_at_1": _typed,
    "sampler": _text,
    **dict.fromkeys(("margin", "learning_rate"), _number),
    **dict.fromkeys(("epochs", "batch", "size"), _count),
}
_COLUMNS: dict[str, Read] = {
    "model": _text,
    "goal": _goal,
    "knob": _one_of(("w", "m")),
    "knobs": _list(_count),
}
_SEEN: dict[str, Read] = {"visible": _visible, "budget": _whole, "k": _count}
KINDS: dict[str, tuple[Callable[..., Any], dict[str, Read], dict[str, Read]]] = {
    "eps": (
        EpsBlock,
        {**_COLUMNS, "eps": _list(_level), "published": _grid},
        {"kept": _grid, "xi": _number, "published_trials": _count},
    ),
    "xi": (
        XiBlock,
        {**_COLUMNS, "eps": _level, "xi": _list(_number), "published": _grid, "kept": _grid},
        {},
    ),
    "transfer": (
        TransferBlock,
        {
            **{"goal": _goal, "eps": _level, "from": _list(_text), "to": _list(_text)},
            **{"before": _grid, "published": _grid},
        },
        {"xi": _number},
    ),
    "universal": (
        UniversalBlock,
        {
            **{"model": _text, "goal": _goal, "eps": _level},
            **dict.fromkeys(("seen_before", "seen", "unseen_before", "unseen"), _typed),
        },
        {},
    ),
    "order": (
        OrderBlock,
        {
            **{"model": _text, "k": _count, "eps": _several(_level), "xi": _several(_number)},
            **{"tau": _line, "mean_rank": _line},
        },
        {},
    ),
    "black-box": (
        BlackBoxBlock,
        {"model": _text, "method": _one_of(SEARCHES), **_SEEN, "eps": _list(_level), "tau": _line},
        {"mean_rank": _line},
    ),
    "seconds": (
        SecondsBlock,
        {"model": _text, "data": _text, **_SEEN, "eps": _level, **dict.fromkeys((*METHODS, "src"), _typed)},
        {},
    ),
    "service": (
        ServiceBlock,
        {
            **{"method": _one_of(METHODS), "eps": _level, **_SEEN, "trials": _count},
            **dict.fromkeys(("mean", "stdev", "max", "min", "median"), _typed),
        },
        {},
    ),
}
"""Each kind of block: what it becomes, the keys it must have, the keys it may have."""
