"""The blocks of a figure's recipe: what is drawn of which model."""

from dataclasses import dataclass

from rankproof.experiments.reproduce.blocks import GOALS, METHODS
from rankproof.experiments.reproduce.readers import (
    Kind,
    count,
    level,
    list_of,
    number,
    one_of,
    text,
    visible,
)
from rankproof.tables import Read

SHIFT = "shift"
DRAWINGS = ("curves", "strips", "order", "losses", "weights")


@dataclass(frozen=True, kw_only=True)
class CurveBlock:
    """One goal over eps, with w = m = 1; "shift" is the largest distance an embedding can be moved."""

    model: str
    goal: str
    eps: tuple[float, ...]
    xi: float | None = None


@dataclass(frozen=True, kw_only=True)
class StripBlock:
    """Attacks in pictures: what was changed, and the ranking before and after it."""

    model: str
    goal: str
    eps: float
    count: int = 1
    xi: float | None = None


@dataclass(frozen=True, kw_only=True)
class OrderStripBlock:
    """A black-box order attack in pictures: the results before, as wanted and after."""

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


FigureBlock = CurveBlock | StripBlock | OrderStripBlock | LossBlock | WeightBlock

_WHAT: dict[str, Read] = {"model": text, "goal": one_of((*GOALS, SHIFT))}
FIGURE_KINDS: dict[str, Kind] = {
    "curve": (CurveBlock, {**_WHAT, "eps": list_of(level)}, {"xi": number}),
    "strip": (StripBlock, {**_WHAT, "goal": one_of(GOALS), "eps": level}, {"count": count, "xi": number}),
    "order-strip": (
        OrderStripBlock,
        {
            **{"model": text, "method": one_of(METHODS), "k": count, "eps": level},
            **{"visible": visible, "budget": count},
        },
        {},
    ),
    "losses": (LossBlock, {"model": text, "k": count, "eps": level, "xi": number}, {}),
    "weights": (WeightBlock, {"model": text}, {}),
}
