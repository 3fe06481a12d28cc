"""A strip as a PNG image."""

import io
import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rankproof.report.colours import ATTACKED, CHOSEN, INK, MUTED, RULE
from rankproof.report.strip import Strip, Tile
from rankproof.threat import format_eps

Pixels = Float[Tensor, "c h w"]
Length = int | float

SCALE = 2  # strips are drawn at twice their size on the page
DPI = 72 * SCALE  # so that one point of type is one pixel of the page
LARGE, SMALL = 112, 56  # sides of an image on the page: first row, rankings
LARGE_PHOTO, SMALL_PHOTO = 144, 66  # of an image with more pixels than SMALL, so that ten fit in a row
LARGE_LEAST, SMALL_LEAST = 76, 52  # widths below which the text above images would run together
MARGIN, SPACE, CUT = 12, 10, 22
LINE, CHARACTER = 10, 5  # height of a line and width of a letter below an image


def strip_png(strip: Strip) -> bytes:
    """One attack in images, as PNG: what was changed, and the ranking before and after it.

    First row: original, the change amplified around grey (by the factor in its title), adversarial.
    Then the two rankings, each led by its query; the chosen and the attacked items are framed, the rank
    stands above each image and "…" where ranks were left out. Of a black-box attack the wanted order
    stands between the two, and what is out of sight is pale. Twice the size it is meant to be shown at.
    """
    return _Layout(strip).draw()


class _Layout:
    """The layout of a strip; lengths in pixels of the page, the origin at the top left."""

    def __init__(self, strip: Strip) -> None:
        from matplotlib.figure import Figure

        self.strip = strip
        photo = max(strip.original.shape[-2:]) > SMALL
        self.sides = (LARGE_PHOTO, SMALL_PHOTO) if photo else (LARGE, SMALL)
        rankings = [tiles for tiles in (strip.before, strip.order, strip.after) if tiles]
        shown = [strip.original, *(tile.image for tiles in rankings for tile in tiles)]
        shown += [] if strip.query is None else [strip.query]
        self.large = _cell([strip.original], self.sides[0], LARGE_LEAST)
        self.small = _cell(shown, self.sides[1], SMALL_LEAST)
        self.top_height = max(self.large[1], self._legend_height())
        below = [1 if tile.mark else len(self._label(tile)) for tiles in rankings for tile in tiles]
        self.row_height = 32 + self.small[1] + (6 + LINE * max(below) if any(below) else 4)
        widest = max((self._ranking_width(tiles) for tiles in rankings), default=0)
        self.width = math.ceil(max(widest, 3 * (self.large[0] + 2 * SPACE) + 150) + 2 * MARGIN)
        self.height = math.ceil(2 * MARGIN + 22 + self.top_height + len(rankings) * (self.row_height + SPACE))
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=DPI, facecolor="white")

    def draw(self) -> bytes:
        strip, y = self.strip, float(MARGIN)
        self._first_row(y)
        y += 22 + self.top_height + SPACE
        for tiles, title, query in (
            (strip.before, "Ranking before", strip.original if strip.query is None else strip.query),
            (strip.order, "Wanted order", None),
            (strip.after, "Ranking after", strip.adversarial if strip.query is None else strip.query),
        ):
            if tiles:
                self._ranking(y, title, query, tiles)
                y += self.row_height + SPACE
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a label in a script the font does not know
            self.figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
        return stream.getvalue()

    def _legend_height(self) -> int:
        """The height of what stands beside the images of the first row."""
        tiles = self.strip.before + self.strip.after
        lines = any(tile.attacked for tile in tiles) + any(
            tile.chosen and not tile.attacked for tile in tiles
        )
        lines += any(tile.unseen for tile in tiles)
        return 38 + 16 * lines + 15 * (self.strip.visible is not None)

    def _first_row(self, y: Length) -> None:
        strip, step = self.strip, self.large[0] + 2 * SPACE
        change, factor = _amplified(strip.original, strip.adversarial)
        titles = "original", "no change" if strip.unchanged else f"change × {factor}", "adversarial"
        images = strip.original, change, strip.adversarial
        for column, (title, image) in enumerate(zip(titles, images, strict=True)):
            x = MARGIN + column * step
            self._text(x, y + 6, title, color=MUTED, size=9)
            self._image(x, y + 16, self.large, image, self.sides[0])
        x, y = MARGIN + 3 * step, y + 16
        self._text(x, y + 8, strip.title, size=13, weight="bold")
        self._text(x, y + 25, f"at most {format_eps(strip.eps)} per pixel", color=MUTED, size=9)
        tiles = strip.before + strip.after
        y += 46
        if strip.visible is not None:
            seen = f"sees {strip.visible} results of {strip.budget:,} queries"
            self._text(x, y - 6, seen, color=MUTED, size=9)
            y += 15
        for shown, colour, word in (
            (any(tile.attacked for tile in tiles), ATTACKED, "the changed item"),
            (any(tile.chosen and not tile.attacked for tile in tiles), CHOSEN, "chosen by the attacker"),
        ):
            if shown:
                self._frame(x + 1, y - 4, (9, 9), colour, 1.8)
                self._text(x + 17, y + 1, word, size=9)
                y += 16
        if any(tile.unseen for tile in tiles):
            self._text(x, y + 1, "pale: out of sight", color=MUTED, size=9)

    def _ranking(self, y: Length, title: str, query: Pixels | None, tiles: tuple[Tile, ...]) -> None:
        width, height = self.small
        self._text(MARGIN, y + 6, title, size=9.5, weight="bold")
        top, x = y + 32, float(MARGIN)
        if query is not None:
            self._text(x + width / 2, top - 8, "query", color=MUTED, size=8.5, align="center")
            self._image(x, top, self.small, query, self.sides[1])
        x += width + SPACE
        self._rule(x, top, height)
        x += SPACE
        for tile, cut in zip(tiles, _cuts(tiles), strict=True):
            if cut:
                middle = x + (CUT - SPACE) / 2
                self._text(middle, top + height / 2, "…", color=MUTED, size=14, align="center")
                x += CUT
            self._tile(x, top, tile)
            x += width + SPACE

    def _tile(self, x: Length, top: Length, tile: Tile) -> None:
        width, height = self.small
        colour = MUTED if tile.unseen else ATTACKED if tile.attacked else CHOSEN if tile.chosen else None
        middle, weight = x + width / 2, "bold" if colour else "normal"
        self._text(
            middle, top - 8, f"{tile.rank:,}", size=8.5, align="center", color=colour or MUTED, weight=weight
        )
        image = 0.6 + 0.4 * tile.image if tile.unseen else tile.image
        left, upper, box = self._image(x, top, self.small, image, self.sides[1])
        if colour and not tile.unseen:
            self._frame(left - 1.5, upper - 1.5, (box[0] + 3, box[1] + 3), colour, 3)
        below = top + height + 8
        if tile.mark:
            self._text(middle, below + 1, tile.mark, color=INK, size=10, weight="bold", align="center")
        else:
            for number, line in enumerate(self._label(tile)):
                self._text(middle, below + LINE * number, line, color=MUTED, size=7.5, align="center")

    def _label(self, tile: Tile) -> list[str]:
        """The label of a tile in lines that fit below it."""
        return _lines(tile.label or "", longest=(self.small[0] + SPACE) // CHARACTER)

    def _ranking_width(self, tiles: tuple[Tile, ...]) -> int:
        return (len(tiles) + 1) * (self.small[0] + SPACE) + SPACE + CUT * sum(_cuts(tiles))

    def _image(
        self, x: Length, y: Length, cell: tuple[int, int], image: Pixels, side: int
    ) -> tuple[Length, Length, tuple[int, int]]:
        """Pixels go to the page as they are, in the middle of their cell: a small image stays crisp.

        Returns:
            where the image is, and its box.
        """
        box = _box(image, side)
        x, y = x + (cell[0] - box[0]) // 2, y + (cell[1] - box[1]) // 2
        pixels = _pixels(image, box)
        below = self.height * SCALE - round(y * SCALE) - pixels.shape[0]
        self.figure.figimage(pixels, xo=round(x * SCALE), yo=below, origin="upper")
        self._frame(x, y, box, RULE, 0.5)
        return x, y, box

    def _frame(self, x: Length, y: Length, box: tuple[Length, Length], colour: str, width: Length) -> None:
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import IdentityTransform

        corner = (x * SCALE, (self.height - y - box[1]) * SCALE)
        size = box[0] * SCALE, box[1] * SCALE
        shape = Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width)
        shape.set_transform(IdentityTransform())
        self.figure.add_artist(shape)

    def _rule(self, x: Length, y: Length, height: Length) -> None:
        self._frame(x, y, (0, height), RULE, 1)

    def _text(
        self, x: Length, y: Length, text: str, *, align: str = "left", color: str = INK, **style: Any
    ) -> None:
        """Text centred on the line at `y`; a "$" in it is a "$"."""
        plain: dict[str, Any] = {"va": "center", "parse_math": False, "family": "DejaVu Sans"}
        self.figure.text(x / self.width, 1 - y / self.height, text, ha=align, color=color, **plain, **style)


