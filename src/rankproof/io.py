"""Atomic writing of files, PNG encoding, and the versions of the software."""

import os
import platform
import tempfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

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


def encode_png(pixels: UInt8[Tensor, "c h w"]) -> bytes:
    """An image of one channel (grey) or three (colour) as a PNG file."""
    plane = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # (h, w) or (h, w, c)
    stream = BytesIO()
    Image.fromarray(plane.contiguous().numpy()).save(stream, format="PNG")
    return stream.getvalue()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a figure."""
    return {
        "python": platform.python_version(),
        "rankproof": version("rankproof"),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
