from rankproof.experiments.results import services
from rankproof.experiments.services import pipelines, tables


def everything():
    return "\n\n".join(section.markdown() for section in services.SECTIONS)


def cell(method, k=5, level=8):
    return next(c for c in tables() if (c.method, c.k, c.level) == (method, k, level)).name


def test_without_records_nothing_is_told(put, rows):
    assert everything().count("Not run yet.") == len(services.SECTIONS)
    assert not rows(everything())


def test_the_print_stands_beside_what_was_measured(put, rows):
    put(f"services/grocery_128/{cell('spsa-on-grid')}", {"tau": [0.2, 0.4, -0.2, 1.0]})
    text = services.table_6_and_7()
    (printed,) = rows(text, "5", "8/255", "printed, another service")
    assert printed[3:6] == ["spsa", "105", "0.452"]
    (ours,) = rows(text, "5", "8/255", "grocery_128")[:1]
    assert ours[3:5] == ["spsa", "4"]
    assert ours[5].startswith("0.350 [")
    assert ours[6:] == ["0.500", "1.000", "-0.200", "0.300"]
    assert len([row for row in rows(text, "auto") if "not run yet" in row]) == 18


def test_wanted_is_a_multiple_of_what_is_well_above_nothing(put, rows):
    for k, low, high in ((5, 0.2, 0.29), (10, 0.2, 0.27), (25, 0.04, 0.1)):
        put(f"services/grocery_128/{cell('spsa-on-grid', k)}", {"tau": [low] * 9})
        put(f"services/grocery_128/{cell('auto', k)}", {"tau": [high] * 9})
    verdicts = {
        row[1]: row[4:] for row in rows(services.table_6_and_7(), "grocery_128", "8/255") if len(row) == 6
    }
    assert verdicts == {"5": ["1.45", "yes"], "10": ["1.35", "no"], "25": ["", "yes"]}


def test_the_gain_is_of_the_picture_that_was_sent_again(put, rows):
    name = next(pipelines()).name
    put(
        f"services/grocery_128/jpeg90-{name}",
        {"tau": [0.6, 0.6], "tau_before": [0.2, 0.2], "again": [0.6, 0.4]},
    )
    (row,) = rows(everything(), "grocery_128", "(5, 50)")
    assert row[6].startswith("+0.300 [")
    assert row[7] == "1 of 2"
