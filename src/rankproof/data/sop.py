"""Stanford Online Products in its publishers' layout: a table for each split, and folders of pictures."""

from pathlib import Path, PurePosixPath

from rankproof.data.columns import as_number, demand_inside, read_columns
from rankproof.data.folder import read_below
from rankproof.data.listing import Listed, Listing
from rankproof.errors import RankproofError

TABLES = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
PUBLISHED = {"train": 59_551, "test": 60_502}


def holds_sop(folder: Path) -> bool:
    """Whether a folder looks like Stanford Online Products: one of its two tables is there."""
    return any((folder / table).is_file() for table in TABLES.values())


def list_sop(folder: Path) -> Listing:
    """All pictures of both tables; a class is one product, and no product is in both."""
    names: dict[int, str] = {}
    home: dict[int, str] = {}
    pictures: dict[str, Listed] = {}
    for split, table in TABLES.items():
        for where, (_, class_id, _, file) in read_columns(folder, table, COLUMNS, head=True):
            number = as_number(class_id, where, "class_id")
            demand_inside(file, where)
            if file in pictures:
                raise RankproofError(f"{where}: {file} is listed twice; remove one of the lines")
            if home.setdefault(number, split) != split:
                raise RankproofError(f"{where}: class {number} is in both splits; fetch the data set again")
            names.setdefault(number, _name(file, number))
            pictures[file] = Listed(file=file, key=str(number), given=split)
    return Listing(
        name=folder.resolve().name,
        kind="Stanford Online Products",
        pictures=tuple(pictures.values()),
        classes={str(number): names[number] for number in sorted(names)},
        read=lambda file: read_below(folder, file),
        remarks=_remarks([picture.given for picture in pictures.values()]),
    )


def _name(file: str, number: int) -> str:
    """A product is a number; the folder of its pictures tells what it is: "bicycle 17"."""
    return f"{PurePosixPath(file).parent.name.removesuffix('_final')} {number}".strip()


def _remarks(given: list[str | None]) -> tuple[str, ...]:
    """What the note should tell where the tables are not the published ones."""
    counts = {split: given.count(split) for split in TABLES}
    if counts == PUBLISHED:
        return ()
    published = " and ".join(f"{count:,} {split}" for split, count in PUBLISHED.items())
    return (f"not the whole data set, whose tables list {published} pictures",)
