"""What an audit found, as rows and words: the terminal's table, and what the report says of each attack."""

import math
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from rankproof.audit.result import AuditResult
from rankproof.figures import eps_text, goal_name

Cell = dict[str, Any]

REFERENCE_METHODS = {"pgd": "plain PGD", "spsa": "SPSA"}
ORDER = ("ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-", "oa", "shift")
NOTHING, PERCENT = "–", "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack at the audited budget.

    Args:
        cell: the figure to show.
        yardstick: what plain PGD, or SPSA in a black box, reached with the same setting and budget.
        curve: the same attack at every budget that was run, smallest first.
    """

    cell: Cell
    reference_method: Cell | None
    curve: tuple[Cell, ...]


def rows(result: AuditResult) -> list[Row]:
    """One row per attack that was run at the audited budget, in the order of the papers."""
    shown = [cell for cell in result.cells if same_eps(cell["eps"], result.eps)]
    own = {_setting(cell) for cell in shown if cell["method"] not in REFERENCE_METHODS}
    kept = [cell for cell in shown if cell["method"] not in REFERENCE_METHODS or _setting(cell) not in own]
    return [_row(cell, result.cells) for cell in sorted(kept, key=place)]


def _row(cell: Cell, cells: list[Cell]) -> Row:
    alike = [other for other in cells if _setting(other) == _setting(cell)]
    curve = sorted((c for c in alike if c["method"] == cell["method"]), key=lambda c: float(c["eps"]))
    plain = [c for c in alike if c["method"] in REFERENCE_METHODS and same_eps(c["eps"], cell["eps"])]
    reference_method = plain[0] if plain and cell["method"] not in REFERENCE_METHODS else None
    return Row(cell=cell, reference_method=reference_method, curve=tuple(curve))


def _setting(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.get(key) for key in ("goal", "w", "m", "k", "visible", "budget"))


def place(cell: Cell) -> tuple[bool, int, int]:
    """Where a cell stands: white boxes in the order of the papers, then black boxes by k."""
    order = ORDER.index(cell["goal"]) if cell["goal"] in ORDER else len(ORDER)
    return is_seen(cell), order, cell.get("k") or 0


def is_seen(cell: Cell) -> bool:
    """Whether the attacker only sees results: a black box."""
    return cell.get("budget") is not None


def same_eps(eps: float, other: float) -> bool:
    """Whether two budgets are the same one."""
    return math.isclose(eps, other, abs_tol=1e-6)


def explain(cell: Cell) -> str:
    """What the attacker does and wants, in one line."""
    queries, items = _count(cell.get("w"), "query", "queries"), _count(cell.get("m"), "item", "items")
    kept = _count(cell.get("g"), "top result", "top results")
    match cell["goal"]:
        case "ca+":
            return f"An item is changed so that it rises for {queries} drawn at random."
        case "ca-":
            return f"An item near the top for {queries} is changed so that it sinks."
        case "qa+":
            return f"The query is changed so that {items} drawn at random rise."
        case "qa-":
            return f"The query is changed so that {items} among its nearest sink."
        case "sp-qa+":
            return f"As QA+, while {kept} stay in place so that nobody notices."
        case "sp-qa-":
            return f"As QA−, while {kept} stay in place so that nobody notices."
        case "oa":
            top = f"{cell['k']} top results" if cell.get("k") else "top results"
            seen = (
                f"; all that is seen are {first_results(cell)} of {cell['budget']:,} queries"
                if is_seen(cell)
                else ""
            )
            return f"The query is changed so that its {top} come in a chosen order{seen}."
        case "shift":
            return "A picture is changed so that its embedding moves as far as it can."
        case "mismatch":
            return "The query is changed so that it looks like an item drawn at random."
        case "misrank":
            return (
                "The query is changed so that the least similar of other classes come before its own class."
            )
        case "nearest-other":
            return "The query is changed so that the nearest item of another class comes first."
        case "top4":
            return "The query is changed so that its nearest item leaves the first four results."
        case _:
            return ""


def first_results(cell: Cell) -> str:
    """What a black box shows."""
    visible = cell.get("visible")
    return "the results" if visible in (None, "inf") else f"the first {visible:,} results"


def _count(number: int | None, one: str, many: str) -> str:
    if number is None:
        return f"some {many}"
    return f"one {one}" if number == 1 else f"{number} {many}"


def number(cell: Cell, key: str) -> float | None:
    """A cell's value, None where there is none or it is not finite."""
    value = cell.get(key)
    return None if value is None or not math.isfinite(value) else float(value)


