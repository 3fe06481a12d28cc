"""A report as one HTML page that needs nothing else, with its figures as JSON and its strips as PNG."""

import io
import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, features

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.errors import RankproofError
from rankproof.goals.registry import spec
from rankproof.io import utf8, write_atomically
from rankproof.methods.registry import published_titles
from rankproof.report import budgets, trust
from rankproof.report import format as texts
from rankproof.report.budget_chart import NARROW, WIDE, BudgetAxis, Frame, axis_of, budget_svg, level_label
from rankproof.report.cards import cards
from rankproof.report.classes import breaking_first
from rankproof.report.curve import Line, query_svg
from rankproof.report.page import (
    ReportPage,
    Row,
    conclusion,
    headline,
    json_value,
    method_title,
    place,
    rows,
    visible_text,
)
from rankproof.report.strip import Strip
from rankproof.report.strip_drawing import SCALE, strip_png
from rankproof.threat import LEVELS, format_eps

PAGE, FIGURES, STRIPS = "report.html", "report.json", "pictures"
TEMPLATES = Path(__file__).parent / "templates"
MEDIAN = "median"  # the role of the example that stands for its goal
LARGE = 200_000  # bytes of a PNG above which the page holds a WebP instead: photos


def render_html(page: ReportPage) -> str:
    """The report as one self-contained page without scripts."""
    return _render(page, [strip_png(strip) for strip in page.strips])


def save(page: ReportPage, figures: str, folder: Path) -> Path:
    """Write report.html, pictures/*.png and, last, report.json into `folder`; returns the page's path.

    Everything is written beside its place first and moved when all of it is there: a full disk leaves an
    earlier report as it was.

    Args:
        figures: the content of report.json.
    Raises:
        RankproofError: the folder cannot be written.
    """
    images = [strip_png(strip) for strip in page.strips]
    names = (f"{STRIPS}/{name}" for name in strip_names(page.strips))
    files = {
        **dict(zip(names, images, strict=True)),
        PAGE: utf8(_render(page, images)),
        FIGURES: utf8(figures),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".report.") as stage:
            for name, content in files.items():
                write_atomically(Path(stage) / name, content)
            for name in files:
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(Path(stage) / name, folder / name)
    except OSError as error:
        raise RankproofError(f"{folder}: the report cannot be written ({error.strerror})") from None
    return folder / PAGE


def strip_names(strips: Sequence[Strip]) -> list[str]:
    """A file name for each strip: qa-plus.png, qa-plus-2.png for the next; qa-plus-easiest.png by its role.

    Those of a black box are oa-black-box.png and so on.
    """
    names: list[str] = []
    for strip in strips:
        goal = re.sub(r"-$", "-minus", strip.goal.lower().replace("+", "-plus"))
        stem = re.sub(r"[^a-z0-9]+", "-", goal).strip("-") or "attack"
        stem += "" if strip.budget is None else "-black-box"
        stem += f"-{strip.role}" if strip.role not in ("", MEDIAN) else ""
        earlier = sum(re.fullmatch(rf"{stem}(-\d+)?\.png", name) is not None for name in names)
        names.append(f"{stem}-{earlier + 1}.png" if earlier else f"{stem}.png")
    return names


def _render(page: ReportPage, images: Sequence[bytes]) -> str:
    shown, record = rows(page), json_value(page.model_record)
    black = [row for row in shown if row.attack.black_box]
    strips = [_ShownStrip.of(strip, png) for strip, png in zip(page.strips, images, strict=True)]
    about_black = [text for text in page.missing if re.search("black box|stranger", text, re.IGNORECASE)]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            page=page,
            published=published_titles(),
            cards=cards(page),
            rows=[row for row in shown if not row.attack.black_box],
            black_rows=black,
            visible=visible_text(black[0].attack) if black else "",
            missing_black=about_black,
            checks=trust.checks(page.controls),
            flags=trust.flag_groups(page.flags),
            attack_counts=trust.attack_counts(page),
            examples=_examples([one for one in strips if one.strip.budget is None]),
            roles=any(strip.role for strip in page.strips),
            black_strips=[one for one in strips if one.strip.budget is not None],
            attacks=sorted(page.cells, key=lambda attack: (place(attack), attack.method, attack.eps)),
            devices=sorted({a.device for a in page.cells} | {s.device for s in page.smallest}),
            record=json.dumps(record, indent=2, ensure_ascii=False) if record else None,
            classes=breaking_first(page.classes),
            class_axis=BudgetAxis.of([each.eps_star for each in page.classes if each.eps_star]),
            **_budget_values(page),
        )
    )


