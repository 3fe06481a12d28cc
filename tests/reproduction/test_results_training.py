import pytest

from rankproof.reproduction.cells import cells_of
from rankproof.reproduction.recipe import find_recipe, read_recipe
from rankproof.reproduction.render import NOT_RUN
from rankproof.reproduction.results_page import experiment

VIEWS = ("vanilla", "defended", "better", "rejected", "colour", "speed")

FOUR = ("ca+", "ca-", "qa+", "qa-")


def trained(recall=88.0, schedule="published", done=24, epochs=30, **more):
    """A record of a training."""
    history = [{"number": n, "loss": 0.5 / n, "recall_at_1": recall, "seconds": 60.0 * n} for n in (1.0, 2.0)]
    return {
        "failure": None,
        "chance": 9.99,
        "model": {
            "settings": {"schedule": schedule, "epochs": epochs},
            "epochs_done": done,
            "seconds": 90.0,
            "history": history,
        },
        "processor_seconds": 300.0,
        "accuracy": {"recall_at_1": recall, "map": 70.0, "nmi": 60.0},
        **more,
    }


@pytest.fixture
def train(put):
    """A function that records a training."""
    return lambda name, record: put("own/training", f"own-training-{name}", training=record)


@pytest.fixture
def shown(records):
    """A function that shows one of the sections about training."""
    return lambda view: experiment("training", records).sections()[VIEWS.index(view)]


def robustness(ers, collapsed=False):
    return {"ers": ers, "ci95": {"ers": [ers - 1, ers + 1]}, "collapsed": collapsed}


def failed(**more):
    """A record of a training that failed in its first epoch."""
    return {"failure": "it collapsed; try less", "chance": 9.99, "model": None, **more}


def attacks(after, preserved=False):
    """The four attacks by both methods; the strong one a point further."""
    return [
        {
            **{"goal": f"sp-{goal}" if preserved and goal[0] == "q" else goal, "method": method},
            **{"w": 1 if goal[0] == "c" else None, "m": 1 if goal[0] == "q" else None, "k": None},
            **{"metric": "rank", "before": 50.0, "after": figure + extra},
            "ci95": [figure + extra - 1, figure + extra + 1],
        }
        for method, extra in (("pgd", 0), ("strong", 1))
        for goal, figure in zip(FOUR, after, strict=True)
    ]


@pytest.mark.parametrize(
    ("recall", "gap", "verdict"),
    [(90.5, "+1.80", "agrees"), (86.0, "-2.70", "lower"), (91.0, "+2.30", "higher")],
)
def test_a_figure_beside_the_printed_one(train, shown, rows, recall, gap, verdict):
    train("fashion-mnist-cc", trained(recall))
    (row,) = rows(shown("vanilla"), "CC", "fashion-mnist")
    assert row[2:5] == ["published", "24 of 30", "1.5"]
    assert row[5:] == [f"{recall:.2f}", "88.7", gap, verdict, "70.00", "60.00"]
    assert len(rows(shown("vanilla"), NOT_RUN)) == 7


def test_where_nothing_is_printed_nothing_is_compared(train, shown, rows):
    train("mnist-et", trained(98.0))
    (row,) = rows(shown("vanilla"), "ET", "mnist")
    assert row[5:9] == ["98.00", "", "", ""]


def test_mnist_is_judged_more_strictly(train, shown, rows):
    train("mnist-ct", trained(98.0))
    (row,) = rows(shown("vanilla"), "CT", "mnist")
    assert row[6:9] == ["99.1", "-1.10", "lower"]


def test_schedules_never_share_a_row(train, shown, rows):
    train(
        "fashion-mnist-ctd-fast",
        trained(80.0, "fast", 12, 12, attacks=attacks((32.5, 11.2, 39.3, 3.9)), robustness=robustness(40.0)),
    )
    text = shown("defended")
    (model,) = rows(text, "`fashion-mnist-ctd-fast`", "12 of 12")
    assert model[2:] == ["fast", "12 of 12", "1.5", "80.00", "40.00 [39.00, 41.00]", ""]
    assert len(rows(text, "`fashion-mnist-ctd-fast`", "fast", "as robust")) == 4
    assert rows(text, "CTD, printed", "fashion-mnist", "published", "79.6")
    assert all(row[2] == "published" for row in rows(text, "CTD, printed"))
    assert not rows(text, "published", "fast")


