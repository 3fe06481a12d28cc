"""Moved to `options` and `terminal`; this name goes with its last import."""

from rankproof.cli.options import data_root as data_root
from rankproof.cli.terminal import as_typed as as_typed
