"""CUB-200-2011 in its publishers' layout: tables of pictures, labels and class names, and images/."""

from pathlib import Path

from rankproof.data.columns import as_number, demand_inside, read_columns
from rankproof.data.folder import read_below
from rankproof.data.listing import Listed, Listing
from rankproof.errors import RankproofError

IMAGES, LABELS, CLASSES = "images.txt", "image_class_labels.txt", "classes.txt"
PICTURES = "images"
LAST_TRAINED = 100  # retrieval trains on the first 100 of the 200 classes


def holds_cub(folder: Path) -> bool:
    """Whether a folder looks like CUB-200-2011: two of its three tables are there."""
    return sum((folder / table).is_file() for table in (IMAGES, LABELS, CLASSES)) >= 2


def list_cub(folder: Path) -> Listing:
    """All pictures, split by class; train_test_split.txt is for classification, and not read."""
    files = _by_id(folder, IMAGES, "image_id", "path")
    names = _by_id(folder, CLASSES, "class_id", "class_name")
    labels = _by_id(folder, LABELS, "image_id", "class_id")
    _demand_same_images(folder, set(files), set(labels))
    pictures, seen = [], set()
    for image, (where, path) in files.items():
        demand_inside(path, where)
        if path in seen:
            raise RankproofError(f"{where}: {path} is listed twice; remove one of the lines")
        seen.add(path)
        label_where, word = labels[image]
        number = as_number(word, label_where, "class_id")
        if number not in names:
            raise RankproofError(
                f"{label_where}: class {number} is not in {CLASSES}; fetch the data set again"
            )
        given = "train" if number <= LAST_TRAINED else "test"
        pictures.append(Listed(file=f"{PICTURES}/{path}", key=str(number), given=given))
    return Listing(
        name=folder.resolve().name,
        kind="CUB-200-2011",
        pictures=tuple(pictures),
        classes={str(number): names[number][1] for number in sorted(names)},
        read=lambda file: read_below(folder, file),
        remarks=(f"its split is the one of retrieval: classes 1 to {LAST_TRAINED} train, the others test",),
    )


def _by_id(folder: Path, table: str, key: str, value: str) -> dict[int, tuple[str, str]]:
    """A table of two columns: for each id, where it stands and the word beside it."""
    found: dict[int, tuple[str, str]] = {}
    for where, (word, other) in read_columns(folder, table, (key, value)):
        number = as_number(word, where, key)
        if number in found:
            raise RankproofError(f"{where}: {key} {number} is listed twice; remove one of the lines")
        found[number] = where, other
    return found


def _demand_same_images(folder: Path, listed: set[int], labelled: set[int]) -> None:
    """Refuse a picture without a class, and a class without a picture."""
    for missing, here, there in ((listed - labelled, IMAGES, LABELS), (labelled - listed, LABELS, IMAGES)):
        if missing:
            raise RankproofError(
                f"{folder}: image_id {min(missing)} is in {here} but not in {there}; fetch the data set again"
            )
