"""The folders and files of a data set, on disk or in a zip, as its layout is recognised from them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from rankproof.data.image_formats import IMAGE_SUFFIXES
from rankproof.errors import RankproofError

IGNORED_SUFFIXES = frozenset({".txt", ".csv", ".json", ".md"})
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "license", "__macosx"})


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One folder. It is looked into when it is first asked.

    Args:
        where: what messages call it.
        path: its name below the top, "" for the top itself.
        scan: the names inside, each with its folder if it is one.
    """

    where: str
    path: str
    scan: Callable[[], Iterable[tuple[str, "Tree | None"]]]

    @property
    def name(self) -> str:
        """Its own name, without the folders that it is in."""
        return PurePosixPath(self.path).name

    @cached_property
    def _entries(self) -> dict[str, "Tree | None"]:
        return dict(sorted(self.scan(), key=lambda entry: entry[0]))

    @property
    def folders(self) -> list["Tree"]:
        """The sub-folders by name, without hidden ones."""
        inside = self._entries.items()
        return [folder for name, folder in inside if folder is not None and not _hidden(name)]

    @property
    def files(self) -> list[str]:
        """The names of all files in it."""
        return [name for name, folder in self._entries.items() if folder is None]

    @property
    def images(self) -> list[str]:
        """The files that look like images, relative to the top."""
        return [self._below(name) for name in self.files if is_image(name)]

    def only_images(self, *, folders: bool = False) -> list[str]:
        """As `images`; raises where something else is among them.

        A folder without images may contain anything.

        Args:
            folders: whether sub-folders may be among them.
        """
        images = self.images
        for name, folder in self._entries.items() if images else ():
            if _ignored(name) or (folders and folder is not None):
                continue
            if folder is not None or not is_image(name):
                kind = "not an image" if folder is None else "a folder inside a class folder"
                raise RankproofError(f"{self.where}/{name}: {kind}; remove it, images are expected here")
        return images

    def folder(self, name: str) -> "Tree | None":
        """The sub-folder of that name, if there is one."""
        return self._entries.get(name)

    def _below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


def folder_tree(folder: Path, path: str = "") -> Tree:
    """A folder on disk."""

    def scan() -> Iterator[tuple[str, Tree | None]]:
        for entry in _entries(folder):
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir():
                yield entry.name, folder_tree(entry, below)
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is reported when it is read
                yield entry.name, None
            else:
                raise RankproofError(f"{entry}: neither a file nor a folder; remove it")

    return Tree(where=str(folder), path=path, scan=scan)


def tree_of(files: Iterable[str], where: str, path: str = "") -> Tree:
    """The tree of files given by their names relative to `path`, as a zip lists them."""

    def scan() -> Iterator[tuple[str, Tree | None]]:
        inside: dict[str, list[str]] = {}
        for file in files:
            name, slash, rest = file.partition("/")
            if slash:
                inside.setdefault(name, []).append(rest)
            else:
                yield name, None
        for name, rests in inside.items():
            yield name, tree_of(rests, f"{where}/{name}", f"{path}/{name}" if path else name)

    return Tree(where=where, path=path, scan=scan)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise RankproofError(
            f"{folder}: cannot be opened ({error.strerror}); check its permissions"
        ) from None


def is_image(file: str) -> bool:
    """Whether a file looks like an image by its name, and is not hidden."""
    path = PurePosixPath(file)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(map(_hidden, path.parts))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _ignored(name: str) -> bool:
    lower = name.lower()
    return lower.startswith(".") or lower in IGNORED_NAMES or PurePosixPath(lower).suffix in IGNORED_SUFFIXES
