"""One training run from data to a checkpoint with its record."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.models import new_encoder, save_checkpoint
from rankproof.models.checkpoint import ARCHITECTURES
from rankproof.training.loop import Epoch, Settings, train
from rankproof.versions import versions


def train_checkpoint(
    data: Dataset,
    test: Dataset,
    arch: str,
    settings: Settings,
    out: Path,
    *,
    half: bool = False,
    time_limit: float | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train an encoder and write it to `out`; a checkpoint is written after every epoch.

    Args:
        half: store the weights in half precision.
        time_limit: seconds after which no further epoch is started.
    Returns:
        what each epoch came to.
    """
    settings = settings.resolved()
    encoder = new_encoder(arch, settings.seed)
    size = ARCHITECTURES[arch].size
    if tuple(data.pictures.shape[1:]) != (1, size, size):
        shape = "x".join(map(str, data.pictures.shape[1:]))
        raise RankproofError(
            f"arch {arch} wants pictures of 1x{size}x{size}, {data.name} has {shape}; try --size {size}"
        )
    history: list[Epoch] = []

    def keep(epoch: Epoch) -> None:
        history.append(epoch)
        record = {
            "arch": arch,
            "distance": settings.distance,
            "input": [1, size, size],
            "data": data.name,
            "settings": asdict(settings),
            "epochs_done": epoch.number,
            "recall_at_1": round(epoch.recall_at_1, 3),
            "seconds": round(epoch.seconds, 1),
            "precision": "half" if half else "single",
            "versions": versions(),
            "history": [entry.as_dict() for entry in history],
        }
        save_checkpoint(out, encoder, record, half=half)
        on_epoch(epoch)

    return train(encoder, data, test, settings, on_batch=on_batch, on_epoch=keep, time_limit=time_limit)
