import numpy as np
import pytest

import rankproof.data.image_list as room
from rankproof.data.folder import list_folder
from rankproof.data.image_list import (
    ImageList,
    ListedImage,
    common_form,
    read_split,
    require_two_classes,
    select_split,
)
from rankproof.data.images import Form
from rankproof.errors import RankproofError
from rankproof.types import no_progress


def image_list(counts, given=None):
    """Class number i has counts[i] images."""
    keys = [f"c{number:02}" for number in range(len(counts))]
    images = tuple(
        ListedImage(file=f"{key}/{item}.png", key=key, given=given)
        for key, count in zip(keys, counts, strict=True)
        for item in range(count)
    )
    return ImageList(
        name="x", kind="folder", images=images, classes={key: key for key in keys}, read=lambda file: b""
    )


def both(found, split_by):
    (train, rule), (test, again) = (
        select_split(found, "train", split_by),
        select_split(found, "test", split_by),
    )
    assert rule == again
    return train, test, rule


def test_twenty_classes_are_divided_by_class():
    train, test, rule = both(image_list([2] * 21), "auto")
    assert {image.key for image in train} == {f"c{number:02}" for number in range(10)}
    assert {image.key for image in test} == {f"c{number:02}" for number in range(10, 21)}
    assert "by class" in rule
    assert "10 of 21" in rule
    assert "by class" in both(image_list([2] * 20), "auto")[2]


def test_fewer_classes_are_divided_within_each():
    counts = [1, 2, 3, 10, 11]
    train, test, rule = both(image_list(counts), "auto")
    assert "by image" in rule
    assert len(train) + len(test) == sum(counts)
    assert not {image.file for image in train} & {image.file for image in test}
    per_class = [sum(image.key == f"c{number:02}" for image in train) for number in range(5)]
    assert per_class == [0, 1, 1, 5, 5]
    assert "by image" in both(image_list([2] * 19), "auto")[2]


def test_the_hash_and_not_the_order_decides():
    found = image_list([50, 50])
    train, _, _ = both(found, "items")
    assert [image.file for image in train] != [f"c{c:02}/{i}.png" for c in range(2) for i in range(25)]
    turned = ImageList(
        name="x", kind="folder", images=found.images[::-1], classes=found.classes, read=found.read
    )
    assert {image.file for image in both(turned, "items")[0]} == {image.file for image in train}


def test_the_hash_is_the_same_everywhere():
    train, _, _ = both(image_list([4, 4]), "items")
    assert [image.file for image in train] == ["c00/1.png", "c00/2.png", "c01/0.png", "c01/2.png"]


def test_a_given_split_is_kept_unless_overruled():
    found = image_list([3, 3], given="test")
    train, test, rule = both(found, "auto")
    assert (len(train), len(test)) == (0, 6)
    assert "source" in rule
    assert len(both(found, "items")[0]) == 2
    assert [image.key for image in both(found, "classes")[0]] == ["c00"] * 3


def test_none_gives_everything_to_both():
    train, test, rule = both(image_list([3, 2]), "none")
    assert len(train) == len(test) == 5
    assert "both" in rule


def test_a_ranking_needs_two_classes():
    require_two_classes(["a", "b"], "x")
    with pytest.raises(RankproofError, match="x: one class only; a ranking needs at least two classes"):
        require_two_classes([3, 3], "x")
    with pytest.raises(RankproofError, match="x: no images"):
        require_two_classes([], "x")


def read(folder, split="test", *, size=None, split_by="none", progress=no_progress):
    return read_split(list_folder(folder), split, size=size, split_by=split_by, progress=progress)


def test_pixels_labels_and_files_belong_together(make, tmp_path):
    make.tree(tmp_path, {"b/1.png": make.flat(30), "a/2.png": make.flat(20), "a/1.png": make.flat(10)})
    dataset = read(tmp_path)
    assert dataset.files == ("a/1.png", "a/2.png", "b/1.png")
    assert dataset.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.classes == ("a", "b")
    assert dataset.images.shape == (3, 1, 6, 8)


def test_one_coloured_image_makes_all_coloured_in_both_splits(make, tmp_path):
    files = {f"{part}/{name}/1.png": make.flat(9) for part in ("train", "test") for name in "ab"}
    make.tree(tmp_path, files | {"train/b/2.png": make.flat((1, 2, 3))})
    train, test = (read(tmp_path, split, split_by="auto") for split in ("train", "test"))
    assert train.images.shape[1] == test.images.shape[1] == 3
    assert train.images[-1, :, 0, 0].tolist() == [1, 2, 3]


def test_differing_sizes_become_128_and_the_note_says_so(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": make.flat(1), "b/1.png": make.flat(2, 9, 9)})
    dataset = read(tmp_path)
    assert dataset.images.shape[2:] == (128, 128)
    assert "differ in size, all resized to 128x128" in dataset.note
    asked = read(tmp_path, size=(5, 4))
    assert asked.images.shape[2:] == (5, 4)
    assert "128" not in asked.note
    assert "5x4" in asked.note


def test_equal_sizes_stay(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": make.flat(1), "b/1.png": make.flat(2)})
    assert common_form(list_folder(tmp_path), None) == (Form(height=6, width=8, channels=1), ())


def test_labels_mean_the_same_class_in_both_splits(make, tmp_path):
    make.classes(tmp_path, 6, each=2)
    train, test = (read(tmp_path, split, split_by="classes") for split in ("train", "test"))
    assert set(train.labels.tolist()) == {0, 1, 2}
    assert set(test.labels.tolist()) == {3, 4, 5}
    assert train.classes == test.classes == tuple(f"a0{number}" for number in range(6))
    assert "in 3 classes" in test.note


def test_progress_counts_every_image(make, tmp_path):
    seen = []
    read(make.classes(tmp_path, 2, each=2), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_half_with_one_class_is_refused(make, tmp_path):
    with pytest.raises(RankproofError, match="train split: one class only"):
        read(make.classes(tmp_path, 3), "train", split_by="classes")


def test_what_does_not_fit_into_memory_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_MEMORY", 8 * 6 * 8 - 1)
    make.classes(tmp_path, 2)
    with pytest.raises(RankproofError, match="give a smaller size"):
        read(tmp_path)
    assert np.prod(read(tmp_path, size=(5, 8)).images.shape) == 320


def test_a_damaged_image_is_named(make, tmp_path):
    make.tree(make.classes(tmp_path, 2), {"a01/2.png": "text"})
    with pytest.raises(RankproofError, match=r"a01/2\.png: not an image"):
        read(tmp_path)


def test_the_search_for_a_form_does_not_stop_too_early(make, tmp_path):
    coloured, grey, large = make.flat((1, 2, 3)), make.flat(1), make.flat(2, 9, 9)
    wanted = Form(height=128, width=128, channels=3)
    for number, order in enumerate([(coloured, grey, large), (grey, large, coloured)]):
        folder = make.tree(tmp_path / str(number), {f"{name}/1.png": order[name] for name in range(3)})
        assert common_form(list_folder(folder), None)[0] == wanted
    assert common_form(list_folder(folder), (5, 5))[0] == Form(height=5, width=5, channels=3)
