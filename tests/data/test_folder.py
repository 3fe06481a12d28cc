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


def test_a_folder_without_classes_says_what_it_wants(make, tmp_path):
    with pytest.raises(RankproofError, match="one sub-folder per class"):
        list_folder(tmp_path)
    make.tree(tmp_path, {"1.png": "x", "2.png": "x"})
    with pytest.raises(RankproofError, match="one sub-folder per class"):
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
