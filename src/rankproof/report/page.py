"""What a report shows of an audit, and what it says: rows, a conclusion, headlines, a terminal's table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.attacks.summary import AttackSummary
from rankproof.goals.base import first_results
from rankproof.goals.registry import order_of
from rankproof.goals.wish import FIRST
from rankproof.methods.registry import published_titles
from rankproof.ranking.examination import Examination
from rankproof.report.budgets import attacks, in_order_of_ease, median_interval_text, median_text
from rankproof.report.findings import ClassBudget, Control, ProtocolHashes
from rankproof.report.format import (
    PERCENT,
    figure_text,
    half_width_text,
    number_text,
    second_figure,
    setting_text,
    unchanged_text,
)
from rankproof.report.strip import Strip
from rankproof.threat import format_eps

WORST_CASE = "worst-case"  # the method of a figure that takes, attack by attack, the best of all methods
METHOD_TITLES = {WORST_CASE: "the worst of all that was tried"}
COUNTED, NAMED = ("wide-interval",), 3  # kinds of flags of which no more than so many attacks are named


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One reason to doubt a figure.

    Args:
        kind: short name of the check, such as "collapsed" or "wide-interval".
        text: what is wrong and what it means, in plain words.
        cell: which attack it concerns, such as "oa at 4/255"; None for the whole audit.
    """

    kind: str
    text: str
    cell: str | None = None


def grouped(flags: Sequence[Flag]) -> list[Flag]:
    """Flags that say the same of several attacks as one that names them; those of the whole audit first."""
    cells: dict[tuple[str, str], list[str]] = {}
    for flag in sorted(flags, key=lambda flag: flag.cell is not None):
        cells.setdefault((flag.kind, flag.text), []).extend([flag.cell] if flag.cell else [])
    return [Flag(kind=kind, text=text, cell=_together(kind, names)) for (kind, text), names in cells.items()]


def _together(kind: str, names: Sequence[str]) -> str | None:
    """The attacks of a flag; only counted where it concerns many and is no fault of theirs."""
    if kind in COUNTED and len(names) > NAMED:
        return f"{len(names)} figures"
    return ", ".join(names) or None


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """What a report shows. The names are those of report.json.

    Args:
        model, data: names of what was attacked.
        recall_at_1: R@1 of the gallery in %, leave-one-out or by separate queries; None without labels.
        cells: the attacks at the audited budget, one for each goal and method, and the worst case over all.
        flags: reasons to doubt.
        eps: the audited budget.
        trials: the largest number of attacks behind a figure.
        seed: all choices and random numbers come from it.
        gallery_size: number of items ranked.
        data_note: one sentence on the data.
        command: what gives the same report again.
        versions: of the software.
        seconds: how long it took.
        model_record: what is known of the model, shown as it is.
        examination: what the encoder was found to be.
        strips: example attacks in images.
        first: K, how many results count as the first ones.
        smallest: the smallest budgets of each goal that has a wish: what a report begins with.
        controls: checks of the search itself.
        classes: the smallest budgets of each class.
        protocol: under which protocol the figures were taken; None of older reports.
        missing: what was not measured, each as a sentence, such as for want of time.
    """

    model: str
    data: str
    recall_at_1: float | None
    cells: tuple[AttackSummary, ...]
    flags: tuple[Flag, ...]
    eps: float
    trials: int
    seed: int
    gallery_size: int
    data_note: str
    command: str
    versions: Mapping[str, str]
    seconds: float
    model_record: Mapping[str, Any] | None = None
    examination: Examination | None = None
    strips: tuple[Strip, ...] = ()
    first: int = FIRST
    smallest: tuple[BudgetSummary, ...] = ()
    controls: tuple[Control, ...] = ()
    classes: tuple[ClassBudget, ...] = ()
    protocol: ProtocolHashes | None = None
    missing: tuple[str, ...] = ()