def test_a_printed_figure_stands_once_above_all_models_of_its_data(train, shown, rows):
    for schedule, robust in (("fast", 30.0), ("published", 32.0)):
        figures = attacks((robust, 11.2, 39.3, 3.9))
        train(f"fashion-mnist-ctd-{schedule}", trained(80.0, schedule, attacks=figures))
    text = shown("defended")
    assert len(rows(text, "CTD, printed", "fashion-mnist", "CA+, w = 1")) == 1
    found = rows(text, "fashion-mnist", "CA+, w = 1")
    assert [row[0] for row in found] == [
        *("CTD, printed", "`fashion-mnist-ctd-published`", "`fashion-mnist-ctd-fast`")
    ]
    assert [row[-2] for row in found] == ["", "-0.50", "-2.50"]


def test_only_the_side_of_the_attacker_is_weaker(train, shown, rows):
    after = (32.5 - 6.5, 11.2 + 6.5, 39.3 + 20, 3.9 - 3)
    train("fashion-mnist-ctd-fast", trained(schedule="fast", attacks=attacks(after)))
    found = {row[3]: row for row in rows(shown("defended"), "fast", "50.00")}
    assert {name: row[-2:] for name, row in found.items()} == {
        "CA+, w = 1": ["-6.50", "weaker"],
        "CA−, w = 1": ["+6.50", "weaker"],
        "QA+, m = 1": ["+20.00", "as robust"],
        "QA−, m = 1": ["-3.00", "as robust"],
    }
    assert found["CA−, w = 1"][5:7] == ["17.70 [16.70, 18.70]", "18.70 [17.70, 19.70]"]


def test_attacks_are_named_as_they_were_made(train, shown, rows):
    train(
        "mnist-ctd-fast",
        trained(schedule="fast", attacks=attacks((30.0, 7.0, 33.0, 2.0), preserved=True)),
    )
    assert [row[3] for row in rows(shown("defended"), "`mnist-ctd-fast`", "50.00")] == [
        *("CA+, w = 1", "CA−, w = 1"),
        *("SP-QA+, m = 1", "SP-QA−, m = 1"),
    ]


def test_a_defence_is_the_mean_of_its_seeds(train, shown, rows):
    for seed, (recall, ers) in enumerate(((70.0, 30.0), (80.0, 40.0))):
        record = trained(recall, "fast", 5 - seed, 6, robustness=robustness(ers, collapsed=seed == 1))
        train(f"fashion-mnist-short-whole-batch-seed{seed}", record)
    train("fashion-mnist-short-whole-batch-seed2", failed())
    text = shown("better")
    (row,) = rows(text, "`whole-batch`")
    assert row[1:4] == ["fast", "5 of 6, 4 of 6", "5.0, 5.0"]
    assert row[4:8] == ["75.00", "70.00, 80.00", "35.00", "30.00, 40.00"]
    assert row[8] == "seed 1 collapsed; seed 2 failed"
    assert "- `fashion-mnist-short-whole-batch-seed2`: it collapsed; try less." in text
    (row,) = rows(text, "`est`")
    assert row[4:8] == [""] * 4


def test_what_became_of_the_rejected_is_told(train, shown, rows):
    train("fashion-mnist-madry", failed())
    train("fashion-mnist-suppress", trained(75.0, "fast", 2, 6, robustness=robustness(20.0)))
    text = shown("rejected")
    assert rows(text, "`madry`") == [["`madry`", "", "", "", "", "", "failed"]]
    assert "- `fashion-mnist-madry`: it collapsed; try less." in text
    assert rows(text, "`suppress`", "finished")[0][4:6] == ["75.00", "20.00 [19.00, 21.00]"]
    assert rows(text, "`suppress`", "1", "0.5000", "75.00")
    assert rows(text, "`suppress`", "2", "0.2500", "75.00")
    assert rows(text, "`single-step`", NOT_RUN)


def test_photographs_stand_beside_chance(train, shown, rows):
    train("grocery_128-64", trained(40.0, "own", 40, 40, robustness=robustness(5.0)))
    (row,) = rows(shown("colour"), "grocery_128", "`none`")
    assert row[2:] == ["own", "40 of 40", "1.5", "40.00", "9.99", "5.00 [4.00, 6.00]", ""]


def test_speed(benchmark, shown, rows):
    measured = {"name": "CT", "seconds": 2.2, "model_seconds": 2.0, "ratio": 1.1}
    benchmark("training", {"pictures": 6000, "rows": [measured]})
    text = shown("speed")
    assert rows(text, "an epoch of 6,000 images")
    assert rows(text, "CT") == [["CT", "2.20", "2.00", "1.10"]]


@pytest.mark.parametrize(
    "record", [failed(), trained(robustness=robustness(10.0), attacks=attacks((1.0, 2.0, 3.0, 4.0)))]
)
def test_tables_are_tables(train, records, record):
    for cell in cells_of(read_recipe(find_recipe("own/training", None))):
        train(cell.model, record)
    for section in experiment("training", records).sections():
        for block in section.split("\n\n"):
            widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1
