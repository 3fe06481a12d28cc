"""A report as one HTML page that needs nothing else, with its figures as JSON and its strips as PNG."""

import io
import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, features

from rankproof.attacks.summary import AttackSummary
from rankproof.errors import RankproofError
from rankproof.io import utf8, write_atomically
from rankproof.methods.registry import published_titles
from rankproof.report import format as texts
from rankproof.report.curve import Line, Point, curve_svg, query_svg
from rankproof.report.page import (
    ReportPage,
    Row,
    black_box_trials,
    conclusion,
    grouped,
    headlines,
    json_value,
    place,
    rows,
    same_eps,
    visible_text,
)
from rankproof.report.strip import Strip
from rankproof.report.strip_drawing import SCALE, strip_png
from rankproof.threat import format_eps

PAGE, FIGURES, STRIPS = "report.html", "report.json", "pictures"
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
    """A file name for each strip: qa-plus.png, qa-plus-2.png for the next, oa-black-box.png."""
    names: list[str] = []
    for strip in strips:
        goal = re.sub(r"-$", "-minus", strip.goal.lower().replace("+", "-plus"))
        stem = re.sub(r"[^a-z0-9]+", "-", goal).strip("-") or "attack"
        stem += "" if strip.budget is None else "-black-box"
        earlier = sum(re.fullmatch(rf"{stem}(-\d+)?\.png", name) is not None for name in names)
        names.append(f"{stem}-{earlier + 1}.png" if earlier else f"{stem}.png")
    return names


def _render(page: ReportPage, images: Sequence[bytes]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
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
        curve=_curve,
        queries=_queries,
        published=published_titles(),
    )
    shown, record = rows(page), json_value(page.model_record)
    white = [row for row in shown if not row.attack.black_box]
    black = [row for row in shown if row.attack.black_box]
    strips = [_ShownStrip.of(strip, png) for strip, png in zip(page.strips, images, strict=True)]
    return environment.get_template("report.html.jinja").render(
        page=page,
        conclusion=conclusion(page),
        rows=white,
        black_rows=black,
        visible=visible_text(black[0].attack) if black else "",
        black_box_trials=black_box_trials(page),
        headlines=headlines(white),
        flags=grouped(page.flags),
        strips=[one for one in strips if one.strip.budget is None],
        black_strips=[one for one in strips if one.strip.budget is not None],
        attacks=sorted(page.cells, key=lambda attack: (place(attack), attack.method, attack.eps)),
        devices=sorted({attack.device for attack in page.cells if attack.device}),
        white_box=not any(attack.black_box for attack in page.cells),
        record=json.dumps(record, indent=2, ensure_ascii=False) if record else None,
    )


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


def _curve(row: Row, audited: float) -> Markup:
    """The row's figure over the budget."""
    points = [point for attack in row.curve if (point := _point(attack)) is not None]
    start = row.attack.before
    if start is not None and not any(same_eps(point.eps, 0.0) for point in points):
        points.append(Point(0.0, start))
    label = f"{row.attack.spec.title}: {texts.number_text(start)} untouched, " + ", ".join(
        f"{texts.figure_text(attack, attack.after)} at {format_eps(attack.eps)}" for attack in row.curve
    )
    return Markup(curve_svg(points, metric=row.attack.metric, audited=audited, label=label))


def _queries(row: Row) -> Markup:
    """What the row's method and the published one reached, over the queries spent."""
    lines = [
        Line(attack.method, attack.curve)
        for attack in (row.attack, row.reference)
        if attack is not None and attack.curve
    ]
    ends = ", ".join(
        f"{line.name} {texts.number_text(line.points[-1][1], 2)} after {line.points[-1][0]:,} queries"
        for line in lines
    )
    return Markup(query_svg(lines, label=f"best tau_S, {texts.setting_text(row.attack)}: {ends}"))


def _point(attack: AttackSummary) -> Point | None:
    return None if attack.after is None else Point(attack.eps, attack.after, *attack.interval or ())
