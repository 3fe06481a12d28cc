"""A .zip or a folder described by metadata.csv; a zip is read in place, never unpacked to disk."""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from rankproof.data.folder import read_below
from rankproof.data.listing import Listed, Listing
from rankproof.data.pictures import MAX_BYTES
from rankproof.errors import RankproofError

TABLE = "metadata.csv"
MAX_UNPACKED = 64 * 2**30
SPLIT_OF = {"train": "train", "test": "test", "val": "train", "iconic": None}


@contextmanager
def opened_listing(path: Path) -> Iterator[Listing]:
    """The list of a zip or folder; its pictures can be read as long as this is open."""
    if path.is_dir():
        yield _listing(path, f"folder with {TABLE}", lambda file: read_below(path, file))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RankproofError(f"{path}: not a readable zip ({error}); fetch it again") from None
    with archive:
        _check_members(archive, path)
        yield _listing(path, f"zip with {TABLE}", lambda file: read_member(archive, path, file))


def read_member(archive: zipfile.ZipFile, path: Path, file: str) -> bytes:
    """The bytes of one member, unless it claims to be too large."""
    try:
        member = archive.getinfo(file)
        if member.file_size > MAX_BYTES:
            raise RankproofError(f"{path}: {file} is larger than {MAX_BYTES // 2**20} MiB; remove it")
        return archive.read(member)  # zipfile unpacks no more than the size it claims
    except KeyError:
        raise RankproofError(f"{path}: has no {file}; add it, or remove its line from {TABLE}") from None
    except RankproofError:
        raise
    except Exception as error:  # damaged, encrypted or packed in an unknown way: many kinds
        raise RankproofError(f"{path}: {file} cannot be unpacked ({error}); fetch the zip again") from None


def leaves(file: str) -> bool:
    """Whether a path from a stranger's list points outside the place it belongs to."""
    # Windows' rules know both slashes and drives.
    windows = PureWindowsPath(file)
    return bool(windows.anchor or PurePosixPath(file).is_absolute()) or ".." in windows.parts


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip that could harm whoever unpacks it."""
    for member in archive.infolist():
        if leaves(member.filename):
            raise RankproofError(
                f"{path}: its member {member.filename!r} leaves the archive; do not trust this zip"
            )
    if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
        raise RankproofError(
            f"{path}: would unpack to more than {MAX_UNPACKED // 2**30} GiB; use a smaller zip"
        )


def _listing(path: Path, kind: str, read: Callable[[str], bytes]) -> Listing:
    """The list as metadata.csv gives it: val belongs to train, iconic pictures are left out."""
    rows = _rows(read(TABLE), f"{path}: {TABLE}")
    kept = [row for row in rows if row.get("split") != "iconic"]
    names: dict[str, str] = {}
    for row in kept:
        names.setdefault(row["class_id"], row.get("class_name") or row["class_id"])
    counts = Counter(row.get("split") for row in rows)
    remarks = []
    if counts["val"]:
        remarks.append(f"{counts['val']} pictures marked val belong to train")
    if counts["iconic"]:
        remarks.append(f"{counts['iconic']} iconic pictures left out")
    return Listing(
        name=path.resolve().name if path.is_dir() else path.stem,
        kind=kind,
        pictures=tuple(
            Listed(file=row["path"], key=row["class_id"], given=SPLIT_OF.get(row.get("split", "")))
            for row in kept
        ),
        classes={key: names[key] for key in sorted(names, key=_by_number)},
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
    needed = ("path", "class_id")
    missing = [column for column in needed if column not in columns]
    if missing:
        raise RankproofError(f"{where} lacks the column {' and '.join(missing)}; add it")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        _check_row(row, f"{where}, row {number}", with_split="split" in columns)
        if row["path"] in seen:
            raise RankproofError(
                f"{where}, row {number}: {row['path']} is listed twice; remove one of the rows"
            )
        seen.add(row["path"])
    return rows


def _check_row(row: dict[str, str], where: str, *, with_split: bool) -> None:
    """Refuse a row without path or class, with an unknown split, or pointing outside."""
    if not row["path"] or not row["class_id"]:
        raise RankproofError(f"{where}: path or class_id is empty; fill it in")
    if leaves(row["path"]):
        raise RankproofError(f"{where}: path {row['path']!r} leaves the archive; do not trust this list")
    if with_split and row["split"] not in SPLIT_OF:
        raise RankproofError(f"{where}: split must be one of {', '.join(SPLIT_OF)}, got {row['split']!r}")


def _by_number(key: str) -> tuple[int, int, str]:
    """Sorts class numbers by value, and names after them."""
    return (0, int(key), key) if key.isdecimal() else (1, 0, key)
