"""The schema of recipe files: what a block may hold, each value checked by its reader."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from rankproof.config_table import Read
from rankproof.errors import RankproofError
from rankproof.goals import registry as goals
from rankproof.goals.base import DISTANCE
from rankproof.methods import registry as methods
from rankproof.threat import Threat, parse_eps

UNREADABLE, NOT_PRINTED = "?", ""  # of a figure: not readable in print, not printed at all

Typed = float | str  # a figure, UNREADABLE or NOT_PRINTED
Kind = tuple[Callable[..., Any], Mapping[str, Read], Mapping[str, Read]]
"""What a block becomes, the keys it must have, the keys it may have."""

METHODS = tuple(name for name in methods.names("black-box") if methods.spec(name).published)
DRAWINGS = ("curves", "strips", "order", "losses", "weights")

Line = tuple[Typed, ...]
Grid = tuple[Line, ...]
Levels = tuple[float, ...]


def tables(value: Any, path: Path, key: str) -> Sequence[Mapping[str, Any]]:
    """A list of tables of the file."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RankproofError(f"{path}: {key} must be a list of tables")
    return value


def text(value: Any) -> str:
    """A word."""
    if not isinstance(value, str) or not value:
        raise RankproofError(f"expected a word, got {value!r}")
    return value


def one_of(choices: Sequence[str]) -> Read:
    """One of some words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise RankproofError(f"{value!r} is unknown; known: {', '.join(choices)}")
        return str(value)

    return read


def goal(value: Any) -> str:
    """The name of a registered goal, or of its distance-based form."""
    if str(value).removesuffix(DISTANCE) not in goals.names():
        raise RankproofError(f"{value!r} is unknown; known: {', '.join(goals.names())}")
    return str(value)


def search(value: Any) -> str:
    """The name of a registered black-box method, or "none"."""
    return str(one_of(("none", *methods.names("black-box")))(value))


def descent(value: Any) -> str:
    """The name of a registered white-box method, or "published"."""
    return str(one_of(("published", *methods.names("white-box")))(value))


def number(value: Any) -> float:
    """A number that may be whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RankproofError(f"expected a number, got {value!r}")
    return float(value)


def whole(value: Any) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RankproofError(f"expected a whole number, got {value!r}")
    return value


def count(value: Any) -> int:
    """A whole number from 1."""
    if whole(value) < 1:
        raise RankproofError(f"must be at least 1, got {value}")
    return int(value)


def level(value: Any) -> float:
    """A budget: 0.1, or "4/255"."""
    return parse_eps(value) if isinstance(value, str) else Threat(number(value)).eps


def typed(value: Any) -> Typed:
    """A printed figure, UNREADABLE or NOT_PRINTED."""
    return str(value) if value in (UNREADABLE, NOT_PRINTED) else number(value)


def several(read: Read) -> Read:
    """A list, or a single value as a list of one."""
    return lambda value: tuple(read(each) for each in (value if isinstance(value, list) else [value]))


