import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(stream, kind, **options)
    return stream.getvalue()


def flat(value, height=6, width=8):
    """A image of one colour: a number for grey, three for RGB."""
    return np.full((height, width, *np.shape(value)), value, np.uint8)


def claiming_png(width, height):
    """A PNG of a few dozen bytes whose header claims any size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


class Make:
    """What the tests of this folder build their inputs from."""

    encoded = staticmethod(encoded)
    flat = staticmethod(flat)
    claiming_png = staticmethod(claiming_png)

    @staticmethod
    def tree(top: Path, files: dict) -> Path:
        """Files below `top`; an array becomes a PNG, text and bytes stay what they are."""
        for name, content in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                content = content.encode()
            path.write_bytes(content if isinstance(content, bytes) else encoded(content))
        return top

    @staticmethod
    def classes(top: Path, count: int, each: int = 4) -> Path:
        """A folder of grey classes a00, a01, ..."""
        names = [f"a{number:02}/{item}.png" for number in range(count) for item in range(each)]
        return Make.tree(top, {name: flat(position % 256) for position, name in enumerate(names)})

    @staticmethod
    def zip(path: Path, files: dict) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content if isinstance(content, str | bytes) else encoded(content))
        return path


@pytest.fixture
def make():
    return Make


@pytest.fixture(scope="session")
def real_data():
    """The folder with the published data sets."""
    folder = os.environ.get("RANKPROOF_DATA")
    if not folder:
        pytest.skip("RANKPROOF_DATA does not name the folder with the published data sets")
    return Path(folder)


@pytest.fixture
def real(real_data):
    def find(name):
        if not (real_data / name).exists():
            pytest.skip(f"{name} is not in RANKPROOF_DATA")
        return real_data / name

    return find
