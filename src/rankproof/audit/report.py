"""An audit told as a page that needs nothing else, with its figures as JSON and its pictures as PNG."""

import json
import math
import os
import re
from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rankproof.audit import table
from rankproof.audit.result import AuditResult, Strip, grouped
from rankproof.audit.table import Cell, Row
from rankproof.errors import RankproofError
from rankproof.figures import SCALE, Line, Point, curve_svg, eps_text, goal_name, query_svg, strip_png
from rankproof.io import write_atomically

PAGE, FIGURES, PICTURES = "report.html", "report.json", "pictures"
HEADLINES = ("qa+", "qa-", "ca+", "ca-", "oa")


def render_html(result: AuditResult) -> str:
    """The report as one self-contained page without scripts."""
    return _page(result, [strip_png(strip) for strip in result.strips])


def save(result: AuditResult, folder: Path) -> Path:
    """Write report.html, pictures/*.png and, last, report.json into `folder`; returns the page's path.

    Everything is written beside its place first and moved when all of it is there: a full disk leaves an
    earlier report as it was.

    Raises:
        RankproofError: the folder cannot be written.
    """
    pictures = [strip_png(strip) for strip in result.strips]
    figures = json.dumps(as_json(result), indent=2, ensure_ascii=False, allow_nan=False)
    files = {
        **dict(zip((f"{PICTURES}/{name}" for name in picture_names(result.strips)), pictures, strict=True)),
        PAGE: _page(result, pictures).encode(),
        FIGURES: f"{figures}\n".encode(),
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


def as_json(result: AuditResult) -> dict[str, Any]:
    """All of an audit except its pictures, with None for what is not finite."""
    kept = {name: value for name, value in vars(result).items() if name not in ("strips", "flags")}
    plain = _plain({**kept, "flags": [asdict(flag) for flag in result.flags]})
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case _:
            return _plain(value.item()) if hasattr(value, "item") else str(value)


def picture_names(strips: list[Strip]) -> list[str]:
    """A file name for each strip: qa-plus.png, qa-plus-2.png for the next, oa-black-box.png."""
    names: list[str] = []
    for strip in strips:
        goal = re.sub(r"-$", "-minus", strip.goal.lower().replace("+", "-plus"))
        stem = re.sub(r"[^a-z0-9]+", "-", goal).strip("-") or "attack"
        stem += "" if strip.budget is None else "-black-box"
        earlier = sum(re.fullmatch(rf"{stem}(-\d+)?\.png", name) is not None for name in names)
        names.append(f"{stem}-{earlier + 1}.png" if earlier else f"{stem}.png")
    return names


def _page(result: AuditResult, pictures: list[bytes]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        name=goal_name,
        explain=table.explain,
        extra=table.extra_text,
        setting=table.setting_text,
        value=table.value_text,
        interval=table.interval_text,
        number=table.number,
        figure=table.figure,
        eps=eps_text,
        curve=_curve,
        queries=_queries,
        plain=table.REFERENCE_METHODS,
    )
    shown, record = table.rows(result), _plain(result.model_record)
    known = [row for row in shown if not table.is_seen(row.cell)]
    seen = [row for row in shown if table.is_seen(row.cell)]
    strips = [_Shown.of(strip, png) for strip, png in zip(result.strips, pictures, strict=True)]
    return environment.get_template("report.html.jinja").render(
        result=result,
        verdict=table.metrics(result),
        rows=known,
        seen=seen,
        first=table.first_results(seen[0].cell) if seen else "",
        seen_trials=table.seen_trials(result),
        headlines=_headlines(known),
        flags=grouped(result.flags),
        strips=[one for one in strips if one.strip.budget is None],
        seen_strips=[one for one in strips if one.strip.budget is not None],
        cells=sorted(result.cells, key=lambda cell: (table.place(cell), cell["method"], cell["eps"])),
        devices=sorted({str(cell["device"]) for cell in result.cells if cell.get("device")}),
        white_box=not any(table.is_seen(cell) for cell in result.cells),
        record=json.dumps(record, indent=2, ensure_ascii=False) if record else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Headline:
    """A sentence around one figure, and where the figure lies between the top and the end of a ranking."""

    lead: str
    figure: str
    interval: str
    tail: str
    before: float | None
    after: float | None


def _headlines(shown: list[Row]) -> list[_Headline]:
    """One sentence for the first row of each of the plain goals."""
    first = {row.cell["goal"]: row.cell for row in reversed(shown)}
    return [_headline(first[goal]) for goal in HEADLINES if goal in first]


def _headline(cell: Cell) -> _Headline:
    ranked = cell["metric"] == "rank"
    return _Headline(
        lead=_lead(cell),
        figure=table.value_text(cell, "after"),
        interval=table.interval_text(cell),
        tail="" if ranked else ", where 1 is exactly as chosen and 0 is chance",
        before=table.number(cell, "before") if ranked else None,
        after=table.number(cell, "after") if ranked else None,
    )


def _lead(cell: Cell) -> str:
    """What the stranger can do, up to the figure."""
    start, w, m, k = table.value_text(cell, "before"), cell.get("w") or 1, cell.get("m") or 1, cell.get("k")
    match cell["goal"]:
        case "qa+":
            items = "a random item moves" if m == 1 else f"{m} random items move"
            return f"Change a query so that {items} from the middle of the ranking ({start}) to"
        case "qa-":
            items = "one of its best results moves" if m == 1 else f"{m} of its best results move"
            return f"Change a query so that {items} from {start} of the ranking to"
        case "ca+":
            who = "a random query" if w == 1 else f"{w} random queries at once"
            return f"Change an item so that it moves, for {who}, from the middle of the ranking ({start}) to"
        case "ca-":
            finds = "a query finds" if w == 1 else f"{w} queries find"
            return f"Change an item that {finds} near the top ({start}) so that it moves to"
        case _:
            best = f"its {k} best results follow" if k else "its best results follow"
            return f"Change a query so that {best} an order of the stranger's choice with a Kendall tau of"


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A strip with its picture as a data address."""

    strip: Strip
    source: str
    width: int
    height: int

    @classmethod
    def of(cls, strip: Strip, png: bytes) -> "_Shown":
        width, height = (int.from_bytes(png[at : at + 4], "big") // SCALE for at in (16, 20))
        source = f"data:image/png;base64,{b64encode(png).decode()}"
        return cls(strip=strip, source=source, width=width, height=height)


def _curve(row: Row, audited: float) -> Markup:
    points = [point for cell in row.curve if (point := _point(cell)) is not None]
    start = table.number(row.cell, "before")
    if start is not None and not any(table.same_eps(point.eps, 0.0) for point in points):
        points.append(Point(0.0, start))
    metric = row.cell["metric"]
    label = f"{goal_name(row.cell['goal'])}: {table.figure(start)} untouched, " + ", ".join(
        f"{table.value_text(cell, 'after')} at {eps_text(cell['eps'])}" for cell in row.curve
    )
    return Markup(curve_svg(points, metric=metric, audited=audited, label=label))


def _queries(row: Row) -> Markup:
    """What the row's method and its yardstick reached, over the queries spent."""
    lines = [
        Line(cell["method"], [(queries, value) for queries, value in cell["curve"] if value is not None])
        for cell in (row.cell, row.reference_method)
        if cell and cell.get("curve")
    ]
    ends = ", ".join(
        f"{line.name} {table.figure(line.points[-1][1], 2)} after {line.points[-1][0]:,} queries"
        for line in lines
        if line.points
    )
    return Markup(query_svg(lines, label=f"best tau_S, {table.setting_text(row.cell)}: {ends}"))


def _point(cell: Cell) -> Point | None:
    value, ends = table.number(cell, "after"), table.interval(cell) or (None, None)
    return None if value is None else Point(float(cell["eps"]), value, *ends)