def json_value(value: Any) -> Any:
    """A value as strict JSON knows it, with None for what is not finite."""
    match value:
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case _:
            return json_value(value.item()) if hasattr(value, "item") else str(value)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One goal at the audited budget.

    Args:
        attack: what is shown: the worst case over all methods where there is one, else our own.
        others: the same attack by other methods, those of the papers first.
    """

    attack: AttackSummary
    others: tuple[AttackSummary, ...] = ()

    @property
    def reference(self) -> AttackSummary | None:
        """The published method with the same setting and budget, or None."""
        return next((other for other in self.others if _is_published(other)), None)


def rows(page: ReportPage) -> list[Row]:
    """One row per goal that was run at the audited budget, in the order of the papers."""
    settings: dict[tuple[object, ...], list[AttackSummary]] = {}
    for attack in sorted(page.cells, key=place):
        if same_eps(attack.eps, page.eps):
            settings.setdefault(_setting(attack), []).append(attack)
    found = []
    for alike in settings.values():
        chosen = max(alike, key=_precedence)
        others = sorted((a for a in alike if a is not chosen), key=lambda a: not _is_published(a))
        found.append(Row(attack=chosen, others=tuple(others)))
    return found


def _precedence(attack: AttackSummary) -> tuple[bool, bool, float]:
    """The worst case first, then our methods by strength, then published ones."""
    strength = -math.inf if attack.after is None or not math.isfinite(attack.after) else attack.after
    sign = 1 if attack.spec.larger_is_stronger else -1
    own = not _is_published(attack)
    return attack.method == WORST_CASE, own, sign * strength if math.isfinite(strength) else strength


def method_title(name: str) -> str:
    """What pages call a method."""
    return published_titles().get(name, METHOD_TITLES.get(name, name))


def _is_published(attack: AttackSummary) -> bool:
    return attack.method in published_titles()


def _setting(attack: AttackSummary) -> tuple[object, ...]:
    """What the attacks of a row share."""
    return attack.goal, attack.w, attack.m, attack.k, attack.visible, attack.budget


def place(attack: AttackSummary) -> tuple[bool, int, int]:
    """Where an attack stands: white boxes in the order of the standard audit, then black boxes by k."""
    return attack.black_box, order_of(attack.goal), attack.k or 0


def same_eps(eps: float, other: float) -> bool:
    """Whether two budgets are the same one."""
    return math.isclose(eps, other, abs_tol=1e-6)


# -- sentences -------------------------------------------------------------------------------------


def visible_text(attack: AttackSummary) -> str:
    """What a black-box attacker is shown of each query: "the first 50 results"."""
    return first_results(attack.parameters)


def reach(attack: AttackSummary) -> float | None:
    """How much of the way to all that the attacker wants, in %; None where the goal has no end, as shift."""
    before, after = attack.before, attack.after
    if before is None or after is None or not math.isfinite(before + after):
        return None
    return attack.spec.reach(before, after)


def conclusion(page: ReportPage) -> list[str]:
    """What the attacks at the audited budget reached, described and not graded, in sentences."""
    reached = [(share, row.attack) for row in rows(page) if (share := reach(row.attack)) is not None]
    white = [pair for pair in reached if not pair[1].black_box]
    black = [pair for pair in reached if pair[1].black_box]
    if not reached:
        return [f"No attack on the ranking was run at {format_eps(page.eps)}."]
    start, goal = f"With at most {format_eps(page.eps)} per pixel ", "all that the attacker wants"
    if not white:
        who = f"a black-box attacker who sees only {visible_text(black[0][1])}"
        return [f"{start}{who} went {_span(black)} of the way to {goal}."]
    texts = [f"{start}the attacks went {_span(white)} of the way from an untouched ranking to {goal}."]
    if black:
        texts.append(
            f"A black-box attacker, who sees only {visible_text(black[0][1])} of each query, "
            f"went {_span(black)} of the way to a chosen order of the top results."
        )
    return texts


def _span(reached: list[tuple[float, AttackSummary]]) -> str:
    """The smallest and the largest share of the way."""
    least, most = min(reached, key=lambda pair: pair[0]), max(reached, key=lambda pair: pair[0])
    if len(reached) > 1 and number_text(least[0], 0) == number_text(most[0], 0):
        return number_text(most[0], 0) + PERCENT
    return _share(*least) if least[1] is most[1] else f"between {_share(*least)} and {_share(*most)}"


def _share(share: float, attack: AttackSummary) -> str:
    name = f"{attack.k} results" if attack.black_box and attack.k else attack.spec.title
    return f"{number_text(share, 0)}{PERCENT} ({name})"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A sentence around one figure, and where it lies between nothing and all that is wanted."""

    lead: str
    figure: str
    tail: str
    before: float | None
    after: float | None


