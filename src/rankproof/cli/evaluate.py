"""`rankproof evaluate`: how well a model retrieves, and how much of that is left under attack."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import AsJson, SearchedArguments, Seed, Trials
from rankproof.cli.output import echo, print_table
from rankproof.cli.terminal import at_least_one, print_json, progress, reported, say, writable
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.io import JsonObject


ITEMS_ATTACKED = (
    "ERS attacks gallery items, each searched for among all others; queries and cameras play no part in it"
)


def evaluate(
    system: SearchedArguments,
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
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the object of --json to this file.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure how well a model retrieves, and its robustness score.

    Computes R@1, 2, 4 and 8, mAP, mAP@R and NMI over the whole test split, with each item as the query and
    the others as the gallery; with --queries, and in data with queries of its own as Market-1501, each query
    is searched for in the gallery. Then computes the empirical robustness score (ERS): T images are attacked
    in nine ways, and the score is the mean of ten terms from 0 to 100 %; higher is more robust.

    **Example**

    ```
    rankproof evaluate --model runs/digits/model --trials 200 --out runs/digits/evaluation.json
    rankproof evaluate --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 8/255 --json
    rankproof evaluate --model hf:vit --data shop --queries uploads --no-robustness
    ```
    """
    with reported("nothing was written; the same command starts the evaluation again"):
        at_least_one("trials", trials)
        for option, value in (("eps", eps), ("trials", trials)):
            if no_robustness and value is not None:
                raise RankproofError(f"--{option} is about attacks; leave it or --no-robustness out")
        if out is not None:
            if out.is_dir():
                raise RankproofError(f"--out {out}: is a folder; name a file in it")
            writable(out.parent)
        begin = perf_counter()
        from rankproof.evaluation import accuracy, robustness_score
        from rankproof.evaluation.report import as_json as plain
        from rankproof.evaluation.robustness import TRIALS
        from rankproof.io import versions, write_json
        from rankproof.threat import parse_eps

        budget = None if eps is None else parse_eps(eps)
        target = system.embed(labelled=True)
        gallery, attacked = target.gallery, None
        with progress("measuring retrieval") as tell:
            retrieval = accuracy(gallery, seed, queries=target.queries, progress=tell)
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
            if target.queries is not None:
                attacked = replace(attacked, notes=(*attacked.notes, ITEMS_ATTACKED))
            if trials is not None and trials > attacked.trials:
                say(f"{trials} trials were asked for: all {attacked.trials} images that fit are attacked")
        report = plain(
            retrieval,
            attacked,
            model=system.model,
            data=system.data or target.dataset.name,
            gallery_size=len(gallery),
            device=gallery.ranker.device.type,
            seconds=perf_counter() - begin,
            versions=versions(),
        )
        examination = gallery.ranker.examination
        report["notes"] += target.notes
        report["examination"] = None if examination is None else examination.to_json()
        if out is not None:
            write_json(out, report, indent=2, allow_nan=False)
        if as_json:
            print_json(report)
            return
        _print(report)
        if out is not None:
            echo(f"written to {out}")


def _print(report: "JsonObject") -> None:
    """The figures as a table, with flags and notes."""
    from rankproof.evaluation.report import TERMS, evaluation_table
    from rankproof.report.format import number_text
    from rankproof.threat import format_eps

    if report["method"] is not None:
        how = (
            f"{report['method']}, {report['steps']} steps, {report['trials']:,} trials, seed {report['seed']}"
        )
        echo(f"attacked within {format_eps(report['eps'])}: {how}")
    print_table(evaluation_table(report))
    if report["examination"] is not None:
        echo(f"the encoder: {report['examination']['line']}")
    if report["unchanged"] is not None:
        again = ", ".join(
            f"{TERMS[name]} {number_text(value)} %" for name, value in report["unchanged"].items()
        )
        echo(f"untouched images, drawn again: {again}")
    for flag in report["flags"]:
        echo(f"flag: {flag['cell'] or 'the model'}: {flag['text']}")
    for note in report["notes"]:
        echo(f"note: {note}")
