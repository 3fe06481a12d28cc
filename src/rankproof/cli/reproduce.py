"""`rankproof reproduce`: a table or figure of the papers, or an experiment of our own, measured again."""

from pathlib import Path
from typing import Annotated

import typer

from rankproof.cli.options import AsJson, Device, DryRun, data_root
from rankproof.cli.terminal import as_typed, at_least_one, print_json, progress, reported, say, writable
from rankproof.errors import RankproofError


def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            metavar="PAPER/TABLE",
            help="Such as eccv20/table3, iccv21/figure3 or own/stronger.",
            show_default=False,
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T", help="Attacks of every cell. Left out: as the recipe says.", show_default=False
        ),
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only cells with this part in their names, such as ct, ca+, or ct,cc for either; "
            "may be repeated.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="published|strong", help="The papers' search, or ours beside it.")
    ] = "published",
    published_schedule: Annotated[
        bool,
        typer.Option(
            "--published-schedule",
            metavar="",
            help="Train defended models as published, which takes hours. Left out: the fast schedule, and "
            "every row says so.",
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="single|bf16",
            help="Of the encoder's passes in a training; bf16 is faster on most GPUs and some processors. "
            "Attacks are single.",
        ),
    ] = "single",
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where a data set of the recipe is; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A checkpoint for a model of the recipe, taken as it is and labelled so; may be repeated.",
        ),
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of recipes. Left out: the papers'.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the table goes. Left out: runs/reproduce/PAPER-TABLE.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save",
            metavar="",
            help="Also keep attack.npz and result.json of each cell that is run, in DIR/attacks.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(metavar="N", help="Processes that train and attack side by side, the cores shared out."),
    ] = 1,
    dry_run: DryRun = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a table or figure of the papers again, with our figures beside the published ones.

    Trains the models that are named, or takes those that exist, and runs every cell. A finished cell is
    appended to records/PAPER/TABLE.jsonl at once and never run again, and models are kept in runs/models:
    whatever stops the command, the same one goes on from there. Writes table.md, table.tex, table.csv and
    table.json; of a figure figure.md, figure.json and the images; of an experiment of our own (own/NAME,
    of which nothing is printed) results.md and results.json.

    **Example**

    ```
    rankproof reproduce eccv20/table3 --dry-run
    rankproof reproduce eccv20/table3 --cells ct --cells w1,m1 --trials 300 --workers 2
    rankproof reproduce eccv20/figure2
    rankproof reproduce iccv21/table1 --method strong --data sop=/data/sop
    rankproof reproduce own/stronger
    ```
    """
    with reported("finished cells and epochs are kept; the same command goes on from there"):
        at_least_one("trials", trials)
        at_least_one("workers", workers)
        if method not in ("published", "strong"):
            raise RankproofError(f"--method must be published or strong, got {method!r}")
        if out is not None:
            writable(out)
        from rankproof.reproduction.runner import Reproduction, ReproductionRequest

        request = ReproductionRequest(
            word=table,
            recipes=recipes,
            trials=trials,
            words=cells or [],
            method=method,
            out=out,
            workers=workers,
            device=device,
            published_schedule=published_schedule,
            precision=precision,
            paths=_pairs("data", data or []),
            checkpoints=_pairs("model", model or []),
            root=data_root(),
            save=save,
            command=as_typed(),
            log=say,
        )
        work = Reproduction(request, stage=progress)
        todo = work.estimate()
        for line in todo.lines():
            say(line)
        if dry_run:
            if as_json:
                print_json(todo.as_dict())
            return
        made = work.run(todo)
        if as_json:
            print_json(made.as_dict())
            return
        typer.echo(f"{made.title}\n{made.summary}\n{work.out / made.page}")


def _pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """The places in NAME=PLACE by their names."""
    places = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not (name and equals and place):
            raise RankproofError(f"--{option} {pair}: expected NAME=PATH, such as ct=runs/ct")
        places[name] = place
    return places
