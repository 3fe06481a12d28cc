"""Markdown tables, and figures with their intervals as words of them."""

from collections.abc import Sequence

import torch

from rankproof.experiments.results.records import Record
from rankproof.ranking.metrics import summarise

NOT_RUN = "not run yet"
TOLERANCE = {"rank": 3.0, "tau": 0.05}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def number(value: float | None, metric: str = "rank") -> str:
    """A rank or a share in %, or tau; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.3f}" if metric == "tau" else f"{value:.2f}"


def with_interval(value: float, ends: Sequence[float | None], metric: str = "rank") -> str:
    """A recorded mean and its 95 % interval, where it has one."""
    low, high = ends
    if low is None or high is None:
        return number(value, metric)
    return f"{number(value, metric)} [{number(low, metric)}, {number(high, metric)}]"


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def estimate(values: Sequence[float], sign: str = "") -> str:
    """Mean and 95 % interval of one value per attack."""
    found = summarise(torch.tensor(values, dtype=torch.float64))
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def differences(record: Record, other: Record) -> list[float]:
    """tau_S of a method minus that of another, over the attacks that both have."""
    return [mine - yours for mine, yours in zip(record["tau"], other["tau"], strict=False)]


def mark(gap: float, tolerance: float) -> str:
    """Whether a figure is near the printed one."""
    if abs(gap) <= tolerance:
        return "agrees"
    return "higher" if gap > 0 else "lower"
