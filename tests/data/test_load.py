import gzip
from pathlib import Path

import pytest
import torch

from rankproof.data import load
from rankproof.data.cub import list_cub
from rankproof.data.sop import list_sop
from rankproof.errors import RankproofError


def idx_folder(folder, labels=(0, 1)):
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = bytes((0, 0, 8, 3, 0, 0, 0, len(labels), 0, 0, 0, 4, 0, 0, 0, 4))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(16 * len(labels))))
        count = bytes((0, 0, 8, 1, 0, 0, 0, len(labels)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(count + bytes(labels)))
    return folder


def zipped(make, path):
    table = "path,class_id,split\n1.png,0,train\n2.png,1,train\n3.png,0,test\n4.png,1,test\n"
    return make.zip(
        path, {"metadata.csv": table} | {f"{number}.png": make.flat(number) for number in range(1, 5)}
    )


def test_the_two_splits_are_the_whole_set_once():
    train, test = load("digits", "train"), load("digits")
    assert (len(train), len(test)) == (1000, 797)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.labels.bincount(minlength=10).min() > 90
    assert not (train.images[:797] == test.images).flatten(1).all(1).all()


def test_sixteen_grey_levels_fill_the_range():
    values = load("digits").images.unique()
    assert (values.min(), values.max(), len(values)) == (0, 255, 17)
    assert load("digits").images.dtype == torch.uint8


def test_tells_the_kinds_apart(make, tmp_path):
    idx = idx_folder(tmp_path / "idx")
    folder = make.classes(tmp_path / "folder", 2)
    archive = zipped(make, tmp_path / "archive.zip")
    table = make.tree(
        tmp_path / "table",
        {
            "metadata.csv": "path,class_id\na/1.png,x\na/2.png,y\n",
            "a/1.png": make.flat(1),
            "a/2.png": make.flat(2),
        },
    )
    assert load(idx).note.startswith("idx files")
    assert load(folder).note.startswith("folder of classes")
    assert load(str(archive)).note.startswith("zip with metadata.csv")
    assert load(table, split_by="none").note.startswith("folder with metadata.csv")


def test_images_without_classes_are_an_unlabelled_gallery(make, tmp_path):
    make.tree(tmp_path / "flat", {f"{number}.png": make.flat(number) for number in range(5)})
    whole = load(tmp_path / "flat")
    assert (whole.labels, whole.classes, len(whole)) == (None, (), 5)
    assert "5 images of 6x8 without classes (an unlabelled gallery); not divided" in whole.note
    assert whole.head(2).labels is None
    assert len(whole.sha256) == 64
    with pytest.raises(RankproofError, match="test split: its images have no classes, which are needed here"):
        whole.require_labels()
    train, test = (load(tmp_path / "flat", split, split_by="items") for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 3)
    assert not set(train.files) & set(test.files)
    with pytest.raises(RankproofError, match="no classes to divide by"):
        load(tmp_path / "flat", split_by="classes")
    make.tree(
        tmp_path / "parts",
        {f"{part}/{number}.png": make.flat(7) for part in ("train", "test") for number in "12"},
    )
    assert load(tmp_path / "parts").files == ("test/1.png", "test/2.png")
    assert load(tmp_path / "parts").labels is None


def test_one_image_is_no_gallery(make, tmp_path):
    with pytest.raises(RankproofError, match="test split: one image only; a ranking needs at least two"):
        load(make.tree(tmp_path, {"1.png": make.flat(1)}))


def test_train_may_have_classes_where_test_has_none(make, tmp_path):
    names = ["train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png"]
    make.tree(tmp_path, {name: make.flat(number) for number, name in enumerate(names)})
    assert load(tmp_path, "train").labels.tolist() == [0, 1]
    assert load(tmp_path).labels is None


def test_finds_names_below_the_root(make, tmp_path):
    idx_folder(tmp_path / "fashion-mnist")
    zipped(make, tmp_path / "cars.zip")
    assert load("fashion-mnist", root=tmp_path).name == "fashion-mnist"
    assert load("cars", root=tmp_path).name == load("cars.zip", root=tmp_path).name == "cars"


def test_an_existing_path_comes_before_the_root(make, tmp_path, monkeypatch):
    idx_folder(tmp_path / "root" / "mnist")
    make.classes(tmp_path / "here" / "mnist", 2)
    monkeypatch.chdir(tmp_path / "here")
    assert load("mnist", root=tmp_path / "root").note.startswith("folder of classes")


@pytest.mark.parametrize("root", [None, Path("/nowhere/at/all")])
def test_a_known_name_that_is_missing_says_how_to_get_it(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RankproofError, match="`rankproof data fashion-mnist` downloads it, or put train-images"
    ) as error:
        load("fashion-mnist", root=root)
    assert "\n" not in str(error.value)
    assert root is None or str(root / "fashion-mnist") in str(error.value)


def test_the_environment_is_not_read(tmp_path, monkeypatch):
    idx_folder(tmp_path / "mnist")
    monkeypatch.setenv("RANKPROOF_DATA", str(tmp_path))
    monkeypatch.chdir("/")
    with pytest.raises(RankproofError, match="not found"):
        load("mnist")


@pytest.mark.parametrize("kind", ["digits", "idx", "folder", "zip"])
def test_every_kind_honours_size(kind, make, tmp_path):
    path = {
        "digits": lambda: None,
        "idx": lambda: idx_folder(tmp_path / "x"),
        "folder": lambda: make.classes(tmp_path / "x", 2),
        "zip": lambda: zipped(make, tmp_path / "x.zip"),
    }[kind]()
    dataset = load(path, size=(5, 3))
    assert dataset.images.shape[2:] == (5, 3)
    assert "resized to 5x3 as asked" in dataset.note


def test_the_note_tells_the_rule_and_divide_overrules_it(make, tmp_path):
    make.classes(tmp_path, 4)
    assert "divided by image" in load(tmp_path).note
    assert "for all images in one gallery: --divide none" in load(tmp_path).note
    assert "divided by class" in load(tmp_path, split_by="classes").note
    assert "--divide" not in load(tmp_path, split_by="classes").note
    assert "not divided" in load(tmp_path, split_by="none").note
    assert (len(load(tmp_path)), len(load(tmp_path, split_by="none"))) == (8, 16)


@pytest.mark.parametrize("path", ["digits", "idx"])
def test_sets_with_their_own_split_refuse_another(path, tmp_path):
    with pytest.raises(RankproofError, match="own split"):
        load(path and idx_folder(tmp_path / path), split_by="items")


def test_progress_reaches_the_end(make, tmp_path):
    seen = []
    load(make.classes(tmp_path, 2), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(RankproofError, match="no such file or folder"):
        load(tmp_path / "gone")


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(RankproofError, match="no images"):
        load(tmp_path)


def test_refuses_one_class(make, tmp_path):
    for path in (make.classes(tmp_path / "folder", 1), idx_folder(tmp_path / "idx", labels=(1, 1))):
        with pytest.raises(RankproofError, match="needs at least two classes"):
            load(path)


def test_refuses_an_unknown_split(make, tmp_path):
    with pytest.raises(RankproofError, match="split must be train or test, got 'val'"):
        load(make.classes(tmp_path, 2), "val")


def test_refuses_an_empty_split(make, tmp_path):
    table = "path,class_id,split\n1.png,0,test\n2.png,1,test\n"
    path = make.zip(tmp_path / "x.zip", {"metadata.csv": table, "1.png": make.flat(1), "2.png": make.flat(2)})
    assert len(load(path)) == 2
    with pytest.raises(RankproofError, match="train split: no images"):
        load(path, "train")


def test_refuses_a_file_of_another_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(RankproofError, match=r"notes\.txt: not a readable zip"):
        load(tmp_path / "notes.txt")


def test_grocery_loads(real):
    dataset = load(real("grocery_128.zip"), size=32)
    assert dataset.images.shape == (2485, 3, 32, 32)
    assert dataset.labels.bincount().count_nonzero() == len(dataset.classes) == 81
    assert "296 images marked val belong to train" in dataset.note
    assert dataset.classes[dataset.labels[0]] in dataset.files[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [("cars196_cropped_128", 8054, 8131, 98), ("grocery_128", 2640 + 296, 2485, 81)],
)
def test_both_splits_of_a_published_set_load_by_name(real, real_data, name, train, test, classes):
    real(f"{name}.zip")
    for split, count in (("train", train), ("test", test)):
        dataset = load(name, split, size=64, root=real_data)
        assert dataset.images.shape == (count, 3, 64, 64)
        assert len(dataset.labels.unique()) == classes
        assert dataset.images.flatten(1).float().std(1).min() > 1  # no image is empty


@pytest.mark.parametrize("name", ["Stanford_Online_Products", "CUB_200_2011"])
def test_the_published_tables_list_what_they_should(real, name):
    list_images, train, test, classes = {
        "Stanford_Online_Products": (list_sop, 59_551, 60_502, (11_318, 11_316)),
        "CUB_200_2011": (list_cub, 5_864, 5_924, (100, 100)),
    }[name]
    images = list_images(real(name)).images
    given = [image.given for image in images]
    assert (given.count("train"), given.count("test")) == (train, test)
    assert classes == tuple(
        len({image.key for image in images if image.given == split}) for split in ("train", "test")
    )
