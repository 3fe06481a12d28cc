import pytest

from rankproof.data.text_table import PathCheck, normalised
from rankproof.errors import RankproofError


@pytest.mark.parametrize("path", ["a/b.png", "./a/b.png", "a//b.png", "a/./b.png", "a\\b.png", ".\\a\\b.png"])
def test_all_spellings_of_a_path_are_one(path):
    assert normalised(path) == "a/b.png"
    check = PathCheck("folder")
    assert check(path, "line 1") == "a/b.png"
    with pytest.raises(RankproofError, match=r"line 2: a/b\.png is listed twice"):
        check("a/b.png", "line 2")


def test_other_paths_stay_as_they_are():
    for path in ("a b.png", "a/..b.png", "a/...png", "A/b.png", "ä.png"):
        assert normalised(path) == path


@pytest.mark.parametrize("path", ["../a.png", "a/../../b.png", "/a.png", "C:\\a.png", "a\\..\\..\\b.png"])
def test_paths_out_of_the_folder_are_refused(path):
    with pytest.raises(RankproofError, match="leaves the folder"):
        PathCheck("folder")(path, "line 1")
