"""CUB-200-2011 as published: tables of images, labels and class names, and the folder images/."""

from pathlib import Path

from rankproof.data.folder import read_below
from rankproof.data.image_list import ImageList, ListedImage
from rankproof.data.text_table import PathCheck, as_number, read_table
from rankproof.errors import RankproofError

IMAGES, LABELS, CLASSES = "images.txt", "image_class_labels.txt", "classes.txt"
IMAGE_FOLDER = "images"
LAST_TRAIN_CLASS = 100  # retrieval trains on the first 100 of the 200 classes


def is_cub(folder: Path) -> bool:
    """Whether a folder looks like CUB-200-2011: two of its three tables exist."""
    return sum((folder / table).is_file() for table in (IMAGES, LABELS, CLASSES)) >= 2


def list_cub(folder: Path) -> ImageList:
    """All images, split by class; train_test_split.txt is for classification and not read."""
    files = _by_id(folder, IMAGES, "image_id", "path")
    names = _by_id(folder, CLASSES, "class_id", "class_name")
    labels = _by_id(folder, LABELS, "image_id", "class_id")
    _require_same_images(folder, set(files), set(labels))
    images, check_path = [], PathCheck("folder")
    for image, (where, path) in files.items():
        path = check_path(path, where)
        label_where, word = labels[image]
        number = as_number(word, label_where, "class_id")
        if number not in names:
            raise RankproofError(
                f"{label_where}: class {number} is not in {CLASSES}; fetch the data set again"
            )
        split = "train" if number <= LAST_TRAIN_CLASS else "test"
        images.append(ListedImage(file=f"{IMAGE_FOLDER}/{path}", key=str(number), given=split))
    return ImageList(
        name=folder.resolve().name,
        kind="CUB-200-2011",
        images=tuple(images),
        classes={str(number): names[number][1] for number in sorted(names)},
        read=lambda file: read_below(folder, file),
        remarks=(
            f"its split is the one of retrieval: classes 1 to {LAST_TRAIN_CLASS} train, the others test",
        ),
    )


def _by_id(folder: Path, table: str, key: str, value: str) -> dict[int, tuple[str, str]]:
    """A table of two columns: for each id its position, for messages, and the word beside it."""
    rows: dict[int, tuple[str, str]] = {}
    for where, (word, other) in read_table(folder, table, (key, value)):
        number = as_number(word, where, key)
        if number in rows:
            raise RankproofError(f"{where}: {key} {number} is listed twice; remove one of the lines")
        rows[number] = where, other
    return rows


def _require_same_images(folder: Path, listed: set[int], labelled: set[int]) -> None:
    """Raise for an image without a class, and for a class label without an image."""
    for missing, here, there in ((listed - labelled, IMAGES, LABELS), (labelled - listed, LABELS, IMAGES)):
        if missing:
            raise RankproofError(
                f"{folder}: image_id {min(missing)} is in {here} but not in {there}; fetch the data set again"
            )
