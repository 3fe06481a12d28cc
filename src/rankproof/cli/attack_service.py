"""An attack on a running service: the options that are about it, and the attack."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.asked import Asked
from rankproof.cli.visible import shown_of
from rankproof.console import progress, say
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.wire.report import Visited

Service = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="URL", help="Attack a running service instead of a model.", show_default=False
    ),
]
Query = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE|DIR",
        help="Live service: a picture to attack, or a folder of some; may be repeated.",
        show_default=False,
    ),
]
AdapterFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Live service: a TOML file that says how it is called and where the ids are in its answers. "
        "Left out: as `rankproof serve`.",
        show_default=False,
    ),
]
KeyEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Live service: the variable of the environment that holds its key.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Live service: the file that holds its key.", show_default=False),
]
Concurrency = Annotated[
    int | None, typer.Option(metavar="N", help="Live service: calls under way at once. Left out: 4.")
]
PerSecond = Annotated[
    float | None,
    typer.Option(metavar="X", help="Live service: calls in a second. Left out: as it allows."),
]
Cap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Live service: most calls in all, repeated ones too. Left out: a little above the budgets.",
    ),
]
Authorised = Annotated[
    str | None,
    typer.Option(
        "--i-am-authorised",
        metavar="TEXT",
        help="Who allowed the test and why. Needed outside loopback and private addresses; it is reported.",
        show_default=False,
    ),
]


def attack_service(
    asked: Asked,
    *,
    url: str | None,
    adapter: Path | None,
    key: str | None,
    places: list[Path],
    concurrency: int | None,
    per_second: float | None,
    cap: int | None,
    authorised: str | None,
) -> "Visited":
    """Attack a running service with one picture after the other; the arguments are those of `Visit`."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox
    from rankproof.wire.pace import CONCURRENCY, Pace
    from rankproof.wire.run import BUDGET, Visit, visit

    assert isinstance(asked.goal, Reorder)  # `check_kind` saw to it
    assert isinstance(asked.method, BlackBox)
    plan = Visit(
        url=url,
        adapter=adapter,
        key=key,
        environment=os.environ,
        places=places,
        goal=asked.goal,
        method=asked.method,
        space=asked.space,
        seed=asked.seed,
        budget=asked.budget or BUDGET,
        eps=asked.threat.eps,
        visible=shown_of(asked.visible, asked.goal.k),
        pace=Pace(concurrency=concurrency or CONCURRENCY, per_second=per_second),
        cap=cap,
        authorised=authorised,
        journal=asked.journal,
    )
    with progress("attacking", "queries") as tell:
        return visit(plan, say, tell)


def key_of(variable: str | None, file: Path | None) -> str | None:
    """The key of a service, from the environment or from a file; never from the command line itself."""
    if variable is not None and file is not None:
        raise RankproofError("--key-env and --key-file both name a key; leave one out")
    if variable is not None and variable not in os.environ:
        raise RankproofError(f"--key-env {variable}: there is no such variable in the environment")
    if variable is not None:
        return os.environ[variable]
    return None if file is None else file.read_text().strip()
