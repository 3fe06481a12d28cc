import pytest

from rankproof.data import load
from rankproof.data.sop import is_sop, list_sop
from rankproof.errors import RankproofError

HEAD = "image_id class_id super_class_id path\n"
TRAIN = f"""{HEAD}1 1 1 bicycle_final/111_0.JPG
2 1 1 bicycle_final/111_1.JPG
3 10 2 cabinet_final/222_0.JPG
"""
TEST = f"""{HEAD}4 9 1 bicycle_final/333_0.JPG
5 11 2 cabinet_final/444_0.JPG
6 11 2 cabinet_final/444_1.JPG
"""
FILES = [line.split()[3] for table in (TRAIN, TEST) for line in table.splitlines()[1:]]


def products(make, folder, train=TRAIN, test=TEST):
    """The layout of the unpacked archive, sizes and colours as different as there."""
    images = {
        file: make.encoded(make.flat((40 * number, 9, 200), 6 + number, 8), "JPEG", quality=100)
        for number, file in enumerate(FILES)
    }
    tables = {"Ebay_train.txt": train, "Ebay_test.txt": test, "Ebay_info.txt": HEAD}
    return make.tree(folder, {**images, **{name: raw for name, raw in tables.items() if raw is not None}})


def test_each_table_is_a_split(make, tmp_path):
    listing = list_sop(products(make, tmp_path / "Stanford_Online_Products"))
    assert listing.name == "Stanford_Online_Products"
    assert [(image.file, image.key, image.given) for image in listing.images] == [
        ("bicycle_final/111_0.JPG", "1", "train"),
        ("bicycle_final/111_1.JPG", "1", "train"),
        ("cabinet_final/222_0.JPG", "10", "train"),
        ("bicycle_final/333_0.JPG", "9", "test"),
        ("cabinet_final/444_0.JPG", "11", "test"),
        ("cabinet_final/444_1.JPG", "11", "test"),
    ]
    assert list(listing.classes.items()) == [
        ("1", "bicycle 1"),
        ("9", "bicycle 9"),
        ("10", "cabinet 10"),
        ("11", "cabinet 11"),
    ]


def test_loads_by_its_name_and_says_what_it_is(make, tmp_path):
    products(make, tmp_path / "Stanford_Online_Products")
    seen = []
    test = load(
        "Stanford_Online_Products", root=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert test.images.shape == (3, 3, 128, 128)
    assert [test.classes[label] for label in test.labels] == ["bicycle 9", "cabinet 11", "cabinet 11"]
    reds = test.images[:, 0, 64, 64].tolist()
    assert reds == pytest.approx([120, 160, 200], abs=3)
    assert test.note.startswith("Stanford Online Products, test split: 3 images of 128x128 in 2 classes")
    assert "divided as the source says" in test.note
    assert "not the whole data set, whose tables list 59,551 train and 60,502 test images" in test.note


def test_the_whole_tables_need_no_remark(make, tmp_path, monkeypatch):
    monkeypatch.setattr("rankproof.data.sop.PUBLISHED", {"train": 3, "test": 3})
    assert list_sop(products(make, tmp_path)).remarks == ()


def test_both_splits_agree_on_labels_and_share_no_class(make, tmp_path):
    products(make, tmp_path)
    train, test = load(tmp_path, "train", size=5), load(tmp_path, "test", size=5)
    assert train.classes == test.classes
    assert train.labels.tolist() == [0, 0, 2]
    assert test.labels.tolist() == [1, 3, 3]


def test_another_division_can_be_asked_for(make, tmp_path):
    products(make, tmp_path)
    assert len(load(tmp_path, size=5, split_by="none")) == 6
    classes = load(tmp_path, "train", size=5, split_by="classes")
    assert {classes.classes[label] for label in classes.labels} == {"bicycle 1", "bicycle 9"}


def test_windows_line_ends_and_empty_lines_do_no_harm(make, tmp_path):
    listing = list_sop(products(make, tmp_path, train=TRAIN.replace("\n", "\r\n") + "\r\n"))
    assert len(listing.images) == 6


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_table_is_named(make, tmp_path, missing):
    products(make, tmp_path, **{missing: None})
    assert is_sop(tmp_path)
    with pytest.raises(RankproofError, match=rf"Ebay_{missing}\.txt: cannot be read .*; check that"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 12 1", "line 5: 3 words where 'image_id class_id super_class_id path' is expected"),
        ("7 12 1 a.JPG b", "line 5: 5 words"),
        ("7 twelve 1 a.JPG", "line 5: class_id must be a whole number, got 'twelve'"),
        ("7 -1 1 a.JPG", "line 5: class_id must be a whole number, got '-1'"),
        ("7 ² 1 a.JPG", "line 5: class_id must be a whole number"),
        ("7 12 1 ../a.JPG", r"line 5: path '\.\./a\.JPG' leaves the folder; do not trust this list"),
        ("7 12 1 a/../../b.JPG", "leaves the folder"),
        ("7 12 1 /etc/passwd", "leaves the folder"),
        ("7 12 1 C:\\a.JPG", "leaves the folder"),
        ("7 11 2 cabinet_final/444_0.JPG", r"line 5: cabinet_final/444_0\.JPG is listed twice"),
        ("7 10 2 a.JPG", "line 5: class 10 is in both splits; fetch"),
    ],
)
def test_a_damaged_line_is_named(make, tmp_path, line, message):
    products(make, tmp_path, test=f"{TEST}{line}\n")
    with pytest.raises(RankproofError, match=message) as error:
        load(tmp_path)
    assert "Ebay_test.txt, line 5" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "table", ["", "1 1 1 bicycle_final/111_0.JPG\n", TEST.replace(" ", ","), b"\xff\xfe"]
)
def test_what_is_no_such_table_is_refused(make, tmp_path, table):
    products(make, tmp_path, test=table)
    with pytest.raises(RankproofError, match=r"Ebay_test\.txt: (its first line must be|not a UTF-8 table)"):
        load(tmp_path)


def test_a_listed_image_that_is_missing_is_named(make, tmp_path):
    (products(make, tmp_path) / "cabinet_final" / "444_1.JPG").unlink()
    with pytest.raises(RankproofError, match=r"444_1\.JPG: cannot be read"):
        load(tmp_path)
