"""A .zip or a folder described by metadata.csv; a zip is read in place and never unpacked to disk."""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rankproof.data.folder import read_below
from rankproof.data.image_list import ImageList, ListedImage
from rankproof.data.images import MAX_BYTES
from rankproof.data.text_table import PathCheck, leaves
from rankproof.errors import RankproofError

TABLE = "metadata.csv"
MAX_UNPACKED = 64 * 2**30
SPLIT_OF = {"train": "train", "test": "test", "val": "train", "iconic": None}


@contextmanager
def open_archive(path: Path) -> Iterator[ImageList]:
    """The images of a zip or folder; they can be read while this is open."""
    if path.is_dir():
        yield _list_images(path, f"folder with {TABLE}", lambda file: read_below(path, file))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RankproofError(f"{path}: not a readable zip ({error}); fetch it again") from None
    with archive:
        _check_members(archive, path)
        yield _list_images(path, f"zip with {TABLE}", lambda file: read_member(archive, path, file))


def read_member(archive: zipfile.ZipFile, path: Path, file: str) -> bytes:
    """The bytes of one member, unless its header declares too large a size."""
    try:
        member = archive.getinfo(file)
        if member.file_size > MAX_BYTES:
            raise RankproofError(f"{path}: {file} is larger than {MAX_BYTES // 2**20} MiB; remove it")
        return archive.read(member)  # zipfile unpacks no more than the declared size
    except KeyError:
        raise RankproofError(f"{path}: has no {file}; add it, or remove its line from {TABLE}") from None
    except RankproofError:
        raise
    except Exception as error:  # damaged, encrypted or packed in an unknown way: many kinds
        raise RankproofError(f"{path}: {file} cannot be unpacked ({error}); fetch the zip again") from None


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise for a zip with paths that point outside, or one that unpacks to too much."""
    for member in archive.infolist():
        if leaves(member.filename):
            raise RankproofError(
                f"{path}: its member {member.filename!r} leaves the archive; do not trust this zip"
            )
    if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
        raise RankproofError(
            f"{path}: would unpack to more than {MAX_UNPACKED // 2**30} GiB; use a smaller zip"
        )


def _list_images(path: Path, kind: str, read: Callable[[str], bytes]) -> ImageList:
    """The images that metadata.csv lists: val belongs to train, iconic images are left out."""
    rows = _rows(read(TABLE), f"{path}: {TABLE}")
    used = [row for row in rows if row.get("split") != "iconic"]
    names: dict[str, str] = {}
    for row in used:
        names.setdefault(row["class_id"], row.get("class_name") or row["class_id"])
    counts = Counter(row.get("split") for row in rows)
    remarks = []
    if counts["val"]:
        remarks.append(f"{counts['val']} images marked val belong to train")
    if counts["iconic"]:
        remarks.append(f"{counts['iconic']} iconic images left out")
    return ImageList(
        name=path.resolve().name if path.is_dir() else path.stem,
        kind=kind,
        images=tuple(
            ListedImage(file=row["path"], key=row["class_id"], given=SPLIT_OF.get(row.get("split", "")))
            for row in used
        ),
        classes={key: names[key] for key in sorted(names, key=_numeric_order)},
        read=read,
        remarks=tuple(remarks),
    )


def _rows(raw: bytes, where: str) -> list[dict[str, str]]:
    """The checked rows of a metadata.csv."""
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
        columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RankproofError(f"{where} is not a UTF-8 table ({error}); save it as CSV") from None
    missing = [column for column in ("path", "class_id") if column not in columns]
    if missing:
        raise RankproofError(f"{where} lacks the column {' and '.join(missing)}; add it")
    check_path = PathCheck("archive")
    for number, row in enumerate(rows, start=1):
        place = f"{where}, row {number}"
        if not row["path"] or not row["class_id"]:
            raise RankproofError(f"{place}: path or class_id is empty; fill it in")
        if "split" in columns and row["split"] not in SPLIT_OF:
            raise RankproofError(f"{place}: split must be one of {', '.join(SPLIT_OF)}, got {row['split']!r}")
        check_path(row["path"], place)
    return rows


def _numeric_order(key: str) -> tuple[int, int, str]:
    """Sorts numeric class ids by value, and other ids after them."""
    return (0, int(key), key) if key.isdecimal() else (1, 0, key)
