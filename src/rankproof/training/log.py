"""What a training came to, epoch by epoch, for tables and for TensorBoard."""

import csv
import io
from pathlib import Path
from typing import Any

from rankproof.io import write_atomically

TABLE, EVENTS = "log.csv", "events"


def write_table(folder: Path, history: list[dict[str, Any]]) -> None:
    """All epochs so far as log.csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomically(folder / TABLE, stream.getvalue().encode())


def forget_events(folder: Path) -> None:
    """Remove the events of an earlier training."""
    for file in (folder / EVENTS).glob("events.*"):
        file.unlink(missing_ok=True)


def write_events(folder: Path, epoch: dict[str, Any]) -> bool:
    """One epoch for TensorBoard, below events/; False where the package is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception:  # whatever its import stumbles over, the CSV is there
        return False
    with SummaryWriter(str(folder / EVENTS)) as writer:
        for name, value in epoch.items():
            if name != "number":
                writer.add_scalar(name, value, int(epoch["number"]))
    return True
