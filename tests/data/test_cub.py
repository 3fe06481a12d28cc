import pytest

from rankproof.data import load
from rankproof.data.cub import is_cub, list_cub
from rankproof.errors import RankproofError

TABLES = {
    "images.txt": "1 002.Albatross/a_1.jpg\n2 100.Pelican/p_2.jpg\n3 101.Gull/g_3.jpg\n"
    "4 200.Wren/w_4.jpg\n5 200.Wren/w_5.jpg\n",
    "image_class_labels.txt": "1 2\n2 100\n3 101\n4 200\n5 200\n",
    "classes.txt": "2 002.Albatross\n100 100.Pelican\n101 101.Gull\n200 200.Wren\n",
}
BESIDE = {
    "train_test_split.txt": "1 0\n2 1\n3 1\n4 0\n5 1\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n",
    "README": "words",
    "parts/parts.txt": "1 back\n",
}
FILES = [line.split()[1] for line in TABLES["images.txt"].splitlines()]


def birds(make, folder, **tables):
    """The layout of the unpacked archive; a table given as None is missing."""
    images = {
        f"images/{file}": make.encoded(make.flat((50 * number, 9, 100), 6, 8 + number), "JPEG", quality=100)
        for number, file in enumerate(FILES)
    }
    found = TABLES | {f"{name}.txt": text for name, text in tables.items()}
    return make.tree(
        folder, {**images, **BESIDE, **{name: text for name, text in found.items() if text is not None}}
    )


def test_the_first_hundred_classes_train(make, tmp_path):
    listing = list_cub(birds(make, tmp_path / "CUB_200_2011"))
    assert listing.name == "CUB_200_2011"
    assert [(image.file, image.key, image.given) for image in listing.images] == [
        ("images/002.Albatross/a_1.jpg", "2", "train"),
        ("images/100.Pelican/p_2.jpg", "100", "train"),
        ("images/101.Gull/g_3.jpg", "101", "test"),
        ("images/200.Wren/w_4.jpg", "200", "test"),
        ("images/200.Wren/w_5.jpg", "200", "test"),
    ]
    assert listing.classes == {
        "2": "002.Albatross",
        "100": "100.Pelican",
        "101": "101.Gull",
        "200": "200.Wren",
    }
    assert list(listing.classes) == ["2", "100", "101", "200"]


def test_loads_by_its_name_and_says_what_it_is(make, tmp_path):
    birds(make, tmp_path / "CUB_200_2011")
    seen = []
    test = load("CUB_200_2011", root=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert test.images.shape == (3, 3, 128, 128)
    assert test.labels.tolist() == [2, 3, 3]
    assert test.images[:, 0, 64, 64].tolist() == pytest.approx([100, 150, 200], abs=3)
    assert test.note.startswith("CUB-200-2011, test split: 3 images of 128x128 in 2 classes")
    assert "classes 1 to 100 train, the others test" in test.note
    train = load("CUB_200_2011", "train", root=tmp_path)
    assert train.labels.tolist() == [0, 1]
    assert train.classes == test.classes


def test_labels_are_joined_by_id_and_not_by_line(make, tmp_path):
    backwards = "".join(f"{line}\n" for line in reversed(TABLES["image_class_labels.txt"].splitlines()))
    assert list_cub(birds(make, tmp_path / "b", image_class_labels=backwards)).images == (
        list_cub(birds(make, tmp_path / "a")).images
    )


def test_another_division_can_be_asked_for(make, tmp_path):
    birds(make, tmp_path)
    assert len(load(tmp_path, size=5, split_by="none")) == 5
    assert load(tmp_path, "test", size=5, split_by="items").files != load(tmp_path, "test", size=5).files


@pytest.mark.parametrize("missing", ["images", "image_class_labels", "classes"])
def test_a_missing_table_is_named(make, tmp_path, missing):
    birds(make, tmp_path, **{missing: None})
    assert is_cub(tmp_path)
    with pytest.raises(RankproofError, match=rf"{missing}\.txt: cannot be read .*; check that"):
        load(tmp_path)


def test_the_classification_split_is_not_needed(make, tmp_path):
    (birds(make, tmp_path) / "train_test_split.txt").unlink()
    assert len(load(tmp_path, size=5)) == 3


def test_one_table_among_folders_of_classes_is_no_sign_of_it(make, tmp_path):
    make.tree(make.classes(tmp_path, 2), {"images.txt": "my own notes"})
    assert load(tmp_path).note.startswith("folder of classes")


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("images", "6", "images.txt, line 6: 1 words where 'image_id path' is expected"),
        ("images", "6 a.jpg b", "images.txt, line 6: 3 words"),
        ("images", "six a.jpg", "images.txt, line 6: image_id must be a whole number, got 'six'"),
        (
            "images",
            "9" * 5000 + " a.jpg",
            "line 6: image_id must be a whole number, got '999999999999999999...'",
        ),
        ("images", "6 a\0.jpg", "images.txt: holds a NUL character"),
        ("images", "5 a.jpg", "images.txt, line 6: image_id 5 is listed twice"),
        ("images", "6 a.jpg", "image_id 6 is in images.txt but not in image_class_labels.txt; fetch"),
        ("image_class_labels", "6 2", "image_id 6 is in image_class_labels.txt but not in images.txt; fetch"),
        ("image_class_labels", "5 2", "image_class_labels.txt, line 6: image_id 5 is listed twice"),
        ("classes", "200 200.Other", "classes.txt, line 5: class_id 200 is listed twice"),
        ("classes", "two 200.Other", "classes.txt, line 5: class_id must be a whole number"),
    ],
)
def test_a_damaged_line_is_named(make, tmp_path, table, line, message):
    birds(make, tmp_path, **{table: f"{TABLES[f'{table}.txt']}{line}\n"})
    with pytest.raises(RankproofError) as error:
        load(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("images", "101.Gull/g_3.jpg", "../g_3.jpg", "line 3: path '../g_3.jpg' leaves the folder"),
        ("images", "101.Gull/g_3.jpg", "/etc/passwd", "line 3: path '/etc/passwd' leaves the folder"),
        ("images", "w_5", "w_4", "line 5: 200.Wren/w_4.jpg is listed twice"),
        ("image_class_labels", "3 101", "3 102", "line 3: class 102 is not in classes.txt; fetch"),
        ("image_class_labels", "3 101", "3 gull", "line 3: class_id must be a whole number, got 'gull'"),
    ],
)
def test_a_changed_line_is_named(make, tmp_path, table, old, new, message):
    birds(make, tmp_path, **{table: TABLES[f"{table}.txt"].replace(old, new)})
    with pytest.raises(RankproofError) as error:
        load(tmp_path)
    assert f"{table}.txt, {message}" in str(error.value)


def test_a_listed_image_that_is_missing_is_named(make, tmp_path):
    (birds(make, tmp_path) / "images" / "101.Gull" / "g_3.jpg").unlink()
    with pytest.raises(RankproofError, match=r"g_3\.jpg: cannot be read"):
        load(tmp_path)
