import pytest

from rankproof.experiments.black_box import table3
from rankproof.experiments.ordering import Cell
from rankproof.experiments.results import black_box


@pytest.fixture
def cells(put):
    """An empty folder of records, and a function that puts a cell there."""

    def write(tau, **knobs):
        cell = Cell(**{"k": 5, "visible": 50, "level": 4, **knobs})
        record = {"tau": tau, "mean_rank": [2.0] * len(tau), "notes": [f"note of {cell.method}"]}
        put("own/black-box", cell.name, record)

    return write


def everything():
    """All black-box sections."""
    return "\n\n".join(section.markdown() for section in black_box.SECTIONS)


def test_every_cell_of_table_3_is_there_as_printed():
    cells = list(table3(list(black_box.FIVE)))
    figures = [black_box.printed_cell(cell) for cell in cells]
    assert len(cells) == 180
    assert all(-1 < tau < 1 for tau, _ in figures)
    shown = [cell.visible is None for cell in cells]
    assert [rank is not None for _, rank in figures] == shown
    assert all(rank > (cell.k - 1) / 2 for cell, (_, rank) in zip(cells, figures, strict=True) if rank)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell(method="rand", k=5, visible=None, level=2), (0.211, 2.1)),
        (Cell(method="spsa", k=25, visible=None, level=16), (0.363, 46.4)),
        (Cell(method="nes", k=5, visible=50, level=4), (0.426, None)),
        (Cell(method="pso", k=10, visible=10, level=8), (0.219, None)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_printed_cells(cell, expected):
    assert black_box.printed_cell(cell) == expected


def test_more_changes_never_lower_tau_where_everything_is_seen():
    for method in black_box.FIVE:
        for k in (5, 10, 25):
            levels = [
                black_box.printed_cell(Cell(method=method, k=k, visible=None, level=n)) for n in (2, 4, 8, 16)
            ]
            assert levels == sorted(levels)


def test_without_records_nothing_is_told(cells, rows):
    text = everything()
    assert text.count("Not run yet.") == len(black_box.SECTIONS)
    assert not rows(text)


def test_a_figure_beside_the_printed_one(cells, rows):
    cells([0.4] * 20, method="spsa")  # printed: 0.407
    cells([0.6] * 20, method="nes")  # 0.426
    cells([0.2] * 20, method="rand")  # 0.316
    text = black_box.table_3()
    here = [row for row in rows(text, "k = 5", "4/255") if len(row) == 8 and "20" in row]
    assert [(row[2], row[5], row[6]) for row in here] == [
        ("rand", "-0.116", "lower"),
        ("nes", "+0.174", "higher"),
        ("spsa", "-0.007", "agrees"),
    ]
    assert rows(text, "method", "mean difference")
    assert rows(text, "spsa", "-0.007", "1", "0", "35")
    assert len(rows(text, "k = 5")) + len(rows(text, "k = 10")) + len(rows(text, "k = 25")) == 180


def test_differences_are_paired_over_the_attacks_that_both_have(cells, rows):
    cells([0.2, 0.4, 0.2, 0.4], method="spsa")
    cells([0.4, 0.6, 0.4, 0.6, -1.0, -1.0], method="auto")
    (row,) = rows(black_box.against_spsa(), "(5, 50)", "4/255", "1,000")
    assert row[3] == "4"
    assert row[4].startswith("0.300 [")
    assert row[5].startswith("0.500 [")
    assert row[6:] == ["+0.200 [+0.200, +0.200]", "1.67"]
    assert "`auto`: note of auto." in black_box.against_spsa()


def test_the_best_of_those_that_were_run(cells, rows):
    for method, tau in (("rand", 0.2), ("nes", 0.6), ("auto", 0.4)):
        cells([tau] * 10, method=method)
    text = black_box.against_five()
    (row,) = rows(text, "(5, 50)", "4/255")
    assert row[2:4] == ["2 of 5", "nes"]
    assert row[7] == "-0.200 [-0.200, -0.200]"
    assert "Of 1 cells" in text
    assert "above 0 in 0 and below 0 in 1" in text


def test_tables_are_tables(cells):
    cells([0.4] * 10, method="spsa")
    cells([0.6] * 10, method="auto")
    for block in everything().split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_saved_files_are_told_as_counted(put, rows):
    record = {
        "method": "auto",
        "trials": 4,
        "equal": 3,
        "k": 5,
        "visible": 50,
        "eps": 4 / 255,
        "budget": 1000,
        "tau": [0.4] * 4,
    }
    put("own/saved", "saved", record)
    (row,) = rows(everything(), "3 of 4")
    assert row == ["auto", "(5, 50)", "4/255", "1,000", "3 of 4", "0.400 [0.400, 0.400]"]
