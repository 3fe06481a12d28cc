"""The command line: parses, calls, exits. What needs torch is imported by the command that needs it."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from rankproof.console import (
    at_least_one,
    duration,
    not_below_zero,
    print_attack,
    print_json,
    progress,
    reported,
    say,
    spoken,
    within,
    writable,
)
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.data import Dataset
    from rankproof.goals import Goal, Sum
    from rankproof.methods import Method
    from rankproof.training import Epoch

EMBEDDED, JOURNAL = "digits", "audit.jsonl"
GOALS = "ca+|ca-|qa+|qa-|sp-qa+|sp-qa-|oa|shift"

app = typer.Typer(
    name="rankproof",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Pictures: a folder of idx files, a folder with one sub-folder per class, a zip or folder with "
        "metadata.csv, or the name of one of these below $RANKPROOF_DATA (else ./data). "
        "Left out: scikit-learn's scanned digits.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="A folder written by `rankproof train`, or a name that `rankproof zoo` lists.",
        show_default=False,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(metavar="N", help="Resize every picture to N x N pixels.", show_default=False),
]
Divide = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How data without splits is divided: by classes, by items of each class, none (all is both "
        "train and test), or auto (classes from 20 on).",
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU.")]
Seed = Annotated[
    int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="All choices and random numbers come from it.")
]
Eps = Annotated[
    str,
    typer.Option(
        metavar="E",
        help="The largest change of a pixel, as 8/255 or 0.03; 0 changes nothing.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout and nothing else.")
]


def main() -> None:
    """Run the command line."""
    app()


@app.callback()
def rankproof() -> None:
    """Find out how far a stranger can move the results of a search-by-image system.

    A search by image embeds pictures and ranks them by distance. Changes too small to see can move that
    ranking. rankproof measures how far, with the attacks of two papers (ECCV 2020, ICCV 2021) and a stronger
    one. Test systems that you own or may test.

    **Example**: a first audit, of scanned digits, in a few minutes.

    ```
    rankproof train --batch 100 --epochs 20 --out runs/digits/model
    rankproof audit --model runs/digits/model --eps 8/255 --out runs/digits
    ```
    """


@app.command()
def train(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the checkpoint goes.", show_default=False)],
    data: Data = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="c2f1|digits",
            help="The encoder. Left out: digits for 8x8 pictures, c2f1 for 28x28.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        str, typer.Option(metavar="cosine|euclidean", help="How embeddings are compared.")
    ] = "cosine",
    loss: Annotated[str, typer.Option(metavar="triplet", help="What training lowers.")] = "triplet",
    epochs: Annotated[int, typer.Option(metavar="N", help="How often every picture is seen.")] = 30,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pictures in one step. Left out, as published: 1000 for cosine, 500 for euclidean.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Margin of the loss. Left out, as published: 0.2 for cosine, 1 for euclidean.",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.")] = 1e-3,
    seed: Seed = 0,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="25m", help="Start no epoch that would end later: 90s, 25m, 1h.", show_default=False
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", metavar="", help="Store the weights in half precision.")
    ] = False,
    size: Size = None,
    divide: Divide = "auto",
) -> None:
    """Train an encoder and keep it as a checkpoint.

    Trains on the train split and tells R@1 on the test split after each epoch. The checkpoint in DIR is
    model.safetensors with a record beside it, model.json: architecture, distance, settings, seed, versions,
    R@1 and sha256. It is written after each epoch, so Ctrl-C keeps the last finished one.

    **Example**

    ```
    rankproof train --data fashion-mnist --arch c2f1 --time 25m --out runs/c2f1
    ```
    """
    finished: list[int] = []
    with reported(lambda: _stopped_training(out, finished)):
        limit = duration(time)
        for option, number in (("epochs", epochs), ("batch", batch)):
            at_least_one(option, number)
        for option, value in (("margin", margin), ("learning-rate", learning_rate)):
            not_below_zero(option, value)
        writable(out)
        from rankproof.data import load
        from rankproof.target import as_divide
        from rankproof.training.loop import Settings
        from rankproof.training.run import train_checkpoint

        settings = Settings(
            distance=distance,
            loss=loss,
            epochs=epochs,
            batch=batch,
            margin=margin,
            learning_rate=learning_rate,
            seed=seed,
        ).resolved()
        splits: dict[str, Dataset] = {}
        for split in ("train", "test"):
            with progress("reading pictures") as tell:
                splits[split] = load(
                    data, split, size=size, divide=as_divide(divide), root=_root(), progress=tell
                )
            say(splits[split].note)
        with progress("training") as tell:
            history = train_checkpoint(
                splits["train"],
                splits["test"],
                arch or _arch_for(splits["train"]),
                settings,
                out,
                half=half,
                time_limit=limit,
                on_batch=within(limit, tell),
                on_epoch=lambda epoch: finished.append(_tell_epoch(epoch, epochs)),
            )
        typer.echo(f"{out}: R@1 {history[-1].recall_at_1:.1f} % after {len(history)} epochs")


@app.command()
def attack(
    goal: Annotated[str, typer.Option(metavar="GOAL", help="What the attacker wants.", show_default=False)],
    eps: Eps,
    model: Model,
    data: Data = None,
    trials: Annotated[
        int, typer.Option(metavar="T", help="How many pictures of the test split are attacked.")
    ] = 1000,
    seed: Seed = 0,
    method: Annotated[
        str,
        typer.Option(
            metavar="pgd|strong", help="How the attacker gets there: as published, or our stronger way."
        ),
    ] = "pgd",
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Forward and gradient evaluations of each attack. Left out: as published.",
            show_default=False,
        ),
    ] = None,
    w: Annotated[
        int | None, typer.Option("--w", metavar="N", help="Queries of ca+, ca-. Left out: 1.")
    ] = None,
    m: Annotated[
        int | None,
        typer.Option("--m", metavar="N", help="Chosen candidates of qa, sp-qa. Left out: 1."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", metavar="N", help="Items oa reorders. Left out: 5.")] = None,
    g: Annotated[
        int | None,
        typer.Option("--g", metavar="N", help="Items sp-qa keeps in place. Left out: 5."),
    ] = None,
    xi: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Weight of keeping in place or in sight. Left out: 1 for sp-qa+, 100 for sp-qa-, 10 for oa.",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write attack.npz (original, adversarial, index, targets, figures) and result.json.",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    divide: Divide = "auto",
) -> None:
    """Attack the ranking in one way and tell how far it moved.

    The gallery is the whole test split; T of its pictures are attacked, each once. Ranks are in % of the
    gallery, 0 is first; an order is measured by Kendall's tau, 1 is the wanted one. The goals:

    - **ca+, ca-**: change an item so that it rises, or sinks, for w queries
    - **qa+, qa-**: change a query so that m chosen items rise, or sink
    - **sp-qa+, sp-qa-**: the same, while the g best other results stay in place
    - **oa**: change a query so that its k best results come in a chosen order
    - **shift**: change a picture so that its embedding moves as far as it can

    **Example**

    ```
    rankproof attack --goal qa+ --m 1 --eps 8/255 --model runs/digits/model --trials 100
    rankproof attack --goal oa --k 5 --eps 4/255 --model runs/digits/model --json
    ```
    """
    with reported("nothing was written; the same command starts the attack again"):
        at_least_one("trials", trials)
        at_least_one("steps", steps)
        if save is not None:
            writable(save)
        from rankproof.attack import attack as run
        from rankproof.cost import measure
        from rankproof.target import open_target
        from rankproof.threat import Threat, parse_eps

        threat = Threat(parse_eps(eps))
        wanted, how = goal_of(goal, w=w, m=m, k=k, g=g, xi=xi), method_of(method, goal, steps)
        target = open_target(
            model, data, device=device, size=size, divide=divide, root=_root(), stage=progress
        )
        say(target.dataset.note)
        gallery, index = target.gallery, target.draw(trials, seed)
        if trials > len(index):
            say(f"{trials} trials were asked for: all {len(index)} items of the gallery are attacked")
        images = target.dataset.take(index)
        with progress("attacking") as tell:
            result = run(gallery, images, wanted, threat, method=how, seed=seed, index=index, progress=tell)
        with progress("timing the bare work") as tell:
            costs = measure(gallery, images, wanted, result.steps, progress=tell)
        if (silent := int(result.silent.sum())) > len(index) // 100:
            note = f"{silent} of {len(index)} attacks never saw a usable gradient: this figure may be false"
            result = replace(result, notes=(*result.notes, note))
        context: dict[str, Any] = {"model": model, "data": data or EMBEDDED, **costs}
        if save is not None:
            result.save(save, **context)
        (print_json if as_json else print_attack)(result.cell(**context))


@app.command()
def audit(
    model: Model,
    eps: Eps,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.", show_default=False)],
    data: Data = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T", help="Attacks for each headline figure. Left out: 1000.", show_default=False
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="10m", help="Pick the trials by time instead: 90s, 10m, 1h.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="Only tell what would be done and how long it takes."),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
    size: Size = None,
    divide: Divide = "auto",
) -> None:
    """Attack a ranking in every white-box way and leave a report.

    Runs the standard suite without further knobs: every attack at the given budget, with plain PGD as a
    yardstick, and curves over 0 to 16/255. Writes report.html, report.json and pictures into DIR. Finished
    figures are kept in DIR/audit.jsonl: after Ctrl-C the same command goes on from there.

    **Example**

    ```
    rankproof audit --model runs/digits/model --eps 8/255 --out runs/digits
    rankproof audit --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --eps 4/255 --time 9m --out runs/f
    ```
    """
    with reported(f"finished figures are kept in {out / JOURNAL}; the same command goes on from there"):
        if trials is not None:
            at_least_one("trials", trials)
        limit = duration(time)
        writable(out)
        from rankproof.audit import audit as run
        from rankproof.audit import plan
        from rankproof.audit.report import as_json as plain
        from rankproof.audit.suite import stopped_trials
        from rankproof.audit.table import table_text
        from rankproof.target import open_target
        from rankproof.threat import Threat, parse_eps

        threat = Threat(parse_eps(eps))
        target = open_target(
            model, data, device=device, size=size, divide=divide, root=_root(), stage=progress
        )
        gallery, pictures = target.gallery, target.dataset.pictures
        if limit is not None and trials is None and (kept := stopped_trials(out / JOURNAL)):
            say(f"going on with the {kept} trials of the stopped audit; remove {out / JOURNAL} to plan anew")
            trials, limit = kept, None
        todo = plan(gallery, pictures, threat, trials=trials, time_limit=limit)
        say(target.dataset.note)
        say(
            f"{len(todo.cells)} figures, {todo.trials} attacks for each headline figure: about "
            f"{spoken(todo.seconds)} on {gallery.ranker.device.type}"
        )
        if dry_run:
            return
        with progress("auditing") as tell:
            result = run(
                gallery,
                pictures,
                threat,
                index=target.positions,
                prepared=todo,
                seed=seed,
                model=model,
                data=data or EMBEDDED,
                data_note=target.dataset.note,
                classes=target.dataset.classes,
                command=_again(),
                model_record=target.record,
                journal=out / JOURNAL,
                progress=tell,
            )
        page = result.save(out)
        if as_json:
            print_json(plain(result))
            return
        Console().print(table_text(result))
        for flag in result.flags:
            typer.echo(f"flag: {flag.cell or 'the audit'}: {flag.text}")
        typer.echo(f"report: {page}")


@app.command()
def data(
    name: Annotated[str, typer.Argument(metavar="fashion-mnist|mnist", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for data sets. Left out: $RANKPROOF_DATA, else ./data.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Download a data set and check it.

    Fetches the publisher's own files into DIR/NAME and compares their checksums; files that are there
    already are kept. Without a network it says which files to put where.

    **Example**

    ```
    rankproof data fashion-mnist
    rankproof train --data fashion-mnist --out runs/c2f1
    ```
    """
    with reported("finished files are kept; the same command fetches the others"):
        place = _root() if root is None else root
        writable(place)
        from rankproof.data.download import download

        with progress(f"fetching {name}") as tell:
            folder = download(name, place, tell)
        typer.echo(folder)


