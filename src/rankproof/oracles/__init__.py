"""What is attacked in a black box: a search system of which only places are seen."""

from rankproof.oracles.base import Oracle, RepeatableOracle, TrackedItems
from rankproof.oracles.budgeted import BudgetedOracle, BudgetExhaustedError, Cached
from rankproof.oracles.listed import ListOracle
from rankproof.oracles.local import LocalOracle

__all__ = [
    "BudgetExhaustedError",
    "BudgetedOracle",
    "Cached",
    "ListOracle",
    "LocalOracle",
    "Oracle",
    "RepeatableOracle",
    "TrackedItems",
]
