import pytest

from rankproof.data import load
from rankproof.data.market import is_market, list_market
from rankproof.data.tree import folder_tree
from rankproof.errors import RankproofError

NAMES = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0007_c3s3_077419_01.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
    "bounding_box_test/0000_c4s1_000151_01.jpg",
    "bounding_box_test/0001_c1s1_001051_03.jpg",
    "bounding_box_test/0001_c2s1_000301_00.jpg",
    "bounding_box_test/1501_c6s3_1.jpg",
    "query/0001_c1s1_001051_00.jpg",
    "query/1501_c2s3_1.jpg",
)


@pytest.fixture
def market(make, tmp_path):
    files = {name: make.encoded(make.flat((number, 0, 0)), "JPEG") for number, name in enumerate(NAMES)}
    extra = {
        "bounding_box_test/Thumbs.db": "x",
        "gt_query/1_good.mat": "x",
        "gt_bbox/1.jpg": "x",
        "readme.txt": "x",
    }
    return make.tree(tmp_path / "market", files | extra)


def test_identity_and_camera_are_read_from_the_name(market):
    top = folder_tree(market)
    assert is_market(top)
    listing = list_market(top, "market", str.encode)
    found = {image.file: (image.key, image.camera, image.given) for image in listing.images}
    first, second = NAMES[3:5]
    assert found == {
        NAMES[0]: ("2", 1, "train"),
        NAMES[1]: ("7", 3, "train"),
        first: (first, 1, "test"),
        second: (second, 4, "test"),
        NAMES[5]: ("1", 1, "test"),
        NAMES[6]: ("1", 2, "test"),
        NAMES[7]: ("1501", 6, "test"),
        NAMES[8]: ("1", 1, "query"),
        NAMES[9]: ("1501", 2, "query"),
    }
    assert listing.classes == {
        "1": "0001",
        "2": "0002",
        "7": "0007",
        "1501": "1501",
        first: "distractor",
        second: "distractor",
    }


def test_queries_are_apart_from_the_gallery(market):
    test = load(market)
    assert test.files == NAMES[3:8]
    assert test.queries.files == NAMES[8:]
    assert [test.classes[label] for label in test.queries.labels] == ["0001", "1501"]
    assert (test.cameras.tolist(), test.queries.cameras.tolist()) == ([1, 4, 1, 2, 6], [1, 2])
    assert test.queries.images.shape[1:] == test.images.shape[1:]
    assert "2 queries are searched for in it" in test.note
    assert "2 distractors are nobody's match, each a class of its own; 1 junk images left out" in test.note
    train = load(market, "train")
    assert (train.files, train.queries) == (NAMES[:2], None)
    assert train.classes == test.classes


def test_progress_counts_the_queries_too(market):
    seen = []
    load(market, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 7) for number in range(1, 8)]


def test_a_zip_of_it_is_read_too(make, market, tmp_path):
    files = {f"Market-1501/{name}": (market / name).read_bytes() for name in NAMES}
    test = load(make.zip(tmp_path / "m.zip", files))
    assert len(test) == 5
    assert len(test.queries) == 2


def test_names_of_its_relatives_are_read(make, tmp_path):
    make.tree(tmp_path, {"bounding_box_test/0005_c10_f0046182.jpg": "x", "query/0005_c2_f0046985.jpg": "x"})
    found = list_market(folder_tree(tmp_path), "duke", str.encode).images
    assert [(image.key, image.camera) for image in found] == [("5", 10), ("5", 2)]


@pytest.mark.parametrize(
    "name",
    ["1.jpg", "0002c1s1.jpg", "-2_c1s1_1.jpg", "a_c1.jpg", "0002_c.jpg", f"{'9' * 5000}_c1.jpg"[-200:]],
)
def test_a_name_without_identity_and_camera_is_an_error(make, tmp_path, name):
    make.tree(tmp_path, {f"bounding_box_test/{name}": "x", "query/0001_c1.jpg": "x"})
    with pytest.raises(RankproofError, match="its name must begin with identity and camera"):
        list_market(folder_tree(tmp_path), "x", str.encode)


def test_veri_has_other_folders(make, tmp_path):
    names = [
        "image_train/0001_c001_1.jpg",
        "image_test/0002_c002_00030600_0.jpg",
        "image_query/0002_c013_1.jpg",
    ]
    listing = list_market(folder_tree(make.tree(tmp_path, dict.fromkeys(names, "x"))), "veri", str.encode)
    assert listing.kind == "VeRi layout"
    assert [(image.key, image.camera, image.given) for image in listing.images] == [
        ("1", 1, "train"),
        ("2", 2, "test"),
        ("2", 13, "query"),
    ]


@pytest.mark.parametrize("missing", ["query", "bounding_box_test"])
def test_a_missing_part_is_named(make, tmp_path, missing):
    parts = {"bounding_box_train", "bounding_box_test", "query"} - {missing}
    make.tree(tmp_path, {f"{part}/0001_c1.jpg": "x" for part in parts})
    with pytest.raises(RankproofError, match=f"has no folder {missing}; fetch the data set again"):
        load(tmp_path)


@pytest.mark.parametrize("split_by", ["none", "items", "classes"])
def test_it_is_not_divided_in_another_way(market, split_by):
    with pytest.raises(RankproofError, match="comes with its own queries; leave --divide at auto"):
        load(market, split_by=split_by)
