import os

import pytest

from rankproof.data.folder import list_folder, read_below
from rankproof.errors import RankproofError


def files(folder):
    return [image.file for image in list_folder(folder).images]


def test_every_ending_counts_in_either_case(make, tmp_path):
    endings = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "PNG", "Jpg")
    names = [f"a/{number}.{ending}" for number, ending in enumerate(endings)]
    make.tree(tmp_path, dict.fromkeys(names, "x"))
    assert files(tmp_path) == names


@pytest.mark.parametrize(
    "name",
    [
        "labels.txt",
        "a.csv",
        "b.JSON",
        "readme.md",
        "Thumbs.db",
        ".DS_Store",
        "LICENSE",
        ".hidden.png",
        ".git/config",
    ],
)
def test_metadata_and_hidden_files_are_ignored(make, tmp_path, name):
    make.tree(tmp_path, {"a/1.png": "x", f"a/{name}": "x", f"b/{name}": "x"})
    assert files(tmp_path) == ["a/1.png"]


@pytest.mark.parametrize("name", ["movie.mp4", "1.png.part", "2.exe", "noending"])
def test_a_stray_file_is_named(make, tmp_path, name):
    make.tree(tmp_path, {"a/1.png": "x", f"a/{name}": "x"})
    with pytest.raises(RankproofError, match=f"{name}: not an image; remove it"):
        list_folder(tmp_path)


