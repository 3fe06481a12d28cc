"""What a command takes from its surroundings: the folder of data sets, and how it was typed."""

import os
import shlex
import sys
from pathlib import Path


def data_root() -> Path:
    """The folder that holds data sets."""
    return Path(os.environ.get("RANKPROOF_DATA") or "data")


def as_typed() -> str:
    """The command that was typed, for the report."""
    return shlex.join(["rankproof", *sys.argv[1:]])
