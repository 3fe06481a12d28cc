"""Libraries the service alone needs, imported only when they are used."""

from importlib import import_module
from typing import Any

from rankproof.errors import RankproofError


def extra(module: str, name: str) -> Any:
    """A library that is installed with the extra `name`.

    Raises:
        RankproofError: it cannot be imported; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise RankproofError(f"{error}; install what is missing: pip install 'rankproof[{name}]'") from None
