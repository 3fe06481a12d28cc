"""Moved to `rankproof.cli.terminal`; this name goes with the last import of it outside the command line."""

from rankproof.cli.terminal import *  # noqa: F403
