"""`rankproof audit`: every attack on one model, as a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import AsJson, DryRun, Eps, SearchedArguments, Seed
from rankproof.cli.output import echo, print_table
from rankproof.cli.terminal import (
    as_typed,
    at_least_one,
    duration,
    print_json,
    progress,
    reported,
    say,
    spoken,
    writable,
)

if TYPE_CHECKING:
    from rankproof.system import RetrievalSystem

JOURNAL = "audit.jsonl"


def audit(
    system: SearchedArguments,
    eps: Eps,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder the report is written to.", show_default=False)
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Number of attacks behind each headline figure. Default: 1000.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="10m",
            help="Choose the number of trials by time instead: 90s, 10m, 1h. Black-box attacks send fewer "
            "than 1,000 queries where these would take more than half of it.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the standard set of attacks on a model, white box and black box, and write a report.

    Every goal of the papers is attacked at the given eps, by the strong method and by the published PGD as
    reference, with curves over eps from 0 to 16/255 (to 4/255 where at most 2/255 is audited); then the order
    attack runs as a black box. Writes report.html, report.json and images to DIR. Finished figures are saved
    in DIR/audit.jsonl: after Ctrl-C the same command resumes from there.

    **Example**

    ```
    rankproof audit --eps 1/255 --time 150s --out runs/groceries
    rankproof audit --model runs/digits/model --eps 8/255 --out runs/digits
    rankproof audit --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 4/255 --time 9m --out runs/f
    ```
    """
    with reported(f"finished figures are kept in {out / JOURNAL}; the same command goes on from there"):
        at_least_one("trials", trials)
        limit = duration(time)
        writable(out)
        import torch

        from rankproof.audit import AuditOptions, plan
        from rankproof.audit import audit as run
        from rankproof.audit.completed_tasks import stopped_sizes
        from rankproof.report.page import audit_table, grouped
        from rankproof.threat import Threat, parse_eps

        threat = Threat(parse_eps(eps))
        target = system.embed(one_size=True)
        gallery, images = target.gallery, target.attacked.one_size().images
        queries: int | None = None
        if limit is not None and trials is None and (before := stopped_sizes(out / JOURNAL)):
            (trials, queries), limit = before, None
            kept = f"going on with the {trials} trials of the stopped audit"
            say(f"{kept}; remove {out / JOURNAL} to plan anew")
        with progress("timing passes and queries"):
            todo = plan(gallery, images, threat, trials=trials, time_limit=limit, queries=queries)
        say(
            f"{len(todo.tasks)} figures, {todo.trials} attacks for each headline figure: about "
            f"{spoken(todo.seconds)} on {gallery.ranker.device.type}"
        )
        if dry_run:
            return
        recall, note = _recall(target)
        with progress("auditing") as tell:
            result = run(
                gallery,
                images,
                threat,
                gallery_ids=target.gallery_ids(torch.arange(len(images))),
                seed=seed,
                data=system.data or target.dataset.name,
                options=AuditOptions(
                    prepared=todo,
                    journal=out / JOURNAL,
                    progress=tell,
                    model=system.model,
                    data_note=note,
                    classes=target.dataset.classes,
                    command=as_typed(),
                    model_record=target.record,
                    recall_at_1=recall,
                ),
            )
        page = result.save(out)
        if as_json:
            print_json(result.to_json())
            return
        print_table(audit_table(result))
        if result.examination is not None:
            echo(f"the encoder: {result.examination.line}")
        for flag in grouped(result.flags):
            echo(f"flag: {flag.cell or 'the audit'}: {flag.text}")
        echo(f"report: {page}")


def _recall(target: "RetrievalSystem") -> tuple[float | None, str]:
    """R@1 in % where it is measured by queries, else None; and the note about the data."""
    from rankproof.evaluation import retrieve
    from rankproof.evaluation.queries import has_match

    queries, note = target.queries, target.dataset.note
    if queries is None:
        return None, note
    if not has_match(target.gallery, queries):
        known = target.gallery.labels is not None
        return None, note + ("; R@1 is that of gallery items, not of the queries" if known else "")
    return 100 * float(retrieve(target.gallery, queries, [1]).recalls.mean()), note
