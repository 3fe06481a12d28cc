import base64
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from report_samples import AFTER, METRIC
from rich.console import Console

from rankproof.attacks.summary import AttackSummary
from rankproof.audit import AuditResult
from rankproof.errors import RankproofError
from rankproof.goals import MaxShift
from rankproof.goals.registry import register, standard_audit, unregister
from rankproof.report import format as texts
from rankproof.report import html as report
from rankproof.report import page as pages
from rankproof.report.page import Flag
from rankproof.report.strip import Strip, Tile

BUDGETS = (1, 2, 4, 8)


def cell(goal, n=4, method="strong", **changes):
    before, after = AFTER[goal]
    after, stealthy = before + (after - before) * n / 4, goal.startswith("sp")
    values = {"goal": goal, "method": method, "eps": n / 255, "metric": METRIC.get(goal, "rank")}
    values |= {"w": 1 if goal.startswith("ca") else None, "m": 1 if "qa" in goal else None}
    values |= {
        "k": 5 if goal == "oa" else None,
        "g": 5 if stealthy else None,
        "xi": 1.0 if stealthy else None,
    }
    values |= {"sp_rank": 1.37 if stealthy else None, "mean_rank_before": 2.0, "mean_rank": 17.25}
    values |= {"before": before, "after": after, "ci95": (after - 0.25, after + 0.25)}
    values |= {"steps": 24, "trials": 1000, "seed": 0, "device": "cpu", "model": "m", "data": "d"}
    values |= {"seconds": 12.5, "model_seconds": 10.0, "peak_mb": 300.0, "versions": {"torch": "2.5"}}
    return AttackSummary(**values | changes)


def seen(k=5, method="own", after=0.37, **changes):
    """A figure of a black box: the same attack where only 50 results are seen."""
    values = {"method": method, "k": k, "xi": None, "visible": 50, "budget": 1000, "trials": 100}
    values |= {"before": 0.01, "after": after, "ci95": (after - 0.08, after + 0.08)}
    values |= {
        "mean_rank_before": (k - 1) / 2,
        "mean_rank": 7.65,
        "queries_spent": 871.4,
        "queries_max": 1000,
    }
    return cell("oa", **values | {"curve": ((1, 0.01), (100, after / 2), (1000, after))} | changes)


BLACK_BOX = [seen(), seen(method="spsa", after=0.22), seen(10, after=0.31), seen(10, "spsa", 0.19)]


def seen_strip():
    one = strip("oa")
    tiles = tuple(replace(tile, chosen=True, mark="ABCD"[tile.rank]) for tile in one.before)
    return replace(one, before=tiles, order=tiles, after=tiles, visible=50, budget=1000)


def strip(goal="qa+"):
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    tiles = tuple(Tile(image=image, rank=rank, chosen=rank == 2) for rank, image in enumerate(images))
    changed = (images[0] + 0.01).clamp(0, 1)
    return Strip(
        goal=goal,
        eps=4 / 255,
        original=images[0],
        adversarial=changed,
        query=None,
        before=tiles,
        after=tiles,
        wanted="A <b>boot</b> comes first.",
    )


def audit(**changes):
    cells = [cell(goal, n) for goal in AFTER for n in BUDGETS] + [cell(goal, method="pgd") for goal in AFTER]
    values = {
        "model": "runs/mine",
        "data": "digits",
        "recall_at_1": 97.84,
        "cells": tuple(cells),
        "flags": (),
        "eps": 4 / 255,
        "trials": 1000,
        "seed": 7,
        "gallery_size": 1797,
        "data_note": "images of 8x8 in 10 classes",
        "command": "rankproof audit runs/mine digits --eps 4/255",
        "versions": {"python": "3.11", "torch": "2.5"},
        "seconds": 61.5,
        "strips": (),
        "model_record": {"arch": "digits"},
    }
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return AuditResult(**values)


