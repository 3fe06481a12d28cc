"""Keeps a black-box search in a file, so that the same call goes on where it stopped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import read_arrays, write_arrays
from rankproof.methods.black_box.base import AttackTensors
from rankproof.methods.black_box.search import SearchState
from rankproof.types import Feedback, Ids

WRITE_EVERY = 10.0  # seconds between two writings of a search in progress

Kind = TypeVar("Kind", bound=AttackTensors)


@dataclass(frozen=True)
class SearchStateFile:
    """The state of a search in a file.

    Args:
        path: the file; None keeps nothing.
        name: hexadecimal, equal for equal searches; a file of another name is refused.
        every: seconds between two writings.
        stored: what was read, empty for a fresh search.
    """

    path: Path | None
    name: str
    every: float
    stored: dict[str, Tensor]

    @classmethod
    def open(cls, path: Path | None, name: str, every: float) -> "SearchStateFile":
        """Read what is there.

        Raises:
            RankproofError: the file is broken or of another search.
        """
        if path is None or not path.exists():
            return cls(path, name, every, {})
        try:
            arrays = read_arrays(path)
            stored_name = bytes(arrays.pop("name").tolist()).hex()
        except (ValueError, KeyError, TypeError) as error:
            raise RankproofError(f"{path}: cannot be continued ({error}); delete it") from None
        if stored_name != name:
            raise RankproofError(f"{path}: belongs to another attack; choose another folder or delete it")
        return cls(path, name, every, arrays)

    @property
    def clean(self) -> tuple[Feedback, Ids] | None:
        """What the clean images showed, and the wanted ids; None for a fresh search."""
        if not self.stored:
            return None
        return Feedback(self.stored["clean_places"], self.stored["clean_score"]), self.stored["wanted"]

    @property
    def repeated(self) -> dict[str, Tensor]:
        """Places that images had when they were asked again, by what the images are."""
        prefix = "again_"
        return {
            name.removeprefix(prefix): places
            for name, places in self.stored.items()
            if name.startswith(prefix)
        }

    @property
    def seconds(self) -> float:
        """Time spent before."""
        return float(self.stored["seconds"]) if self.stored else 0.0

    @contextmanager
    def writing(self, clean: Feedback, wanted: Ids, start: SearchState) -> Iterator["SearchStateWriter"]:
        """Write the last finished round to the file, however the search ends."""
        writer = SearchStateWriter(self, clean, wanted, self._continued(start))
        try:
            yield writer
        finally:
            writer.write()

    def _continued(self, start: SearchState) -> SearchState:
        """The stored state in the shape of a fresh one."""
        if not self.stored:
            return start

        def part(value: Kind, prefix: str) -> Kind:
            return replace(value, **{name: self.stored[f"{prefix}_{name}"] for name in value.arrays()})

        return SearchState(
            part(start.history, "trace"),
            part(start.method_state, "state"),
            self.stored["running"],
            int(self.stored["number"]),
        )


class SearchStateWriter:
    """The newest state of a search, written now and then."""

    def __init__(self, file: SearchStateFile, clean: Feedback, wanted: Ids, state: SearchState) -> None:
        self.file, self.clean, self.wanted, self.state = file, clean, wanted, state
        self.repeated = file.repeated
        self.begun = self.written = time.monotonic()

    def keep(self, state: SearchState) -> None:
        """Take note of a finished round."""
        self.state = state
        if time.monotonic() - self.written >= self.file.every:
            self.write()

    def write(self) -> None:
        """Put it into the file."""
        if self.file.path is None:
            return
        arrays: dict[str, np.ndarray] = {
            "name": np.frombuffer(bytes.fromhex(self.file.name), dtype=np.uint8),
            "clean_places": self.clean.places.numpy(),
            "clean_score": self.clean.score.numpy(),
            "wanted": self.wanted.numpy(),
            "running": self.state.running.numpy(),
            "number": np.array(self.state.number),
            "seconds": np.array(self.file.seconds + time.monotonic() - self.begun),
            **{f"again_{name}": places.numpy() for name, places in self.repeated.items()},
        }
        for prefix, value in (("trace", self.state.history), ("state", self.state.method_state)):
            arrays |= {f"{prefix}_{name}": tensor.numpy() for name, tensor in value.arrays().items()}
        write_arrays(self.file.path, arrays)
        self.written = time.monotonic()