def _cell(images: Sequence[Tensor], side: int, least: int) -> tuple[int, int]:
    """Width and height of the cell that holds any of some images, as wide as what stands above them."""
    boxes = [_box(image, side) for image in images]
    return max(least, *(width for width, _ in boxes)), max(height for _, height in boxes)


def _box(image: Pixels, side: int) -> tuple[int, int]:
    """Width and height on the page: whole multiples of a small image's pixels, else fitted to `side`."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    scale = max(1, round(side / longest)) if longest <= SMALL else side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _pixels(image: Pixels, box: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) bytes of an image of any number of channels, at the size of the page."""
    channels = np.moveaxis(image.detach().float().cpu().numpy(), 0, -1)
    colours = channels[..., :3] if channels.shape[-1] >= 3 else channels[..., :1].repeat(3, axis=-1)
    drawn = Image.fromarray(np.rint(255 * colours.clip(0, 1)).astype(np.uint8))
    size = (box[0] * SCALE, box[1] * SCALE)
    whole = size[0] % drawn.width == 0 and size[1] % drawn.height == 0
    crisp = whole and max(drawn.size) <= SMALL
    return np.asarray(drawn.resize(size, Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS))


def _amplified(original: Pixels, adversarial: Pixels) -> tuple[Pixels, int]:
    """The change around grey, times the largest whole number that keeps it in [0, 1]."""
    change = (adversarial - original).detach().float().cpu()
    largest = float(change.abs().max())
    factor = max(1, int(0.5 / largest + 1e-3)) if largest > 0 else 1
    return 0.5 + factor * change, factor


def _cuts(tiles: tuple[Tile, ...]) -> list[bool]:
    """Whether ranks are left out in front of each tile."""
    ranks = [-1, *(tile.rank for tile in tiles)]
    return [rank - earlier > 1 for earlier, rank in pairwise(ranks)]


def _lines(label: str, longest: int, most: int = 2) -> list[str]:
    """A label in at most so many lines, broken at spaces and hyphens; "…" where it is cut."""
    lines = wrap(" ".join(label.split()), longest)
    if len(lines) > most:
        lines[most - 1 :] = [lines[most - 1][: longest - 1] + "…"]
    return lines
