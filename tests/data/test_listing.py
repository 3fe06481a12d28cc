import pytest

from rankproof.data.listing import Listed, Listing, choose, demand_classes
from rankproof.errors import RankproofError


def listing(counts, given=None):
    """Class number i holds counts[i] pictures."""
    keys = [f"c{number:02}" for number in range(len(counts))]
    pictures = tuple(
        Listed(file=f"{key}/{item}.png", key=key, given=given)
        for key, count in zip(keys, counts, strict=True)
        for item in range(count)
    )
    return Listing(
        name="x", kind="folder", pictures=pictures, classes={key: key for key in keys}, read=lambda file: b""
    )


def both(found, split_by):
    (train, rule), (test, again) = choose(found, "train", split_by), choose(found, "test", split_by)
    assert rule == again
    return train, test, rule


def test_twenty_classes_are_divided_by_class():
    train, test, rule = both(listing([2] * 21), "auto")
    assert {picture.key for picture in train} == {f"c{number:02}" for number in range(10)}
    assert {picture.key for picture in test} == {f"c{number:02}" for number in range(10, 21)}
    assert "by class" in rule
    assert "10 of 21" in rule
    assert "by class" in both(listing([2] * 20), "auto")[2]


def test_fewer_classes_are_divided_within_each():
    counts = [1, 2, 3, 10, 11]
    train, test, rule = both(listing(counts), "auto")
    assert "by picture" in rule
    assert len(train) + len(test) == sum(counts)
    assert not {picture.file for picture in train} & {picture.file for picture in test}
    per_class = [sum(picture.key == f"c{number:02}" for picture in train) for number in range(5)]
    assert per_class == [0, 1, 1, 5, 5]
    assert "by picture" in both(listing([2] * 19), "auto")[2]


def test_the_hash_and_not_the_order_decides():
    found = listing([50, 50])
    train, _, _ = both(found, "items")
    assert [picture.file for picture in train] != [f"c{c:02}/{i}.png" for c in range(2) for i in range(25)]
    turned = Listing(
        name="x", kind="folder", pictures=found.pictures[::-1], classes=found.classes, read=found.read
    )
    assert {picture.file for picture in both(turned, "items")[0]} == {picture.file for picture in train}


def test_the_hash_is_the_same_everywhere():
    train, _, _ = both(listing([4, 4]), "items")
    assert [picture.file for picture in train] == ["c00/1.png", "c00/2.png", "c01/0.png", "c01/2.png"]


def test_a_given_split_is_kept_unless_overruled():
    found = listing([3, 3], given="test")
    train, test, rule = both(found, "auto")
    assert (len(train), len(test)) == (0, 6)
    assert "source" in rule
    assert len(both(found, "items")[0]) == 2
    assert [picture.key for picture in both(found, "classes")[0]] == ["c00"] * 3


def test_none_gives_everything_to_both():
    train, test, rule = both(listing([3, 2]), "none")
    assert len(train) == len(test) == 5
    assert "both" in rule


def test_a_ranking_needs_two_classes():
    demand_classes(["a", "b"], "x")
    with pytest.raises(RankproofError, match="x: one class only; a ranking needs at least two classes"):
        demand_classes([3, 3], "x")
    with pytest.raises(RankproofError, match="x: no pictures"):
        demand_classes([], "x")
