"""`rankproof audit`: every attack on one model, as a report."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import AsJson, DryRun, SearchedArguments, Seed
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
    from rankproof.audit import AuditResult, Plan
    from rankproof.system import RetrievalSystem

JOURNAL, REPORT = "audit.jsonl", "report.html"


def audit(
    system: SearchedArguments,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder the report is written to.", show_default=False)
    ],
    eps: Annotated[
        str,
        typer.Option(
            metavar="E",
            help="Audited budget: the largest change of a pixel, as 8/255 or 0.03. The smallest budgets do "
            "not depend on it.",
        ),
    ] = "2/255",
    first: Annotated[
        int,
        typer.Option(metavar="K", help="How many results count as the first ones, such as those of a page."),
    ] = 10,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="10m",
            help="End after that long: 90s, 10m, 1h, from the first attack to the report. Default: 10m "
            "without --trials.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="Number of attacks behind each figure instead of a time. Others for some figures, as a "
            "report prints them: 24,at-eps=12,converged=0,oa=40,black-box=6x200; the keys are those of "
            "docs/definitions.md.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure by how little, and how far, the rankings of a model can be moved, and write a report.

    For each goal the audit looks for the smallest budget at which it comes true. Then it attacks at one
    budget, by the published PGD, by a stronger search of as many evaluations, and by one that goes on until
    it has converged; checks these searches; and attacks as a stranger who sees the first results only. A few
    attacks of everything come first; the time that is left goes to the figures that are least certain.
    Writes report.html, report.json and images to DIR, also while it runs. Finished attacks are saved in
    DIR/audit.jsonl: after Ctrl-C the same command goes on.

    **Example**

    ```
    rankproof audit --time 3m --out runs/groceries
    rankproof audit --model runs/digits/model --eps 8/255 --trials 100 --out runs/digits
    rankproof audit --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 4/255 --out runs/f
    ```
    """
    with reported(lambda: _stopped(out)):
        at_least_one("first", first)
        limit = duration(time)
        writable(out)
        import torch

        from rankproof.audit import AuditOptions, plan
        from rankproof.audit import audit as run
        from rankproof.threat import Threat, parse_eps

        threat = Threat(parse_eps(eps))
        counts = _counts(trials)
        target = system.embed(one_size=True)
        gallery, images = target.gallery, target.attacked.one_size().images
        ids = target.gallery_ids(torch.arange(len(images)))
        with progress("timing a pass"):
            todo = plan(gallery, images, threat, own=ids is not None, trials=counts, time_limit=limit)
        _say_plan(todo, gallery.ranker.device.type, in_full=dry_run)
        if dry_run:
            return
        recall, note = _recall(target)
        with progress("auditing") as tell:
            result = run(
                gallery,
                images,
                threat,
                gallery_ids=ids,
                seed=seed,
                data=system.data or target.dataset.name,
                options=AuditOptions(
                    first=first,
                    prepared=todo,
                    journal=out / JOURNAL,
                    report=lambda result: result.save(out),
                    progress=tell,
                    model=system.model,
                    data_note=note,
                    classes=target.dataset.classes,
                    command=without_counts(as_typed()),
                    model_record=target.record,
                    recall_at_1=recall,
                ),
            )
            page = result.save(out)
        if as_json:
            print_json(result.to_json())
        else:
            _print(result, page)


def _print(result: "AuditResult", page: Path) -> None:
    """The figures as a table, the reasons to doubt them, and where the report is."""
    from rankproof.report.page import audit_table, grouped

    print_table(audit_table(result))
    if result.examination is not None:
        echo(f"the encoder: {result.examination.line}")
    for flag in grouped(result.flags):
        echo(f"flag: {flag.cell or 'the audit'}: {flag.text}")
    for sentence in result.missing:
        echo(sentence)
    echo(f"the same figures again: {result.command}")
    echo(f"report: {page}")


def _counts(text: str | None) -> int | str | None:
    """The trials that were asked for; a bare number as one."""
    if text is not None and text.lstrip("-").isdecimal():
        at_least_one("trials", int(text))
        return int(text)
    return text


def _stopped(out: Path) -> str:
    """What is left after Ctrl-C."""
    if not (out / JOURNAL).is_file():
        return "nothing was finished"
    there = f"the report of what is there is {out / REPORT}" if (out / REPORT).is_file() else "no figure yet"
    return f"{there}; finished attacks are kept in {out / JOURNAL}, and the same command goes on from there"


def _say_plan(todo: "Plan", device: str, *, in_full: bool) -> None:
    """What will be run, and about how long it takes."""
    expected = todo.expected()
    figures = sum(count > 0 for _, count, _ in expected)
    attacks = max((count for _, count, _ in expected), default=0)
    seconds = todo.time_limit or sum(seconds for *_, seconds in expected)
    by = "at most" if todo.time_limit is None else "as time allows, perhaps"
    say(f"{figures} measurements, {by} {attacks} attacks each: about {spoken(seconds)} on {device}")
    if in_full:
        for measurement, count, cost in expected:
            say(
                f"{measurement.label}: {count} attacks, about {spoken(cost)}"
                if count
                else f"{measurement.label}: none"
            )


def without_counts(command: str) -> str:
    """A command line without its --trials and --time."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in ("--trials", "--time"):
            next(words, None)
        elif not word.startswith(("--trials=", "--time=")):
            kept.append(word)
    return shlex.join(kept)


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
