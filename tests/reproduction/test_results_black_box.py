import pytest

from rankproof.reproduction.cells import cells_of, eps_name
from rankproof.reproduction.recipe import find_recipe, read_recipe
from rankproof.reproduction.results_page import experiment
from rankproof.reproduction.schema import METHODS

TABLE = read_recipe(find_recipe("iccv21/table3", None))


def name(method, k=5, visible=50, level=4, budget=1000):
    """Part and name of a cell; the published methods are those of ICCV table 3."""
    part, name = f"k{k}-N{visible}-{eps_name(level / 255)}", f"ct-oa-{method}"
    if method in METHODS and budget == 1000:
        return "iccv21/table3", f"iccv21-table3-{name}-{part}"
    return "own/black-box", f"own-black-box-{name}-{part}-Q{budget}"


@pytest.fixture
def cells(put):
    """A function that records a cell."""

    def write(tau, method, **parameters):
        part, cell = name(method, **parameters)
        facts = {"method": method, "notes": [f"note of {method}"], "trials_asked": len(tau)}
        values = {"tau": tau, "mean_rank": [2.0] * len(tau)}
        figures = {"tau": (sum(tau) / len(tau), None, None), "mean_rank": (2.0, None, None)}
        put(part, cell, values=values, figures=figures, identity=cell, **facts)
        if method in METHODS and part == "iccv21/table3":
            own = f"{cell.replace('iccv21-table3', 'own-black-box')}-Q1000"
            put("own/black-box", own, values=values, figures=figures, identity=own, **facts)

    return write


def sections(records):
    """All black-box sections: the published figures, against SPSA, against five, budgets, variants, saved."""
    return experiment("black-box", records).sections()


def everything(records):
    return "\n\n".join(sections(records))


def printed_cell(method, k, visible, level):
    wanted = name(method, k, visible, level)[1]
    (cell,) = [cell for cell in cells_of(TABLE) if cell.name == wanted]
    return cell.figures[0].printed, cell.figures[0].beside_printed


def test_every_cell_of_table_3_is_there_as_printed():
    cells = [cell for cell in cells_of(TABLE) if cell.method in METHODS]
    assert len(cells) == 180
    assert all(-1 < cell.figures[0].printed < 1 for cell in cells)
    shown = [cell.visible == "inf" for cell in cells]
    ranks = [cell.figures[0].beside_printed for cell in cells]
    assert [rank is not None for rank in ranks] == shown
    assert all(rank > (cell.count - 1) / 2 for cell, rank in zip(cells, ranks, strict=True) if rank)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (("rand", 5, "inf", 2), (0.211, 2.1)),
        (("spsa", 25, "inf", 16), (0.363, 46.4)),
        (("nes", 5, 50, 4), (0.426, None)),
        (("pso", 10, "k", 8), (0.219, None)),
    ],
    ids=str,
)
def test_printed_cells(cell, expected):
    assert printed_cell(*cell) == expected


def test_more_changes_never_lower_tau_where_everything_is_seen():
    for method in METHODS:
        for k in (5, 10, 25):
            levels = [printed_cell(method, k, "inf", level) for level in (2, 4, 8, 16)]
            assert levels == sorted(levels)


def test_without_records_nothing_is_told(records, rows):
    text = everything(records)
    assert text.count("Not run yet.") == len(sections(records))
    assert not rows(text)


def test_a_figure_beside_the_printed_one(records, cells, rows):
    cells([0.4] * 20, method="spsa")  # printed: 0.407
    cells([0.6] * 20, method="nes")  # 0.426
    cells([0.2] * 20, method="rand")  # 0.316
    text = sections(records)[0]
    here = [row for row in rows(text, "k = 5", "4/255") if len(row) == 8 and "20" in row]
    assert [(row[2], row[5], row[6]) for row in here] == [
        ("rand", "-0.116", "lower"),
        ("nes", "+0.174", "higher"),
        ("spsa", "-0.007", "agrees"),
    ]
    assert rows(text, "method", "mean difference")
    assert rows(text, "spsa", "-0.007", "1", "0", "35")
    assert len(rows(text, "k = 5")) + len(rows(text, "k = 10")) + len(rows(text, "k = 25")) == 180


def test_differences_are_paired_over_the_attacks_that_both_have(records, cells, rows):
    cells([0.2, 0.4, 0.2, 0.4], method="spsa")
    cells([0.4, 0.6, 0.4, 0.6, -1.0, -1.0], method="auto")
    text = sections(records)[1]
    (row,) = rows(text, "(5, 50)", "4/255", "1,000")
    assert row[3] == "4"
    assert row[4].startswith("0.300 [")
    assert row[5].startswith("0.500 [")
    assert row[6:] == ["+0.200 [+0.200, +0.200]", "1.67"]
    assert "`auto`: note of auto." in text


def test_the_best_of_those_that_were_run(records, cells, rows):
    for method, tau in (("rand", 0.2), ("nes", 0.6), ("auto", 0.4)):
        cells([tau] * 10, method=method)
    text = sections(records)[2]
    (row,) = rows(text, "(5, 50)", "4/255")
    assert row[2:4] == ["2 of 5", "nes"]
    assert row[7] == "-0.200 [-0.200, -0.200]"
    assert "Of 1 cells" in text
    assert "above 0 in 0 and below 0 in 1" in text


def test_tables_are_tables(records, cells):
    cells([0.4] * 10, method="spsa")
    cells([0.6] * 10, method="auto")
    for block in everything(records).split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_saved_files_are_told_as_counted(records, put, rows):
    name = "own-black-box-saved-ct-oa-auto-k5-N50-eps4of255-Q1000"
    put("own/black-box", name, values={"tau": [0.4] * 4, "tau_saved": [0.4, 0.4, 0.2, 0.4]})
    (row,) = rows(everything(records), "3 of 4")
    assert row == ["auto", "(5, 50)", "4/255", "1,000", "3 of 4", "0.400 [0.400, 0.400]"]