def interval(cell: Cell) -> tuple[float, float] | None:
    """The 95 % interval of a cell's `after`, None where there is none."""
    ends = cell.get("ci95")
    if not ends or any(end is None or not math.isfinite(end) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def decimals(cell: Cell) -> int:
    """How many decimals a cell's figures get."""
    return 1 if cell["metric"] == "rank" else 2


def figure(value: float | None, places: int = 1) -> str:
    """A number with that many decimals and a proper minus; an en dash where there is none."""
    if value is None:
        return NOTHING
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text.replace("-", "−")


def value_text(cell: Cell, key: str) -> str:
    """`before` or `after` with its unit."""
    value = number(cell, key)
    unit = PERCENT if cell["metric"] == "rank" and value is not None else ""
    return figure(value, decimals(cell)) + unit


def interval_text(cell: Cell) -> str:
    """The interval in brackets, empty where there is none."""
    ends = interval(cell)
    return "" if ends is None else f"[{', '.join(figure(end, decimals(cell)) for end in ends)}]"


def extra_text(cell: Cell) -> tuple[str, str] | None:
    """What else must be read with the figure, as a name and a value: the rank of C_SP, or mR."""
    kept, order = number(cell, "sp_rank"), number(cell, "mean_rank")
    if cell["metric"] == "rank" and kept is not None:
        return "C_SP", f"{figure(kept)}{PERCENT}"
    if cell["metric"] == "tau" and order is not None:
        before = number(cell, "mean_rank_before")
        return "mR", f"{figure(before)} → {figure(order)}" if before is not None else figure(order)
    return None


def setting_text(cell: Cell) -> str:
    """The knobs of a cell, by the papers' letters."""
    parameters = [f"{key} = {cell[key]:g}" for key in ("w", "m", "k", "g") if cell.get(key) is not None]
    parameters += [f"ξ = {cell['xi']:g}"] if cell.get("xi") is not None else []
    if (visible := cell.get("visible")) is not None:
        parameters.append("N = ∞" if visible == "inf" else f"N = {visible:,}")
    parameters += [f"Q = {cell['budget']:,}"] if cell.get("budget") is not None else []
    return ", ".join(parameters)


def reach(cell: Cell) -> float | None:
    """How much of the way to all that the attacker wants, in %; None where the goal has no end, as shift."""
    before, after = number(cell, "before"), number(cell, "after")
    wanted = 1.0 if cell["metric"] == "tau" else 0.0 if cell["goal"].endswith("+") else 100.0
    if before is None or after is None or cell["metric"] not in ("rank", "tau") or before == wanted:
        return None
    return 100 * (after - before) / (wanted - before)


def verdict(result: AuditResult) -> str:
    """What the audit found, described and not graded."""
    reached = [(share, row.cell) for row in rows(result) if (share := reach(row.cell)) is not None]
    known = [pair for pair in reached if not is_seen(pair[1])]
    seen = [pair for pair in reached if is_seen(pair[1])]
    if not reached:
        return f"No attack on the ranking was run at {eps_text(result.eps)}."
    start, goal = f"With at most {eps_text(result.eps)} per pixel ", "all that the attacker wants"
    if not known:
        stranger = (
            f"somebody who sees only {first_results(seen[0][1])} went {_span(seen)} of the way to {goal}"
        )
        return f"{start}{stranger}."
    text = f"{start}the attacks went {_span(known)} of the way from an untouched ranking to {goal}."
    if seen:
        text += (
            f" Somebody who does not know the model and sees only {first_results(seen[0][1])} "
            f"of each query went {_span(seen)} of the way to a chosen order of the top results."
        )
    return text


def _span(reached: list[tuple[float, Cell]]) -> str:
    """The smallest and the largest share of the way."""
    least, most = min(reached, key=lambda pair: pair[0]), max(reached, key=lambda pair: pair[0])
    return _share(*least) if least[1] is most[1] else f"between {_share(*least)} and {_share(*most)}"


def _share(share: float, cell: Cell) -> str:
    name = f"{cell['k']} results" if is_seen(cell) and cell.get("k") else goal_name(cell["goal"])
    return f"{figure(share, 0)}{PERCENT} ({name})"


def table_text(result: AuditResult) -> Table:
    """The terminal's table: one line per attack at the audited budget."""
    note = f"{note}," if (note := seen_trials(result)) else ""
    title = f"{result.trials:,} trials{note} at {eps_text(result.eps)}"
    table = Table(title=title, title_justify="left")
    table.add_column("attack", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for row in rows(result):
        cell, extra = row.cell, extra_text(row.cell)
        name = " ".join(filter(None, (goal_name(cell["goal"]), setting_text(cell).replace(" = ", "="))))
        also = f"{extra[0]} {extra[1]}" if extra else ""
        texts = name, value_text(cell, "before"), _with_half(cell), also, cell["method"]
        table.add_row(*map(escape, texts))
    return table


def seen_trials(result: AuditResult) -> str:
    """A note on the black-box figures, which have fewer trials; empty where there are none."""
    counts = {int(cell["trials"]) for cell in result.cells if is_seen(cell)} - {result.trials}
    return f", {max(counts):,} where N and Q are given" if counts else ""


def _with_half(cell: Cell) -> str:
    ends = interval(cell)
    half = "" if ends is None else f" ± {figure((ends[1] - ends[0]) / 2, decimals(cell))}"
    return value_text(cell, "after") + half
