from pathlib import Path

from rankproof.reproduction import results_page
from rankproof.reproduction.__main__ import with_headline
from rankproof.reproduction.records import CompletedCells
from rankproof.reproduction.results_page import EXPERIMENTS, experiment, headline, page

ROOT = Path(__file__).parents[2]


def sections():
    return [s for name in EXPERIMENTS for s in results_page._recipe(f"own/{name}").sections]


def test_without_records_nothing_is_told(records, rows):
    text = page(records)
    papers = 2  # and their summary, which is always there
    assert text.count("Not run yet.") == len(sections()) + papers == text.count("\n## ") - 1
    assert text.count("\n```\n") == 2 * (len(sections()) + papers + 1)
    assert {row[0].split(",")[0] for row in rows(text)} == {
        "table",
        "---",
        "ECCV 2020",
        "ICCV 2021",
        "**all**",
    }


def test_no_two_sections_share_a_title(records):
    titles = [line for line in page(records).splitlines() if line.startswith("## ")]
    assert len(set(titles)) == len(titles) == len(sections()) + 3


def test_every_view_shows_one_section():
    assert sorted(section.view for section in sections()) == sorted(results_page.VIEWS)


def test_the_table_of_the_readme_is_replaced_and_nothing_else(records, put):
    cell = {"goal": "ca+", "eps": 0.1, "letter": "w", "count": 1}
    for name, after in (("eps0.1", 4.0), ("eps0.1-strong", 3.0)):
        figures = {"rank": (after, None, None), "before": (50.0, None, None)}
        put("own/stronger", f"own-stronger-ct-ca+-w1-{name}", figures=figures, **cell)
    readme = "before\n<!-- results:headline -->\nold\n<!-- /results -->\nafter | 1 |\n"
    text = with_headline(readme, headline(records))
    assert "old" not in text
    assert text.startswith("before\n<!-- results:headline -->\n| attack on")
    assert text.endswith("| 0.1 | 50.00 | 4.00 | **3.00** |\n<!-- /results -->\nafter | 1 |\n")


def test_differences_are_paired_where_values_are_there(records, put, rows):
    figures = {"rank": (4.0, 3.0, 5.0), "before": (50.0, None, None)}
    name = "own-stronger-ct-ca+-w1-eps0.1"
    put("own/stronger", name, figures=figures, values={"rank": [4.0, 5.0, 6.0]})
    strong = {"figures": {**figures, "rank_difference": (9.0, 9.0, 9.0)}, "method": "strong"}
    put("own/stronger", f"{name}-strong", **strong)
    text = "".join(experiment("stronger", records).sections())
    assert rows(text, "CA+, w = 1")[0][4] == "+9.000 [+9.000, +9.000]"  # an older record has no values
    put("own/stronger", f"{name}-strong", **strong, values={"rank": [3.0, 4.0, 5.0]})
    text = "".join(experiment("stronger", records).sections())
    assert rows(text, "CA+, w = 1")[0][4] == "-1.000 [-1.000, -1.000]"


def test_the_page_and_the_readme_are_what_the_records_give():
    records = CompletedCells(ROOT / "records")
    assert (ROOT / "docs" / "results.md").read_text() == page(records)
    readme = (ROOT / "README.md").read_text()
    assert with_headline(readme, headline(records)) == readme
