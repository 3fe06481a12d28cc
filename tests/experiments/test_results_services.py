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
    put("own/services", f"grocery_128/{cell('spsa-on-grid')}", {"tau": [0.2, 0.4, -0.2, 1.0]})
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
        put("own/services", f"grocery_128/{cell('spsa-on-grid', k)}", {"tau": [low] * 9})
        put("own/services", f"grocery_128/{cell('auto', k)}", {"tau": [high] * 9})
    verdicts = {
        row[1]: row[4:] for row in rows(services.table_6_and_7(), "grocery_128", "8/255") if len(row) == 6
    }
    assert verdicts == {"5": ["1.45", "yes"], "10": ["1.35", "no"], "25": ["", "yes"]}


def test_the_gain_is_of_the_picture_that_was_sent_again(put, rows):
    name = next(pipelines()).name
    put(
        "own/services",
        f"grocery_128/jpeg90-{name}",
        {"tau": [0.6, 0.6], "tau_before": [0.2, 0.2], "again": [0.6, 0.4]},
    )
    (row,) = rows(everything(), "grocery_128", "(5, 50)")
    assert row[6].startswith("+0.300 [")
    assert row[7] == "1 of 2"


def test_load_and_indexes(benchmark, rows):
    timed = {"insert_seconds": 1.0, "build_seconds": 2.0, "reopen_seconds": 3.0, "search_ms": 4.0}
    index = {"name": "faiss hnsw", "items": 100_000, "recall": 0.9912, **timed}
    benchmark("service", {"index": [index]})
    assert rows(everything(), "faiss hnsw") == [
        ["faiss hnsw", "100,000", "1.0 s", "2.0 s", "3.0 s", "4.0 ms", "0.9912"]
    ]
    assert not rows(everything(), "clients")
    load = {"requests": 20_000, "clients": 16, "encoder_per_second": 40.0, "per_second": 30.0, "ratio": 0.75}
    load |= {"p50_ms": 500.0, "p99_ms": 900.0, "memory_mb": [[2000, 801.2], [4000, 802.4]]}
    benchmark("service", {"load": load})
    (row,) = rows(everything(), "20,000")
    assert row[2:] == ["40.0/s", "30.0/s", "0.75", "500 ms", "900 ms", "801 802 MB"]
