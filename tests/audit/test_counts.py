import pytest

from rankproof import RankproofError
from rankproof.audit.counts import Counts, counts_of
from rankproof.audit.measurements import black_boxes

EPS, SIZE, IMAGES = 8 / 255, 500, 90


def planned(text, *, images=IMAGES, size=SIZE, eps=EPS):
    """The attacks of each measurement by its label, as a text asks for them."""
    found = Counts.parse(text).measurements(size, eps, images)
    assert len({each.label for each, _ in found}) == len(found)
    return {each.label: count for each, count in found}


def test_one_number_is_for_every_figure_and_a_black_box_gets_fewer():
    found = planned("24")
    for goal in ("ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-", "oa"):
        assert (found[goal], found[f"{goal}@eps"], found[f"{goal}@controls"]) == (24, 24, 10)
    assert "shift" not in found  # a goal without a yes or no has no smallest budget
    assert found["shift@eps"] == 24
    assert {label: count for label, count in found.items() if label.startswith("black")} == {
        "black-box-5x21": 20,
        "black-box-10x21": 20,
    }


@pytest.mark.parametrize(("trials", "few"), [(7, 7), (20, 20), (200, 20), (797, 79), (5000, 500)])
def test_a_tenth_of_the_trials_looks_at_results_but_at_least_twenty(trials, few):
    assert planned(str(trials), images=10_000)["black-box-5x21"] == few


def test_the_nearest_word_counts():
    found = planned("24,at-eps=12,oa=40,oa@eps=6,controls=3,qa+@controls=0,black-box=6x200,black-box-5=9x50")
    assert (found["qa+"], found["qa+@eps"], found["oa"], found["oa@eps"]) == (24, 12, 40, 6)
    assert (found["ca+@controls"], found["qa+@controls"], found["qa+@doubled"]) == (3, 0, 3)
    assert {label: count for label, count in found.items() if label.startswith("black")} == {
        "black-box-5x50": 9,
        "black-box-10x200": 6,
    }


def test_a_black_box_of_several_numbers_of_queries_and_of_none():
    found = planned("24,black-box-5=20x100+6x1000,black-box-10=0")
    assert (found["black-box-5x100"], found["black-box-5x1000"], found["black-box-10x21"]) == (20, 6, 0)
    assert not [label for label in planned("24", eps=0.0) if label.startswith("black")]


def test_never_more_than_there_are_images():
    assert set(planned("500", images=30).values()) == {30, 10}


@pytest.mark.parametrize(
    "text",
    [
        "24",
        "24,at-eps=12",
        "3,qa+=5,at-eps=2,shift@eps=0,controls=0,black-box=0,rows=4",
        "24,oa=40,oa@eps=6,black-box-5=20x100+6x1000,black-box-10=0",
        "24,controls=3,qa+@controls=0,black-box=9x50",
        "24,controls=3,doubled=0,oa@doubled=1",
    ],
)
def test_the_shortest_text_names_exactly_the_same_numbers(text):
    counts = Counts.parse(text)
    assert str(counts) == text
    again = counts_of(counts.measurements(SIZE, EPS, IMAGES), counts.rows)
    assert str(again) == text


def test_what_was_cut_by_the_images_is_named_as_it_is():
    done = Counts(trials=1000).measurements(SIZE, EPS, 60)
    assert str(counts_of(done, None)) == "60,black-box=60x21"


def test_nothing_but_the_figures_at_eps():
    done = [
        (each, 0 if each.kind == "smallest" else n) for each, n in Counts(trials=4).measurements(9, EPS, 9)
    ]
    text = str(counts_of(done, None))
    assert Counts.parse(text).measurements(9, EPS, 9) == done


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trials: '' is no whole number"),
        ("many", "trials: 'many' is no whole number"),
        ("0", "trials must be at least 1"),
        ("-3", "trials must be at least 1"),
        ("2.5", "trials: '2.5' is no whole number"),
        ("24,", "trials: '' is not KEY=NUMBER"),
        ("24,oa", "trials: 'oa' is not KEY=NUMBER"),
        ("24, oa=3", "trials: ' oa' is unknown"),
        ("24,oa=", "trials: 'oa=' is not KEY=NUMBER"),
        ("24,oa=3,oa=4", "trials: oa is given twice"),
        ("24,oa=-1", "oa must be at least 0"),
        ("24,rows=0", "rows must be at least 1"),
        ("24,qa=3", "trials: 'qa' is unknown; known: at-eps, black-box, "),
        ("24,black-box=6", "black-box: '6' is not ATTACKSxQUERIES"),
        ("24,black-box=0x5", "black-box must be at least 1"),
        ("24,black-box=6x0", "black-box must be at least 1"),
        ("24,black-box=6x9+3x9", "black-box: a number of queries is given twice"),
        ("24,black-box-7=6x9", "trials: 'black-box-7' is unknown"),
        ("9999999999", "trials: '9999999999' is no whole number"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(RankproofError) as error:
        planned(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("size", "ks", "visible"), [(2, [2], 2), (7, [5, 7], 7), (30, [5, 10], 30), (797, [5, 10], 50)]
)
def test_black_boxes_reorder_five_and_ten_of_fifty_as_far_as_there_are(size, ks, visible, own):
    found = black_boxes(size, 100)
    assert [each.goal.k for each in found] == ks
    assert {(each.visible, each.budget) for each in found} == {(visible, 100)}
    assert {tuple(method.name for method in each.methods) for each in found} == {("spsa", "own")}
