from rankproof.experiments.results import page


def test_without_records_nothing_is_told(put, rows):
    text = page.page()
    empty = [section for section in page.SECTIONS if not section.always]
    assert text.count("Not run yet.") == len(empty) == text.count("\n## ") - 1
    assert text.count("\n```\n") == 2 * len(page.SECTIONS)
    assert {row[0].split(",")[0] for row in rows(text)} == {
        "table",
        "---",
        "ECCV 2020",
        "ICCV 2021",
        "**all**",
    }


def test_no_two_sections_share_a_title():
    titles = [section.title for section in page.SECTIONS]
    assert len(set(titles)) == len(titles)


def test_the_table_of_the_readme_is_replaced_and_nothing_else(put):
    cell = {"goal": "ca+", "w": 1, "m": None, "k": None, "eps": 0.1, "before": 50.0, "metric": "rank"}
    record = {"cell": {**cell, "after": 4.0}, "strong": {**cell, "after": 3.0}}
    put("own/stronger", "one", record)
    text = page.with_headline("before\n<!-- results:headline -->\nold\n<!-- /results -->\nafter | 1 |\n")
    assert "old" not in text
    assert text.startswith("before\n<!-- results:headline -->\n| attack on")
    assert text.endswith("| 0.1 | 50.00 | 4.00 | **3.00** |\n<!-- /results -->\nafter | 1 |\n")
