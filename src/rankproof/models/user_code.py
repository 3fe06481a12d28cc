"""A user's own encoder: a function in a file of their own, which is executed because they name it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.extras import reason
from rankproof.models.source import COLOUR, SETTINGS, Source, describe


def call_user(name: str, file: Path, function: str) -> Source:
    """What `function` in the user's own `file` returns: a module, or a module and a dict of settings.

    The file runs with all rights of whoever calls, as `python FILE` does.

    Args:
        name: how the encoder is called in messages.
        file: a Python file; it may import the files beside it.
        function: takes no arguments. Settings are `distance`, `mean`, `std` and `size`, the side of the
            pictures or (height, width).
    Raises:
        RankproofError: there is no such file or function, it fails, or it returns something else.
    """
    if not file.is_file():
        raise RankproofError(f"{file}: no such file; name your own as path/to/module.py:function")
    with _beside(file.parent):
        try:
            build = getattr(_imported(file), function, None)
            returned = build() if callable(build) else None
        except RankproofError:
            raise
        except Exception as error:  # it is the user's own code: its error is theirs, and stays attached
            raise RankproofError(f"{name}: failed with {reason(error)}") from error
    if not callable(build):
        raise RankproofError(f"{file}: has no function {function}")
    encoder, settings = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, {})
    if not isinstance(encoder, nn.Module) or not isinstance(settings, Mapping):
        raise RankproofError(
            f"{name}: must return a torch.nn.Module, or (module, settings); it returned "
            f"{type(returned).__name__}"
        )
    return describe(encoder, name, _with_input(settings, name))


def _imported(file: Path) -> Any:
    """The file as a module; it is known by a name of its own, so that it hides no library."""
    title = f"rankproof_own_{file.stem}"
    place = spec_from_file_location(title, file)
    if place is None or place.loader is None:
        raise RankproofError(f"{file}: not a Python file")
    module = sys.modules[title] = module_from_spec(place)
    place.loader.exec_module(module)
    return module


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as it could if it were run."""
    entry = str(folder.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _with_input(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings with `size` told as the form of the pictures: in as many channels as mean, else colour."""
    known = (*SETTINGS, "size")
    if odd := [key for key in settings if key not in known]:
        raise RankproofError(f"{name}: unknown setting {odd[0]!r}; known are {', '.join(known)}")
    rest = {key: value for key, value in settings.items() if key != "size"}
    size = settings.get("size")
    if size is None:
        return rest
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise RankproofError(f"{name}: size must be one side or (height, width), not {size!r}")
    mean = settings.get("mean")
    return {**rest, "input": [len(mean) if isinstance(mean, list | tuple) else COLOUR, *sides]}
