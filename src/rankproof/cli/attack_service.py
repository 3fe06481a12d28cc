"""`rankproof attack-service`: the order attack on a running service."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from rankproof.cli.options import (
    BLACK_BOX,
    AsJson,
    BlackBoxArguments,
    Eps,
    GoalArguments,
    K,
    Seed,
    WantedOrder,
    about_option,
    parse_visible,
)
from rankproof.cli.terminal import (
    at_least_one,
    print_attack,
    print_json,
    progress,
    reported,
    say,
    writable,
)
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.goals import Reorder


@dataclass(frozen=True, kw_only=True)
class ServiceArguments:
    """The options that say which service is attacked, how it is called and how fast."""

    PANEL: ClassVar = "Service"

    target: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the service. Default: that of the adapter.",
            show_default=False,
        ),
    ] = None
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file that says how the service is called and where its answers have the ids. "
            "Default: as for `rankproof serve`.",
            show_default=False,
        ),
    ] = None
    key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The environment variable that holds your key for the service.",
            show_default=False,
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file that holds your key for the service.",
            show_default=False,
        ),
    ] = None
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", help="Largest number of calls in flight. Default: 4."),
    ] = None
    per_second: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest number of calls per second. Default: no limit but that of the service.",
        ),
    ] = None
    cap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Largest number of calls in all, retries included. Default: the budgets of all images, a "
            "tenth of them, two for each image, and 20.",
        ),
    ] = None
    i_am_authorised: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Who allowed the test and why. Required unless the address is loopback or private; the "
            "result quotes it.",
            show_default=False,
        ),
    ] = None

    def key(self) -> str | None:
        """The key, from the environment or from a file; never from the command line itself."""
        if self.key_env is not None and self.key_file is not None:
            raise RankproofError("--key-env and --key-file both name a key; leave one out")
        if self.key_env is not None and self.key_env not in os.environ:
            raise RankproofError(f"--key-env {self.key_env}: there is no such variable in the environment")
        if self.key_env is not None:
            return os.environ[self.key_env]
        return None if self.key_file is None else self.key_file.read_text().strip()


def attack_service(
    goal: Annotated[
        str,
        typer.Option(
            metavar="oa",
            help="What the attacker wants: oa, the only goal that is measured by the order of results alone.",
            show_default=False,
        ),
    ],
    eps: Eps,
    service: ServiceArguments,
    black_box: BlackBoxArguments,
    query: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="An image to attack, or a folder of images; may be repeated.",
            show_default=False,
        ),
    ] = None,
    k: K = None,
    order: WantedOrder = None,
    seed: Seed = 0,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help=f"How the attacker searches: {BLACK_BOX}.",
        ),
    ] = "auto",
    as_json: AsJson = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the adversarial PNGs, strips.json, attack.npz and result.json.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Attack a running search service and report how far the order of its results moved.

    Runs the order attack (oa) on your images, one after the other. The attacker sends images and reads lists
    of ids in the answers; nothing else is known about the service. Every answer is stored: after Ctrl-C, or
    when a quota is used up, the same command resumes and sends no image twice.

    Test services that you own or may test.

    **Example**

    ```
    rankproof attack-service --target http://127.0.0.1:8000/search --query photo.png --goal oa --eps 4/255
    rankproof attack-service --adapter shop.toml --key-env SHOP_KEY --query photos --goal oa --k 5 --eps 4/255
    ```
    """
    with reported("every answer is kept; the same command goes on from there"):
        at_least_one("concurrency", service.concurrency)
        at_least_one("cap", service.cap)
        black_box.check()
        writable(save)
        from rankproof.methods.registry import parse_black_box
        from rankproof.threat import parse_eps
        from rankproof.wire.attack import BUDGET, ServiceAttack
        from rankproof.wire.attack import attack_service as run
        from rankproof.wire.rate_limit import CONCURRENCY, RateLimit

        wanted = _order_goal(GoalArguments(goal=goal, k=k, order=order))
        with about_option():
            search = parse_black_box(method)
        request = ServiceAttack(
            url=service.target,
            adapter=service.adapter,
            key=service.key(),
            environment=os.environ,
            queries=query or [],
            goal=wanted,
            method=search,
            subspace=black_box.subspace,
            seed=seed,
            budget=black_box.budget or BUDGET,
            eps=parse_eps(eps),
            visible=_visible(black_box.visible, wanted.k),
            rate_limit=RateLimit(
                concurrency=service.concurrency or CONCURRENCY, per_second=service.per_second
            ),
            cap=service.cap,
            authorised=service.i_am_authorised,
            journal=black_box.journal,
        )
        with progress("attacking", "queries") as tell:
            result = run(request, say, tell)
        if save is not None:
            result.save(save)
        if as_json:
            print_json(result.to_json())
        else:
            print_attack(result.summary)


def _order_goal(options: GoalArguments) -> "Reorder":
    """The order goal; a list of results shows nothing that another goal could be measured by."""
    from rankproof.goals import Reorder

    goal = options.parse()
    if not isinstance(goal, Reorder):
        raise RankproofError(
            f"--goal {options.goal} needs more than the order of results, which is all that a service shows; "
            f"choose --goal oa"
        )
    return goal


def _visible(text: str | None, k: int) -> int | None:
    """How many results of the service count; None is as many as it answers."""
    if text == "inf":
        raise RankproofError("--visible inf: a running service shows no whole ranking; write a number")
    return None if text is None else parse_visible(text, k)
