import pytest
import torch
from torch import nn

from rankproof import RankproofError
from rankproof.models import ReverseChannels
from rankproof.models.source import Source, describe
from rankproof.models.statistics import parse_statistic, statistics_note, with_statistics


def source(**settings):
    return describe(nn.Identity(), "net", settings)


def test_numbers_are_read_as_people_write_them():
    assert parse_statistic("mean", None) is None
    assert parse_statistic("mean", "0.5") == (0.5,)
    assert parse_statistic("mean", " 104/255, 117/255,123/255") == (104 / 255, 117 / 255, 123 / 255)
    for text in ("", "a", "1,,2", "1/0", "nan", "0.1;0.2", "inf"):
        with pytest.raises(RankproofError, match=r"^--std .* is no list of numbers; write one for each"):
            parse_statistic("std", text)


def test_statistics_replace_those_of_the_record():
    plain = source(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    assert with_statistics(plain) is plain
    found = with_statistics(plain, (0.5,))
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6))
    assert (found.record["mean"], found.record["std"]) == ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6])
    assert "bgr" not in found.record
    assert statistics_note(found) == "mean 0.5 and std 0.4, 0.5, 0.6"
    unknown = with_statistics(source(), (0.5,), (0.1, 0.2, 0.3))
    assert (unknown.mean, unknown.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert with_statistics(source(), (0.5,)).mean == (0.5,)
    assert with_statistics(source(input=[3, 8, 8]), (0.5,)).mean == (0.5, 0.5, 0.5)
    assert with_statistics(source(mean=[0.5]), (0.1, 0.2, 0.3)).mean == (0.1, 0.2, 0.3)
    assert statistics_note(source()) is None


@pytest.mark.parametrize(
    ("known", "mean", "std", "message"),
    [
        (
            {"mean": [0.1, 0.2, 0.3]},
            (0.1, 0.2),
            (0.1, 0.2),
            "must agree on the number of channels; .* takes 3",
        ),
        ({"input": [1, 8, 8]}, (0.1, 0.2, 0.3), None, "must agree on the number of channels"),
        ({}, (0.1, 0.2), (0.1, 0.2, 0.3), "must agree on the number of channels"),
        ({}, None, (0.1, 0.0, 0.3), "every value of std must be above 0"),
    ],
)
def test_statistics_that_contradict_the_channels_are_refused(known, mean, std, message):
    with pytest.raises(RankproofError, match=message):
        with_statistics(source(**known), mean, std)


def test_reversed_channels_need_statistics_in_their_order():
    imagenet = source(mean=[0.1, 0.2, 0.3], std=[0.4, 0.4, 0.4])
    with pytest.raises(RankproofError, match=r"--bgr .* \(0.1, 0.2, 0.3\); write --mean in the order blue"):
        with_statistics(imagenet, bgr=True)
    found = with_statistics(imagenet, (0.3, 0.2, 0.1), bgr=True)
    assert found.record["bgr"] is True
    assert statistics_note(found, bgr=True).startswith("the encoder takes blue, green, red and mean 0.3, 0.2")
    assert with_statistics(source(), bgr=True).mean is None
    with pytest.raises(RankproofError, match="--bgr is for colours; it takes 1 channels"):
        with_statistics(source(input=[1, 8, 8]), bgr=True)


def test_channels_are_reversed():
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(ReverseChannels()(images)[:, 0], images[:, 2])
    assert isinstance(with_statistics(source(), (0.5,)), Source)
    with pytest.raises(RankproofError, match="images have 1 channels, it wants 3"):
        ReverseChannels()(images[:, :1])