class Page(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.rows = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.rows:
            self.rows[-1] += f" {data}"

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def page():
    return Page(report.render_html(audit(strips=[strip(), strip("sp-qa-")])))


def test_every_cell_is_on_the_page(page):
    rows = [" ".join(row.split()) for row in page.rows]
    for one in audit().cells:
        start, budget = one.spec.title, f"{round(one.eps * 255)}/255"
        alike = [row for row in rows if row.startswith(f"{start} {one.method}") and f" {budget} 1,000" in row]
        assert len(alike) == 1, (start, budget)
        assert texts.figure_text(one, one.after).replace("\N{NO-BREAK SPACE}", " ") in alike[0]


def test_the_page_says_what_was_found_in_order(page):
    wanted = (
        "runs/mine on digits",
        "of the way from an untouched ranking",
        "not measured",
        "1,797 images of digits",
        "recall@1 97.8 %",
        "so that it moves to 73.3 %",
        "from the middle of the ranking (50.3 %) to 3.1 %",
        "[2.9, 3.4]",
        "rank of C_SP",
        "Kendall tau of 0.81",
        "2.0 → 17.2",
        "No flags",
        "QA+, at 4/255.",
        "by Student's t",
        "rankproof audit runs/mine digits --eps 4/255",
        "torch 2.5",
        "systems that you own",
    )
    places = [page.text.find(text) for text in wanted]
    assert -1 not in places, wanted[places.index(-1)]
    assert places == sorted(places)


def test_a_reference_is_mentioned_in_the_row_of_its_attack_and_has_none_of_its_own():
    result = audit(cells=[cell("qa+"), cell("qa+", method="pgd", after=4.56), cell("ca+", method="pgd")])
    shown = pages.rows(result)
    assert [(row.attack.goal, row.attack.method) for row in shown] == [("ca+", "pgd"), ("qa+", "strong")]
    assert shown[1].reference.after == 4.56
    assert "plain PGD 4.6 %" in Page(report.render_html(result)).text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_worst_case_leads_and_all_methods_stand_beside_it():
    methods = {"strong": 3.0, "pgd": 9.0, "converged": 2.5, "worst-case": 2.2}
    cells = [cell("qa+", method=method, after=after) for method, after in methods.items()]
    (row,) = pages.rows(audit(cells=cells))
    assert row.attack.method == "worst-case"
    assert [other.method for other in row.others] == ["pgd", "strong", "converged"]
    (row,) = pages.rows(audit(cells=cells[:3]))
    assert row.attack.method == "converged"  # the stronger of our own
    (row,) = pages.rows(
        audit(cells=[cell("qa-", method=m, after=a) for m, a in methods.items() if m != "worst-case"])
    )
    assert row.attack.method == "strong"  # a larger rank is the stronger attack here
    assert row.reference.method == "pgd"


def test_a_mean_of_other_attacks_than_its_row_says_of_how_many():
    cells = [cell("qa+", method="worst-case"), cell("qa+"), cell("qa+", method="converged", trials=3)]
    text = Page(report.render_html(audit(cells=cells))).text
    assert "converged, 3 attacks" in text
    assert "strong, " not in text.split("by other methods")[1].split("What a stranger")[0]


def test_nothing_on_the_page_is_fetched_from_elsewhere(page):
    html = report.render_html(audit(strips=[strip()], flags=[Flag(kind="a", text="b")]))
    sources = page.attributes("src") + page.attributes("srcset")
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert {f"#{name}" for name in page.attributes("id")} >= set(page.attributes("href"))
    assert not re.search(r"@import|url\(|<script|<link|<iframe", html, re.IGNORECASE)


def test_photos_are_light_on_the_page_and_exact_in_their_folder(tmp_path):
    photo = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(2))
    tiles = tuple(Tile(image=photo.roll(rank, -1), rank=rank) for rank in range(3))
    one = replace(strip(), original=photo, adversarial=photo + 0.004, before=tiles, after=tiles, query=None)
    place = audit(strips=[one]).save(tmp_path)
    (source,) = Page(place.read_text(encoding="utf-8")).attributes("src")
    kind, _, content = source.partition(";base64,")
    assert kind == "data:image/webp"
    exact = (tmp_path / "pictures" / "qa-plus.png").read_bytes()
    assert exact == report.strip_png(one)
    light = base64.b64decode(content)
    assert len(light) < 0.6 * len(exact)  # noise; of true photos a fifth
    with Image.open(io.BytesIO(light)) as shown, Image.open(io.BytesIO(exact)) as drawn:
        assert shown.size == drawn.size
        grey = [np.asarray(image.convert("L")).astype(int) for image in (shown, drawn)]
    assert np.abs(grey[0] - grey[1]).mean() < 4


