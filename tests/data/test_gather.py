import numpy as np
import pytest

import rankproof.data.gather as room
from rankproof.data.folder import list_folder
from rankproof.data.gather import common_form, gather
from rankproof.data.pictures import Form
from rankproof.errors import RankproofError


def read(folder, split="test", *, size=None, split_by="none", progress=None):
    return gather(list_folder(folder), split, size=size, split_by=split_by, progress=progress)


def test_pixels_labels_and_files_belong_together(make, tmp_path):
    make.tree(tmp_path, {"b/1.png": make.flat(30), "a/2.png": make.flat(20), "a/1.png": make.flat(10)})
    dataset = read(tmp_path)
    assert dataset.files == ("a/1.png", "a/2.png", "b/1.png")
    assert dataset.pictures[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.classes == ("a", "b")
    assert dataset.pictures.shape == (3, 1, 6, 8)


def test_one_coloured_picture_makes_all_coloured_in_both_splits(make, tmp_path):
    files = {f"{part}/{name}/1.png": make.flat(9) for part in ("train", "test") for name in "ab"}
    make.tree(tmp_path, files | {"train/b/2.png": make.flat((1, 2, 3))})
    train, test = (read(tmp_path, split, split_by="auto") for split in ("train", "test"))
    assert train.pictures.shape[1] == test.pictures.shape[1] == 3
    assert train.pictures[-1, :, 0, 0].tolist() == [1, 2, 3]


def test_differing_sizes_become_128_and_the_note_says_so(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": make.flat(1), "b/1.png": make.flat(2, 9, 9)})
    dataset = read(tmp_path)
    assert dataset.pictures.shape[2:] == (128, 128)
    assert "differ in size, all resized to 128x128" in dataset.note
    asked = read(tmp_path, size=(5, 4))
    assert asked.pictures.shape[2:] == (5, 4)
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


def test_progress_counts_every_picture(make, tmp_path):
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
    assert np.prod(read(tmp_path, size=(5, 8)).pictures.shape) == 320


def test_a_damaged_picture_is_named(make, tmp_path):
    make.tree(make.classes(tmp_path, 2), {"a01/2.png": "text"})
    with pytest.raises(RankproofError, match=r"a01/2\.png: not a picture"):
        read(tmp_path)


def test_the_search_for_a_form_does_not_stop_too_early(make, tmp_path):
    coloured, grey, large = make.flat((1, 2, 3)), make.flat(1), make.flat(2, 9, 9)
    wanted = Form(height=128, width=128, channels=3)
    for number, order in enumerate([(coloured, grey, large), (grey, large, coloured)]):
        folder = make.tree(tmp_path / str(number), {f"{name}/1.png": order[name] for name in range(3)})
        assert common_form(list_folder(folder), None)[0] == wanted
    assert common_form(list_folder(folder), (5, 5))[0] == Form(height=5, width=5, channels=3)
