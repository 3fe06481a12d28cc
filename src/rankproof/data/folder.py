"""A folder with one sub-folder per class."""

from pathlib import Path

from rankproof.data.listing import SPLITS, Listed, Listing
from rankproof.data.pictures import MAX_BYTES
from rankproof.errors import RankproofError

PICTURE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
IGNORED_ENDINGS = frozenset({".txt", ".csv", ".json", ".md"})
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "license"})
IGNORED_FOLDERS = frozenset({"__MACOSX"})
VALIDATION = "val"


def list_folder(folder: Path) -> Listing:
    """All pictures of the classes below `folder`, or below its train/ and test/ where it has both."""
    parts = {name: folder / name for name in SPLITS}
    if all(part.is_dir() and visible_folders(part) for part in parts.values()):
        return _list_parts(folder, parts)
    pictures, empty = list_classes(folder, folder, None)
    if not pictures:
        layout = f"{folder.name}/CLASS/PICTURE.jpg"
        raise RankproofError(f"{folder}: no pictures found; put them into one sub-folder per class: {layout}")
    return _listing(folder, "folder of classes", pictures, empty)


def visible_folders(folder: Path) -> list[Path]:
    """The sub-folders by name, without hidden ones."""
    return sorted(
        entry
        for entry in _entries(folder)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in IGNORED_FOLDERS
    )


def list_classes(folder: Path, top: Path, given: str | None) -> tuple[list[Listed], list[str]]:
    """The pictures in each sub-folder, named relative to `top`, and the sub-folders that hold none."""
    pictures, empty = [], []
    for entry in visible_folders(folder):
        files = picture_files(entry)
        pictures += [
            Listed(file=file.relative_to(top).as_posix(), key=entry.name, given=given) for file in files
        ]
        if not files:
            empty.append(entry.relative_to(top).as_posix())
    return pictures, empty


def picture_files(folder: Path) -> list[Path]:
    """The pictures of one class by name; a folder without any is no class and may hold what it likes."""
    entries = sorted(entry for entry in _entries(folder) if not _ignored(entry.name))
    pictures = [entry for entry in entries if entry.suffix.lower() in PICTURE_ENDINGS and entry.is_file()]
    strays = sorted(set(entries) - set(pictures))
    if not pictures or not strays:
        return pictures
    kind = "a folder inside a class folder" if strays[0].is_dir() else "not a picture"
    raise RankproofError(f"{strays[0]}: {kind}; remove it, a class folder holds pictures only")


def read_below(folder: Path, file: str) -> bytes:
    """The bytes of a picture file, unless it is too large to be one."""
    path = folder / file
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RankproofError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink or remove it")
        return path.read_bytes()
    except OSError as error:
        raise RankproofError(f"{path}: cannot be read ({error.strerror}); check that it is there") from None


def _list_parts(folder: Path, parts: dict[str, Path]) -> Listing:
    """The classes below train/ and test/; val/ joins train."""
    pictures: list[Listed] = []
    empty: list[str] = []
    remarks: list[str] = []
    for split, part in parts.items():
        found, without = list_classes(part, folder, split)
        pictures += found
        empty += without
    if (folder / VALIDATION).is_dir():
        joined, without = list_classes(folder / VALIDATION, folder, "train")
        pictures += joined
        empty += without
        remarks.append(f"{len(joined)} pictures of val/ belong to train")
    others = {entry.name for entry in visible_folders(folder)} - {*parts, VALIDATION}
    empty += sorted(others)
    return _listing(folder, "folder with train/ and test/", pictures, empty, remarks)


def _listing(
    folder: Path, kind: str, pictures: list[Listed], left_out: list[str], remarks: list[str] | None = None
) -> Listing:
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        remarks = [*(remarks or []), f"left out: {', '.join(left_out[:3])}{more}"]
    return Listing(
        name=folder.resolve().name,
        kind=kind,
        pictures=tuple(pictures),
        classes={key: key for key in sorted({picture.key for picture in pictures})},
        read=lambda file: read_below(folder, file),
        remarks=tuple(remarks or ()),
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise RankproofError(
            f"{folder}: cannot be opened ({error.strerror}); check its permissions"
        ) from None


def _ignored(name: str) -> bool:
    lower = name.lower()
    known = lower in IGNORED_NAMES or lower in {folder.lower() for folder in IGNORED_FOLDERS}
    return name.startswith(".") or known or Path(lower).suffix in IGNORED_ENDINGS
