"""`rankproof reproduce`: a table or figure of the papers, or an experiment of our own, measured again."""

from pathlib import Path
from typing import Annotated

import typer

from rankproof.cli.options import AsJson, Device, DryRun, data_root
from rankproof.cli.output import echo
from rankproof.cli.terminal import as_typed, at_least_one, print_json, progress, reported, say, writable
from rankproof.errors import RankproofError


def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            metavar="PAPER/TABLE",
            help="A table or figure, such as eccv20/table3, iccv21/figure3 or own/stronger.",
            show_default=False,
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Number of attacks behind every cell. Default: as the recipe says.",
            show_default=False,
        ),
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only cells with this part in their names, such as ct, ca+, or ct,cc for either; may be "
            "repeated, then all must match.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(metavar="published|strong", help="The papers' method, or rankproof's own beside it."),
    ] = "published",
    published_schedule: Annotated[
        bool,
        typer.Option(
            "--published-schedule",
            metavar="",
            help="Train defended models as published, which takes hours. Default: by the fast schedule, and "
            "every row says so.",
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="single|bf16",
            help="Precision of the encoder's passes in a training; bf16 is faster on most GPUs and some "
            "processors. Attacks always run in single precision.",
        ),
    ] = "single",
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="The path of a data set of the recipe; may be repeated."),
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
        typer.Option(
            metavar="DIR",
            help="Folder of recipes. Default: those that come with rankproof.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder the table is written to. Default: runs/reproduce/PAPER-TABLE.",
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
        typer.Option(metavar="N", help="Processes that train and attack side by side and share the cores."),
    ] = 1,
    dry_run: DryRun = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a table or figure of the papers again and compare it with the published figures.

    Trains the models that the recipe names, unless they exist already, and measures every cell of the table.
    A finished cell is appended to records/PAPER/TABLE.jsonl at once and never measured again, and models are
    kept in runs/models, so the same command resumes an interrupted run. Writes table.md, table.tex, table.csv
    and table.json; for a figure, figure.md, figure.json and the images; for one of rankproof's own
    experiments (own/NAME), results.md and results.json.

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
        echo(f"{made.title}\n{made.summary}\n{work.out / made.page}")


def _pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """The places in NAME=PLACE by their names."""
    places = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not (name and equals and place):
            raise RankproofError(f"--{option} {pair}: expected NAME=PATH, such as ct=runs/ct")
        places[name] = place
    return places
