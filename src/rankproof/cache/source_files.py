"""The text of Python files: a user's own and what they import, and this package's own."""

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[1]
INSTALLED = ("site-packages", "dist-packages")
LIBRARIES = (
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
    Path(torch.__file__).parent,
    PACKAGE,
)


@cache
def is_library(file: str) -> bool:
    """Whether a file of code belongs to an installed library, and not to the user."""
    if file.startswith("<frozen"):
        return True
    path = Path(file).absolute()
    return any(part in INSTALLED for part in path.parts) or any(path.is_relative_to(at) for at in LIBRARIES)


def own_source(*rooms: str) -> str:
    """A digest of the text of some rooms of this package."""
    files = sorted(file for room in rooms for file in (PACKAGE / room).glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def texts(files: Iterable[Path], *, imports: bool = True) -> list[str]:
    """Digests of the texts of files, and of the user's own files that they import, in a fixed order.

    Args:
        imports: whether to follow their import statements, those inside of functions, too.
    """
    found: dict[Path, str] = {}
    waiting = [file.absolute() for file in files]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        try:
            raw = file.read_bytes()
        except OSError:  # code that was loaded from a file which is gone
            raw = b""
        found[file] = sha256(raw).hexdigest()
        if imports:
            waiting += _imported(raw, file)
    return sorted(found.values())


def _imported(raw: bytes, file: Path) -> Iterator[Path]:
    """The user's own files that a Python file imports: beside it, below its package, or loaded already."""
    try:
        tree = ast.parse(raw)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(file.parent, alias.name)
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[max(0, node.level - 1)]
            base = node.module or ""
            yield from _files(folder, base)
            for alias in node.names:
                yield from _files(folder, f"{base}.{alias.name}".lstrip("."))


def _files(folder: Path, name: str) -> Iterator[Path]:
    """The files of a module by its dotted name: below a folder, or where Python has loaded it from."""
    parts = [part for part in name.split(".") if part]
    for count in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:count])
        loaded = getattr(sys.modules.get(".".join(parts[:count])), "__file__", None)
        candidates = [place.with_suffix(".py"), place / "__init__.py"]
        candidates += [] if loaded is None else [Path(loaded)]
        for candidate in candidates:
            if candidate.suffix == ".py" and not is_library(str(candidate)) and candidate.is_file():
                yield candidate.absolute()
