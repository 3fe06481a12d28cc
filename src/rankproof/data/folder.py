"""Folders of images: one sub-folder per class, or images without classes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankproof.data.image_list import SPLITS, ImageList, ListedImage
from rankproof.data.images import MAX_BYTES
from rankproof.data.tree import Tree, folder_tree
from rankproof.errors import RankproofError

VALIDATION = "val"
# Folders named by these words alone are parts of a data set, and no classes.
SPLIT_WORDS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
PARTS = frozenset(SPLIT_WORDS | {"query", "queries", "gallery", "database", "index"})
FILLERS = frozenset({"image", "images", "img", "imgs", "set", "data"})


def list_folder(folder: Path) -> ImageList:
    """All images below `folder`, or below its train/ and test/ where it has both."""
    return list_tree(folder_tree(folder), folder.resolve().name, lambda file: read_below(folder, file))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The images of one folder, which all have a class or all have none.

    Args:
        images: by class, or those directly in it.
        left_out: sub-folders that hold no images directly.
        loose: number of images beside class folders, which are left out.
    """

    images: list[ListedImage]
    left_out: list[str]
    loose: int

    @property
    def classes(self) -> list[str]:
        """The names of the classes; empty where images have none."""
        return sorted({image.key for image in self.images if image.key is not None})


def list_tree(top: Tree, name: str, read: Callable[[str], bytes]) -> ImageList:
    """All images of a folder on disk or in a zip.

    Images outside of class folders have no class: those of a flat folder, and those directly in train/ or
    test/.

    Args:
        name: short name of the data set.
        read: returns the bytes of one of the files.
    """
    found = {part: list_part(tree, part) for part in SPLITS if (tree := _named(top, part)) is not None}
    if len(found) == len(SPLITS) and all(part.images for part in found.values()):
        classes_beside = any(tree.images for tree in top.folders if not _is_part(tree.name))
        if all(part.classes for part in found.values()) or not classes_beside:
            return _list_splits(top, found, name, read)
    part = list_part(top, None)
    if part.classes and all(map(_is_part, part.classes)):
        raise RankproofError(
            f"{top.where}: its folders {', '.join(part.classes)} are no classes; give one of them alone for "
            f"a gallery without classes, or both train/ and test/"
        )
    if not part.images:
        layout = f"{name}/CLASS/IMAGE.jpg"
        raise RankproofError(
            f"{top.where}: no images found; put them into one sub-folder per class: {layout}, or list "
            f"them in metadata.csv"
        )
    kind = "folder of classes" if part.classes else "folder of images"
    return _image_list(kind, name, [part], read)


def _named(top: Tree, name: str) -> Tree | None:
    """The sub-folder of a name in lower case, whatever its own case."""
    return next((folder for folder in top.folders if folder.name.lower() == name), None)


def _is_part(name: str) -> bool:
    """Whether a folder is a part of a data set by its name, as train_images or Query."""
    words = set(re.split(r"[^a-z]+", name.lower())) - FILLERS - {""}
    return bool(words) and words <= PARTS


def list_part(tree: Tree, given: str | None) -> Part:
    """The images in the sub-folders of a folder, or where these hold none the images directly in it."""
    images: list[ListedImage] = []
    left_out: list[str] = []
    for folder in tree.folders:
        files = folder.only_images()
        images += [ListedImage(file=file, key=folder.name, given=given) for file in files]
        if not files:
            left_out.append(folder.path)
    if images:
        return Part(images=images, left_out=left_out, loose=len(tree.images))
    loose = tree.only_images(folders=True)
    alone = [ListedImage(file=file, key=None, given=given) for file in loose]
    return Part(images=alone, left_out=left_out, loose=0)


def read_below(folder: Path, file: str) -> bytes:
    """The bytes of a file, unless it is too large for an image."""
    path = folder / file
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RankproofError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink or remove it")
        return path.read_bytes()
    except OSError as error:
        raise RankproofError(f"{path}: cannot be read ({error.strerror}); check that it is there") from None


def _list_splits(top: Tree, found: Mapping[str, Part], name: str, read: Callable[[str], bytes]) -> ImageList:
    """The images below train/ and test/; val/ joins train where both have classes or neither has."""
    parts, remarks = list(found.values()), list[str]()
    used = set(found)
    if (tree := _named(top, VALIDATION)) is not None:
        part = list_part(tree, "train")
        if bool(part.classes) == bool(found["train"].classes):
            used.add(VALIDATION)
            parts.append(part)
            remarks.append(f"{len(part.images)} images of val/ belong to train")
    others = Part(
        images=[],
        left_out=[folder.name for folder in top.folders if folder.name.lower() not in used],
        loose=0,
    )
    beside = len(top.images)
    remarks += [f"left out: {beside} images beside train/ and test/"] if beside else []
    return _image_list("folder with train/ and test/", name, [*parts, others], read, remarks)


def _image_list(
    kind: str,
    name: str,
    parts: list[Part],
    read: Callable[[str], bytes],
    remarks: Sequence[str] = (),
) -> ImageList:
    left_out = [folder for part in parts for folder in part.left_out]
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        remarks = [*remarks, f"left out: {', '.join(left_out[:3])}{more}"]
    if loose := sum(part.loose for part in parts):
        remarks = [*remarks, f"left out: {loose} images beside class folders"]
    classes = sorted({key for part in parts for key in part.classes})
    return ImageList(
        name=name,
        kind=kind,
        images=tuple(image for part in parts for image in part.images),
        classes={key: key for key in classes},
        read=read,
        remarks=tuple(remarks),
    )
