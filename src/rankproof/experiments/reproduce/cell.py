"""A cell: what is run for a printed figure, or for a part of a drawing."""

from dataclasses import dataclass
from typing import Literal

from rankproof.experiments.reproduce.recipe import Recipe

Run = (
    Literal["white-box", "transfer", "universal", "black-box", "seconds", "src", "service"]
    | Literal["strip", "order-strip", "losses", "weights"]
)
STRONG = "strong"  # the method that is our own search


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
class Cell:
    """What is run for one printed figure or pair.

    Args:
        name: names its file; the same in every run.
        run: how it is measured.
        model: what is attacked, or ranks what was made on `source`.
        source: the model examples are made on, in a transfer.
        goal: as "ca+", "sp-qa-", "ca+-distance", "oa".
        eps: budget in [0, 1].
        letter, count: w, m or k and its value; none of a goal that chooses nothing.
        xi: weight of preserving, or of staying in sight; None where nothing is weighed.
        method: "published", "strong", or the word of a black-box search.
        visible, budget: N and Q of a black box.
        grid: whether only 8-bit images are sent.
        trials: T, attacks; of a universal cell its targets.
        published_trials: T of the paper.
        figures: what is printed; nothing of a cell that is drawn.
    """

    name: str
    run: Run
    model: str
    source: str | None = None
    goal: str
    eps: float
    letter: str
    count: int
    xi: float | None = None
    method: str = "published"
    visible: int | str | None = None
    budget: int | None = None
    grid: bool = False
    trials: int
    published_trials: int = 0
    figures: tuple[Figure, ...] = ()

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
        if self.run != "transfer" or "-" in self.goal.removeprefix("sp-"):
            return (self.name,)
        return (self.source, self.goal, self.eps, self.count, self.xi, self.trials, self.method)


def named(recipe: Recipe, *parts: str) -> str:
    """The name of a cell, after its recipe."""
    return "-".join((recipe.name, *parts))


def letter_of(goal: str) -> str:
    """The papers' letter for what a goal chooses: queries of a candidate attack, candidates of a query's."""
    return "w" if goal.startswith("ca") else "m"


def level_word(eps: float) -> str:
    """eps in a file's name: 0.03, or 4of255 where it is a multiple of 1/255."""
    levels = eps * 255
    whole = eps > 0 and abs(levels - round(levels)) < 1e-9
    return f"{round(levels)}of255" if whole else f"{eps:g}"
