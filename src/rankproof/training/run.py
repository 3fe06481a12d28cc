"""One training run from data to a checkpoint with its record, its log and all that is needed to go on."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.models import new_encoder, save_checkpoint
from rankproof.models.architectures import ARCHITECTURES
from rankproof.models.checkpoint import RECORD
from rankproof.models.weights import load_weights
from rankproof.ranking.ranker import Ranker, pass_size
from rankproof.training import state
from rankproof.training.group import ALONE, Group
from rankproof.training.health import TrainingFailedError
from rankproof.training.log import forget_events, write_events, write_table
from rankproof.training.loop import Epoch, Training, in_precision
from rankproof.training.recipe import PUBLISHED_SIZE, Recipe
from rankproof.io import versions

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
        on_epoch: called with each finished epoch, in the first process only.
        say: called with what a user should know.
    Returns:
        what each epoch came to, earlier sittings included.
    Raises:
        TrainingFailedError: it diverged or collapsed; what was written before stays.
    """
    ranker, encoder = _ranker(run)
    start = _start(run, group, say)
    origin = _origin(run, encoder, start, say)
    training = Training(ranker, run.data, run.test, run.recipe, group=group)
    if start is not None:
        training.restore(start)
    say(f"{run.recipe.words}, {run.recipe.schedule} schedule: {run.recipe.epochs} epochs")

    def keep(epoch: Epoch) -> None:
        if group.leads:
            if len(training.history) == 1:
                state.begin(run.out)  # and end an earlier training, now that there is something better
                forget_events(run.out)
            _keep(run, encoder, training, group, origin)
            on_epoch(epoch)

    try:
        with _quickest_kernels():
            return training.run(on_batch=on_batch, on_epoch=keep, time_limit=run.time_limit)
    except TrainingFailedError as error:
        done = len(training.history)
        kept = f"{run.out} holds the model after epoch {done}" if done else "nothing was written"
        raise TrainingFailedError(f"{error}; {kept}") from None


@contextmanager
def _quickest_kernels() -> Iterator[None]:
    """Let a GPU try out once which of its kernels are the quickest: all batches have the same form."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = before or not cudnn.deterministic
    try:
        yield
    finally:
        cudnn.benchmark = before


def _ranker(run: Run) -> tuple[Ranker, nn.Module]:
    """The encoder that begins, and the ranker it is trained in."""
    form = tuple(run.data.pictures.shape[1:])
    encoder = new_encoder(run.arch, run.recipe.seed)
    architecture = ARCHITECTURES[run.arch]
    if not architecture.takes(form):
        shape = "x".join(map(str, form))
        fits = architecture.size and form[0] == architecture.channels
        hint = f"; try --size {architecture.size}" if fits else ""
        raise RankproofError(
            f"arch {run.arch} wants pictures of {architecture.wanted}, {run.data.name} has {shape}{hint}"
        )
    encoder = encoder.to(run.device)
    passes = in_precision(encoder, run.recipe.precision)
    ranker = Ranker(
        passes,
        run.recipe.distance,
        mean=architecture.mean,
        std=architecture.std,
        name=run.arch,
        chunk=pass_size(*form),
    )
    return ranker, encoder


def _origin(run: Run, encoder: nn.Module, start: state.State | None, say: Say) -> dict[str, Any] | None:
    """The weights a training began with, by name and sha256; None where they were random."""
    given = None
    if run.weights is not None and run.weights.is_file():
        digest = hashlib.sha256(run.weights.read_bytes()).hexdigest()
        given = {"name": run.weights.name, "sha256": digest}
    if start is not None:
        began: dict[str, Any] | None = start.sheet["weights"]
        if given is not None and given != began:
            raise RankproofError(
                f"{run.weights}: the training in {run.out} did not begin with these; leave --weights out"
            )
        return began
    if run.weights is not None:
        say(f"{run.weights}: {load_weights(encoder, run.weights).note}")
    return given


def _start(run: Run, group: Group, say: Say) -> state.State | None:
    """Where to go on; None at the beginning."""
    if not run.resume:
        if (run.out / RECORD).exists():
            say(f"{run.out}: holds a model already, which the first epoch will replace (--resume goes on)")
        return None
    found, refused = state.newest(run.out)
    for line in refused:
        say(f"{line}; going on from the one before it")
    if found is None:
        if state.stopped_at_first(run.out):
            say(f"{run.out}: was stopped while its first epoch was written, beginning anew")
            return None
        if (run.out / RECORD).exists():
            raise RankproofError(
                f"{run.out}: holds a model but no state to go on from; choose another --out, or leave "
                "--resume out to begin anew"
            )
        say(f"{run.out}: nothing to resume, beginning anew")
        return None
    asked, kept = _identity(run, group), found.sheet["identity"]
    odd = [name for name in asked if asked[name] != kept.get(name)]
    if odd:
        raise RankproofError(
            f"{run.out}: was trained with another {odd[0]} ({kept.get(odd[0])}, now {asked[odd[0]]}); "
            "give the same options to resume, or another --out"
        )
    say(f"{run.out}: going on after epoch {found.sheet['epochs_done']}")
    return found


def _identity(run: Run, group: Group) -> dict[str, Any]:
    """What must be equal for a training to go on, as plain values."""
    settings = run.recipe.settings()
    del settings["schedule"]
    if run.recipe.decay == "constant":
        del settings["epochs"]  # more of them change nothing about those that were
    sets = {
        f"{split.split} data": f"{split.name} {'x'.join(map(str, split.pictures.shape))} {split.sha256}"
        for split in (run.data, run.test)
    }
    identity = {"arch": run.arch, **settings, **sets, "processes": group.size}
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _keep(
    run: Run, encoder: nn.Module, training: Training, group: Group, origin: dict[str, Any] | None
) -> None:
    """Write everything that an epoch changes; the state last, since it promises the rest."""
    history = [epoch.as_dict() for epoch in training.history]
    save_checkpoint(run.out, encoder, _record(run, training.history, group, origin), half=run.half)
    write_table(run.out, history)
    write_events(run.out, history[-1])
    now = training.state()
    sheet = {**now.sheet, "identity": _identity(run, group), "weights": origin}
    state.write(run.out, state.State(now.tensors, sheet))


def _record(run: Run, history: list[Epoch], group: Group, origin: dict[str, Any] | None) -> dict[str, Any]:
    """What is told of a checkpoint."""
    architecture, last = ARCHITECTURES[run.arch], history[-1]
    statistics = {} if architecture.mean is None else {"mean": architecture.mean, "std": architecture.std}
    return {
        "arch": run.arch,
        "distance": run.recipe.distance,
        "input": list(run.data.pictures.shape[1:]),
        **statistics,
        "data": run.data.name,
        "settings": {**run.recipe.settings(), "schedule": _schedule(run, last.number, group, origin)},
        "weights": origin,
        "epochs_done": last.number,
        "recall_at_1": round(last.recall_at_1, 3),
        "seconds": round(last.seconds, 1),
        "processes": group.size,
        "device": torch.device(run.device).type,
        "precision": "half" if run.half else "single",
        "versions": versions(),
        "history": [epoch.as_dict() for epoch in history],
    }


def _schedule(run: Run, done: int, group: Group, origin: dict[str, Any] | None) -> str:
    """The kind of schedule a checkpoint really had."""
    if run.recipe.schedule != "published":
        return run.recipe.schedule
    if origin is not None or group.size > 1 or ARCHITECTURES[run.arch].size != PUBLISHED_SIZE:
        return "own"
    return "published" if done == run.recipe.epochs else f"published, {done} of {run.recipe.epochs} epochs"
