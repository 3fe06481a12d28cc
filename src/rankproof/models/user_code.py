"""An encoder from a function in the user's own file, which is executed."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from torch import nn

from rankproof.errors import RankproofError
from rankproof.models.source import COLOUR, SETTINGS, Source, describe, reason

POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def call_user(name: str, file: Path, function: str) -> Source:
    """The encoder that a function in the user's file returns.

    The file is executed with all rights of the user, as by `python FILE`.

    Args:
        name: of the encoder, for messages.
        file: a Python file; it may import the files beside it.
        function: takes no arguments; returns a module or a function of images, alone or with a dict of
            settings: `distance`, `mean`, `std` and `size`, the side of the images or (height, width). Or the
            name of the encoder itself: a module, or a function with one argument, the images.
    Raises:
        RankproofError: there is no such file or function, it raises, or it returns something else.
    """
    if not file.is_file():
        raise RankproofError(f"{file}: no such file; name your function as path/to/module.py:function")
    with _importable(file.parent):
        try:
            build = getattr(_imported(file), function, None)
            returned = build if _is_encoder(build) else build() if callable(build) else None
        except RankproofError:
            raise
        except Exception as error:  # an error in the user's code, whose traceback they need
            raise RankproofError(f"{name}: failed with {reason(error)}") from error
    if not callable(build):
        raise RankproofError(f"{file}: has no function {function}")
    encoder, settings = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, {})
    if not callable(encoder) or isinstance(encoder, type) or not isinstance(settings, Mapping):
        raise RankproofError(
            f"{name}: must return a torch.nn.Module or a function of images, or (module, settings); it "
            f"returned {type(returned).__name__}"
        )
    return describe(encoder, name, _with_input(settings, name))


def _is_encoder(named: object) -> bool:
    """Whether what is named needs images, and so is the encoder itself and not what returns it."""
    if isinstance(named, nn.Module):
        return True
    if not callable(named) or isinstance(named, type):
        return False
    try:
        parameters = inspect.signature(named).parameters.values()
    except ValueError:  # a function without a signature
        return False
    needed = [each for each in parameters if each.default is each.empty and each.kind in POSITIONAL]
    return len(needed) == 1


class _TextLoader(SourceFileLoader):
    """Compiles the text of a file each time.

    Python takes compiled code from a file beside it where size and second of the last change agree, which an
    edit may leave as they were.
    """

    def path_stats(self, path: Any) -> Any:
        """Nothing is known by which compiled code could be found."""
        raise OSError


def _imported(file: Path) -> Any:
    """The file as a module, under a name that cannot hide a library."""
    module_name = f"rankproof_user_{file.stem}"
    spec = spec_from_file_location(module_name, file, loader=_TextLoader(module_name, str(file)))
    if spec is None or spec.loader is None:
        raise RankproofError(f"{file}: not a Python file")
    module = sys.modules[module_name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the file import the files beside it, as `python FILE` does."""
    entry = str(folder.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _with_input(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The settings with `size` replaced by `input`: as many channels as mean has values, else 3."""
    valid = (*SETTINGS, "size")
    if unknown := [key for key in settings if key not in valid]:
        raise RankproofError(f"{name}: unknown setting {unknown[0]!r}; known are {', '.join(valid)}")
    rest = {key: value for key, value in settings.items() if key != "size"}
    size = settings.get("size")
    if size is None:
        return rest
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise RankproofError(f"{name}: size must be a number or (height, width), not {size!r}")
    mean = settings.get("mean")
    return {**rest, "input": [len(mean) if isinstance(mean, list | tuple) else COLOUR, *sides]}
