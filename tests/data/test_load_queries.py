"""Images that are searched for in a gallery and are no part of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from rankproof.data import load, load_queries
from rankproof.errors import RankproofError

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), 90


@pytest.fixture
def gallery(make, tmp_path):
    colours = {"apple": RED, "kiwi": GREEN, "plum": BLUE}
    files = {
        f"{name}/{item}.png": make.flat(np.add(colour, item))
        for name, colour in colours.items()
        for item in (1, 2)
    }
    return load(make.tree(tmp_path / "shop", files), split_by="none")


def test_labels_are_those_of_the_gallery_by_name(make, tmp_path, gallery):
    path = make.tree(tmp_path / "uploads", {"plum/a.png": make.flat(BLUE), "kiwi/b.png": make.flat(GREEN)})
    queries = load_queries(path, gallery)
    assert [queries.files[i] for i in (0, 1)] == ["kiwi/b.png", "plum/a.png"]
    assert queries.labels.tolist() == [1, 2]  # of its own folders they would be 0 and 1
    assert queries.images.shape == (2, 3, 6, 8)
    assert queries.split == "query"
    assert queries.note.endswith("2 images of 6x8; in 2 classes")


def test_a_single_class_a_plain_folder_a_zip_and_a_file_are_queries(make, tmp_path, gallery):
    single = make.tree(tmp_path / "single", {"kiwi/b.png": make.flat(GREEN)})
    assert load_queries(single, gallery).labels.tolist() == [1]
    plain = make.tree(tmp_path / "plain", {"b.png": make.flat(GREEN)})
    packed = make.zip(tmp_path / "packed.zip", {"b.png": make.flat(GREEN)})
    for path in (plain, packed, plain / "b.png"):
        queries = load_queries(path, gallery)
        assert queries.labels is None
        assert torch.equal(queries.images[0, :, 0, 0], torch.tensor(GREEN, dtype=torch.uint8))
        assert "without classes" in queries.note


def test_all_splits_count(make, tmp_path, gallery):
    files = {"train/kiwi/a.png": make.flat(GREEN), "train/plum/a.png": make.flat(BLUE)}
    files |= {"test/kiwi/b.png": make.flat(GREEN), "test/plum/b.png": make.flat(BLUE)}
    queries = load_queries(make.tree(tmp_path / "both", files), gallery)
    assert len(queries) == 4
    assert sorted(queries.labels.tolist()) == [1, 1, 2, 2]


def test_a_class_that_the_gallery_lacks_has_no_match(make, tmp_path, gallery):
    files = {"kiwi/a.png": make.flat(GREEN), "pear/a.png": make.flat(GREEN), "pear/b.png": make.flat(BLUE)}
    queries = load_queries(make.tree(tmp_path / "uploads", files), gallery)
    assert queries.labels.tolist() == [1, 3, 3]
    assert queries.classes == ("apple", "kiwi", "plum", "pear")
    assert "2 of them have no match, as the gallery has no images of pear" in queries.note


def test_a_class_of_the_other_split_alone_has_no_match(make, tmp_path):
    files = {
        f"{split}/{name}/a.png": make.flat(RED)
        for split, names in (("train", "ab"), ("test", "bc"))
        for name in names
    }
    gallery = load(make.tree(tmp_path / "shop", files))
    queries = load_queries(make.tree(tmp_path / "uploads", {"a/1.png": make.flat(BLUE)}), gallery)
    assert queries.labels.tolist() == [gallery.classes.index("a")]
    assert "1 of them have no match, as the gallery has no images of a" in queries.note


@pytest.mark.parametrize("name", ["Kiwi", "kiwi ", "KIWI"])
def test_names_that_differ_by_case_or_spaces_are_an_error(make, tmp_path, gallery, name):
    path = make.tree(tmp_path / "uploads", {f"{name}/a.png": make.flat(GREEN)})
    with pytest.raises(RankproofError, match="is 'kiwi' in the gallery; give both the same name"):
        load_queries(path, gallery)


def test_letters_that_file_systems_write_in_two_ways_are_equal(make, tmp_path):
    files = {"caf\u00e9/1.png": make.flat(RED), "tea/1.png": make.flat(BLUE)}
    gallery = load(make.tree(tmp_path / "shop", files), split_by="none")
    queries = load_queries(make.tree(tmp_path / "up", {"cafe\u0301/1.png": make.flat(GREEN)}), gallery)
    assert queries.labels.tolist() == [gallery.classes.index("caf\u00e9")]


def test_a_name_of_two_classes_is_an_error(make, tmp_path):
    table = "path,class_id,class_name\n1.png,1,cup\n2.png,2,cup\n3.png,3,jar\n"
    images = {f"{number}.png": make.flat(number) for number in (1, 2, 3)}
    gallery = load(make.tree(tmp_path / "shop", {"metadata.csv": table, **images}), split_by="none")
    with pytest.raises(RankproofError, match="2 classes of the gallery are named 'cup'"):
        load_queries(make.tree(tmp_path / "up", {"cup/1.png": make.flat(1)}), gallery)
    assert load_queries(make.tree(tmp_path / "ok", {"jar/1.png": make.flat(1)}), gallery).labels.tolist() == [
        2
    ]


def test_copies_of_gallery_images_are_counted(make, tmp_path, gallery):
    files = {"kiwi/a.png": make.flat(np.add(GREEN, 1)), "kiwi/b.png": make.flat(np.add(GREEN, 7))}
    queries = load_queries(make.tree(tmp_path / "uploads", files), gallery)
    assert "1 of the 2 queries are in the gallery, pixel for pixel" in queries.note
    assert "pixel for pixel" not in load_queries(tmp_path / "uploads/kiwi/b.png", gallery).note


def test_queries_get_the_form_of_the_gallery(make, tmp_path, gallery):
    queries = load_queries(make.tree(tmp_path / "grey", {"a.png": make.flat(GREY, 12, 12)}), gallery)
    assert queries.images.shape == (1, 3, 6, 8)
    assert (queries.images == GREY).all()
    assert "resized to 6x8, the size of the gallery's images" in queries.note
    grey = load(make.tree(tmp_path / "greys", {"a.png": make.flat(1), "b.png": make.flat(2)}))
    assert "made grey" in load_queries(make.tree(tmp_path / "red", {"a.png": make.flat(RED)}), grey).note


def test_a_turned_photo_is_upright(make, tmp_path, gallery):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6).repeat(3).reshape(8, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "photo.png", exif=exif)
    queries = load_queries(tmp_path / "photo.png", gallery)
    assert "resized" not in queries.note  # upright it is as high and wide as the gallery's images
    assert queries.images[0, 0].equal(torch.arange(48, dtype=torch.uint8).view(8, 6).rot90(-1))


def test_digits_are_queries_of_other_galleries(gallery):
    queries = load_queries("digits", gallery)
    assert queries.images.shape == (797, 3, 6, 8)
    assert "797 of them have no match" in queries.note


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "no images found"), ({"readme.txt": "x"}, "no images found"), ({"a.png": b"x"}, "not an image")],
)
def test_what_is_no_query_is_one_line(make, tmp_path, gallery, files, message):
    path = make.tree(tmp_path / "uploads", files)
    path.mkdir(exist_ok=True)
    with pytest.raises(RankproofError, match=message) as error:
        load_queries(path, gallery)
    assert "\n" not in str(error.value)


def test_a_file_that_is_neither_image_nor_zip_is_no_query(make, tmp_path, gallery):
    make.tree(tmp_path, {"notes.txt": "x"})
    with pytest.raises(RankproofError, match="neither an image file nor a zip"):
        load_queries(tmp_path / "notes.txt", gallery)


def test_market_is_no_query(make, tmp_path, gallery):
    files = {f"{folder}/0001_c1s1_1.png": make.flat(RED) for folder in ("bounding_box_test", "query")}
    with pytest.raises(RankproofError, match="comes with its own queries"):
        load_queries(make.tree(tmp_path / "market", files), gallery)


def test_queries_of_a_gallery_without_classes_have_none(make, tmp_path):
    gallery = load(make.tree(tmp_path / "flat", {"a.png": make.flat(1), "b.png": make.flat(2)}))
    queries = load_queries(make.tree(tmp_path / "up", {"cup/1.png": make.flat(3)}), gallery)
    assert queries.labels is None
    assert "their classes do not count" in queries.note