@app.command()
def zoo() -> None:
    """List the models that ship with rankproof.

    Each can be given as `--model zoo:NAME`.

    **Example**

    ```
    rankproof zoo
    rankproof attack --goal qa+ --eps 8/255 --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist
    ```
    """
    with reported("nothing was changed"):
        from rankproof.models import load_checkpoint, zoo_names

        names = zoo_names()
        for name in names:
            record = load_checkpoint(f"zoo:{name}").record
            facts = f"{record['arch']}, {record['distance']}, trained on {record['data']}"
            typer.echo(f"zoo:{name}  {facts}, R@1 {record['recall_at_1']:.1f} %")
        if not names:
            say("the zoo is still empty")


def goal_of(
    word: str,
    *,
    w: int | None = None,
    m: int | None = None,
    k: int | None = None,
    g: int | None = None,
    xi: float | None = None,
) -> "Goal | Sum":
    """The goal a word stands for; None leaves a knob at its default, and one of another goal is an error."""
    from rankproof import CandidateLower, CandidateRaise, MaxShift, Preserve, QueryLower, QueryRaise, Reorder

    for letter, count in (("w", w), ("m", m), ("k", k), ("g", g)):
        at_least_one(letter, count)
    not_below_zero("xi", xi)
    given: dict[str, Any] = {"w": w, "m": m, "k": k, "g": g, "xi": xi}
    known: list[str] = []

    def knob(letter: str, default: int | float) -> Any:
        known.append(letter)
        value = given.pop(letter)
        return default if value is None else value

    goal: Goal | Sum
    match word:
        case "ca+":
            goal = CandidateRaise(w=knob("w", 1))
        case "ca-":
            goal = CandidateLower(w=knob("w", 1))
        case "qa+":
            goal = QueryRaise(m=knob("m", 1))
        case "qa-":
            goal = QueryLower(m=knob("m", 1))
        case "sp-qa+":
            goal = QueryRaise(m=knob("m", 1)) + knob("xi", 1.0) * Preserve(g=knob("g", 5))
        case "sp-qa-":
            goal = QueryLower(m=knob("m", 1)) + knob("xi", 100.0) * Preserve(g=knob("g", 5))
        case "oa":
            goal = Reorder(k=knob("k", 5), xi=knob("xi", 10.0))
        case "shift":
            goal = MaxShift()
        case _:
            raise RankproofError(f"--goal {word!r} is unknown; known: {GOALS.replace('|', ', ')}")
    if odd := [letter for letter, value in given.items() if value is not None]:
        knobs = ", ".join(f"--{letter}" for letter in known) or "none"
        raise RankproofError(f"--{odd[0]} is no knob of goal {word}; it has: {knobs}")
    return goal


