"""A training run in a folder: checkpoint and record, log, TensorBoard events, state to resume from."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rankproof.data.dataset import Dataset
from rankproof.errors import RankproofError
from rankproof.io import JsonObject, versions, write_atomically
from rankproof.models import new_encoder, save_checkpoint
from rankproof.models.architectures import ARCHITECTURES
from rankproof.models.checkpoint import RECORD
from rankproof.models.weights import load_weights
from rankproof.parameters import Checked, Weight
from rankproof.ranking.ranker import Ranker, pass_size
from rankproof.training import state
from rankproof.training.divergence import TrainingFailedError
from rankproof.training.group import ALONE, Group
from rankproof.training.loop import Epoch, Training, in_precision
from rankproof.training.recipe import PUBLISHED_SIZE, Recipe
from rankproof.types import ProgressCallback, no_progress

LOG, EVENTS = "log.csv", "events"

Log = Callable[[str], None]
InitialWeights = dict[str, str]
"""Name and sha256 of the file of weights that a training started from."""


@dataclass(frozen=True, kw_only=True)
class Run(Checked):
    """A training run and the folder it is written to.

    Args:
        data, test: training split, and the split that R@1 is measured on.
        arch: name of the architecture.
        recipe: how to train.
        out: folder of the checkpoint, the log and the state.
        weights: file of initial weights; None starts from random ones.
        resume: continue from the newest undamaged state in `out`.
        half: store the checkpoint's weights in half precision.
        device: where to compute.
        time_limit: seconds, runs before a resume included; no epoch is started that would end later.
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
    time_limit: Weight | None = None


def train_checkpoint(
    run: Run,
    *,
    group: Group = ALONE,
    on_batch: ProgressCallback = no_progress,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    say: Log = lambda line: None,
) -> list[Epoch]:
    """Train an encoder, and write checkpoint, log and state to `run.out` after every epoch.

    Args:
        group: the processes that train together.
        on_batch: called with the number of batches done and of batches in all epochs.
        on_epoch: called after each epoch, in the first process only.
        say: called with each message for the user.
    Returns:
        all epochs, those before a resume included.
    Raises:
        TrainingFailedError: the training diverged or collapsed; what was written before stays.
    """
    ranker, encoder = _ranker(run)
    start = _saved_state(run, group, say)
    initial = _initial_weights(run, encoder, start, say)
    training = Training(ranker, run.data, run.test, run.recipe, group=group)
    if start is not None:
        training.restore(start)
    say(f"{run.recipe.description}, {run.recipe.schedule} schedule: {run.recipe.epochs} epochs")

    def save(epoch: Epoch) -> None:
        if group.leads:
            if len(training.history) == 1:
                _remove_earlier_training(run.out)  # only now: until here it was the better one
            _save(run, encoder, training, initial)
            on_epoch(epoch)

    try:
        with _fastest_kernels():
            return training.run(on_batch=on_batch, on_epoch=save, time_limit=run.time_limit)
    except TrainingFailedError as error:
        done = len(training.history)
        left = f"{run.out} holds the model after epoch {done}" if done else "nothing was written"
        raise TrainingFailedError(f"{error}; {left}") from None


@contextmanager
def _fastest_kernels() -> Iterator[None]:
    """Let cuDNN time its kernels once and take the fastest, since all batches have the same shape."""
    cudnn = torch.backends.cudnn
    previous = cudnn.benchmark
    cudnn.benchmark = previous or not cudnn.deterministic
    try:
        yield
    finally:
        cudnn.benchmark = previous


def _ranker(run: Run) -> tuple[Ranker, nn.Module]:
    """The new encoder, and the ranker it is trained in."""
    form = tuple(run.data.images.shape[1:])
    encoder = new_encoder(run.arch, run.recipe.seed)
    architecture = ARCHITECTURES[run.arch]
    if not architecture.takes(form):
        shape = "x".join(map(str, form))
        fits = architecture.size and form[0] == architecture.channels
        hint = f"; try --size {architecture.size}" if fits else ""
        raise RankproofError(
            f"arch {run.arch} wants images of {architecture.input_text}, {run.data.name} has {shape}{hint}"
        )
    encoder = encoder.to(run.device)
    ranker = Ranker(
        in_precision(encoder, run.recipe.precision),
        run.recipe.distance,
        mean=architecture.mean,
        std=architecture.std,
        name=run.arch,
        chunk=pass_size(*form),
    )
    return ranker, encoder