def test_what_the_user_named_cannot_become_markup():
    evil = "<script>alert('x')</script>"
    flags = [Flag(kind=evil, text=f"{evil} & more", cell=evil)]
    result = audit(
        model=evil,
        data=evil,
        data_note=evil,
        command=evil,
        flags=flags,
        strips=[strip(evil)],
        cells=[replace(cell("shift"), goal=evil)],
        model_record={evil: evil},
    )
    register(MaxShift, spec=replace(MaxShift.SPEC, name=evil, title=evil, describe=lambda values: evil))
    try:
        html = report.render_html(result)
    finally:
        unregister(evil)
    assert "<script" not in html
    assert "<b>boot" not in html
    assert f"{evil} & more" in Page(html).text


def test_no_two_elements_share_an_id(page):
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_flags_are_shown_and_take_the_place_of_the_all_clear():
    text = Page(
        report.render_html(audit(flags=[Flag(kind="ties", cell="oa at 4/255", text="Many ties.")]))
    ).text
    assert "oa at 4/255: Many ties. (ties)" in re.sub(r"\s+", " ", text)
    assert "No flags" not in text


def test_flags_that_say_the_same_stand_together():
    wide = [Flag(kind="wide", text="Too wide.", cell=name) for name in ("ca+ at 4/255", "oa at 4/255")]
    others = [Flag(kind="wide", text="Wider still.", cell="qa+"), Flag(kind="ties", text="Many ties.")]
    text = re.sub(r"\s+", " ", Page(report.render_html(audit(flags=[*wide, *others]))).text)
    assert "ca+ at 4/255, oa at 4/255: Too wide. (wide)" in text
    assert text.index("Many ties.") < text.index("Too wide.") < text.index("qa+: Wider still.")


def test_many_flags_of_a_kind_are_one_sentence_that_can_be_unfolded():
    flags = [Flag(kind="wide", text="Too wide.", cell=f"qa+ at {n}/255") for n in range(5)]
    flags.append(Flag(kind="wide", text="Wider still.", cell="oa"))
    text = re.sub(r"\s+", " ", Page(report.render_html(audit(flags=flags))).text)
    assert "6 figures: Too wide. – and alike for the others (wide) which" in text
    assert "oa: Wider still." in text


def test_an_attack_that_changed_nothing_says_so():
    told = "No change that was found does better than none."
    changed = strip()
    assert told not in Page(report.render_html(audit(strips=[changed]))).text
    same = replace(changed, adversarial=changed.original)
    assert told in Page(report.render_html(audit(strips=[same]))).text


def test_what_is_missing_is_left_out_and_not_printed():
    cells = [
        cell("qa+", before=float("nan"), after=float("nan"), ci95=(float("nan"),) * 2),
        cell("oa", ci95=(None, None)),
    ]
    result = audit(cells=cells, recall_at_1=None, model_record=None)
    text = Page(report.render_html(result)).text
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "recall@1" not in text


@pytest.mark.parametrize("cells", [[], [cell("qa+", 8)]])
def test_an_audit_without_a_figure_at_its_budget_says_so(cells):
    assert "No attack on the ranking was run at 4/255." in report.render_html(audit(cells=cells))


def test_black_box_figures_are_not_said_to_know_the_weights():
    text = Page(report.render_html(audit(cells=[cell("oa", method="nes", visible=50, budget=1000)]))).text
    assert "N = 50, Q = 1,000" in text
    assert "This attacker does not know the model" in text
    assert "knows the model; half" not in text


@pytest.fixture(scope="module")
def both():
    """An audit with both kinds of attackers, as a page."""
    strips = [strip(), strip("oa"), seen_strip()]
    return Page(report.render_html(audit(cells=[*audit().cells, *BLACK_BOX], strips=strips)))


def test_black_boxes_have_a_section_of_their_own(both):
    text = both.text.replace("\N{NO-BREAK SPACE}", " ")
    start = text.index("What a stranger reaches, who sees only the first 50 results")
    end = text.index("Of each goal the attack")
    assert text.index("What happens at 4/255") < start < end
    part = text[start:end]
    for wanted in (
        "and stop after 1,000 queries",
        "5 results to reorder tau_S 0.01 → 0.37 [0.29, 0.45] SPSA 0.22 mean rank mR 2.0 → 7.7",
        "10 results to reorder tau_S 0.01 → 0.31 [0.23, 0.39] SPSA 0.19 mean rank mR 4.5 → 7.7",
        "queries, on average 871 own, k = 5, N = 50, Q = 1,000 100 attacks",
        "OA, at 4/255, the first 50 results are seen.",
    ):
        assert wanted in part, wanted
    assert "N = 50" not in text[:start].split("What happens at 4/255")[1]
    assert text[end:].count("QA+, at 4/255.") == text[end:].count("OA, at 4/255.") == 1
    assert "N, Q and tau_S" in text


