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
from rankproof.report.findings import ClassBudget, Control, ProtocolHashes
from rankproof.report.format import (
    PERCENT,
    figure_text,
    half_width_text,
    interval_text,
    number_text,
    second_figure,
    setting_text,
    unchanged_text,
)
from rankproof.report.strip import Strip
from rankproof.threat import format_eps

COUNTED, NAMED = ("wide-interval",), 3  # kinds of flags of which no more than so many attacks are named
FAMILIES = ("query", "candidate", "order", "embedding")  # the order of the headline sentences


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
        cells: one attack for each goal, budget and method.
        flags: reasons to doubt.
        eps: the audited budget; attacks at other budgets are there for the curves.
        trials: attacks behind each headline figure.
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
        classes: which classes give in first.
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
    """One attack at the audited budget.

    Args:
        attack: what is shown.
        reference: the published method with the same setting and budget, or None.
        curve: the same attack at every budget that was run, smallest first.
    """

    attack: AttackSummary
    reference: AttackSummary | None
    curve: tuple[AttackSummary, ...]


def rows(page: ReportPage) -> list[Row]:
    """One row per attack that was run at the audited budget, in the order of the papers."""
    shown = [attack for attack in page.cells if same_eps(attack.eps, page.eps)]
    main = {_setting(attack) for attack in shown if not _is_published(attack)}
    chosen = [a for a in shown if not _is_published(a) or _setting(a) not in main]
    return [_row(attack, page.cells) for attack in sorted(chosen, key=place)]


def _row(attack: AttackSummary, attacks: Sequence[AttackSummary]) -> Row:
    alike = [other for other in attacks if _setting(other) == _setting(attack)]
    curve = sorted((other for other in alike if other.method == attack.method), key=lambda other: other.eps)
    references = [a for a in alike if _is_published(a) and same_eps(a.eps, attack.eps)]
    reference = references[0] if references and not _is_published(attack) else None
    return Row(attack=attack, reference=reference, curve=tuple(curve))


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


def conclusion(page: ReportPage) -> str:
    """What the audit found, described and not graded."""
    reached = [(share, row.attack) for row in rows(page) if (share := reach(row.attack)) is not None]
    white = [pair for pair in reached if not pair[1].black_box]
    black = [pair for pair in reached if pair[1].black_box]
    if not reached:
        return f"No attack on the ranking was run at {format_eps(page.eps)}."
    start, goal = f"With at most {format_eps(page.eps)} per pixel ", "all that the attacker wants"
    if not white:
        who = f"a black-box attacker who sees only {visible_text(black[0][1])}"
        return f"{start}{who} went {_span(black)} of the way to {goal}."
    text = f"{start}the attacks went {_span(white)} of the way from an untouched ranking to {goal}."
    if black:
        text += (
            f" A black-box attacker, who sees only {visible_text(black[0][1])} of each query, "
            f"went {_span(black)} of the way to a chosen order of the top results."
        )
    return text


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
    """A sentence around one figure, and where a rank lies between the top and the end of a ranking."""

    lead: str
    figure: str
    interval: str
    tail: str
    before: float | None
    after: float | None


def headlines(shown: Sequence[Row]) -> list[Headline]:
    """One sentence for the first row of each goal that has any."""
    first = {row.attack.goal: row.attack for row in reversed(shown) if row.attack.spec.headline}
    ordered = sorted(first.values(), key=lambda a: (FAMILIES.index(a.spec.family), place(a)))
    return [_headline(attack) for attack in ordered]


def _headline(attack: AttackSummary) -> Headline:
    assert attack.spec.headline is not None
    lead, tail = attack.spec.headline(attack.parameters, figure_text(attack, attack.before))
    before, after = (
        value if attack.metric == "rank" and value is not None and math.isfinite(value) else None
        for value in (attack.before, attack.after)
    )
    return Headline(
        lead=lead,
        figure=figure_text(attack, attack.after),
        interval=interval_text(attack),
        tail=tail,
        before=before,
        after=after,
    )


# -- a terminal's table ----------------------------------------------------------------------------


def audit_table(page: ReportPage) -> Table:
    """One line for each attack at the audited budget."""
    note = f"{note}," if (note := black_box_trials(page)) else ""
    title = f"{page.trials:,} trials{note} at {format_eps(page.eps)}"
    table = Table(title=title, title_justify="left")
    table.add_column("attack", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for row in rows(page):
        attack = row.attack
        name = " ".join(filter(None, (attack.spec.title, setting_text(attack).replace(" = ", "="))))
        before, after = figure_text(attack, attack.before), figure_text(attack, attack.after)
        also = ", ".join(filter(None, (" ".join(second_figure(attack) or ()), unchanged_text(attack))))
        texts = name, before, after + half_width_text(attack), also, attack.method
        table.add_row(*map(escape, texts))
    return table


def black_box_trials(page: ReportPage) -> str:
    """A note on the black-box figures, which have fewer trials; empty where there are none."""
    counts = {attack.trials for attack in page.cells if attack.black_box} - {page.trials}
    return f", {max(counts):,} where N and Q are given" if counts else ""
