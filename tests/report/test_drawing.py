import io
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from rankproof.goals.registry import spec
from rankproof.report.curve import Line, query_svg
from rankproof.report.strip import Strip, Tile
from rankproof.report.strip_drawing import SCALE, _Layout, _lines, strip_png
from rankproof.threat import format_eps

SVG = "{http://www.w3.org/2000/svg}"
EPS = 8 / 255


def random_images(count, channels=1, side=28):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def tile(image, rank, **marks):
    return Tile(image=image, rank=rank, **marks)


def strip(images, **changes):
    before = (tile(images[2], 0), tile(images[3], 1, label="a $ b_c"), tile(images[4], 500, chosen=True))
    after = (tile(images[2], 0), tile(images[4], 1, chosen=True), tile(images[3], 2))
    values = {
        "goal": "qa+",
        "eps": EPS,
        "original": images[0],
        "adversarial": (images[0] + EPS).clamp(0, 1),
        "query": None,
        "before": before,
        "after": after,
        "wanted": "the third comes first",
    }
    return Strip(**values | changes)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count(page, colour):
    return int((np.abs(page - np.array(colour)).max(axis=2) <= 2).sum())


@pytest.mark.parametrize("size", [(20, 80), (80, 20), (300, 150), (7, 9)])
def test_images_of_another_form_keep_it(size):
    images = random_images(5, 3)
    other = torch.zeros(3, *size)
    other[0] = other[2] = 1
    rankings = (tile(images[2], 0), tile(other, 1), tile(images[3], 2))
    page = pixels(strip_png(strip(images, before=rankings, after=rankings[:1])))
    rows, columns = (np.abs(page - np.array((255, 0, 255))).max(axis=2) <= 2).nonzero()
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height / width == pytest.approx(size[0] / size[1], rel=0.1)
    assert max(height, width) == pytest.approx(56 * SCALE, rel=0.2)


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (427, 640)])
def test_what_stands_beside_a_narrow_or_flat_image_has_its_place(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    others = random_images(5, 3)
    page = pixels(strip_png(strip(others, original=image, adversarial=image)))
    assert page.shape[0] > 250 * SCALE
    assert page.shape[1] > 300 * SCALE


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (3, 150), (4, 20)])
def test_a_strip_is_drawn_whatever_the_images_are(channels, side):
    page = pixels(strip_png(strip(random_images(5, channels, side))))
    assert page.shape[0] > 200 * SCALE
    assert page.shape[1] > 300 * SCALE
    assert len(np.unique(page[::3, ::3] @ [65536, 256, 1])) > 50


def test_small_images_stay_crisp():
    # black and white squares, shown without a single pixel between the two
    board = (torch.arange(28)[:, None] + torch.arange(28)).remainder(2).float()[None]
    page = pixels(strip_png(strip(board.expand(5, 1, 28, 28), adversarial=board)))
    first = page[28 * SCALE + 2 : (28 + 112) * SCALE - 2, 12 * SCALE + 2 : (12 + 112) * SCALE - 2]
    assert set(np.unique(first)) == {0, 255}
    assert (first[:, :, 0] == 255).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("side", "shown"), [(8, 56), (28, 56), (56, 56), (96, 66), (640, 66)])
def test_photos_are_shown_larger_than_small_images(side, shown):
    layout = _Layout(strip(random_images(5, 3, side)))
    assert layout.small == (shown, shown)
    assert layout.large == ((112, 112) if side <= 56 else (144, 144))


def test_a_ranking_of_ten_photos_fits_on_the_page():
    images = random_images(12, 3, 96)
    places = (*range(6), 300, 301, 302)
    tiles = tuple(tile(images[i], rank) for i, rank in enumerate(places))
    assert _Layout(strip(images, before=tiles, after=tiles)).width <= 58 * 16 - 2 * 1.5 * 16 + 24


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("Leek", ["Leek"]),
        ("Alpro-Vanilla-Soyghurt", ["Alpro-Vanilla-", "Soyghurt"]),
        ("God-Morgon-Red-Grapefruit-Juice", ["God-Morgon-Red-", "Grapefruit-Juice"]),
        ("a label of very many words that do not fit", ["a label of very", "many words that…"]),
        ("", []),
    ],
)
def test_names_of_classes_are_broken_where_words_end(label, lines):
    assert _lines(label, 16) == lines


