"""The curves over the budget: where they are drawn, that names do not cover each other, extreme figures."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import pytest
from report_samples import DEFENDED, PHOTOS, budgets

from rankproof.report.budget_chart import CHARACTER, LINE, NARROW, WIDE, BudgetAxis, axis_of, budget_svg

SVG = "{http://www.w3.org/2000/svg}"


def chart(summaries, frame=WIDE, audited=1 / 255):
    text = budget_svg(summaries, axis_of(summaries, audited), audited=audited, frame=frame)
    return text, ElementTree.fromstring(text)


def curves(root):
    paths = [path for path in root.iter(f"{SVG}path") if path.get("class").startswith("curve")]
    return {
        path.find(f"{SVG}title").text.split(":")[0]: [
            tuple(map(float, pair.split(","))) for pair in path.get("d")[1:].split("L")
        ]
        for path in paths
    }


def names(root):
    found = {}
    for text in root.iter(f"{SVG}text"):
        if (text.get("class") or "").startswith("name"):
            x, y, width = float(text.get("x")), float(text.get("y")), CHARACTER * len(text.text)
            found[text.text] = (x, y - LINE + 4, x + width, y + 4)
    return found


@pytest.mark.parametrize("frame", [WIDE, NARROW])
@pytest.mark.parametrize("medians", [PHOTOS, DEFENDED])
def test_names_stand_in_the_chart_and_cover_no_other_name(medians, frame):
    _, root = chart([budgets(goal, median) for goal, median in medians.items()], frame)
    found = names(root)
    assert len(found) == len(medians)
    for left, top, right, bottom in found.values():
        assert frame.left <= left
        assert right <= frame.width
        assert frame.top <= top
        assert bottom <= frame.height - frame.bottom + LINE
    for one, other in combinations(found.values(), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart


def test_a_curve_climbs_by_a_step_for_each_attack_and_ends_at_the_share_reached():
    _, root = chart([budgets("qa+", 1.0, 4, reached=2), budgets("ca+", 0.1)])
    points = curves(root)["QA+"]
    x, y = zip(*points, strict=True)
    assert list(x) == sorted(x)
    assert list(y) == sorted(y, reverse=True)
    base, top = WIDE.height - WIDE.bottom, WIDE.top
    assert y[0] == base
    assert y[-1] == pytest.approx((base + top) / 2)  # 2 of 4
    assert x[-1] == WIDE.width - WIDE.right
    assert points.count(points[0]) <= 2


def test_a_circle_stands_where_half_succeed():
    summary = budgets("ca+", 1.0)
    _, root = chart([summary])
    (dot,) = root.iter(f"{SVG}circle")
    axis = axis_of([summary], 1 / 255)
    assert float(dot.get("cx")) == pytest.approx(WIDE.left + WIDE.across * axis.share(1 / 255), abs=0.1)
    (mark,) = [line for line in root.iter(f"{SVG}line") if line.get("class") == "audited"]
    assert float(mark.get("x1")) == pytest.approx(float(dot.get("cx")), abs=0.1)


def test_nothing_audited_has_no_mark():
    summary = budgets("ca+", 1.0)
    assert "audited" not in budget_svg([summary], axis_of([summary], None), audited=None, frame=WIDE)


def test_what_nobody_reached_has_no_curve_but_is_read_out():
    text, root = chart([budgets("qa+", reached=0), budgets("oa", 1.0, 8, free=8), budgets("ca+", 1.0)])
    assert list(curves(root)) == ["CA+"]
    assert "QA+ not reached; OA free; CA+ 1, in 1/255" in root.get("aria-label")
    assert not re.search(r"\b(nan|inf|None)\b", text)


@pytest.mark.parametrize("median", [1e-4, 0.004, 250.0, 254.0])
def test_extreme_budgets_stay_in_the_chart(median):
    text, root = chart([budgets("ca+", median, spread=0.01)], audited=1.0)
    assert not re.search(r"\b(nan|inf)\b", text)
    for x, _ in curves(root)["CA+"]:
        assert WIDE.left <= x <= WIDE.width - WIDE.right


def test_a_thousand_attacks_are_no_large_picture():
    text, root = chart([budgets(goal, median, 1000) for goal, median in PHOTOS.items()])
    assert len(text) < 120_000
    assert curves(root)["CA+"][-1][1] == WIDE.top


def test_hostile_names_are_escaped(monkeypatch):
    summary = budgets("ca+", 1.0)
    monkeypatch.setattr(type(summary), "sentence", '<script>"&')
    text, _ = chart([summary])
    assert "<script" not in text


def test_curves_of_one_kind_are_told_apart_without_colour():
    _, root = chart([budgets("ca+", 1.0), budgets("qa+", 2.0), budgets("ca-", 0.1)])
    styles = {path.get("class") for path in root.iter(f"{SVG}path")}
    assert styles == {"curve raise d0", "curve raise d1", "curve lower d0"}


def test_the_axis_is_one_of_a_few_and_its_ticks_do_not_touch():
    assert BudgetAxis.of([1 / 255]) == BudgetAxis(0.05, 16.0)
    assert BudgetAxis.of([0.03 / 255, 20 / 255]) == BudgetAxis(0.02, 64.0)
    assert BudgetAxis.of([]) == BudgetAxis(0.05, 16.0)
    assert BudgetAxis.of([1 / 255], whole=True).high == 255.0
    axis = BudgetAxis(0.05, 255.0)
    for width in (300, 900):
        ticks = axis.ticks(width)
        assert 255.0 in ticks
        assert 1 in ticks
        places = [width * axis.share(level / 255) for level in ticks]
        assert all(later - earlier >= 30 for earlier, later in pairwise(places))
    assert (axis.share(0.0), axis.share(1.0)) == (0.0, 1.0)
