"""One training run from data to a checkpoint with its record, its log and all that is needed to go on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.models import new_encoder, save_checkpoint
from rankproof.models.architectures import ARCHITECTURES
from rankproof.models.weights import load_weights
from rankproof.ranking.ranker import Ranker
from rankproof.training import state
from rankproof.training.group import ALONE, Group
from rankproof.training.log import write_events, write_table
from rankproof.training.loop import Epoch, LowPrecision, Training
from rankproof.training.recipe import Recipe
from rankproof.versions import versions

Tell = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training that is kept in a folder.

    Args:
        data, test: what it learns from, and what R@1 is measured on.
        arch: name of the architecture.
        recipe: how to train.
        out: folder of the checkpoint, the log and the state.
        weights: file of weights to begin with.
        resume: go on from the newest undamaged state in `out`.
        half: store the checkpoint's weights in half precision.
        device: where to compute.
        time_limit: seconds after which no further epoch is started, earlier sittings included.
    """

    data: Dataset
    test: Dataset
    arch: str
    recipe: Recipe
    out: Path
    weights: Path | None = None
    resume: bool = False
    half: bool = False
    device: str = "cpu"
    time_limit: float | None = None


def train_checkpoint(
    run: Run,
    *,
    group: Group = ALONE,
    on_batch: Tell = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    say: Say = lambda line: None,
) -> list[Epoch]:
    """Train an encoder and keep it in `run.out`: checkpoint, log and state after every epoch.

    Args:
        on_batch: called with batches done and batches in all.
        on_epoch: called with each finished epoch.
        say: called with what a user should know.
    Returns:
        what each epoch came to, earlier sittings included.
    Raises:
        TrainingFailedError: it diverged or collapsed; what was written before stays.
    """
    ranker, encoder = _ranker(run, say)
    start = _start(run, say)
    training = Training(ranker, run.data, run.test, run.recipe, group=group)
    if start is not None:
        training.restore(start)
    elif group.leads:
        state.forget(run.out)
    say(f"{run.recipe.words}, {run.recipe.schedule} schedule: {run.recipe.epochs} epochs")

    def keep(epoch: Epoch) -> None:
        if group.leads:
            _keep(run, encoder, training, group)
        on_epoch(epoch)

    return training.run(on_batch=on_batch, on_epoch=keep, time_limit=run.time_limit)


def _ranker(run: Run, say: Say) -> tuple[Ranker, nn.Module]:
    """The encoder that begins, and the ranker it is trained in."""
    architecture, form = ARCHITECTURES.get(run.arch), tuple(run.data.pictures.shape[1:])
    encoder = new_encoder(run.arch, run.recipe.seed)
    assert architecture is not None
    if not architecture.takes(form):
        shape = "x".join(map(str, form))
        hint = (
            f"; try --size {architecture.size}"
            if architecture.size and form[0] == architecture.channels
            else ""
        )
        raise RankproofError(
            f"arch {run.arch} wants pictures of {architecture.wanted}, {run.data.name} has {shape}{hint}"
        )
    if run.weights is not None:
        say(f"{run.weights}: {load_weights(encoder, run.weights).note}")
    encoder = encoder.to(run.device)
    passes = LowPrecision(encoder) if run.recipe.precision == "bf16" else encoder
    ranker = Ranker(passes, run.recipe.distance, mean=architecture.mean, std=architecture.std, name=run.arch)
    return ranker, encoder


def _start(run: Run, say: Say) -> state.State | None:
    """Where to go on; None at the beginning."""
    if not run.resume:
        return None
    found, refused = state.newest(run.out)
    for line in refused:
        say(f"{line}; going on from the one before it")
    if found is None:
        say(f"{run.out}: nothing to resume, beginning anew")
        return None
    asked, kept = {"arch": run.arch, **run.recipe.settings()}, found.sheet["settings"]
    # More epochs may be asked for than before; everything else must be equal.
    odd = [name for name in asked if name != "epochs" and asked[name] != kept.get(name)]
    if odd:
        raise RankproofError(
            f"{run.out}: was trained with another {odd[0]} ({kept.get(odd[0])}, now {asked[odd[0]]}); "
            "give the same options to resume, or another --out"
        )
    say(f"{run.out}: going on after epoch {found.sheet['epochs_done']}")
    return found


def _keep(run: Run, encoder: nn.Module, training: Training, group: Group) -> None:
    """Write everything that an epoch changes; the state last, since it promises the rest."""
    history = [epoch.as_dict() for epoch in training.history]
    save_checkpoint(run.out, encoder, _record(run, training.history, group), half=run.half)
    write_table(run.out, history)
    write_events(run.out, history[-1])
    now = training.state()
    settings = {"arch": run.arch, **now.sheet["settings"]}
    state.write(run.out, state.State(now.tensors, {**now.sheet, "settings": settings}))


def _record(run: Run, history: list[Epoch], group: Group) -> dict[str, Any]:
    """What is told of a checkpoint."""
    architecture, last = ARCHITECTURES[run.arch], history[-1]
    statistics = {} if architecture.mean is None else {"mean": architecture.mean, "std": architecture.std}
    return {
        "arch": run.arch,
        "distance": run.recipe.distance,
        "input": list(run.data.pictures.shape[1:]),
        **statistics,
        "data": run.data.name,
        "settings": run.recipe.settings(),
        "weights": None if run.weights is None else run.weights.name,
        "epochs_done": last.number,
        "recall_at_1": round(last.recall_at_1, 3),
        "seconds": round(last.seconds, 1),
        "processes": group.size,
        "device": torch.device(run.device).type,
        "precision": "half" if run.half else "single",
        "versions": versions(),
        "history": [epoch.as_dict() for epoch in history],
    }