def list_of(read: Read) -> Read:
    """A list that is not empty."""

    def all_of(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise RankproofError(f"expected a list, got {value!r}")
        return tuple(read(each) for each in value)

    return all_of


def visible(value: Any) -> int | str:
    """N: a number, "k" or "inf"."""
    return str(value) if value in ("inf", "k") else count(value)


def yes_or_no(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise RankproofError(f"expected true or false, got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class EpsBlock:
    """Rows of eps, columns of w or m."""

    model: str
    goal: str
    knob: str
    columns: tuple[int, ...]
    eps: Levels
    published: Grid
    kept: Grid | None = None
    xi: float | None = None
    published_trials: int | None = None

    def __post_init__(self) -> None:
        for name, grid in (("published", self.published), ("kept", self.kept)):
            _fit(name, grid, len(self.eps), len(self.columns))


@dataclass(frozen=True, kw_only=True)
class XiBlock:
    """Rows of xi, columns of m."""

    model: str
    goal: str
    eps: float
    knob: str
    columns: tuple[int, ...]
    xi: Levels
    published: Grid
    kept: Grid

    def __post_init__(self) -> None:
        for name, grid in (("published", self.published), ("kept", self.kept)):
            _fit(name, grid, len(self.xi), len(self.columns))


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
    """tau_S over the attacks on a commercial service."""

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


@dataclass(frozen=True, kw_only=True)
class CurveBlock:
    """One goal over eps, with w = m = 1; "shift" is the largest distance an embedding can be moved."""

    model: str
    goal: str
    eps: tuple[float, ...]
    xi: float | None = None


@dataclass(frozen=True, kw_only=True)
class StripBlock:
    """Attacks as image strips: what was changed, and the ranking before and after it."""

    model: str
    goal: str
    eps: float
    count: int = 1
    xi: float | None = None


@dataclass(frozen=True, kw_only=True)
class OrderStripBlock:
    """A black-box order attack as an image strip: the results before, as wanted and after."""

    model: str
    method: str
    k: int
    eps: float
    visible: int | str
    budget: int


@dataclass(frozen=True, kw_only=True)
class LossBlock:
    """Both terms of the order attack's loss over its steps."""

    model: str
    k: int
    eps: float
    xi: float


@dataclass(frozen=True, kw_only=True)
class WeightBlock:
    """How the weights of a model are spread, layer by layer."""

    model: str


@dataclass(frozen=True, kw_only=True)
class AttackBlock:
    """Attacks with gradients on one model: every goal with every count at every eps; nothing is printed.

    Args:
        methods: "published" and "strong", which attack the same images and targets.
    """

    model: str
    goals: tuple[str, ...]
    counts: tuple[int, ...]
    eps: Levels
    xi: float | None = None
    methods: tuple[str, ...] = ("published",)


@dataclass(frozen=True, kw_only=True)
class SmallestBlock:
    """The smallest budgets at which each goal's wish comes true on one model."""

    model: str
    goals: tuple[str, ...]
    counts: tuple[int, ...]
    xi: float | None = None


@dataclass(frozen=True, kw_only=True)
class SearchBlock:
    """Black-box order attacks on one model: every method with every k, N, eps and budget.

    Args:
        methods: names of searches, such as "auto" or "spsa-bilinear7".
        grid: only 8-bit images are sent, whatever the method's own rule.
        exclude_self: a query's own item counts nowhere, as if it were not in the gallery.
        trials: T where it is not the recipe's.
        run: "black-box"; "saved" searches again with images that were written as PNG files and read back;
            "pipeline" attacks a service that makes a JPEG file of each upload, over HTTP.
    """

    model: str
    methods: tuple[str, ...]
    k: tuple[int, ...]
    visible: tuple[int | str, ...]
    eps: Levels
    budget: tuple[int, ...]
    grid: bool = False
    exclude_self: bool = False
    trials: int | None = None
    run: str = "black-box"


@dataclass(frozen=True, kw_only=True)
class TrainingBlock:
    """Models that are trained, and what is measured of each.

    Args:
        models: their names.
        attacks: whether the papers' four attacks at eps = 0.3 are run, as published and strong.
        robustness: T of the robustness score; none is taken where it is left out.
    """

    models: tuple[str, ...]
    attacks: bool = False
    robustness: int | None = None


TableBlock = (
    EpsBlock
    | XiBlock
    | TransferBlock
    | UniversalBlock
    | OrderBlock
    | BlackBoxBlock
    | SecondsBlock
    | ServiceBlock
)
FigureBlock = CurveBlock | StripBlock | OrderStripBlock | LossBlock | WeightBlock
ExperimentBlock = AttackBlock | SmallestBlock | SearchBlock | TrainingBlock
Block = TableBlock | FigureBlock | ExperimentBlock


def _fit(name: str, grid: Grid | None, rows: int, columns: int) -> None:
    """Raise unless a grid has so many rows and columns."""
    if grid is None:
        return
    shape = {len(line) for line in grid}
    if len(grid) != rows or shape != {columns}:
        got = f"{len(grid)} rows of {' or '.join(map(str, sorted(shape)))}"
        raise RankproofError(f"{name}: expected {rows} rows of {columns} figures, got {got}")


_READERS: dict[str, Read] = {
    **dict.fromkeys(("model", "models", "data", "methods"), text),
    **dict.fromkeys(("made_on", "ranked_by"), text),
    **dict.fromkeys(("goal", "goals"), goal),
    **dict.fromkeys(("k", "count", "counts", "columns", "trials", "published_trials", "robustness"), count),
    **dict.fromkeys(("grid", "exclude_self", "attacks"), yes_or_no),
    **{"method": search, "knob": one_of(("w", "m")), "eps": level, "xi": number, "visible": visible},
    **{"budget": whole, "run": one_of(("black-box", "saved", "pipeline"))},
}
# Keys that have other names inside; "from" is a word of Python.
INSIDE = {"from": "made_on", "to": "ranked_by", "knobs": "columns"}


def _kind(block: type, **special: Read) -> Kind:
    """The keys of a block, from the fields of its class: read by name, and as a list where they are one."""
    needed, more = dict[str, Read](), dict[str, Read]()
    for each in fields(block):
        if each.name in special:
            read = special[each.name]
        elif each.type in (Typed, Line, Grid, Line | None, Grid | None):
            read = typed if each.type == Typed else list_of(typed)
            read = list_of(read) if each.type in (Grid, Grid | None) else read
        else:
            read = _READERS[each.name]
            read = list_of(read) if get_origin(each.type) is tuple else read
        outside = next((key for key, name in INSIDE.items() if name == each.name), each.name)
        (needed if each.default is MISSING else more)[outside] = read
    return block, needed, more


TABLE_KINDS: dict[str, Kind] = {
    "eps": _kind(EpsBlock),
    "xi": _kind(XiBlock),
    "transfer": _kind(TransferBlock),
    "universal": _kind(UniversalBlock),
    "order": _kind(OrderBlock, eps=several(level), xi=several(number)),
    "black-box": _kind(BlackBoxBlock),
    "seconds": _kind(SecondsBlock),
    "service": _kind(ServiceBlock),
}
FIGURE_KINDS: dict[str, Kind] = {
    "curve": _kind(CurveBlock),
    "strip": _kind(StripBlock),
    "order-strip": _kind(OrderStripBlock, budget=count),
    "losses": _kind(LossBlock),
    "weights": _kind(WeightBlock),
}
EXPERIMENT_KINDS: dict[str, Kind] = {
    "attack": _kind(AttackBlock, methods=list_of(descent)),
    "smallest": _kind(SmallestBlock),
    "search": _kind(SearchBlock, budget=list_of(count)),
    "training": _kind(TrainingBlock),
}