def method_of(word: str, goal: str, steps: int | None = None) -> "Method":
    """The method a word stands for, with the steps of the goal's own paper unless `steps` are given."""
    from rankproof.methods.presets import published, strong

    metric = {"oa": "tau", "shift": "shift"}.get(goal, "rank")
    match word:
        case "pgd":
            return published(metric, steps)
        case "strong":
            return strong(metric, steps)
        case _:
            raise RankproofError(f"--method {word!r} is unknown; known: pgd, strong")


def _again() -> str:
    """The command that was typed, for the report."""
    return shlex.join(["rankproof", *sys.argv[1:]])


def _root() -> Path:
    """The folder that holds data sets; the only place that reads the environment."""
    return Path(os.environ.get("RANKPROOF_DATA") or "data")


def _arch_for(dataset: "Dataset") -> str:
    """The encoder made for pictures of that form."""
    from rankproof.models.checkpoint import ARCHITECTURES

    form = tuple(dataset.pictures.shape[1:])
    for name, encoder in ARCHITECTURES.items():
        if form == (1, encoder.size, encoder.size):
            return name
    known = ", ".join(f"{name} (1x{kind.size}x{kind.size})" for name, kind in ARCHITECTURES.items())
    raise RankproofError(
        f"no encoder is made for the {'x'.join(map(str, form))} pictures of {dataset.name}; known: {known}"
    )


def _tell_epoch(epoch: "Epoch", epochs: int) -> int:
    """Print the line of an epoch; returns its number."""
    place = f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}"
    typer.echo(f"{place}  loss {epoch.loss:.4f}  R@1 {epoch.recall_at_1:.1f} %  {epoch.seconds:.0f} s")
    return epoch.number


def _stopped_training(out: Path, finished: list[int]) -> str:
    kept = f"{out} holds the model after epoch {finished[-1]}" if finished else "nothing was written"
    return f"{kept}; the same command starts again from the beginning"


if __name__ == "__main__":
    main()
