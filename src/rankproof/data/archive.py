"""A zip, read in place and never unpacked to disk, and a folder or zip described by metadata.csv."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rankproof.data import cub, sop
from rankproof.data.csv_table import SPLIT_OF, TABLE, read_rows
from rankproof.data.folder import list_tree, read_below
from rankproof.data.image_list import ImageList, ListedImage
from rankproof.data.images import MAX_BYTES
from rankproof.data.market import is_market, list_market
from rankproof.data.text_table import leaves, normalised
from rankproof.data.tree import Tree, is_image, tree_of
from rankproof.errors import RankproofError

MAX_UNPACKED = 64 * 2**30
UNPACKED_ONLY = frozenset({*sop.TABLES.values(), cub.IMAGES, cub.LABELS})


@contextmanager
def open_archive(path: Path) -> Iterator[ImageList]:
    """The images of a zip, or of a folder with metadata.csv; they can be read while this is open."""
    if path.is_dir():
        yield _list_table(path, f"folder with {TABLE}", lambda file: read_below(path, file))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RankproofError(f"{path}: not a readable zip ({error}); fetch it again") from None
    with archive:
        members = _members(archive, path)
        yield _list_zip(path, members, lambda file: read_member(archive, path, members.get(file, file)))


def _list_zip(path: Path, members: Mapping[str, str], read: Callable[[str], bytes]) -> ImageList:
    """The images of a zip, by its table if it has one, else as those of a folder."""
    top = _inside(tree_of(members, str(path)))
    if TABLE in top.files:
        prefix = f"{top.path}/" if top.path else ""
        images = [name for name in members if name.startswith(prefix) and is_image(name)]
        return _list_table(path, f"zip with {TABLE}", lambda file: read(prefix + file), len(images))
    if known := UNPACKED_ONLY.intersection(top.files):
        raise RankproofError(f"{path}: holds {min(known)}, which is read from a folder; unpack it first")
    if is_market(top):
        return list_market(top, path.stem, read)
    return list_tree(top, path.stem, read)


def _inside(top: Tree) -> Tree:
    """The folder that a zip was made of: the only one in it, if it holds nothing beside."""
    while len(top.folders) == 1 and not top.images and TABLE not in top.files:
        top = top.folders[0]
    return top


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


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    """The files of a zip: what it calls each of them, by its name as `normalised` writes it.

    Raises:
        RankproofError: paths point outside, a file is in it twice, or it unpacks to too much.
    """
    members: dict[str, str] = {}
    for member in archive.infolist():
        if leaves(member.filename):
            raise RankproofError(
                f"{path}: its member {member.filename!r} leaves the archive; do not trust this zip"
            )
        name = normalised(member.filename)
        if member.is_dir() or member.filename.endswith("\\"):
            continue
        if name in members:
            raise RankproofError(f"{path}: holds {name} twice; pack it again")
        members[name] = member.filename
    if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
        raise RankproofError(
            f"{path}: would unpack to more than {MAX_UNPACKED // 2**30} GiB; use a smaller zip"
        )
    return members


def _list_table(path: Path, kind: str, read: Callable[[str], bytes], present: int = 0) -> ImageList:
    """The images that metadata.csv lists: val belongs to train, iconic images are left out.

    Args:
        present: number of images that are there, for a remark where more are than are listed.
    """
    rows = read_rows(read(TABLE), f"{path}: {TABLE}")
    used = [row for row in rows if row["split"] != "iconic"]
    names: dict[str, str] = {}
    for row in used:
        names.setdefault(row["class_id"], row.get("class_name") or row["class_id"])
    counts = Counter(row["split"] for row in rows)
    remarks = []
    if counts["val"]:
        remarks.append(f"{counts['val']} images marked val belong to train")
    if counts["iconic"]:
        remarks.append(f"{counts['iconic']} iconic images left out")
    if present > len(rows):
        remarks.append(f"{present - len(rows)} images that {TABLE} does not list left out")
    return ImageList(
        name=path.resolve().name if path.is_dir() else path.stem,
        kind=kind,
        images=tuple(
            ListedImage(file=row["path"], key=row["class_id"], given=SPLIT_OF.get(row["split"]))
            for row in used
        ),
        classes={key: names[key] for key in sorted(names, key=_numeric_order)},
        read=read,
        remarks=tuple(remarks),
    )


def _numeric_order(key: str) -> tuple[int, int, str, str]:
    """Sorts numeric class ids by value, whatever their length, and other ids after them."""
    digits = key.lstrip("0")
    return (0, len(digits), digits, key) if key.isascii() and key.isdecimal() else (1, 0, "", key)
