"""Files are written to a temporary name and moved."""

import os
import tempfile
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
