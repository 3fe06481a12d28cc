"""`rankproof evaluate`: how well a model retrieves, and how much of that is left under attack."""

from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rankproof.cli.options import AsJson, Seed, SystemArguments, Trials
from rankproof.cli.terminal import at_least_one, print_json, progress, reported, say
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.io import JsonObject


def evaluate(
    system: SystemArguments,
    eps: Annotated[
        str | None,
        typer.Option(
            metavar="E",
            help="Perturbation budget: the largest change of a pixel, as 8/255 or 0.03. Default: as "
            "published, 77/255 for images of up to 32 pixels a side and 8/255 for larger ones.",
            show_default=False,
        ),
    ] = None,
    trials: Trials = None,
    seed: Seed = 0,
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", metavar="", help="Measure retrieval only, without attacks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how well a model retrieves, and its robustness score.

    Computes R@1, 2, 4 and 8, mAP, mAP@R and NMI over the whole test split, with each item as the query and
    the others as the gallery. Then computes the empirical robustness score (ERS): T images are attacked in
    nine ways, and the score is the mean of ten terms from 0 to 100 %; higher is more robust.

    **Example**

    ```
    rankproof evaluate --model runs/digits/model --trials 200
    rankproof evaluate --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 8/255 --json
    ```
    """
    with reported("nothing was written; the same command starts the evaluation again"):
        at_least_one("trials", trials)
        for option, value in (("eps", eps), ("trials", trials)):
            if no_robustness and value is not None:
                raise RankproofError(f"--{option} is about attacks; leave it or --no-robustness out")
        begin = perf_counter()
        from rankproof.evaluation import accuracy, robustness_score
        from rankproof.evaluation.report import as_json as plain
        from rankproof.evaluation.robustness import TRIALS
        from rankproof.io import versions
        from rankproof.threat import parse_eps

        budget = None if eps is None else parse_eps(eps)
        target = system.embed()
        gallery, attacked = target.gallery, None
        with progress("measuring retrieval") as tell:
            retrieval = accuracy(gallery, seed, progress=tell)
        if not no_robustness:
            with progress("attacking") as tell:
                attacked = robustness_score(
                    gallery,
                    target.dataset.images,
                    eps=budget,
                    trials=trials or TRIALS,
                    seed=seed,
                    progress=tell,
                )
            if trials is not None and trials > attacked.trials:
                say(f"{trials} trials were asked for: all {attacked.trials} images that fit are attacked")
        report = plain(
            retrieval,
            attacked,
            model=system.model,
            data=system.data_name,
            gallery_size=len(gallery),
            device=gallery.ranker.device.type,
            seconds=perf_counter() - begin,
            versions=versions(),
        )
        examination = gallery.ranker.examination
        report["examination"] = None if examination is None else examination.to_json()
        if as_json:
            print_json(report)
        else:
            _print(report)


def _print(report: "JsonObject") -> None:
    """The figures as a table, with flags and notes."""
    from rankproof.evaluation.report import TERMS, evaluation_table
    from rankproof.report.format import number_text
    from rankproof.threat import format_eps

    if report["method"] is not None:
        how = (
            f"{report['method']}, {report['steps']} steps, {report['trials']:,} trials, seed {report['seed']}"
        )
        typer.echo(f"attacked within {format_eps(report['eps'])}: {how}")
    Console().print(evaluation_table(report))
    if report["examination"] is not None:
        typer.echo(f"the encoder: {report['examination']['line']}")
    if report["unchanged"] is not None:
        again = ", ".join(
            f"{TERMS[name]} {number_text(value)} %" for name, value in report["unchanged"].items()
        )
        typer.echo(f"untouched images, drawn again: {again}")
    for flag in report["flags"]:
        typer.echo(f"flag: {flag['cell'] or 'the model'}: {flag['text']}")
    for note in report["notes"]:
        typer.echo(f"note: {note}")
