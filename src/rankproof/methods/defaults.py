"""Which method goes with which goal where none is named."""

from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.thompson import ThompsonSampling
from rankproof.methods.white_box.base import Method
from rankproof.methods.white_box.budget_search import BudgetSearch
from rankproof.methods.white_box.converged import Converged
from rankproof.methods.white_box.momentum_pgd import MomentumPGD
from rankproof.methods.white_box.order_budget import OrderBudget
from rankproof.methods.white_box.pgd import PGD
from rankproof.methods.white_box.shrinking_budget import ShrinkingBudget

FAR = 16 / 255  # first budget where something far is to be drawn near


def published(metric: str, steps: int | None = None) -> PGD:
    """The descent of the paper that introduced goals of this metric: the order attack is ICCV's."""
    return PGD(rule="iccv21" if metric == "tau" else "eccv20", steps=steps)


def strong(metric: str, steps: int | None = None) -> MomentumPGD:
    """Our search with as many evaluations; the loss of an order is rougher: more momentum, shorter steps."""
    if metric == "tau":
        return MomentumPGD(rule="iccv21", steps=steps, momentum=0.9, longest=2 / 255, penalty_weight=5.0)
    return MomentumPGD(rule="eccv20", steps=steps)


def converged(metric: str, steps: int | None = None) -> Converged:
    """Our search until it has converged; `steps` are those of its first block, None as `strong` takes."""
    search = strong(metric, steps)
    if metric == "rank":
        return Converged(search=search)
    if metric == "tau":  # one pair of 10 items is 0.044; an order moves in jumps, with long rests between
        return Converged(search=search, tolerance=0.02, patience=2)
    return Converged(search=search, tolerance=0.0, relative=0.01)


def audited(metric: str) -> Method:
    """The search of an audit at its budget, beside those of a fixed length."""
    return converged(metric)


def automatic() -> BlackBoxMethod:
    """Our search where only the first results can be seen."""
    return ThompsonSampling()


def smallest(
    metric: str, direction: str = "lower", family: str = "query", *, keeps: bool = False
) -> BudgetSearch:
    """The search for the smallest budget that goes with goals of a metric, a direction and a family.

    What is to come to the top is far away at first: a larger first budget and more momentum. Not where
    other results are to be kept, which a large first budget loses for good.
    """
    if metric == "tau":
        return OrderBudget()
    if direction in ("lower", "push") or keeps:
        return ShrinkingBudget()
    if family == "candidate":
        return ShrinkingBudget(evaluations=127, start=FAR, momentum=0.9)
    return ShrinkingBudget(start=FAR, momentum=0.9, linear=False)
