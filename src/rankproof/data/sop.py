"""Stanford Online Products as published: a table for each split, and folders of images."""

from pathlib import Path, PurePosixPath

from rankproof.data.folder import read_below
from rankproof.data.image_list import ImageList, ListedImage
from rankproof.data.text_table import PathCheck, as_number, read_table
from rankproof.errors import RankproofError

TABLES = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
PUBLISHED = {"train": 59_551, "test": 60_502}


def is_sop(folder: Path) -> bool:
    """Whether a folder looks like Stanford Online Products: one of its two tables exists."""
    return any((folder / table).is_file() for table in TABLES.values())


def list_sop(folder: Path) -> ImageList:
    """All images of both tables; a class is one product, and no product is in both tables."""
    names: dict[int, str] = {}
    split_of: dict[int, str] = {}
    images: list[ListedImage] = []
    check_path = PathCheck("folder")
    for split, table in TABLES.items():
        for where, (_, class_id, _, file) in read_table(folder, table, COLUMNS, head=True):
            number = as_number(class_id, where, "class_id")
            file = check_path(file, where)
            if split_of.setdefault(number, split) != split:
                raise RankproofError(f"{where}: class {number} is in both splits; fetch the data set again")
            names.setdefault(number, _product_name(file, number))
            images.append(ListedImage(file=file, key=str(number), given=split))
    return ImageList(
        name=folder.resolve().name,
        kind="Stanford Online Products",
        images=tuple(images),
        classes={str(number): names[number] for number in sorted(names)},
        read=lambda file: read_below(folder, file),
        remarks=_remarks([image.given for image in images]),
    )


def _product_name(file: str, number: int) -> str:
    """A product has a number only; with the folder of its images it becomes "bicycle 17"."""
    return f"{PurePosixPath(file).parent.name.removesuffix('_final')} {number}".strip()


def _remarks(given: list[str | None]) -> tuple[str, ...]:
    """A remark where the tables are not the published ones."""
    counts = {split: given.count(split) for split in TABLES}
    if counts == PUBLISHED:
        return ()
    published = " and ".join(f"{count:,} {split}" for split, count in PUBLISHED.items())
    return (f"not the whole data set, whose tables list {published} images",)
