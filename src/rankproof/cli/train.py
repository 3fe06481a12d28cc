"""`rankproof train`: trains an encoder and writes it as a checkpoint."""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankproof.cli.options import Device, Seed, Size, SplitBy, TrainingData, data_root
from rankproof.cli.output import echo
from rankproof.cli.terminal import (
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
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder the checkpoint is written to.", show_default=False)
    ],
    data: TrainingData = "digits",
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The encoder: c2f1, lenet or resnet18-28 for 28x28 grey images, digits for 8x8, resnet18, "
            "resnet50, mobilenet_v2 or efficientnet-lite0 to 4 for colour. Default: digits, c2f1 or "
            "resnet18, as the images need.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            metavar="cosine|euclidean|sphere",
            help="How embeddings are compared; sphere is euclidean on embeddings of unit length. Default: "
            "sphere for act and hm, else cosine.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="triplet|contrastive|pml:NAME",
            help="The loss; pml:NAME is any loss of pytorch-metric-learning. Default: pml:SupConLoss for "
            "whole-batch, else triplet.",
            show_default=False,
        ),
    ] = None,
    loss_options: Annotated[
        list[str] | None,
        typer.Option(
            "--loss-option", metavar="NAME=VALUE", help="An argument of a pml loss; may be repeated."
        ),
    ] = None,
    miner: Annotated[
        str | None,
        typer.Option(
            metavar="pml:NAME",
            help="A miner of pytorch-metric-learning, for a pml loss.",
            show_default=False,
        ),
    ] = None,
    miner_options: Annotated[
        list[str] | None,
        typer.Option(
            "--miner-option", metavar="NAME=VALUE", help="An argument of the miner; may be repeated."
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="in-batch|from-set|from-any|balanced",
            help="How batches and triplets are drawn: in-batch as in the ECCV paper, from-set as in the ICCV "
            "paper, from-any as published for SOP, or balanced, equally many images of each class. Default: "
            "balanced for pml losses, act and hm, else in-batch.",
            show_default=False,
        ),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images of each class in a balanced batch. Default: 2, or more if there are few classes.",
        ),
    ] = None,
    defense: Annotated[
        str,
        typer.Option(
            metavar="none|est|suppress|madry|single-step|act|hm|whole-batch",
            help="The adversarial defence: est is the one of the ECCV paper; suppress, madry and single-step "
            "are from its appendix; act and hm are later publications; whole-batch is rankproof's own.",
        ),
    ] = "none",
    eps: Annotated[
        str | None,
        typer.Option(metavar="E", help="Perturbation budget of the defence. Default: as published."),
    ] = None,
    inner_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Attack steps of the defence. Default: as published; 3 with --fast."),
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(
            metavar="EPOCHS", help="Epochs over which the defence's eps grows. Default: 0; 3 with --fast."
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            metavar="",
            help="A schedule for machines without a GPU: fewer attack steps, smaller batches, warm-up. "
            "The record of the model says so.",
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Passes over the training split. Default: 30; 12 with --fast."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images in a batch. Default: 1000 for cosine, else 500, as "
            "published; 128 for large images; at most 200 with --fast.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Margin of the loss. Default: 1 for euclidean, 0.2 for cosine and sphere, as published.",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.")] = 1e-3,
    decay: Annotated[
        str | None,
        typer.Option(
            metavar="constant|cosine",
            help="Schedule of the learning rate; cosine falls to 0. Default: constant; cosine with --fast.",
        ),
    ] = None,
    shift: Annotated[
        int,
        typer.Option(metavar="PIXELS", help="Augment by random shifts of at most so many pixels."),
    ] = 0,
    flip: Annotated[
        bool, typer.Option("--flip", metavar="", help="Augment by mirroring half of the images.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Initial weights: safetensors, or a state dict saved by torch.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue the training in DIR after its last epoch.")
    ] = False,
    seed: Seed = 0,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="25m",
            help="Start no epoch that would end after this time: 90s, 25m, 1h.",
            show_default=False,
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", metavar="", help="Store the weights in half precision.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="single|bf16",
            help="Precision of the encoder's passes; bf16 is faster on most GPUs and some processors.",
        ),
    ] = "single",
    size: Size = None,
    split_by: SplitBy = "auto",
    device: Device = "auto",
) -> None:
    """Train an encoder, with or without an adversarial defence, and write it as a checkpoint.

    Trains on the train split and prints R@1 on the test split after each epoch. The checkpoint in DIR is
    model.safetensors and its record, model.json: architecture, distance, settings, seed, versions, R@1 and
    sha256. It is written after each epoch, together with log.csv, TensorBoard events, and state/, from which
    `--resume` continues bit for bit. A training that diverges or collapses is stopped. After that, and after
    Ctrl-C, the model of the last finished epoch remains.

    **Example**

    ```
    rankproof train --data fashion-mnist --time 25m --out runs/ct
    rankproof train --data fashion-mnist --defense est --fast --out runs/ctd
    torchrun --nproc-per-node 2 -m rankproof train --data fashion-mnist --out runs/two
    ```
    """
    arguments, finished = locals(), list[int]()
    with reported(lambda: _stopped(out, finished)):
        limit = duration(time)
        _check_numbers(arguments)
        writable(out)
        from rankproof.system import find_device
        from rankproof.training.group import join
        from rankproof.training.options import Options, recipe_of
        from rankproof.training.run import Run, train_checkpoint
        from rankproof.types import no_progress

        group, place = join(find_device(device))
        log = say if group.leads else (lambda line: None)
        splits: dict[str, Dataset] = {}
        for split in ("train", "test"):
            splits[split] = _read(split, data, size, split_by)
            log(splits[split].note)
        arch = arch or _arch_for(splits["train"])
        # The parameters above that make up a recipe have the names of the fields of `Options`.
        chosen = {field.name: arguments[field.name] for field in fields(Options)}
        options = Options(**{name: value for name, value in chosen.items() if value is not None})
        recipe = recipe_of(options, splits["train"], arch, place)
        run = Run(
            data=splits["train"],
            test=splits["test"],
            arch=arch,
            recipe=recipe,
            out=out,
            weights=weights,
            resume=resume,
            half=half,
            device=place,
            time_limit=limit,
        )
        with progress("training") if group.leads else nullcontext(no_progress) as show:
            history = train_checkpoint(
                run,
                group=group,
                on_batch=within(limit, show),
                on_epoch=lambda epoch: finished.append(_print_epoch(epoch, recipe.epochs)),
                say=log,
            )
        if group.leads:
            echo(f"{out}: R@1 {history[-1].recall_at_1:.1f} % after {len(history)} epochs")


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers out of range before torch is imported."""
    for option in ("epochs", "batch", "inner-steps"):
        at_least_one(option, arguments[option.replace("-", "_")])
    for option in ("margin", "learning-rate", "warm-up"):
        not_below_zero(option, arguments[option.replace("-", "_")])


def _read(split: str, data: str, size: int | None, split_by: str) -> "Dataset":
    """One split of a data set."""
    from rankproof.data import load
    from rankproof.system import as_split_by

    with progress("reading images") as show:
        return load(data, split, size=size, split_by=as_split_by(split_by), root=data_root(), progress=show)


def _arch_for(dataset: "Dataset") -> str:
    """The first architecture that takes the images."""
    from rankproof.models.architectures import ARCHITECTURES

    form = tuple(dataset.images.shape[1:])
    for name, architecture in ARCHITECTURES.items():
        if architecture.takes(form):
            return name
    names = ", ".join(f"{name} ({entry.input_text})" for name, entry in ARCHITECTURES.items())
    raise RankproofError(
        f"no encoder is made for the {'x'.join(map(str, form))} images of {dataset.name}; known: {names}"
    )


def _print_epoch(epoch: "Epoch", epochs: int) -> int:
    """Print the line of an epoch; returns its number."""
    place = f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}"
    with suppress(RankproofError, typer.Exit):  # nobody reads it: the training goes on
        echo(f"{place}  loss {epoch.loss:.4f}  R@1 {epoch.recall_at_1:.1f} %  {epoch.seconds:.0f} s")
    return epoch.number


def _stopped(out: Path, finished: list[int]) -> str:
    left = f"{out} holds the model after epoch {finished[-1]}" if finished else "nothing was written"
    return f"{left}; the same command starts again from the beginning"
