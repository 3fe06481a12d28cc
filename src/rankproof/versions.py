"""Which software a figure was made with."""

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a figure."""
    return {
        "python": platform.python_version(),
        "rankproof": version("rankproof"),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
