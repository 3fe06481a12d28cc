"""How files are written - to a temporary name, then moved - and which software they were made with."""

import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from rankproof.errors import RankproofError


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, then move: a reader sees all of the file or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RankproofError(f"{path.parent}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise RankproofError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a figure."""
    return {
        "python": platform.python_version(),
        "rankproof": version("rankproof"),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