def test_without_a_black_box_the_page_says_that_it_was_not_measured(page):
    for word in ("tau_S", "Q queries", "queries, on average"):
        assert word not in page.text
    assert "Not measured: no attack of this audit was run as a black box" in page.text


def test_both_methods_of_a_black_box_are_drawn_over_the_queries(both):
    labels = [text for text in both.attributes("aria-label") if text.startswith("best tau_S")]
    assert labels == [
        "best tau_S, k = 5, N = 50, Q = 1,000: own 0.37 after 1,000 queries, spsa 0.22 after 1,000 queries",
        "best tau_S, k = 10, N = 50, Q = 1,000: own 0.31 after 1,000 queries, spsa 0.19 after 1,000 queries",
    ]


def test_a_reference_without_another_search_has_its_own_row():
    (row,) = pages.rows(audit(cells=[seen(method="spsa")]))
    assert (row.attack.method, row.reference) == ("spsa", None)
    assert (
        "are compared with; here it is the method itself."
        in Page(report.render_html(audit(cells=[seen(method="spsa")]))).text
    )


def test_white_and_black_boxes_are_not_mixed_up():
    """Neither in the sentence on what was found, nor in headlines, nor in what a figure is compared with."""
    cells = [*reversed(BLACK_BOX), *audit().cells]
    shown = pages.rows(audit(cells=cells))
    assert [row.attack.goal for row in shown] == [
        *(goal.name for goal in standard_audit() if goal.name in AFTER),
        "oa",
        "oa",
    ]
    assert [row.attack.k for row in shown[-2:]] == [5, 10]
    by_setting = {(row.attack.k, row.attack.budget): row for row in shown if row.attack.goal == "oa"}
    assert by_setting[5, None].reference.method == "pgd"
    assert by_setting[5, 1000].reference.after == 0.22
    assert by_setting[10, 1000].reference.after == 0.19
    found = " ".join(pages.conclusion(audit(cells=cells))).replace("\N{NO-BREAK SPACE}", " ")
    assert "the attacks went between 28 % (SP-QA−) and 94 % (CA+) of the way" in found
    assert "sees only the first 50 results of each query, went between 30 % (10 results) and 36 % (5" in found
    assert "Kendall tau of 0.81" in Page(report.render_html(audit(cells=cells))).text


def test_one_share_of_the_way_is_no_range():
    cells = [*audit().cells, seen(after=0.3), seen(10, after=0.301)]
    found = " ".join(pages.conclusion(audit(cells=cells))).replace("\N{NO-BREAK SPACE}", " ")
    assert "of each query, went 29 % of the way to a chosen order" in found


def test_a_black_box_alone_is_told_of_as_such():
    found = " ".join(pages.conclusion(audit(cells=[seen()]))).replace("\N{NO-BREAK SPACE}", " ")
    assert found == (
        "With at most 4/255 per pixel a black-box attacker who sees only the first 50 results went "
        "36 % (5 results) of the way to all that the attacker wants."
    )


def test_fewer_trials_of_black_boxes_are_told():
    found = audit(cells=[*audit().cells, *BLACK_BOX])
    assert (
        "1,000 attacks behind each figure at the audited eps 100 attacks behind each figure of the black box"
        in Page(report.render_html(found)).text
    )
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(pages.audit_table(found))
    text = console.export_text()
    assert "1,000 trials, 100 where N and Q are given, at 4/255" in text
    assert "OA k=10, N=50, Q=1,000" in text
    assert "spsa" not in text


def test_what_a_black_box_sees_is_explained():
    assert seen().sentence.endswith("all that is seen are the first 50 results of 1,000 queries.")
    assert seen(visible="inf").sentence.endswith("all that is seen are the results of 1,000 queries.")
    assert cell("oa").sentence.endswith("its 5 top results come in a chosen order.")


