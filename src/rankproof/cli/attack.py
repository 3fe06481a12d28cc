"""`rankproof attack`: the ranking attacked in one way."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankproof.cli.asked import Asked
from rankproof.cli.attack_model import attack_model
from rankproof.cli.attack_service import (
    AdapterFile,
    Authorised,
    Cap,
    Concurrency,
    KeyEnv,
    KeyFile,
    PerSecond,
    Query,
    Service,
    attack_service,
    key_of,
)
from rankproof.cli.goal import G, GoalName, K, M, Order, W, Xi, goal_of
from rankproof.cli.kinds import check_kind, left_out
from rankproof.cli.method import MethodName, SpaceName, Steps, method_of, space_of
from rankproof.cli.opening import opened
from rankproof.cli.options import (
    MODEL,
    AsJson,
    Crop,
    Data,
    Device,
    Divide,
    Eps,
    Jpeg,
    Resize,
    Seed,
    Size,
    Trials,
    Trust,
)
from rankproof.cli.visible import Visible
from rankproof.console import at_least_one, print_attack, print_json, progress, reported, say, writable
from rankproof.errors import RankproofError

MOST_QUERIES = 1_000_000


def attack(
    goal: GoalName,
    eps: Eps,
    model: Annotated[str | None, MODEL] = None,
    data: Data = None,
    service: Service = None,
    query: Query = None,
    trials: Trials = None,
    seed: Seed = 0,
    method: MethodName = None,
    steps: Steps = None,
    visible: Visible = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="Q",
            help="Black box: pictures sent in each attack at most, the clean one included. Left out: 1000; "
            "100 to a live service.",
            show_default=False,
        ),
    ] = None,
    space: SpaceName = None,
    grid: Annotated[
        bool | None,
        typer.Option(
            "--grid/--no-grid",
            metavar="",
            help="Only allow 8-bit images, as files hold them. Left out: yes for auto, no as published.",
            show_default=False,
        ),
    ] = None,
    w: W = None,
    m: M = None,
    k: K = None,
    order: Order = None,
    g: G = None,
    xi: Xi = None,
    own_copy: Annotated[
        str,
        typer.Option(
            metavar="keep|drop", help="Whether an attacked picture's own clean copy counts in rankings."
        ),
    ] = "keep",
    device: Device = "auto",
    as_json: AsJson = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Black box: keep the search here; after Ctrl-C the same command goes on from there. Left "
            "out: nowhere; below runs/wire for a live service.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write attack.npz (original, adversarial, index, targets, figures) and result.json; the "
            "adversarial PNGs too for a live service.",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    divide: Divide = "auto",
    jpeg: Jpeg = None,
    resize: Resize = None,
    crop: Crop = None,
    trust: Trust = False,
    adapter: AdapterFile = None,
    key_env: KeyEnv = None,
    key_file: KeyFile = None,
    concurrency: Concurrency = None,
    per_second: PerSecond = None,
    cap: Cap = None,
    authorised: Authorised = None,
) -> None:
    """Attack the ranking in one way and tell how far it moved.

    The gallery is the whole test split; T of its pictures are attacked, each once. Ranks are in % of the
    gallery, 0 is first; an order is measured by Kendall's tau, 1 is the wanted one. The goals:

    - **ca+, ca-**: change an item so that it rises, or sinks, for w queries
    - **qa+, qa-**: change a query so that m chosen items rise, or sink
    - **sp-qa+, sp-qa-**: the same, while the g best other results stay in place
    - **oa**: change a query so that its k best results come in a chosen order
    - **shift**: change a picture so that its embedding moves as far as it can
    - **mismatch, nearest-other**: draw a query to a random item, to the nearest one of another class
    - **misrank, top4**: bring other classes before its own, push its nearest item out of the first four

    With --visible, --budget or a method without gradients, oa is a black-box attack: the attacker sees only
    the order of the first N results, and sends at most Q pictures in each attack.

    With --target the black box is a running service. Every answer is kept: after Ctrl-C, or when a quota is
    used up, the same command goes on and asks nothing twice. Test services that you own or may test.

    **Example**

    ```
    rankproof attack --goal qa+ --m 1 --eps 8/255 --model runs/digits/model --trials 100
    rankproof attack --goal oa --k 5 --eps 4/255 --model runs/digits/model --json
    rankproof attack --goal oa --visible 50 --budget 1000 --eps 4/255 --model runs/digits/model --trials 50
    rankproof attack --goal oa --target http://127.0.0.1:8000/search --query photo.png --eps 4/255
    ```
    """
    live = service is not None or adapter is not None
    seen = live or visible is not None or budget is not None
    word = method or ("auto" if seen else "pgd")
    with reported(lambda: _stopped(word, journal, live=live)):
        counts = {"trials": trials, "steps": steps, "budget": budget, "concurrency": concurrency, "cap": cap}
        for option, number in counts.items():
            at_least_one(option, number)
        if budget is not None and budget > MOST_QUERIES:
            raise RankproofError(f"--budget must be at most {MOST_QUERIES:,}, since every score is kept")
        for folder in (save, journal):
            if folder is not None:
                writable(folder)
        from rankproof.data.load import EMBEDDED
        from rankproof.methods import BlackBox
        from rankproof.threat import Threat, parse_eps

        wanted, how = goal_of(goal, w=w, m=m, k=k, g=g, xi=xi, order=order), method_of(word, goal, steps)
        given: dict[str, Any] = {"target": service, "adapter": adapter, "method": method, "visible": visible}
        given |= {"budget": budget, "space": space, "journal": journal, "steps": steps, "xi": xi}
        check_kind(wanted, how, given)
        if own_copy not in ("keep", "drop"):
            raise RankproofError(f"--own-copy must be keep or drop, got {own_copy!r}")
        on_grid = isinstance(how, BlackBox) and how.grid
        asked = Asked(
            goal=wanted,
            method=how,
            space=space_of(space),
            threat=Threat(parse_eps(eps), grid=on_grid if grid is None else grid),
            visible=visible,
            budget=budget,
            seed=seed,
            journal=journal,
        )
        show = print_json if as_json else print_attack
        if live:
            of_model = {"model": model, "data": data, "trials": trials, "size": size, "grid": grid}
            of_model |= {"resize": resize, "crop": crop, "jpeg": jpeg, "trust": trust or None}
            left_out("a model, and --target is a running service", of_model)
            visited = attack_service(
                asked,
                url=service,
                adapter=adapter,
                key=key_of(key_env, key_file),
                places=query or [],
                concurrency=concurrency,
                per_second=per_second,
                cap=cap,
                authorised=authorised,
            )
            if save is not None:
                visited.save(save)
            show(visited.cell)
            return
        of_service: dict[str, Any] = {"query": query, "key-env": key_env, "key-file": key_file, "cap": cap}
        of_service |= {"concurrency": concurrency, "per-second": per_second, "i-am-authorised": authorised}
        left_out("a running service, which --target names", of_service)
        if model is None:
            raise RankproofError("--model: name what is attacked, or a running service by --target")
        subject = opened(model, data, device, size, divide, trust=trust, resize=resize, crop=crop, jpeg=jpeg)
        target = subject.embedded(progress)
        say(target.dataset.note)
        result, costs = attack_model(target, asked, trials, order=order, own_copy=own_copy)
        context: dict[str, Any] = {"model": model, "data": data or EMBEDDED, **costs}
        if save is not None:
            result.save(save, **context)
        show(result.cell(**context))


def _stopped(method: str, journal: Path | None, *, live: bool) -> str:
    if live:
        return "every answer is kept; the same command goes on from there"
    if method in ("pgd", "strong"):
        return "nothing was written; the same command starts the attack again"
    if journal is None:
        return "nothing was kept; with --journal DIR the same command would go on where it stopped"
    return f"the search is kept in {journal}; the same command goes on from there"
