from rankproof.reproduction.cells import eps_name
from rankproof.reproduction.results_page import experiment


def sections(records):
    """All sections about services: the tables, through a pipeline, load."""
    return experiment("services", records).sections()


def everything(records):
    return "\n\n".join(sections(records))


def cell(method, k=5, level=8):
    return f"own-services-grocery_128-oa-{method}-k{k}-N50-{eps_name(level / 255)}-Q100"


def test_without_records_nothing_is_told(records, put, rows):
    assert everything(records).count("Not run yet.") == len(sections(records))
    assert not rows(everything(records))


def test_the_print_stands_beside_what_was_measured(records, put, rows):
    put("own/services", cell("spsa"), values={"tau": [0.2, 0.4, -0.2, 1.0]})
    text = sections(records)[0]
    (printed,) = rows(text, "5", "8/255", "printed, another service")
    assert printed[3:6] == ["spsa", "105", "0.452"]
    (ours,) = rows(text, "5", "8/255", "grocery_128")[:1]
    assert ours[3:5] == ["spsa", "4"]
    assert ours[5].startswith("0.350 [")
    assert ours[6:] == ["0.500", "1.000", "-0.200", "0.300"]
    assert len([row for row in rows(text, "auto") if "not run yet" in row]) == 18


def test_wanted_is_a_multiple_of_what_is_well_above_nothing(records, put, rows):
    for k, low, high in ((5, 0.2, 0.29), (10, 0.2, 0.27), (25, 0.04, 0.1)):
        put("own/services", cell("spsa", k), values={"tau": [low] * 9})
        put("own/services", cell("auto", k), values={"tau": [high] * 9})
    verdicts = {
        row[1]: row[4:] for row in rows(sections(records)[0], "grocery_128", "8/255") if len(row) == 6
    }
    assert verdicts == {"5": ["1.45", "yes"], "10": ["1.35", "no"], "25": ["", "yes"]}


def test_the_gain_is_of_the_picture_that_was_sent_again(records, put, rows):
    name = "own-services-pipeline-grocery_128-oa-spsa-k5-N50-eps2of255-Q100"
    put(
        "own/services",
        name,
        values={"tau": [0.6, 0.6], "tau_before": [0.2, 0.2], "again": [0.6, 0.4]},
    )
    (row,) = rows(everything(records), "grocery_128", "(5, 50)")
    assert row[6].startswith("+0.300 [")
    assert row[7] == "1 of 2"


def test_load_and_indexes(records, benchmark, rows):
    timed = {"insert_seconds": 1.0, "build_seconds": 2.0, "reopen_seconds": 3.0, "search_ms": 4.0}
    index = {"name": "faiss hnsw", "items": 100_000, "recall": 0.9912, **timed}
    benchmark("service", {"index": [index]})
    assert rows(everything(records), "faiss hnsw") == [
        ["faiss hnsw", "100,000", "1.0 s", "2.0 s", "3.0 s", "4.0 ms", "0.9912"]
    ]
    assert not rows(everything(records), "clients")
    load = {"requests": 20_000, "clients": 16, "encoder_per_second": 40.0, "per_second": 30.0, "ratio": 0.75}
    load |= {"p50_ms": 500.0, "p99_ms": 900.0, "memory_mb": [[2000, 801.2], [4000, 802.4]]}
    benchmark("service", {"load": load})
    (row,) = rows(everything(records), "20,000")
    assert row[2:] == ["40.0/s", "30.0/s", "0.75", "500 ms", "900 ms", "801 802 MB"]
