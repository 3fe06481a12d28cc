"""Whole pages of whole audits: well-formed, self-contained, readable by all, with what the audit found."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import report_samples as samples

from rankproof.audit import AuditResult
from rankproof.report.findings import ClassBudget
from rankproof.report.html import render_html

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, text, and whether every element is closed where it should be."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.words, self.balanced = [], [], [], True
        self.feed(html)
        self.balanced &= not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def pages():
    made = samples.ALL | {
        "photos": lambda: samples.audit(strips=(samples.strip(), samples.strip(role="easiest")))
    }
    return {name: render_html(make()) for name, make in made.items()}


@pytest.mark.parametrize("name", samples.ALL)
def test_a_page_is_well_formed_and_needs_nothing_else(pages, name):
    page = Page(pages[name])
    assert page.balanced
    assert not re.search(r"@import|url\(|<script|<link|<iframe", pages[name])
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", pages[name])
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= {attrs["href"] for attrs in page.of("a")}
    assert not re.search(r"\b(nan|None|inf|True|False)\b", page.text)


@pytest.mark.parametrize("name", samples.ALL)
def test_a_page_can_be_read_by_all(pages, name):
    page = Page(pages[name])
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in page.of("svg"))
    assert all(attrs.get("alt") for attrs in page.of("img"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.of("th"))
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert "@media (prefers-color-scheme: dark)" in pages[name]
    assert "@media print" in pages[name]
    drawings = "".join(re.findall(r"<svg.*?</svg>", pages[name], re.DOTALL))
    assert not re.search(r"#[0-9a-f]{3,6}\b", drawings)  # colours are the style sheet's: they follow it


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("number", [0, 1])
def test_every_colour_of_text_has_the_contrast_of_wcag_aa(pages, number):
    """In the light and in the dark, on the page and on the cards."""
    (block, *_) = re.findall(r"--paper: .*?\}", pages["photos"], re.DOTALL)[number : number + 1]
    colours = {name: f"#{value[1] * 2}{value[2] * 2}{value[3] * 2}" if len(value) == 4 else value
               for name, value in re.findall(r"--(\w+): (#[0-9a-f]+)", block)}  # fmt: skip
    for ground in ("paper", "panel"):
        for name in colours.keys() - {"paper", "panel", "rule"}:
            low, high = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_the_page_of_a_photo_encoder_says_it_in_its_first_lines(pages):
    text = Page(pages["photos"]).text
    wanted = (
        "Half of all items can be put among the first 10 results of a random query",
        "An insider",
        "Onto the first page 0.5/255",
        "A stranger",
        "Order of the top 5 0.37",
        "How far to trust it",
        "✓ 24 of 24",
        "recall@1 84.4 %",
        "rankproof-1",
        "What it takes to move the results",
        "25 of 25 reached",
        "What happens at 1/255",
        "plain PGD",
        "saved as JPEG 90",
        "What a stranger reaches",
        "Every pixel free",
        "No flags",
        "Nothing that belongs to this audit was left out",
        "the median of the attacks, at 0.92/255",
        "QA+: the easiest attack",
        "Which classes break first",
        "… 2 more classes between",
        "yoghurt <b> (3)",
        "All smallest budgets (7 goals)",
        "0f3a9c" * 10 + "beef",
        "rankproof audit --eps 1/255 --trials 25",
    )
    places = [text.find(each) for each in wanted]
    assert -1 not in places, wanted[places.index(-1)]
    assert places == sorted(places)


def test_a_researcher_finds_every_exact_figure(pages):
    result = samples.audit()
    text = Page(pages["photos"]).text
    for each in result.smallest:
        assert f"{each.eps_star * 255:.4g} {each.eps_star_ci95[0] * 255:.4g} – " in text
    for each in result.cells:
        assert f"{each.spec.title} {each.method}" in text
    for each in result.controls:
        assert each.text in text


def test_what_failed_or_is_missing_is_not_hidden(pages):
    text = Page(pages["defended"]).text
    for wanted in (
        "✗ 23 of 24",
        "✗ failed",
        "CA+: Of doubled came 18 where the attacks themselves have 21.9.",
        "7 figures: the 95 % interval is wider than ±3 points",
        "The black box was not measured: there was no time left",
        "QA+ a random item is among the first 10 results not reached",
        "runs/defended & <b>hardened</b> on fashion-mnist",
    ):
        assert wanted in text, wanted
    assert "recall@1" not in text
    assert "Nothing that belongs" not in text
    few = Page(pages["three"]).text
    assert "2 of 3 items" in few
    assert "What happens at 1/255" not in few
    assert "audited:" not in few
    assert "No attack got what it wanted" in Page(pages["nothing"]).text
    assert "too small for these goals" in Page(pages["free"]).text


def test_a_report_of_an_earlier_version_is_still_a_report(pages):
    text = Page(pages["earlier"]).text
    assert "of the way from an untouched ranking" in text
    assert "eps*" not in text
    assert "What happens at 1/255" in text


@pytest.mark.parametrize("name", ["defended", "three"])
def test_the_page_is_the_same_from_its_json(pages, name):
    result = replace(samples.ALL[name](), strips=())
    assert render_html(AuditResult.from_json(result.to_json())) == render_html(result)


def test_a_class_that_was_not_reached_comes_last():
    classes = [ClassBudget(goal="qa+", label=label, trials=2, eps_star=eps)
               for label, eps in (("never", None), ("soon", 0.1 / 255))]  # fmt: skip
    text = Page(render_html(samples.audit(classes=tuple(classes)))).text
    assert "soon (2) 0.1 never (2) not reached" in text
