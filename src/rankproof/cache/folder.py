"""The folder of what is kept between commands: where it is, and how large it may become."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from rankproof.errors import RankproofError
from rankproof.io import write_atomically

FOLDER, SIZE = "RANKPROOF_CACHE", "RANKPROOF_CACHE_SIZE"  # environment variables
DEFAULT_SIZE = 2_000_000_000
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SUFFIX = ".safetensors"
KEY_LENGTH = 32
KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
ABANDONED = 3600  # seconds after which a file that is still being written belongs to a stopped command


def default_folder() -> Path:
    """$RANKPROOF_CACHE, or the folder that the platform has for such files.

    Raises:
        RankproofError: neither is known.
    """
    try:
        if named := os.environ.get(FOLDER):
            return Path(named).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "rankproof" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "rankproof"
        base = Path(os.environ.get("XDG_CACHE_HOME") or "")
        return (base if base.is_absolute() else Path.home() / ".cache") / "rankproof"
    except RuntimeError:  # a user without a home, as in a container
        raise RankproofError(f"this user has no home folder; name a folder in ${FOLDER}") from None


def default_size() -> int:
    """$RANKPROOF_CACHE_SIZE in bytes, 2 GB where it is not set."""
    text = os.environ.get(SIZE)
    return DEFAULT_SIZE if not text else parse_size(text, f"${SIZE}")


def parse_size(text: str, what: str) -> int:
    """The bytes in "500 MB", "2G" or "0".

    Raises:
        RankproofError: it is no size; the message names `what`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    count = float("inf") if match is None else float(match[1]) * UNITS[match[2]]
    if count == float("inf"):
        raise RankproofError(f"{what}: {text!r:.60} is no size; write 500MB or 2GB")
    return int(count)


@dataclass(frozen=True)
class CacheFolder:
    """Files by key, the least recently used of which are removed where they become too many.

    Args:
        path: the folder; it need not exist yet.
        size: bytes that all files together may take.
    """

    path: Path
    size: int

    def file(self, key: str) -> Path:
        """Where the content of a key is."""
        return self.path / f"{key}{SUFFIX}"

    def files(self) -> list[Path]:
        """All files, the most recently used first."""
        found: list[tuple[int, Path]] = []
        with suppress(OSError):
            for file in self.path.glob(f"*{SUFFIX}"):
                if KEY.fullmatch(file.stem):
                    with suppress(OSError):  # removed meanwhile
                        status = file.stat()
                        if S_ISREG(status.st_mode):
                            found.append((status.st_mtime_ns, file))
        return [file for _, file in sorted(found, reverse=True)]

    def read(self, key: str) -> bytes:
        """The content of a key.

        Raises:
            OSError: there is none, or it is no file that was written here.
        """
        file = self.file(key)
        status = file.stat()
        if not S_ISREG(status.st_mode) or status.st_size > self.size:
            raise OSError
        return file.read_bytes()

    def used(self, key: str) -> None:
        """Note that a file was used now."""
        with suppress(OSError):  # a folder that can only be read
            os.utime(self.file(key))

    def write(self, key: str, content: bytes) -> None:
        """Keep a content, and remove what was not used for longest until all is within the size.

        Raises:
            RankproofError: it cannot be written, or is larger than all files together may be.
        """
        if len(content) > self.size:
            raise RankproofError(
                f"{self.path}: {megabytes(len(content))} are more than may be kept "
                f"(${SIZE}, {megabytes(self.size)})"
            )
        self._make_room(self.size - len(content), spared=self.file(key))
        try:
            write_atomically(self.file(key), content)
        except RankproofError as error:  # about the folder, so that two files that fail are one line
            raise RankproofError(str(error).replace(str(self.file(key)), str(self.path), 1)) from None

    def remove(self, key: str) -> int:
        """Remove the content of a key; the bytes it took.

        Raises:
            RankproofError: it cannot be removed.
        """
        file = self.file(key)
        try:
            freed = file.stat().st_size
            file.unlink()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RankproofError(f"{file}: cannot be removed ({error.strerror})") from None
        return freed

    def _make_room(self, limit: int, spared: Path) -> None:
        """Remove files until the others take at most `limit` bytes; `spared` is replaced anyway."""
        total = 0
        for file in self.files():
            with suppress(OSError):
                total += 0 if file == spared else file.stat().st_size
                if total > limit and file != spared:
                    total -= file.stat().st_size
                    file.unlink()
        for file in self._unfinished():
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()

    def _unfinished(self) -> Iterator[Path]:
        """Files that commands are writing, or were when they were stopped."""
        for file in self.path.glob(f".*{SUFFIX}.*"):
            if KEY.match(file.name[1:]):
                yield file


def megabytes(count: int) -> str:
    """A number of bytes as people write it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