def _saved_state(run: Run, group: Group, say: Log) -> state.State | None:
    """The state to resume from; None where the training begins anew."""
    has_model = (run.out / RECORD).exists()
    if not run.resume:
        if has_model:
            say(f"{run.out}: contains a model, which the first epoch will replace (--resume continues it)")
        return None
    saved, errors = state.newest(run.out)
    for error in errors:
        say(f"{error}; resuming from the one before it")
    if saved is None:
        if state.stopped_at_first(run.out):
            say(f"{run.out}: was stopped while its first epoch was written, starting anew")
        elif has_model:
            raise RankproofError(
                f"{run.out}: holds a model but no state to resume from; choose another --out, or leave "
                "--resume out to start anew"
            )
        else:
            say(f"{run.out}: nothing to resume, starting anew")
        return None
    now, before = _identity(run, group), saved.metadata["identity"]
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise RankproofError(
            f"{run.out}: was trained with another {name} ({before.get(name)}, now {now[name]}); "
            "give the same options to resume, or another --out"
        )
    say(f"{run.out}: resuming after epoch {saved.metadata['epochs_done']}")
    return saved


def _identity(run: Run, group: Group) -> JsonObject:
    """What must be the same for a training to be resumed, as plain values."""
    settings = run.recipe.settings()
    del settings["schedule"]
    if run.recipe.decay == "constant":
        del settings["epochs"]  # more epochs do not change those already trained
    data = {
        f"{split.split} data": f"{split.name} {'x'.join(map(str, split.images.shape))} {split.sha256}"
        for split in (run.data, run.test)
    }
    identity = {"arch": run.arch, **settings, **data, "processes": group.size}
    plain: JsonObject = json.loads(json.dumps(identity))  # as they are read back
    return plain


def _initial_weights(
    run: Run, encoder: nn.Module, start: state.State | None, say: Log
) -> InitialWeights | None:
    """Load the initial weights of a new training; returns those it began with, None for random ones."""
    named: InitialWeights | None = None
    if run.weights is not None and run.weights.is_file():
        named = {"name": run.weights.name, "sha256": hashlib.sha256(run.weights.read_bytes()).hexdigest()}
    if start is not None:
        initial: InitialWeights | None = start.metadata["weights"]
        if named is not None and named != initial:
            raise RankproofError(
                f"{run.weights}: the training in {run.out} did not begin with these; leave --weights out"
            )
        return initial
    if run.weights is not None:
        say(f"{run.weights}: {load_weights(encoder, run.weights).note}")
    return named


def _remove_earlier_training(folder: Path) -> None:
    """Remove the states and events of an earlier training."""
    state.begin(folder)
    for file in (folder / EVENTS).glob("events.*"):
        file.unlink(missing_ok=True)


def _save(run: Run, encoder: nn.Module, training: Training, initial: InitialWeights | None) -> None:
    """Write everything after an epoch; the state last, since it stands for the rest."""
    group = training.group
    save_checkpoint(run.out, encoder, _record(run, training.history, group, initial), half=run.half)
    history = [epoch.as_dict() for epoch in training.history]
    _write_log(run.out, history)
    _write_events(run.out, history[-1])
    now = training.state()
    metadata = {**now.metadata, "identity": _identity(run, group), "weights": initial}
    state.write(run.out, state.State(now.tensors, metadata))


def _record(run: Run, history: list[Epoch], group: Group, initial: InitialWeights | None) -> JsonObject:
    """The content of model.json, but for the sha256."""
    architecture, last = ARCHITECTURES[run.arch], history[-1]
    statistics = {} if architecture.mean is None else {"mean": architecture.mean, "std": architecture.std}
    return {
        "arch": run.arch,
        "distance": run.recipe.distance,
        "input": list(run.data.images.shape[1:]),
        **statistics,
        "data": run.data.name,
        "settings": {**run.recipe.settings(), "schedule": _schedule(run, last.number, group, initial)},
        "weights": initial,
        "epochs_done": last.number,
        "recall_at_1": round(last.recall_at_1, 3),
        "seconds": round(last.seconds, 1),
        "processes": group.size,
        "device": torch.device(run.device).type,
        "precision": "half" if run.half else "single",
        "versions": versions(),
        "history": [epoch.as_dict() for epoch in history],
    }


def _schedule(run: Run, done: int, group: Group, initial: InitialWeights | None) -> str:
    """The schedule that a checkpoint was really trained by."""
    if run.recipe.schedule != "published":
        return run.recipe.schedule
    if initial is not None or group.size > 1 or ARCHITECTURES[run.arch].size != PUBLISHED_SIZE:
        return "own"
    return "published" if done == run.recipe.epochs else f"published, {done} of {run.recipe.epochs} epochs"


def _write_log(folder: Path, history: list[dict[str, int | float]]) -> None:
    """All epochs so far as log.csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomically(folder / LOG, stream.getvalue().encode())


def _write_events(folder: Path, epoch: dict[str, int | float]) -> None:
    """One epoch for TensorBoard, where that package is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception:  # an incompatible version may raise anything; log.csv has the same figures
        return
    with SummaryWriter(str(folder / EVENTS)) as writer:
        for name, value in epoch.items():
            if name != "number":
                writer.add_scalar(name, value, int(epoch["number"]))
