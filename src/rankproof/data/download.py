"""Downloads MNIST and Fashion-MNIST from their publishers and verifies the files."""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from rankproof.errors import RankproofError
from rankproof.types import ProgressCallback, no_progress

TIMEOUT = 30.0
CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One published file.

    Args:
        name: its file name.
        size: number of bytes.
        md5: of the file.
        content: md5 of the unpacked content, so that a copy compressed anew is recognised.
    """

    name: str
    size: int
    md5: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where a data set is published; each file is at `address` + its name."""

    address: str
    files: tuple[Remote, ...]


SOURCES = {
    "fashion-mnist": Publication(
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files=(
            Remote(
                name="train-images-idx3-ubyte.gz",
                size=26421880,
                md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                content="f4a8712d7a061bf5bd6d2ca38dc4d50a",
            ),
            Remote(
                name="train-labels-idx1-ubyte.gz",
                size=29515,
                md5="25c81989df183df01b3e8a0aad5dffbe",
                content="9018921c3c673c538a1fc5bad174d6f9",
            ),
            Remote(
                name="t10k-images-idx3-ubyte.gz",
                size=4422102,
                md5="bef4ecab320f06d8554ea6380940ec79",
                content="8181f5470baa50b63fa0f6fddb340f0a",
            ),
            Remote(
                name="t10k-labels-idx1-ubyte.gz",
                size=5148,
                md5="bb300cfdad3c16e7a12a480ee83cd310",
                content="15d484375f8d13e6eb1aabb0c3f46965",
            ),
        ),
    ),
    "mnist": Publication(
        address="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files=(
            Remote(
                name="train-images-idx3-ubyte.gz",
                size=9912422,
                md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
                content="6bbc9ace898e44ae57da46a324031adb",
            ),
            Remote(
                name="train-labels-idx1-ubyte.gz",
                size=28881,
                md5="d53e105ee54ea40749a09fcbcd1e9432",
                content="a25bea736e30d166cdddb491f175f624",
            ),
            Remote(
                name="t10k-images-idx3-ubyte.gz",
                size=1648877,
                md5="9fb629c4189551a2d022fa330f9573b3",
                content="2646ac647ad5339dbf082846283269ea",
            ),
            Remote(
                name="t10k-labels-idx1-ubyte.gz",
                size=4542,
                md5="ec29112dd5afa0611ce80d1b7f02629c",
                content="27ae3e4e09519cfbb04c329615203637",
            ),
        ),
    ),
}


def download(name: str, root: Path, progress: ProgressCallback = no_progress) -> Path:
    """Download a data set into `root`/`name` and return that folder; verified files there are kept.

    Args:
        name: a key of `SOURCES`.
        root: folder that contains data sets by name; created if missing.
        progress: called with (done, total) in bytes.
    """
    if name not in SOURCES:
        raise RankproofError(f"{name}: cannot be downloaded; known are {', '.join(SOURCES)}")
    source, folder, done = SOURCES[name], root / name, 0
    total = sum(remote.size for remote in source.files)

    def report(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    for remote in source.files:
        if is_verified(folder / remote.name, remote):
            report(remote.size)
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(source.address + remote.name, folder / remote.name, remote, report)
        except (OSError, HTTPException) as error:
            # urllib puts the error of the network into `reason`.
            reason = " ".join(str(getattr(error, "reason", error)).split())
            failed = f"{name}: {source.address}{remote.name} cannot be fetched ({reason})"
            raise RankproofError(f"{failed}; {manual_download(name, root)}") from None
    return folder


def manual_download(name: str, root: Path | None) -> str:
    """What to do without a network, as the end of a message."""
    files = ", ".join(remote.name for remote in SOURCES[name].files)
    folder = f"the folder {name} below `root`" if root is None else str(root / name)
    return f"put {files} into {folder}"


def is_verified(path: Path, remote: Remote) -> bool:
    """Whether the file exists with the right checksum, of itself or of its unpacked content."""
    try:
        raw = path.read_bytes()
        return _md5(raw) == remote.md5 or _md5(gzip.decompress(raw)) == remote.content
    except (OSError, EOFError, zlib.error):
        return False


def _fetch(address: str, path: Path, remote: Remote, report: Callable[[int], None]) -> None:
    """Download to a temporary file beside `path`, which is renamed once its checksum is verified."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".part", delete=False
    ) as part:
        try:
            with urlopen(address, timeout=TIMEOUT) as response:
                remaining = remote.size + 1  # one byte more shows that the response is too long
                while remaining and (chunk := response.read(min(CHUNK, remaining))):
                    part.write(chunk)
                    remaining -= len(chunk)
                    report(len(chunk))
            part.close()
            if _md5(Path(part.name).read_bytes()) != remote.md5:
                raise RankproofError(
                    f"{address}: came with the wrong checksum; try again later, nothing was kept"
                )
            os.chmod(part.name, 0o644)  # temporary files are private
            os.replace(part.name, path)
        finally:
            Path(part.name).unlink(missing_ok=True)


def _md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()