@cache
def _environment() -> Environment:
    """The templates with what they may call."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        also=texts.second_figure,
        setting=texts.setting_text,
        value=texts.figure_text,
        interval=texts.interval_text,
        unchanged=texts.unchanged_text,
        number=texts.number_text,
        eps=format_eps,
        kind=budgets.kind,
        median=budgets.median_text,
        median_interval=budgets.median_interval_text,
        reached=budgets.reached_text,
        success=budgets.success_text,
        level=_level,
        level_label=level_label,
        exact=_exact,
        budget_setting=_budget_setting,
        headline=headline,
        method_title=method_title,
        saved_as=trust.saved_as,
        control_text=trust.control_text,
        goal_figure=trust.goal_figure,
        title_of=lambda goal: spec(goal).title,
        queries=_queries,
    )
    return environment


def _budget_values(page: ReportPage) -> dict[str, object]:
    """What the head and the section on smallest budgets show."""
    ordered = budgets.in_order_of_ease(page.smallest)
    audited = page.eps if rows(page) else None
    axis = axis_of(ordered, audited)

    def chart(frame: Frame) -> Markup:
        return Markup(budget_svg(ordered, axis, audited=audited, frame=frame))

    drawn = any(each.curve for each in ordered)
    saved = [each for each in ordered if each.saved is not None]
    held, reached = sum(each.saved or 0 for each in saved), sum(each.reached for each in saved)
    return {
        "lead": budgets.lead(ordered) if ordered else conclusion(page)[0],
        "further": budgets.further(ordered) if ordered else conclusion(page)[1:],
        "budgets": ordered,
        "axis": axis,
        "chart_wide": chart(WIDE) if drawn else "",
        "chart_narrow": chart(NARROW) if drawn else "",
        "legend": budgets.legend(ordered),
        "levels": budgets.LEVELS_SHOWN,
        "saved": f"{held:,} of {reached:,} attacks hold as such files" if reached else "",
    }


def _level(eps: float | None) -> str:
    return "not reached" if eps is None else budgets.level_text(eps)


def _exact(eps: float | None) -> str:
    """A budget in 1/255 with four digits, an en dash where there is none."""
    return texts.NOTHING if eps is None else f"{eps * LEVELS:.4g}"


def _budget_setting(summary: BudgetSummary) -> str:
    """The letters of a goal with K or N: "m = 1, first 10"."""
    parts = texts.letter_texts(summary)
    parts.append(f"first {summary.first}" if summary.places is None else f"N = {summary.places}")
    return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Examples:
    """The strips of one goal: the one that stands for it, and the others."""

    first: "_ShownStrip"
    more: "tuple[_ShownStrip, ...]"

    @property
    def roles(self) -> str:
        """What the others are: "the easiest and the hardest attack"."""
        roles = [f"the {shown.strip.role}" for shown in self.more if shown.strip.role]
        return f"{' and '.join(roles)} attack" if roles else ""


def _examples(strips: "Sequence[_ShownStrip]") -> list[_Examples]:
    """Strips by goal; the median one stands for its goal where roles are known."""
    goals: dict[str, list[_ShownStrip]] = {}
    for shown in strips:
        goals.setdefault(shown.strip.goal, []).append(shown)
    found = []
    for alike in goals.values():
        first = next((one for one in alike if one.strip.role == MEDIAN), alike[0])
        found.append(_Examples(first=first, more=tuple(one for one in alike if one is not first)))
    return found


@dataclass(frozen=True, kw_only=True)
class _ShownStrip:
    """A strip with its image as a data address."""

    strip: Strip
    source: str
    width: int
    height: int

    @classmethod
    def of(cls, strip: Strip, png: bytes) -> "_ShownStrip":
        width, height = (int.from_bytes(png[at : at + 4], "big") // SCALE for at in (16, 20))
        kind, content = _lighter(png)
        source = f"data:image/{kind};base64,{b64encode(content).decode()}"
        return cls(strip=strip, source=source, width=width, height=height)


def _lighter(png: bytes) -> tuple[str, bytes]:
    """The image as the page holds it, with its type: a PNG of photos as a WebP of a fifth of its size.

    At twice the size it is shown at, the two cannot be told apart; pictures/ keeps every pixel.
    """
    if len(png) <= LARGE or not features.check("webp"):
        return "png", png
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(stream, "WEBP", quality=90, method=2, use_sharp_yuv=True)
    return "webp", stream.getvalue()


def _queries(row: Row) -> Markup:
    """What the row's method and the published one reached, over the queries spent."""
    lines = [Line(attack.method, attack.curve) for attack in (row.attack, *row.others) if attack.curve]
    ends = ", ".join(
        f"{line.name} {texts.number_text(line.points[-1][1], 2)} after {line.points[-1][0]:,} queries"
        for line in lines
    )
    return Markup(query_svg(lines, label=f"best tau_S, {texts.setting_text(row.attack)}: {ends}"))
