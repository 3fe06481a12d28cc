"""A folder with one sub-folder per class."""

from pathlib import Path

from rankproof.data.image_list import SPLITS, ImageList, ListedImage
from rankproof.data.images import MAX_BYTES
from rankproof.errors import RankproofError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
IGNORED_SUFFIXES = frozenset({".txt", ".csv", ".json", ".md"})
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "license", "__macosx"})
VALIDATION = "val"


def list_folder(folder: Path) -> ImageList:
    """All images of the classes below `folder`, or below its train/ and test/ where it has both."""
    parts = {name: folder / name for name in SPLITS}
    if all(part.is_dir() and visible_folders(part) for part in parts.values()):
        return _list_splits(folder, parts)
    images, empty = list_classes(folder, folder, None)
    if not images:
        layout = f"{folder.name}/CLASS/IMAGE.jpg"
        raise RankproofError(f"{folder}: no images found; put them into one sub-folder per class: {layout}")
    return _image_list(folder, "folder of classes", images, empty, [])


def visible_folders(folder: Path) -> list[Path]:
    """The sub-folders by name, without hidden ones."""
    return sorted(
        entry
        for entry in _entries(folder)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
    )


def list_classes(folder: Path, top: Path, given: str | None) -> tuple[list[ListedImage], list[str]]:
    """The images in each sub-folder, their names relative to `top`, and the sub-folders without any."""
    images, empty = [], []
    for entry in visible_folders(folder):
        files = image_files(entry)
        images += [
            ListedImage(file=file.relative_to(top).as_posix(), key=entry.name, given=given) for file in files
        ]
        if not files:
            empty.append(entry.relative_to(top).as_posix())
    return images, empty


def image_files(folder: Path) -> list[Path]:
    """The images of one class by name; a folder without images is no class and may contain anything."""
    entries = sorted(entry for entry in _entries(folder) if not _ignored(entry.name))
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    others = sorted(set(entries) - set(images))
    if not images or not others:
        return images
    kind = "a folder inside a class folder" if others[0].is_dir() else "not an image"
    raise RankproofError(f"{others[0]}: {kind}; remove it, a class folder holds images only")


def read_below(folder: Path, file: str) -> bytes:
    """The bytes of a file, unless it is too large for an image."""
    path = folder / file
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RankproofError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink or remove it")
        return path.read_bytes()
    except OSError as error:
        raise RankproofError(f"{path}: cannot be read ({error.strerror}); check that it is there") from None


def _list_splits(folder: Path, parts: dict[str, Path]) -> ImageList:
    """The classes below train/ and test/; val/ joins train."""
    images: list[ListedImage] = []
    left_out: list[str] = []
    remarks: list[str] = []
    if (folder / VALIDATION).is_dir():
        parts = {**parts, VALIDATION: folder / VALIDATION}
    for name, part in parts.items():
        part_images, empty = list_classes(part, folder, "train" if name == VALIDATION else name)
        images += part_images
        left_out += empty
        if name == VALIDATION:
            remarks.append(f"{len(part_images)} images of val/ belong to train")
    left_out += sorted({entry.name for entry in visible_folders(folder)} - {*parts, VALIDATION})
    return _image_list(folder, "folder with train/ and test/", images, left_out, remarks)


def _image_list(
    folder: Path, kind: str, images: list[ListedImage], left_out: list[str], remarks: list[str]
) -> ImageList:
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        remarks = [*remarks, f"left out: {', '.join(left_out[:3])}{more}"]
    return ImageList(
        name=folder.resolve().name,
        kind=kind,
        images=tuple(images),
        classes={key: key for key in sorted({image.key for image in images})},
        read=lambda file: read_below(folder, file),
        remarks=tuple(remarks),
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
    return lower.startswith(".") or lower in IGNORED_NAMES or Path(lower).suffix in IGNORED_SUFFIXES
