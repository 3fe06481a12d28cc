"""Errors a user can mend: one line that says what is wrong and what to do."""

from importlib import import_module
from typing import Any


class RankproofError(Exception):
    """Bad input; the message is one line and names the file or option at fault."""


class ThreatViolationError(RuntimeError):
    """A method returned an image outside its threat set: a bug, never a result."""


class NotFiniteError(RankproofError):
    """An encoder returned NaN or infinite embeddings."""


def import_extra(module: str, extra: str) -> Any:
    """Import a library that is installed with one of this package's extras.

    Raises:
        RankproofError: it cannot be imported; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise RankproofError(f"{error}; install what is missing: pip install 'rankproof[{extra}]'") from None