def test_only_the_marked_are_framed_and_each_kind_in_its_colour():
    images, orange, blue = random_images(5), (217, 118, 26), (47, 111, 159)
    bare = (tile(images[2], 0), tile(images[3], 1))
    plain = pixels(strip_png(strip(images, before=bare, after=bare)))
    chosen = pixels(strip_png(strip(images)))
    moved = (tile(images[2], 0), tile(images[3], 1, attacked=True))
    attacked = pixels(strip_png(strip(images, before=bare, after=moved, query=images[1])))
    assert count(plain, orange) == count(plain, blue) == 0
    assert count(chosen, orange) > 1000
    assert count(chosen, blue) == 0
    assert count(attacked, blue) > 500
    assert count(attacked, orange) == 0


def test_the_change_is_amplified_around_grey():
    images = torch.full((5, 1, 28, 28), 0.5)
    page = pixels(strip_png(strip(images, adversarial=images[0] + EPS)))
    y, x = (12 + 22 + 40) * SCALE, (12 + 132 + 56) * SCALE
    assert page[y, x].tolist() == pytest.approx([round(255 * (0.5 + 15 * EPS))] * 3, abs=1)  # 15 * 8 < 127.5
    still = pixels(strip_png(strip(images, adversarial=images[0])))
    assert still[y, x].tolist() == pytest.approx([128] * 3, abs=1)


def test_a_cut_in_the_ranks_takes_room_and_none_does_not():
    images = random_images(12)
    near = tuple(tile(images[i], i) for i in range(10))
    far = (*near[:-1], tile(images[9], 800))
    widths = [pixels(strip_png(strip(images, before=tiles, after=near))).shape[1] for tiles in (near, far)]
    assert widths[1] > widths[0]


def test_the_query_of_each_ranking_is_the_right_one():
    white, black = torch.ones(1, 28, 28), torch.zeros(1, 28, 28)
    row = (tile(white, 0),)

    def queries(query):
        images = strip(white.expand(5, 1, 28, 28), adversarial=black, before=row, after=row, query=query)
        page = pixels(strip_png(images))
        column = page[:, (12 + 28) * SCALE, 0]
        tops = [12 + 22 + 112 + 10 + 32, 12 + 22 + 112 + 10 + 32 + (32 + 56 + 4 + 10)]
        return [column[(top + 20) * SCALE] for top in tops]

    assert queries(None) == [255, 0]  # the attacked image itself: clean, then adversarial
    assert queries(black) == [0, 0]


def test_a_black_box_strip_has_a_row_for_the_wanted_order_without_a_query():
    white, black = torch.ones(1, 28, 28), torch.zeros(1, 28, 28)
    row = (tile(white, 0, chosen=True, mark="A"),)
    changes = {"adversarial": black, "before": row, "after": row}
    plain = pixels(strip_png(strip(white.expand(5, 1, 28, 28), **changes)))
    shown = pixels(strip_png(strip(black.expand(5, 1, 28, 28), **changes, order=row, visible=50, budget=9)))
    height = 32 + 56 + 16 + 10
    assert shown.shape[0] - plain.shape[0] == height * SCALE
    tops = [12 + 22 + 112 + 10 + 32 + number * height for number in range(3)]
    queries = [shown[(top + 20) * SCALE, (12 + 28) * SCALE].tolist() for top in tops]
    assert queries == [[0] * 3, [255] * 3, [0] * 3]  # nothing stands before the wanted order


def test_what_is_out_of_sight_is_pale_and_has_no_frame():
    black, orange = torch.zeros(1, 28, 28), (217, 118, 26)
    images = black.expand(5, 1, 28, 28)

    def sheet(**marks):
        row = (tile(black, 0, chosen=True, mark="A", **marks),)
        return pixels(strip_png(strip(images, before=row, after=row)))

    top, left = (12 + 22 + 112 + 10 + 32 + 20) * SCALE, (12 + 56 + 10 + 10 + 20) * SCALE
    assert sheet()[top, left].tolist() == [0, 0, 0]
    assert sheet(unseen=True)[top, left].tolist() == [153] * 3
    assert count(sheet(unseen=True), orange) < count(sheet(), orange) / 4


def test_the_letters_of_the_chosen_are_drawn():
    images = random_images(5)
    marked, other, bare = (
        pixels(strip_png(strip(images, before=(tile(images[2], 0, mark=mark),), after=())))
        for mark in ("A", "B", None)
    )
    assert marked.shape == other.shape
    assert (marked != other).any()
    assert marked.shape[0] > bare.shape[0]


