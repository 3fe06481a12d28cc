"""`rankproof evaluate`: how well a model retrieves, and how much of that is left under attack."""

from time import perf_counter
from typing import Annotated, Any

import typer
from rich.console import Console

from rankproof.cli.opening import opened
from rankproof.cli.options import (
    AsJson,
    Crop,
    Data,
    Device,
    Divide,
    Jpeg,
    Model,
    Resize,
    Seed,
    Size,
    Trials,
    Trust,
)
from rankproof.console import at_least_one, print_json, progress, reported, say
from rankproof.errors import RankproofError


def evaluate(
    model: Model,
    data: Data = None,
    eps: Annotated[
        str | None,
        typer.Option(
            metavar="E",
            help="The largest change of a pixel, as 8/255 or 0.03. Left out, as published: 77/255 for "
            "pictures of up to 32 pixels a side, 8/255 for larger ones.",
            show_default=False,
        ),
    ] = None,
    trials: Trials = None,
    seed: Seed = 0,
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", metavar="", help="Measure retrieval only, attack nothing.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
    size: Size = None,
    divide: Divide = "auto",
    jpeg: Jpeg = None,
    resize: Resize = None,
    crop: Crop = None,
    trust: Trust = False,
) -> None:
    """Measure how well a model retrieves, and how much of that is left under attack.

    R@1, 2, 4 and 8, mAP, mAP@R and NMI of the whole test split, each item searched for among the others. Then
    the empirical robustness score (ERS): nine attacks on T pictures, ten terms from 0 to 100 %, their mean;
    higher is more robust.

    **Example**

    ```
    rankproof evaluate --model runs/digits/model --trials 200
    rankproof evaluate --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 8/255 --json
    ```
    """
    with reported("nothing was written; the same command starts the evaluation again"):
        at_least_one("trials", trials)
        for option, given in (("eps", eps), ("trials", trials)):
            if no_robustness and given is not None:
                raise RankproofError(f"--{option} is about attacks; leave it or --no-robustness out")
        begin = perf_counter()
        from rankproof.data.load import EMBEDDED
        from rankproof.evaluation import accuracy, robustness_score
        from rankproof.evaluation.report import as_json as plain
        from rankproof.evaluation.robustness import TRIALS
        from rankproof.threat import parse_eps
        from rankproof.versions import versions

        budget = None if eps is None else parse_eps(eps)
        subject = opened(model, data, device, size, divide, trust=trust, resize=resize, crop=crop, jpeg=jpeg)
        target = subject.embedded(progress)
        say(target.dataset.note)
        gallery, attacked = target.gallery, None
        with progress("measuring retrieval") as tell:
            retrieval = accuracy(gallery, seed, progress=tell)
        if not no_robustness:
            with progress("attacking") as tell:
                attacked = robustness_score(
                    gallery,
                    target.dataset.pictures,
                    eps=budget,
                    trials=trials or TRIALS,
                    seed=seed,
                    progress=tell,
                )
            if trials is not None and trials > attacked.trials:
                say(f"{trials} trials were asked for: all {attacked.trials} pictures that fit are attacked")
        told = plain(
            retrieval,
            attacked,
            model=model,
            data=data or EMBEDDED,
            gallery_size=len(gallery),
            device=gallery.ranker.device.type,
            seconds=perf_counter() - begin,
            versions=versions(),
        )
        if as_json:
            print_json(told)
        else:
            _print(told)


def _print(told: dict[str, Any]) -> None:
    """What `--json` would print, as a table for people, with what they should know about it."""
    from rankproof.evaluation.report import table_text
    from rankproof.threat import format_eps

    if told["method"] is not None:
        how = f"{told['method']}, {told['steps']} steps, {told['trials']:,} trials, seed {told['seed']}"
        typer.echo(f"attacked within {format_eps(told['eps'])}: {how}")
    Console().print(table_text(told))
    for flag in told["flags"]:
        typer.echo(f"flag: {flag['cell'] or 'the model'}: {flag['text']}")
    for note in told["notes"]:
        typer.echo(f"note: {note}")
