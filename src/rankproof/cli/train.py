"""`rankproof train`: an encoder of your own, as a checkpoint."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import Data, Device, Seed, Size, SplitBy
from rankproof.cli.recipe import (
    Batch,
    Decay,
    Defense,
    DefenseEps,
    Distance,
    Epochs,
    Fast,
    Flip,
    InnerSteps,
    LearningRate,
    Loss,
    LossOption,
    Margin,
    Miner,
    MinerOption,
    PerClass,
    Precision,
    Sampler,
    Shift,
    WarmUp,
)
from rankproof.cli.surroundings import data_root
from rankproof.console import (
    at_least_one,
    duration,
    not_below_zero,
    progress,
    reported,
    say,
    within,
    writable,
)
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.data import Dataset
    from rankproof.training import Epoch


def train(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the checkpoint goes.", show_default=False)],
    data: Data = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The encoder: c2f1, lenet, resnet18-28 for 28x28, digits for 8x8, resnet18, resnet50 for "
            "colour. Left out: digits, c2f1 or resnet18, by the pictures.",
            show_default=False,
        ),
    ] = None,
    distance: Distance = None,
    loss: Loss = None,
    loss_option: LossOption = None,
    miner: Miner = None,
    miner_option: MinerOption = None,
    sampler: Sampler = None,
    per_class: PerClass = None,
    defense: Defense = "none",
    eps: DefenseEps = None,
    inner_steps: InnerSteps = None,
    warm_up: WarmUp = None,
    fast: Fast = False,
    epochs: Epochs = None,
    batch: Batch = None,
    margin: Margin = None,
    learning_rate: LearningRate = 1e-3,
    decay: Decay = None,
    shift: Shift = 0,
    flip: Flip = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Begin with these: safetensors, or a state dict saved by torch.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar="", help="Go on with the training in DIR after its last epoch."),
    ] = False,
    seed: Seed = 0,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="25m", help="Start no epoch that would end later: 90s, 25m, 1h.", show_default=False
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", metavar="", help="Store the weights in half precision.")
    ] = False,
    precision: Precision = "single",
    size: Size = None,
    split_by: SplitBy = "auto",
    device: Device = "auto",
) -> None:
    """Train an encoder, with or without a defence, and keep it as a checkpoint.

    Trains on the train split and tells R@1 on the test split after each epoch. The checkpoint in DIR is
    model.safetensors with a record beside it, model.json: architecture, distance, settings, seed, versions,
    R@1 and sha256. It is written after each epoch, with log.csv, TensorBoard events, and state/, from which
    `--resume` goes on bit for bit; Ctrl-C keeps the last finished epoch. A training that diverges or
    collapses is stopped, and the last good epoch is kept.

    **Example**

    ```
    rankproof train --data fashion-mnist --time 25m --out runs/ct
    rankproof train --data fashion-mnist --defense est --fast --out runs/ctd
    torchrun --nproc-per-node 2 -m rankproof train --data fashion-mnist --out runs/two
    ```
    """
    finished: list[int] = []
    with reported(lambda: _stopped(out, finished)):
        limit = duration(time)
        for option, number in (("epochs", epochs), ("batch", batch), ("inner-steps", inner_steps)):
            at_least_one(option, number)
        for option, value in (("margin", margin), ("learning-rate", learning_rate), ("warm-up", warm_up)):
            not_below_zero(option, value)
        writable(out)
        from rankproof.system import find_device
        from rankproof.training.group import join
        from rankproof.training.options import Options, recipe_of
        from rankproof.training.run import Run, train_checkpoint

        group, place = join(find_device(device))
        tell_user = say if group.leads else (lambda line: None)
        pictures, test = (_read(split, data, size, split_by, tell_user) for split in ("train", "test"))
        chosen = arch or _arch_for(pictures)
        options = Options(
            distance=distance,
            loss=loss,
            loss_options=loss_option or [],
            miner=miner,
            miner_options=miner_option or [],
            sampler=sampler,
            per_class=per_class,
            defense=defense,
            eps=eps,
            inner_steps=inner_steps,
            warm_up=warm_up,
            fast=fast,
            epochs=epochs,
            batch=batch,
            margin=margin,
            learning_rate=learning_rate,
            decay=decay,
            shift=shift,
            flip=flip,
            precision=precision,
            seed=seed,
        )
        recipe = recipe_of(options, pictures, chosen, place)
        run = Run(
            data=pictures,
            test=test,
            arch=chosen,
            recipe=recipe,
            out=out,
            weights=weights,
            resume=resume,
            half=half,
            device=place,
            time_limit=limit,
        )
        with progress("training") if group.leads else nullcontext(_silent) as tell:
            history = train_checkpoint(
                run,
                group=group,
                on_batch=within(limit, tell),
                on_epoch=lambda epoch: finished.append(_tell_epoch(epoch, recipe.epochs)),
                say=tell_user,
            )
        if group.leads:
            typer.echo(f"{out}: R@1 {history[-1].recall_at_1:.1f} % after {len(history)} epochs")


def _read(
    split: str, data: str | None, size: int | None, split_by: str, tell_user: Callable[[str], None]
) -> "Dataset":
    """One split of a data set, and the line about it."""
    from rankproof.data import load
    from rankproof.system import as_split_by

    with progress("reading pictures") as tell:
        dataset = load(
            data, split, size=size, split_by=as_split_by(split_by), root=data_root(), progress=tell
        )
    tell_user(dataset.note)
    return dataset


def _arch_for(dataset: "Dataset") -> str:
    """The encoder made for pictures of that form."""
    from rankproof.models.architectures import ARCHITECTURES

    form = tuple(dataset.pictures.shape[1:])
    for name, kind in ARCHITECTURES.items():
        if kind.takes(form):
            return name
    known = ", ".join(f"{name} ({kind.wanted})" for name, kind in ARCHITECTURES.items())
    raise RankproofError(
        f"no encoder is made for the {'x'.join(map(str, form))} pictures of {dataset.name}; known: {known}"
    )


def _tell_epoch(epoch: "Epoch", epochs: int) -> int:
    """Print the line of an epoch; returns its number."""
    place = f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}"
    typer.echo(f"{place}  loss {epoch.loss:.4f}  R@1 {epoch.recall_at_1:.1f} %  {epoch.seconds:.0f} s")
    return epoch.number


def _silent(done: float, total: float) -> None:
    """Progress of a process that is not the first."""


def _stopped(out: Path, finished: list[int]) -> str:
    kept = f"{out} holds the model after epoch {finished[-1]}" if finished else "nothing was written"
    return f"{kept}; the same command starts again from the beginning"