def test_reach_is_the_share_of_the_way_to_what_is_wanted():
    def share(goal, before, after):
        return pages.reach(cell(goal, before=before, after=after))

    assert share("qa+", 50.0, 10.0) == pytest.approx(80)
    assert share("qa-", 50.0, 60.0) == pytest.approx(20)
    assert share("oa", 0.0, 0.25) == pytest.approx(25)
    assert share("shift", 0.0, 0.25) is None
    assert "between 28 % (SP-QA−) and 94 % (CA+)" in pages.conclusion(audit())[0].replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_numbers_are_printed_without_a_negative_zero():
    assert [texts.number_text(value) for value in (-0.01, -1.25, 1234.5, None)] == [
        "0.0",
        "−1.2",
        "1,234.5",
        "–",
    ]


def test_the_terminal_table_has_a_row_per_attack():
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(pages.audit_table(audit(cells=[*audit().cells, cell("qa+", method="[bold]mine", m=2)])))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "3.1 % ± 0.2" in text
    assert "0.81 ± 0.25" in text
    assert "C_SP 1.4 %" in text
    assert "[bold]mine" in text
    assert sum("strong" in line for line in text.splitlines()) == len(AFTER)


def test_all_is_saved_and_the_json_is_strict(tmp_path):
    infinite = cell("oa", after=float("nan"), ci95=(float("nan"), float("inf")))
    flag = Flag(kind="ties", text="Many.")
    strips = [strip(), strip(), strip("sp-qa-"), seen_strip(), seen_strip()]
    result = audit(
        cells=(cell("qa+"), infinite, seen()),
        flags=(flag,),
        strips=tuple(strips),
        model_record={"size": torch.tensor(2.5)},
    )
    place = result.save(tmp_path / "new" / "folder")
    folder = place.parent
    assert place.read_text() == report.render_html(result)
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    stems = "oa-black-box-2", "oa-black-box", "qa-plus-2", "qa-plus", "sp-qa-minus"
    images = [f"pictures/{stem}.png" for stem in stems]
    assert names == [*images, "report.html", "report.json"]
    for name in images:
        with Image.open(folder / name) as image:
            assert image.width > 500

    def refuse(text):
        raise AssertionError(text)

    saved = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    keys = "schema model data recall_at_1 flags cells eps trials seed gallery_size data_note command versions"
    later = "first smallest controls classes protocol missing"
    assert saved.keys() == {*keys.split(), *later.split(), "seconds", "model_record", "examination"}
    assert saved["schema"] == 1
    assert AuditResult.from_json(saved).to_json() == saved
    assert saved["flags"] == [{"kind": "ties", "text": "Many.", "cell": None}]
    assert saved["cells"][0]["after"] == pytest.approx(3.12)
    assert saved["cells"][1]["after"] is None
    assert saved["cells"][1]["ci95"] == [None, None]
    assert saved["model_record"] == {"size": 2.5}
    assert saved["cells"][2]["curve"] == [[1, 0.01], [100, 0.185], [1000, 0.37]]


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_names_that_are_no_text_are_escaped_in_every_file(tmp_path):
    command = "rankproof audit --model caf\udce9 --out \x1b[2J"
    place = audit(model="caf\udce9", command=command, strips=[]).save(tmp_path)
    assert "caf\\udce9" in place.read_text(encoding="utf-8")
    values = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (values["model"], values["command"]) == ("caf\udce9", command)


@pytest.mark.parametrize("fails_at", range(3))
def test_a_write_that_fails_leaves_the_earlier_report(tmp_path, monkeypatch, fails_at):
    audit(strips=[strip()]).save(tmp_path)
    earlier, count, write = contents(tmp_path), iter(range(9)), report.write_atomically

    def failing(path, content):
        if next(count) == fails_at:
            raise RankproofError(f"{path}: cannot be written (No space left on device)")
        write(path, content)

    monkeypatch.setattr(report, "write_atomically", failing)
    with pytest.raises(RankproofError, match="No space left"):
        audit(model="other", strips=[strip()]).save(tmp_path)
    assert contents(tmp_path) == earlier


def test_the_json_comes_last(tmp_path, monkeypatch):
    moved, replace = [], os.replace

    def watching(source, target):
        moved.append(os.path.relpath(target, tmp_path))
        replace(source, target)

    monkeypatch.setattr(report.os, "replace", watching)
    audit(strips=[strip()]).save(tmp_path)
    assert moved[-3:] == ["pictures/qa-plus.png", "report.html", "report.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RankproofError, match="file/below"):
        audit().save(tmp_path / "file" / "below")
