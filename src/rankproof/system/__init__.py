"""What a command line names - a model, a data set, a device - as a gallery that can be attacked."""

from rankproof.system.loading import LoadedTask, RetrievalSystem, load_task, open_system, without_attacks
from rankproof.system.options import (
    DEFAULTS,
    Stage,
    SystemOptions,
    as_split_by,
    find_device,
    no_display,
    preprocess_of,
)

__all__ = [
    "DEFAULTS",
    "LoadedTask",
    "RetrievalSystem",
    "Stage",
    "SystemOptions",
    "as_split_by",
    "find_device",
    "load_task",
    "no_display",
    "open_system",
    "preprocess_of",
    "without_attacks",
]