def headline(attack: AttackSummary) -> Headline:
    """The sentence of the goal, or what it does where it has none; ends of a track in % for ranks and tau."""
    text = attack.spec.headline
    figure = figure_text(attack, attack.before)
    lead, tail = (attack.sentence, "") if text is None else text(attack.parameters, figure)
    ends = (attack.before, attack.after)
    before, after = (None if value is None else _on_track(attack.metric, value) for value in ends)
    shown = "" if text is None else figure_text(attack, attack.after)
    return Headline(lead=lead, figure=shown, tail=tail, before=before, after=after)


def _on_track(metric: str, value: float) -> float | None:
    """Where a figure lies on its track, in %: a rank as it is, of a tau the way from chance to as wanted."""
    if not math.isfinite(value) or metric not in ("rank", "tau"):
        return None
    return min(max(100 * value if metric == "tau" else value, 0.0), 100.0)


# -- a terminal's table ----------------------------------------------------------------------------


def audit_table(page: ReportPage) -> Table:
    """One line for each goal: its smallest budget, then what happens at the audited one."""
    note = f"{note}," if (note := black_box_trials(page)) else ""
    word = "trial" if page.trials == 1 else "trials"
    title = f"{page.trials:,} {word}{note} at {format_eps(page.eps)}"
    table = Table(title=title, title_justify="left")
    table.add_column("attack", no_wrap=True)
    if page.smallest:
        table.add_column("eps* in 1/255", justify="right", no_wrap=True)
        table.add_column("reached", justify="right", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also", no_wrap=True)
    table.add_column("method", no_wrap=True)
    budgets = {each.goal: each for each in in_order_of_ease(page.smallest)}
    shown = rows(page)
    for row in shown:
        attack = row.attack
        name = " ".join(filter(None, (attack.spec.title, setting_text(attack).replace(" = ", "="))))
        summary = None if attack.black_box else budgets.pop(attack.goal, None)
        table.add_row(*map(escape, (name, *_budget_cells(page, summary), *_figure_cells(attack))))
    for summary in budgets.values():
        empty = [""] * 4
        table.add_row(*map(escape, (summary.spec.title, *_budget_cells(page, summary), *empty)))
    return table


def _budget_cells(page: ReportPage, summary: BudgetSummary | None) -> list[str]:
    """eps* with its interval and how many attacks reached it, where a table has these columns."""
    if not page.smallest:
        return []
    if summary is None:
        return ["", ""]
    figure = " ".join(filter(None, (median_text(summary), median_interval_text(summary))))
    count = attacks(summary)
    return [figure, f"{summary.reached}/{count}" + (f", {summary.free} free" if summary.free else "")]


def _figure_cells(attack: AttackSummary) -> list[str]:
    """Before, after, what belongs to it, and the method."""
    before, after = figure_text(attack, attack.before), figure_text(attack, attack.after)
    also = ", ".join(filter(None, (" ".join(second_figure(attack) or ()), unchanged_text(attack))))
    return [before, after + half_width_text(attack), also, attack.method]


def black_box_trials(page: ReportPage) -> str:
    """A note on the black-box figures, which have fewer trials; empty where there are none."""
    counts = {attack.trials for attack in page.cells if attack.black_box} - {page.trials}
    return f", {max(counts):,} where N and Q are given" if counts else ""
