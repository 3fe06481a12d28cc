"""Libraries of encoders, imported only when one of their encoders is asked for."""

from importlib import import_module
from typing import Any

from rankproof.errors import RankproofError


def extra(module: str) -> Any:
    """A library, or a part of it, that is installed on demand as the extra of the library's name.

    Raises:
        RankproofError: it cannot be imported, whatever the reason; the message says what to install.
    """
    try:
        return import_module(module)
    except Exception as error:  # one that does not match the installed torch raises anything
        library = module.partition(".")[0]
        raise RankproofError(
            f"{library} cannot be used here ({reason(error)}); install one that matches your torch: "
            f"pip install 'rankproof[{library}]'"
        ) from None


def reason(error: Exception) -> str:
    """The first line of an error for people."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
