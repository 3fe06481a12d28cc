"""rankproof: measure how robust an image retrieval system is to adversarial perturbations."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankproof.attacks import attack
    from rankproof.attacks.budget_summary import BudgetSummary
    from rankproof.attacks.result import AttackResult
    from rankproof.attacks.smallest_budget import SmallestBudgets, smallest_budget
    from rankproof.attacks.transfer import choose, on_unseen, transfer
    from rankproof.audit import AuditOptions, AuditResult, audit
    from rankproof.cache import GalleryCache
    from rankproof.data import load
    from rankproof.errors import RankproofError
    from rankproof.evaluation import accuracy, robustness_score
    from rankproof.goals import (
        CandidateLower,
        CandidateRaise,
        LeaveTop,
        MaxShift,
        Mismatch,
        Misrank,
        NearestOther,
        Preserve,
        QueryLower,
        QueryRaise,
        Reorder,
        WrongFirst,
    )
    from rankproof.methods import (
        NES,
        PGD,
        PSO,
        SPSA,
        Beta,
        Converged,
        MomentumPGD,
        Rand,
        ThompsonSampling,
        Universal,
    )
    from rankproof.models import Preprocess, load_checkpoint, open_encoder, text_queries
    from rankproof.oracles import BudgetedOracle, Cached, ListOracle, LocalOracle
    from rankproof.ranking import Gallery, Ranker
    from rankproof.threat import Threat
    from rankproof.wire import HttpOracle

__all__ = [
    "NES",
    "PGD",
    "PSO",
    "SPSA",
    "AttackResult",
    "AttackSummary",
    "AuditOptions",
    "AuditResult",
    "Beta",
    "BudgetSummary",
    "BudgetedOracle",
    "Cached",
    "CandidateLower",
    "CandidateRaise",
    "Converged",
    "Gallery",
    "GalleryCache",
    "HttpOracle",
    "LeaveTop",
    "ListOracle",
    "LocalOracle",
    "MaxShift",
    "Mismatch",
    "Misrank",
    "MomentumPGD",
    "NearestOther",
    "Preprocess",
    "Preserve",
    "QueryLower",
    "QueryRaise",
    "Rand",
    "Ranker",
    "RankproofError",
    "Reorder",
    "SmallestBudgets",
    "ThompsonSampling",
    "Threat",
    "Universal",
    "WrongFirst",
    "accuracy",
    "attack",
    "audit",
    "choose",
    "load",
    "load_checkpoint",
    "on_unseen",
    "open_encoder",
    "robustness_score",
    "smallest_budget",
    "text_queries",
    "transfer",
]

_PUBLIC = {
    "attacks": ("attack",),
    "attacks.budget_summary": ("BudgetSummary",),
    "attacks.result": ("AttackResult",),
    "attacks.smallest_budget": ("SmallestBudgets", "smallest_budget"),
    "attacks.summary": ("AttackSummary",),
    "attacks.transfer": ("choose", "on_unseen", "transfer"),
    "audit": ("AuditOptions", "AuditResult", "audit"),
    "cache": ("GalleryCache",),
    "data": ("load",),
    "errors": ("RankproofError",),
    "evaluation": ("accuracy", "robustness_score"),
    "goals": (
        "CandidateLower",
        "CandidateRaise",
        "LeaveTop",
        "MaxShift",
        "Mismatch",
        "Misrank",
        "NearestOther",
        "Preserve",
        "QueryLower",
        "QueryRaise",
        "Reorder",
        "WrongFirst",
    ),
    "methods": (
        "NES",
        "PGD",
        "PSO",
        "SPSA",
        "Beta",
        "Converged",
        "MomentumPGD",
        "Rand",
        "ThompsonSampling",
        "Universal",
    ),
    "oracles": ("BudgetedOracle", "Cached", "ListOracle", "LocalOracle"),
    "models": ("Preprocess", "load_checkpoint", "open_encoder", "text_queries"),
    "ranking": ("Gallery", "Ranker"),
    "threat": ("Threat",),
    "wire": ("HttpOracle",),
}
_VERBS = ("audit",)  # functions that share their package's name


def __getattr__(name: str) -> Any:
    """A public name, its module imported at first use: torch takes two seconds, `--help` should not."""
    for module, names in _PUBLIC.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package; `rankproof.audit` is the function even after the package of that name was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