def test_a_folder_inside_a_class_is_named(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": "x", "a/deep/2.png": "x"})
    with pytest.raises(RankproofError, match="a/deep: a folder inside a class folder"):
        list_folder(tmp_path)


def test_a_folder_named_like_a_image_is_no_image(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": "x", "a/2.png/3.png": "x"})
    with pytest.raises(RankproofError, match=r"2\.png: a folder inside"):
        list_folder(tmp_path)


def test_folders_without_images_are_no_class(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": "x", "b/2.png": "x", "docs/manual.pdf": "x", ".cache/3.png": "x"})
    (tmp_path / "void").mkdir()
    listing = list_folder(tmp_path)
    assert tuple(listing.classes) == ("a", "b")
    assert listing.remarks == ("left out: docs, void",)


def test_train_and_test_folders_are_the_split(make, tmp_path):
    make.tree(
        tmp_path,
        {
            "train/a/1.png": "x",
            "train/b/1.png": "x",
            "test/a/1.png": "x",
            "val/b/7.png": "x",
            "extra/c/1.png": "x",
        },
    )
    listing = list_folder(tmp_path)
    assert [(image.file, image.key, image.given) for image in listing.images] == [
        ("train/a/1.png", "a", "train"),
        ("train/b/1.png", "b", "train"),
        ("test/a/1.png", "a", "test"),
        ("val/b/7.png", "b", "train"),
    ]
    assert tuple(listing.classes) == ("a", "b")
    assert listing.remarks == ("1 images of val/ belong to train", "left out: extra")


def test_classes_called_train_and_test_are_classes(make, tmp_path):
    make.tree(tmp_path, {"train/1.png": "x", "test/2.png": "x", "plane/3.png": "x"})
    listing = list_folder(tmp_path)
    assert tuple(listing.classes) == ("plane", "test", "train")
    assert {image.given for image in listing.images} == {None}


def test_a_folder_without_images_says_what_it_wants(make, tmp_path):
    make.tree(tmp_path, {"a/b/1.png": "x", "readme.txt": "x"})
    with pytest.raises(RankproofError, match="no images found; put them into one sub-folder per class"):
        list_folder(tmp_path)


def listed(folder):
    listing = list_folder(folder)
    return {image.file: (image.key, image.given) for image in listing.images}, listing


def test_a_flat_folder_is_a_gallery_without_classes(make, tmp_path):
    make.tree(tmp_path, {"1.png": "x", "2.JPG": "x", "notes.txt": "x", ".DS_Store": "x", "Thumbs.db": "x"})
    (tmp_path / "empty").mkdir()
    images, listing = listed(tmp_path)
    assert images == {"1.png": (None, None), "2.JPG": (None, None)}
    assert (listing.classes, listing.kind) == ({}, "folder of images")
    assert listing.remarks == ("left out: empty",)


def test_images_directly_in_train_and_test_have_no_classes(make, tmp_path):
    make.tree(tmp_path, {"train/1.png": "x", "test/2.png": "x", "test/3.png": "x", "val/4.png": "x"})
    images, listing = listed(tmp_path)
    assert images == {
        "train/1.png": (None, "train"),
        "test/2.png": (None, "test"),
        "test/3.png": (None, "test"),
        "val/4.png": (None, "train"),
    }
    assert listing.classes == {}


def test_train_and_test_may_begin_with_capitals(make, tmp_path):
    make.tree(
        tmp_path / "a", {"Train/a/1.png": "x", "Train/b/1.png": "x", "Test/a/2.png": "x", "Val/a/3.png": "x"}
    )
    images, listing = listed(tmp_path / "a")
    assert [given for _, given in images.values()] == ["train", "train", "test", "train"]
    assert listing.remarks == ("1 images of val/ belong to train",)


@pytest.mark.parametrize("name", ["trains", "trainers", "test tubes", "indexes", "images", "data"])
def test_other_names_are_classes(make, tmp_path, name):
    make.tree(tmp_path, {f"{name}/1.png": "x", "test/2.png": "x"})
    assert tuple(list_folder(tmp_path).classes) == tuple(sorted([name, "test"]))


def test_only_one_of_train_and_test_may_have_classes(make, tmp_path):
    make.tree(tmp_path, {"train/a/1.png": "x", "train/b/1.png": "x", "test/2.png": "x", "val/3.png": "x"})
    images, listing = listed(tmp_path)
    assert images["train/b/1.png"] == ("b", "train")
    assert images["test/2.png"] == (None, "test")
    assert listing.remarks == ("left out: val",)


@pytest.mark.parametrize(
    "names",
    [
        ("query", "gallery"),
        ("train", "val"),
        ("test",),
        ("index", "queries"),
        ("train_images", "test_images"),
        ("Query", "Gallery"),
        ("valid", "test-set"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(make, tmp_path, names):
    make.tree(tmp_path, {f"{name}/{number}.png": "x" for name in names for number in range(2)})
    with pytest.raises(RankproofError, match="are no classes; give one of them alone"):
        list_folder(tmp_path)


def test_images_beside_class_folders_are_counted(make, tmp_path):
    make.tree(tmp_path / "flat", {"a/1.png": "x", "b/2.png": "x", "logo.png": "x", "cover.heic": "x"})
    images, listing = listed(tmp_path / "flat")
    assert set(images) == {"a/1.png", "b/2.png"}
    assert listing.remarks == ("left out: 2 images beside class folders",)
    parts = [f"{part}/{key}/1.png" for part in ("train", "test") for key in "ab"]
    make.tree(tmp_path / "split", dict.fromkeys([*parts, "train/x.png", "y.png"], "x"))
    images, listing = listed(tmp_path / "split")
    assert set(images) == set(parts)
    assert listing.remarks == (
        "left out: 1 images beside train/ and test/",
        "left out: 1 images beside class folders",
    )


@pytest.mark.parametrize("ending", ["heic", "HEIF", "avif", "jxl", "jp2", "ppm", "dng"])
def test_what_looks_like_an_image_is_never_silently_skipped(make, tmp_path, ending):
    make.tree(tmp_path, {f"a/1.{ending}": "x", "b/1.png": "x"})
    assert files(tmp_path) == [f"a/1.{ending}", "b/1.png"]


def test_a_stray_file_in_a_flat_folder_is_named(make, tmp_path):
    make.tree(tmp_path, {"1.png": "x", "2.png": "x", "movie.mp4": "x"})
    with pytest.raises(RankproofError, match=r"movie\.mp4: not an image; remove it"):
        list_folder(tmp_path)


def test_links_are_followed_and_one_to_nothing_is_named(make, tmp_path):
    make.tree(tmp_path / "store", {"1.png": "x"})
    make.tree(tmp_path / "set", {"a/2.png": "x"})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "a" / "1.png").symlink_to(tmp_path / "store" / "1.png")
    assert files(tmp_path / "set") == ["a/1.png", "a/2.png", "b/1.png"]
    (tmp_path / "set" / "a" / "3.png").symlink_to(tmp_path / "gone.png")
    listing = list_folder(tmp_path / "set")
    with pytest.raises(RankproofError, match=r"3\.png: cannot be read"):
        listing.read("a/3.png")


def test_a_pipe_is_named_and_not_read(make, tmp_path):
    make.tree(tmp_path, {"a/1.png": "x"})
    os.mkfifo(tmp_path / "a" / "2.png")
    with pytest.raises(RankproofError, match=r"2\.png: neither a file nor a folder"):
        list_folder(tmp_path)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(RankproofError, match=r"cannot be opened \(Permission denied\)"):
        list_folder(tmp_path)


def test_reading_names_what_is_missing(tmp_path):
    with pytest.raises(RankproofError, match=r"gone\.png: cannot be read"):
        read_below(tmp_path, "gone.png")


def test_a_file_too_large_for_a_image_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(2**30)  # sparse: takes no room on the disk
    with pytest.raises(RankproofError, match="larger than 256 MiB"):
        read_below(tmp_path, "huge.png")