def test_a_strip_without_rankings_and_with_a_foreign_label_is_drawn():
    images = random_images(5)
    assert strip_png(strip(images, goal="shift", before=(), after=()))
    assert strip_png(strip(images, before=(tile(images[1], 3, label="靴\n" * 9),)))


def test_a_strip_gives_the_same_bytes_each_time():
    assert strip_png(strip(random_images(5))) == strip_png(strip(random_images(5)))


def test_budgets_and_goals_are_printed_as_in_the_papers():
    assert [format_eps(eps) for eps in (0.0, 4 / 255, 0.3, 1.0)] == ["0/255", "4/255", "76.5/255", "255/255"]
    assert [spec(goal).title for goal in ("ca+", "qa-", "sp-qa-", "oa")] == ["CA+", "QA−", "SP-QA−", "OA"]


# -- over the queries ------------------------------------------------------------------------------

OWN = Line("own <b>", [(1, 0.02), (10, 0.1), (100, 0.3), (1000, 0.45)])
SPSA = Line("spsa", [(1, 0.02), (10, 0.07), (100, 0.2), (1000, 0.31)])


def over_queries(*lines, label="best tau_S"):
    text = query_svg(lines, label=label)
    return text, ElementTree.fromstring(text)


def paths(root):
    """The points of each curve by its classes."""
    drawn = (path for path in root.iter(f"{SVG}path") if "L" in path.get("d"))
    return {
        path.get("class"): [tuple(map(float, pair.split(","))) for pair in path.get("d")[1:].split("L")]
        for path in drawn
    }


def test_a_curve_over_queries_is_well_formed_and_free_of_ids():
    text, root = over_queries(OWN, SPSA, label='<script> & "quotes"')
    assert len(text) < 8_000
    assert root.get("aria-label") == '<script> & "quotes"'
    assert not any(element.get("id") for element in root.iter())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"1", "10", "100", "1,000", "queries", "own <b>", "spsa", "0", "0.25", "0.5"} == set(texts)


def test_each_factor_of_ten_queries_is_as_wide_and_more_is_higher():
    _, root = over_queries(OWN)
    (points,) = paths(root).values()
    steps = np.diff([x for x, _ in points])
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)
    share = (heights[0] - heights[-1]) / (0.45 - 0.02)  # pixels for a tau of 1
    assert heights[1] - heights[2] == pytest.approx(0.2 * share, abs=0.2)


def test_the_legend_names_each_line_in_its_own_colour_and_dashes():
    _, root = over_queries(OWN, SPSA)
    found = paths(root)
    texts = {element.text: float(element.get("y")) for element in root.iter(f"{SVG}text")}
    samples = [path for path in root.iter(f"{SVG}path") if "H" in path.get("d")]
    for name, end in (("own <b>", 0.45), ("spsa", 0.31)):
        (sample,) = [
            s for s in samples if abs(float(s.get("d").split(",")[1].split("H")[0]) - texts[name]) < 6
        ]
        others = [points[-1][1] for style, points in found.items() if style != sample.get("class")]
        assert (found[sample.get("class")][-1][1] < others[0]) == (end == 0.45)
    assert set(found) == {"curve q0 d0", "curve q1 d1"}  # told apart without colours, too


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.0, 0.2], ("0", "0.25")),
        ([-0.04, 0.2], ("0", "0.25")),
        ([-0.2, 0.6], ("−0.25", "0.75")),
        ([-1.0, 1.0], ("−1", "1")),
        ([0.3, 1.0], ("0", "1")),
    ],
)
def test_the_axis_ends_at_the_next_quarter(values, ends):
    _, root = over_queries(Line("own", list(zip((1, 1000), values, strict=True))))
    (points,) = paths(root).values()
    box = 0, float(root.get("height"))
    assert all(box[0] < y < box[1] for _, y in points)
    ticks = {
        float(element.get("y")): element.text
        for element in root.iter(f"{SVG}text")
        if element.get("text-anchor") == "end"
    }
    assert (ticks[max(ticks)], ticks[min(ticks)]) == ends


def test_lines_without_a_value_do_no_harm():
    gaps = Line("own", [(1, 0.1), (10, math.nan), (100, 0.3)])
    assert over_queries(gaps)[0] == over_queries(Line("own", [(1, 0.1), (100, 0.3)]))[0]
    for lines in ([], [Line("own", [])], [Line("own", [(1, 0.0)])]):
        assert not re.search(r"\b(nan|inf)\b", over_queries(*lines)[0])
