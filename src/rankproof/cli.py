"""The command line: parses, calls, exits. What needs torch is imported by the command that needs it."""

import os
import re
import shlex
import sys
import time as clock
from collections.abc import Iterator
from contextlib import nullcontext
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
from rankproof.memory import keep_freed_memory

if TYPE_CHECKING:
    from rankproof.data import Dataset
    from rankproof.goals import Goal, Sum
    from rankproof.methods import BlackBox, Method
    from rankproof.methods.space import Space
    from rankproof.oracle import Oracle
    from rankproof.ranking import Gallery
    from rankproof.result import AttackResult
    from rankproof.target import Target
    from rankproof.threat import Threat
    from rankproof.training import Epoch

EMBEDDED, JOURNAL = "digits", "audit.jsonl"
GOALS = "ca+|ca-|qa+|qa-|sp-qa+|sp-qa-|oa|shift|mismatch|misrank|nearest-other|top4"
DEFENSES = "none|est|suppress|madry|single-step|act|hm|whole-batch"
METHODS = "pgd|strong|auto|rand|beta|pso|nes|spsa"
MOST_QUERIES = 1_000_000
SERVICE = Path("runs/service")
TRIALS = 1000

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
MODEL = typer.Option(
    metavar="NAME",
    help="A folder written by `rankproof train`, a name that `rankproof zoo` lists, hf:FOLDER-OR-NAME, "
    "timm:NAME, torchvision:NAME, your own FILE.py:FUNCTION, or a program FILE.pt2, .pt, .ts.",
    show_default=False,
)
Model = Annotated[str, MODEL]
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
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", metavar="", help="Open a model that is a program: such a file can run code of its maker."
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service makes the shorter side N pixels; pictures are attacked as loaded.",
        show_default=False,
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The attacked service cuts N x N pixels out of the middle.", show_default=False
    ),
]
Jpeg = Annotated[
    int | None,
    typer.Option(
        metavar="Q",
        help="The attacked service first stores pictures as JPEG of that quality.",
        show_default=False,
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
Folder = Annotated[
    Path, typer.Option(metavar="DIR", help="Where items, keys and quotas are kept.", show_default=True)
]
IndexName = Annotated[
    str,
    typer.Option(
        metavar="faiss|pgvector|postgresql://...",
        help="Where the nearest items are found: in the process, in a PostgreSQL of its own in DIR, or in "
        "yours.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout and nothing else.")
]


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
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
            metavar="NAME",
            help="The encoder: c2f1, lenet, resnet18-28 for 28x28, digits for 8x8, resnet18, resnet50 for "
            "colour. Left out: digits, c2f1 or resnet18, by the pictures.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            metavar="cosine|euclidean|sphere",
            help="How embeddings are compared; sphere is euclidean at unit length. Left out: cosine; sphere "
            "for act and hm.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="triplet|contrastive|pml:NAME",
            help="What training lowers; pml:NAME is any loss of pytorch-metric-learning. Left out: triplet; "
            "pml:SupConLoss for whole-batch.",
            show_default=False,
        ),
    ] = None,
    loss_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of a pml loss; may be repeated."),
    ] = None,
    miner: Annotated[
        str | None,
        typer.Option(
            metavar="pml:NAME",
            help="Any miner of pytorch-metric-learning, for a pml loss.",
            show_default=False,
        ),
    ] = None,
    miner_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the miner.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="in-batch|from-set|from-any|balanced",
            help="What makes a batch: in-batch as published (ECCV), from-set (ICCV), from-any (published for "
            "SOP), balanced. Left out: in-batch; balanced for pml losses, act and hm.",
            show_default=False,
        ),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pictures of each class in a balanced batch. Left out: 2 or more."),
    ] = None,
    defense: Annotated[
        str,
        typer.Option(
            metavar=DEFENSES,
            help="How attacks get into training: est as published; suppress, madry, single-step from the "
            "paper's appendix; act and hm, later; whole-batch, our own.",
        ),
    ] = "none",
    eps: Annotated[
        str | None,
        typer.Option(metavar="E", help="The defence's largest change of a pixel. Left out: as published."),
    ] = None,
    inner_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Steps of the defence's attack. Left out: as published."),
    ] = None,
    warm_up: Annotated[
        float | None, typer.Option(metavar="EPOCHS", help="Epochs over which the defence's eps grows.")
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            metavar="",
            help="A schedule for machines without a GPU: fewer inner steps, smaller batches, warm-up. "
            "The record tells it.",
        ),
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="How often every picture is seen. Left out: 30.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pictures in a step. Left out, as published: 1000 for cosine, 500 else.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Margin of the loss. Left out, as published: 1 for euclidean, 0.2 for cosine and sphere.",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.")] = 1e-3,
    decay: Annotated[
        str | None,
        typer.Option(metavar="constant|cosine", help="How the learning rate goes on. Left out: constant."),
    ] = None,
    shift: Annotated[
        int, typer.Option(metavar="PIXELS", help="Vary pictures by shifts of up to so many pixels.")
    ] = 0,
    flip: Annotated[bool, typer.Option("--flip", metavar="", help="Mirror half of the pictures.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Begin with these: safetensors, or a state dict saved by torch.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar="", help="Go on with the training in DIR after its last epoch."),
    ] = False,
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
    precision: Annotated[
        str, typer.Option(metavar="single|bf16", help="Of the encoder's passes; bf16 is faster on most GPUs.")
    ] = "single",
    size: Size = None,
    divide: Divide = "auto",
    device: Device = "auto",
) -> None:
    """Train an encoder, with or without a defence, and keep it as a checkpoint.

    Trains on the train split and tells R@1 on the test split after each epoch. The checkpoint in DIR is
    model.safetensors with a record beside it, model.json: architecture, distance, settings, seed, versions,
    R@1 and sha256. It is written after each epoch, with log.csv, TensorBoard events, and state/, from which
    `--resume` goes on bit for bit; Ctrl-C keeps the last finished epoch. A training that diverges or
    collapses is stopped, and the last good epoch is kept.

    **Example**

    ```
    rankproof train --data fashion-mnist --time 25m --out runs/ct
    rankproof train --data fashion-mnist --defense est --fast --out runs/ctd
    torchrun --nproc-per-node 2 -m rankproof train --data fashion-mnist --out runs/two
    ```
    """
    finished: list[int] = []
    with reported(lambda: _stopped_training(out, finished)):
        limit = duration(time)
        for option, number in (("epochs", epochs), ("batch", batch), ("inner-steps", inner_steps)):
            if number is not None:
                at_least_one(option, number)
        for option, value in (("margin", margin), ("learning-rate", learning_rate), ("warm-up", warm_up)):
            not_below_zero(option, value)
        writable(out)
        from rankproof.data import load
        from rankproof.target import as_divide, find_device
        from rankproof.training.group import join
        from rankproof.training.options import Options, recipe_of
        from rankproof.training.run import Run, train_checkpoint

        group, place = join(find_device(device))
        tell_user = say if group.leads else (lambda line: None)
        splits: dict[str, Dataset] = {}
        for split in ("train", "test"):
            with progress("reading pictures") as tell:
                splits[split] = load(
                    data, split, size=size, divide=as_divide(divide), root=_root(), progress=tell
                )
            tell_user(splits[split].note)
        chosen = arch or _arch_for(splits["train"])
        options = Options(
            distance=distance,
            loss=loss,
            loss_options=loss_option or [],
            miner=miner,
            miner_options=miner_option or [],
            sampler=sampler,
            per_class=per_class,
            defense=defense,
            eps=eps,
            inner_steps=inner_steps,
            warm_up=warm_up,
            fast=fast,
            epochs=epochs,
            batch=batch,
            margin=margin,
            learning_rate=learning_rate,
            decay=decay,
            shift=shift,
            flip=flip,
            precision=precision,
            seed=seed,
        )
        recipe = recipe_of(options, splits["train"], chosen, place)
        run = Run(
            data=splits["train"],
            test=splits["test"],
            arch=chosen,
            recipe=recipe,
            out=out,
            weights=weights,
            resume=resume,
            half=half,
            device=place,
            time_limit=limit,
        )
        with progress("training") if group.leads else nullcontext(_silent) as tell:
            history = train_checkpoint(
                run,
                group=group,
                on_batch=within(limit, tell),
                on_epoch=lambda epoch: finished.append(_tell_epoch(epoch, recipe.epochs)),
                say=tell_user,
            )
        if group.leads:
            typer.echo(f"{out}: R@1 {history[-1].recall_at_1:.1f} % after {len(history)} epochs")


@app.command()
def attack(
    goal: Annotated[str, typer.Option(metavar="GOAL", help="What the attacker wants.", show_default=False)],
    eps: Eps,
    model: Annotated[str | None, MODEL] = None,
    data: Data = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="URL", help="Attack a running service instead of a model.", show_default=False
        ),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Live service: a picture to attack, or a folder of some; may be repeated.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(metavar="T", help="How many pictures of the test split are attacked. Left out: 1000."),
    ] = None,
    seed: Seed = 0,
    method: Annotated[
        str | None,
        typer.Option(
            metavar=METHODS,
            help="How the attacker gets there. With gradients: pgd, as published, or strong, ours. As a "
            "black box: auto, ours, or the published others. Left out: pgd; auto with --visible or --budget.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Forward and gradient evaluations of each attack. Left out: as published.",
            show_default=False,
        ),
    ] = None,
    visible: Annotated[
        str | None,
        typer.Option(
            metavar="N|k|inf",
            help="Black box: how many results are seen, k as many as are reordered, inf all. Left out: 50; "
            "as many as a live service shows.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="Q",
            help="Black box: pictures sent in each attack at most, the clean one included. Left out: 1000; "
            "100 to a live service.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="auto|full|blocks:32|bilinear:7|cosine:16",
            help="Black box: search every pixel, or fewer variables along each side that are enlarged. "
            "Left out: auto, the method's own rule.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        bool | None,
        typer.Option(
            "--grid/--no-grid",
            metavar="",
            help="Only allow 8-bit images, as files hold them. Left out: yes for auto, no as published.",
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
    order: Annotated[
        str | None,
        typer.Option(
            metavar="3,1,0,2,4",
            help="Wanted order of oa, by present places from 0. Left out: drawn for each query.",
            show_default=False,
        ),
    ] = None,
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
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Live service: a TOML file that says how it is called and where the ids are in its answers. "
            "Left out: as `rankproof serve`.",
            show_default=False,
        ),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Live service: the variable of the environment that holds its key.",
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Live service: the file that holds its key.", show_default=False),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Live service: calls under way at once. Left out: 4.")
    ] = None,
    per_second: Annotated[
        float | None,
        typer.Option(metavar="X", help="Live service: calls in a second. Left out: as it allows."),
    ] = None,
    cap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Live service: most calls in all, repeated ones too. Left out: a little above the budgets.",
        ),
    ] = None,
    authorised: Annotated[
        str | None,
        typer.Option(
            "--i-am-authorised",
            metavar="TEXT",
            help="Who allowed the test and why. Needed outside loopback and private addresses; it is "
            "reported.",
            show_default=False,
        ),
    ] = None,
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
    seen = any(given is not None for given in (visible, budget, service, adapter))
    word = method or ("auto" if seen else "pgd")
    with reported(lambda: _stopped_attack(word, journal, live=service is not None or adapter is not None)):
        counts = {"trials": trials, "steps": steps, "budget": budget, "concurrency": concurrency, "cap": cap}
        for option, number in counts.items():
            at_least_one(option, number)
        if budget is not None and budget > MOST_QUERIES:
            raise RankproofError(f"--budget must be at most {MOST_QUERIES:,}, since every score is kept")
        for folder in (save, journal):
            if folder is not None:
                writable(folder)
        from rankproof.attack import attack as run
        from rankproof.cost import measure_result
        from rankproof.methods import BlackBox
        from rankproof.threat import Threat, parse_eps

        wanted, how = goal_of(goal, w=w, m=m, k=k, g=g, xi=xi, order=order), method_of(word, goal, steps)
        given = {"method": method, "visible": visible, "budget": budget, "space": space, "journal": journal}
        given |= {"target": service, "adapter": adapter}
        _check_kind(wanted, how, {**given, "steps": steps, "xi": xi})
        if own_copy not in ("keep", "drop"):
            raise RankproofError(f"--own-copy must be keep or drop, got {own_copy!r}")
        where, on_grid = space_of(space), isinstance(how, BlackBox) and how.grid
        threat = Threat(parse_eps(eps), grid=on_grid if grid is None else grid)
        if service is not None or adapter is not None:
            of_model = {"model": model, "data": data, "trials": trials, "size": size, "grid": grid}
            of_model |= {"resize": resize, "crop": crop, "jpeg": jpeg, "trust": trust or None}
            _left_out("a model, and --target is a running service", of_model)
            _attack_service(
                save,
                as_json,
                url=service,
                adapter=adapter,
                key=_key(key_env, key_file),
                places=query or [],
                goal=wanted,
                method=how,
                space=where,
                budget=budget,
                seed=seed,
                eps=threat.eps,
                visible=visible,
                concurrency=concurrency,
                per_second=per_second,
                cap=cap,
                authorised=authorised,
                journal=journal,
            )
            return
        of_service = {"query": query, "key-env": key_env, "key-file": key_file, "cap": cap}
        more = {"concurrency": concurrency, "per-second": per_second, "i-am-authorised": authorised}
        _left_out("a running service, which --target names", {**of_service, **more})
        if model is None:
            raise RankproofError("--model: name what is attacked, or a running service by --target")
        target = _opened(model, data, device, size, divide, trust=trust, resize=resize, crop=crop, jpeg=jpeg)
        say(target.dataset.note)
        gallery, index = target.gallery, target.draw(trials or TRIALS, seed)
        if trials is not None and trials > len(index):
            say(f"{trials} trials were asked for: all {len(index)} items of the gallery are attacked")
        images = target.dataset.take(index)
        with progress("attacking") as tell:
            result = run(
                _victim(gallery, wanted, how, visible),
                images,
                wanted,
                threat,
                method=how,
                budget=budget,
                space=where,
                seed=seed,
                index=index,
                own_copy=own_copy,
                journal=journal,
                progress=tell,
            )
        with progress("timing the bare work") as tell:
            costs = measure_result(gallery, images, wanted, result, progress=tell)
        notes = _more_notes(result, threat, order, own_copy)
        result = replace(result, notes=(*result.notes, *target.notes, *notes))
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
    jpeg: Jpeg = None,
    resize: Resize = None,
    crop: Crop = None,
    trust: Trust = False,
) -> None:
    """Attack a ranking in every way, with and without knowledge of the model, and leave a report.

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
        from rankproof.threat import Threat, parse_eps

        threat = Threat(parse_eps(eps))
        target = _opened(model, data, device, size, divide, trust=trust, resize=resize, crop=crop, jpeg=jpeg)
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
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="How many pictures of the test split are attacked. Left out: 1000.",
            show_default=False,
        ),
    ] = None,
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
        begin = clock.perf_counter()
        from rankproof.evaluation import accuracy, robustness_score
        from rankproof.evaluation.report import as_json as plain
        from rankproof.evaluation.report import table_text
        from rankproof.evaluation.robustness import TRIALS
        from rankproof.threat import format_eps, parse_eps
        from rankproof.versions import versions

        budget = None if eps is None else parse_eps(eps)
        target = _opened(model, data, device, size, divide, trust=trust, resize=resize, crop=crop, jpeg=jpeg)
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
            seconds=clock.perf_counter() - begin,
            versions=versions(),
        )
        if as_json:
            print_json(told)
            return
        if attacked is not None:
            how = f"{attacked.method}, {attacked.steps} steps, {attacked.trials:,} trials, seed {seed}"
            typer.echo(f"attacked within {format_eps(attacked.eps)}: {how}")
        Console().print(table_text(told))
        for flag in told["flags"]:
            typer.echo(f"flag: {flag['cell'] or 'the model'}: {flag['text']}")
        for note in told["notes"]:
            typer.echo(f"note: {note}")


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(metavar="PAPER/TABLE", show_default=False)],
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="T", help="Attacks of every cell. Left out: as the recipe says.", show_default=False
        ),
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only cells with this part in their names, such as ct, ca+, or ct,cc for either; "
            "may be repeated.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="published|strong", help="The papers' search, or ours beside it.")
    ] = "published",
    published_schedule: Annotated[
        bool,
        typer.Option(
            "--published-schedule",
            metavar="",
            help="Train defended models as published, which takes hours. Left out: the fast schedule, and "
            "every row says so.",
        ),
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where a data set of the recipe is; may be repeated."),
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
        typer.Option(metavar="DIR", help="Folder of recipes. Left out: the papers'.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the table goes. Left out: runs/reproduce/PAPER-TABLE.",
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
        typer.Option(metavar="N", help="Processes that train and attack side by side, the cores shared out."),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="Only tell what would be done and how long it takes."),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a table or figure of the papers again, with our figures beside the published ones.

    Trains the models that are named, or takes those that are there, and runs every cell. A finished cell is
    written to records/PAPER/TABLE at once and never run again, and models are kept in runs/models: whatever
    stops the command, the same one goes on from there. Writes table.md, table.tex, table.csv and table.json,
    or figure.md, figure.json and the pictures.

    **Example**

    ```
    rankproof reproduce eccv20/table3 --dry-run
    rankproof reproduce eccv20/table3 --cells ct --cells w1,m1 --trials 300 --workers 2
    rankproof reproduce eccv20/figure2
    rankproof reproduce iccv21/table1 --method strong --data sop=/data/sop
    ```
    """
    with reported("finished cells and epochs are kept; the same command goes on from there"):
        if trials is not None:
            at_least_one("trials", trials)
        at_least_one("workers", workers)
        if method not in ("published", "strong"):
            raise RankproofError(f"--method must be published or strong, got {method!r}")
        if out is not None:
            writable(out)
        from rankproof.experiments.reproduce.order import Order
        from rankproof.experiments.reproduce.run import Reproduction

        order = Order(
            word=table,
            recipes=recipes,
            trials=trials,
            words=cells or [],
            method=method,
            out=out,
            workers=workers,
            device=device,
            published_schedule=published_schedule,
            paths=_pairs("data", data or []),
            given=_pairs("model", model or []),
            root=_root(),
            save=save,
            command=_again(),
        )
        work = Reproduction(order, say=say, stage=progress)
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
        typer.echo(f"{made.title}\n{made.summary}\n{work.out / made.page}")


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
            settings = record.get("settings", {})
            if (defense := settings.get("defense", {}).get("name", "none")) != "none":
                facts += f", defended by {defense} ({settings['schedule']} schedule)"
            typer.echo(f"zoo:{name}  {facts}, R@1 {record['recall_at_1']:.1f} %")
        if not names:
            say("the zoo is still empty")


@app.command()
def serve(
    model: Model,
    data: Data = None,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen at; others than loopback need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8000,
    visible: Annotated[int, typer.Option(metavar="N", help="Results in an answer, 50 at most.")] = 50,
    per_day: Annotated[int, typer.Option(metavar="N", help="Calls of a key on a day (UTC).")] = 500,
    per_second: Annotated[int, typer.Option(metavar="N", help="Calls of a key in a second.")] = 10,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Of a picture file.")] = 3_750_000,
    min_side: Annotated[
        int, typer.Option(metavar="N", help="Pixels of the shorter side that --refuse-small demands.")
    ] = 128,
    refuse_small: Annotated[
        bool,
        typer.Option("--refuse-small/--enlarge", metavar="", help="What happens to smaller pictures."),
    ] = False,
    window: Annotated[
        int,
        typer.Option(metavar="MS", help="Milliseconds a request waits for others to be embedded with."),
    ] = 5,
    exact: Annotated[
        bool,
        typer.Option("--exact", metavar="", help="Compare with every item, also from 50,000 items on."),
    ] = False,
    device: Device = "auto",
    size: Size = None,
    divide: Divide = "auto",
    jpeg: Jpeg = None,
    resize: Resize = None,
    crop: Crop = None,
    trust: Trust = False,
    lab: Annotated[
        bool, typer.Option("--lab", metavar="", help="With a page that attacks this service, to be watched.")
    ] = False,
    lab_for_all: Annotated[
        bool, typer.Option("--lab-for-all", metavar="", help="--lab also at a --host that others can reach.")
    ] = False,
) -> None:
    """Run a search by image of your own, to use and to attack.

    The gallery is the test split. POST a picture to /search and get the ids of the nearest items, no scores;
    the limits are those of the platform that was attacked in the second paper. Items are embedded once and
    kept in DIR with keys and quotas; a later start takes them from there.

    **Example**

    ```
    rankproof serve --model runs/digits/model --lab
    rankproof serve --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --index pgvector --port 8001
    curl -F image=@photo.png http://127.0.0.1:8000/search
    ```
    """
    with reported(f"items, keys and quotas are kept in {folder}; the same command starts again"):
        writable(folder)
        from rankproof.service.limits import Limits
        from rankproof.service.opening import open_service
        from rankproof.service.serve import check_lab, is_loopback
        from rankproof.service.serve import serve as run
        from rankproof.target import preprocess_of

        if lab:
            check_lab(host, for_all=lab_for_all)
        limits = Limits(
            visible=visible,
            max_bytes=max_bytes,
            min_side=min_side,
            enlarge=not refuse_small,
            per_day=per_day,
            per_second=per_second,
            window=window / 1000,
        )
        service = open_service(
            model,
            data,
            folder,
            index=index,
            limits=limits,
            exact=exact,
            anonymous=is_loopback(host),
            device=device,
            size=size,
            divide=divide,
            root=_root(),
            trust=trust,
            preprocess=preprocess_of(resize, crop, jpeg),
            stage=progress,
        )
        run(service, host, port, folder=folder, lab=lab, say=say)


@app.command()
def keys(
    action: Annotated[str, typer.Argument(metavar="add|list|remove", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    admin: Annotated[
        bool, typer.Option("--admin", metavar="", help="May also add and remove items.")
    ] = False,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
) -> None:
    """Make, list and remove the keys of a service.

    A new key is printed once; only a hash of it is kept. A removed one stops working at once. Give the
    `--index` and `--folder` that the service has.

    **Example**

    ```
    rankproof keys add alice
    rankproof keys add curator --admin
    rankproof keys remove alice
    ```
    """
    with reported("nothing was changed"):
        writable(folder)
        from rankproof.service.keys import key_command
        from rankproof.service.opening import open_database

        for line in key_command(open_database(index, folder), action, name, admin):
            typer.echo(line)


def goal_of(
    word: str,
    *,
    w: int | None = None,
    m: int | None = None,
    k: int | None = None,
    g: int | None = None,
    xi: float | None = None,
    order: str | None = None,
) -> "Goal | Sum":
    """The goal a word stands for; None leaves a knob at its default, and one of another goal is an error."""
    from rankproof import CandidateLower, CandidateRaise, MaxShift, Preserve, QueryLower, QueryRaise, Reorder
    from rankproof.goals import LeaveTop, Mismatch, Misrank, NearestOther

    for letter, count in (("w", w), ("m", m), ("k", k), ("g", g)):
        at_least_one(letter, count)
    not_below_zero("xi", xi)
    places = order_of(order)
    given: dict[str, Any] = {"w": w, "m": m, "k": k, "g": g, "xi": xi, "order": places}
    known: list[str] = []

    def knob(letter: str, default: int | float | None) -> Any:
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
            size = 5 if places is None else len(places)
            goal = Reorder(k=knob("k", size), xi=knob("xi", 10.0), order=knob("order", None))
        case "shift":
            goal = MaxShift()
        case "mismatch":
            goal = Mismatch()
        case "misrank":
            goal = Misrank()
        case "nearest-other":
            goal = NearestOther()
        case "top4":
            goal = LeaveTop()
        case _:
            raise RankproofError(f"--goal {word!r} is unknown; known: {GOALS.replace('|', ', ')}")
    if odd := [letter for letter, value in given.items() if value is not None]:
        knobs = ", ".join(f"--{letter}" for letter in known) or "none"
        raise RankproofError(f"--{odd[0]} is no knob of goal {word}; it has: {knobs}")
    return goal


def method_of(word: str, goal: str, steps: int | None = None) -> "Method | BlackBox":
    """The method a word stands for; with gradients it takes the goal's own steps unless `steps` are given."""
    from rankproof.methods import NES, PSO, SPSA, Beta, Rand
    from rankproof.methods.presets import automatic, published, strong

    metric = {"oa": "tau", "shift": "shift"}.get(goal, "rank")
    match word:
        case "pgd":
            return published(metric, steps)
        case "strong":
            return strong(metric, steps)
        case "auto":
            return automatic()
        case "rand":
            return Rand()
        case "beta":
            return Beta()
        case "pso":
            return PSO()
        case "nes":
            return NES()
        case "spsa":
            return SPSA()
        case _:
            raise RankproofError(f"--method {word!r} is unknown; known: {METHODS.replace('|', ', ')}")


def order_of(text: str | None) -> tuple[int, ...] | None:
    """The places in "3,1,0,2,4"; None stays None."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", text.strip()):
        raise RankproofError(f"--order {text!r} is no order; write places from 0, such as 3,1,0,2,4")
    return tuple(int(place) for place in text.split(","))


def visible_of(text: str | None, k: int) -> int | None:
    """How many results "50", "k" or "inf" shows, None all; the default where the text is None.

    Raises:
        RankproofError: the text names no number of results, or one that cannot show k of them.
    """
    from rankproof.goals.order import VISIBLE

    if text == "inf":
        return None
    if text not in (None, "k") and not re.fullmatch("[0-9]{1,9}", text):
        raise RankproofError(f"--visible {text!r} is no number of results; write 50, k or inf")
    shown = VISIBLE if text is None else k if text == "k" else int(text)
    if shown < k:
        raise RankproofError(
            f"k = {k} results cannot be ordered where only N = {shown} are visible; try --visible {k}"
        )
    return shown


def space_of(text: str | None) -> "Space | None":
    """Where to search; None is the method's own rule."""
    from rankproof.methods.space import parse_space

    return None if text in (None, "auto") else parse_space(text)


def _check_kind(goal: "Goal | Sum", how: "Method | BlackBox", given: dict[str, Any]) -> None:
    """Raise where an option belongs to the other kind of attack; `given` has None for what was left out."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox

    if not isinstance(how, BlackBox):
        for option in ("visible", "budget", "space", "journal", "target", "adapter"):
            if given[option] is not None:
                raise RankproofError(
                    f"--{option} is for black-box attacks and {how.name} needs gradients; "
                    f"leave it out or choose --goal oa --method auto"
                )
        return
    if not isinstance(goal, Reorder):
        words = ("target", "adapter", "method", "visible", "budget")
        cause = next(name for name in words if given[name] is not None)
        raise RankproofError(
            f"--{cause} {given[cause]} makes a black-box attack, which there is for oa only; "
            f"leave it out or choose --goal oa"
        )
    if given["steps"] is not None:
        raise RankproofError(
            "--steps counts gradients, which a black box does not give; limit it by --budget"
        )
    if given["xi"] is not None:
        raise RankproofError("--xi weighs nothing in a black box: only the order counts; leave it out")
    visible_of(given["visible"], goal.k)


def _opened(
    model: str,
    data: str | None,
    device: str,
    size: int | None,
    divide: str,
    *,
    trust: bool,
    resize: int | None,
    crop: int | None,
    jpeg: int | None,
) -> "Target":
    """The model and the test split that a command names, with its progress shown."""
    from rankproof.target import open_target, preprocess_of

    return open_target(
        model,
        data,
        device=device,
        size=size,
        divide=divide,
        root=_root(),
        trust=trust,
        preprocess=preprocess_of(resize, crop, jpeg),
        stage=progress,
    )


def _victim(
    gallery: "Gallery", goal: "Goal | Sum", how: "Method | BlackBox", visible: str | None
) -> "Gallery | Oracle":
    """What is attacked: the gallery, or in a black box no more than its first results."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox
    from rankproof.oracle import LocalOracle

    if not isinstance(how, BlackBox) or not isinstance(goal, Reorder):
        return gallery
    shown = visible_of(visible, goal.k)
    small = visible is None and shown is not None and shown > len(gallery)
    return LocalOracle(gallery, len(gallery) if small else shown)


def _attack_service(
    save: Path | None,
    as_json: bool,
    *,
    goal: "Goal | Sum",
    method: "Method | BlackBox",
    budget: int | None,
    visible: str | None,
    concurrency: int | None,
    per_second: float | None,
    **settings: Any,
) -> None:
    """Attack a running service, and tell and write what came of it; the arguments are those of `Visit`."""
    from rankproof.goals import Reorder
    from rankproof.methods import BlackBox
    from rankproof.wire.pace import CONCURRENCY, Pace
    from rankproof.wire.run import BUDGET, Visit, visit

    assert isinstance(goal, Reorder)  # `_check_kind` saw to it
    assert isinstance(method, BlackBox)
    plan = Visit(
        goal=goal,
        method=method,
        budget=budget or BUDGET,
        visible=_shown(visible, goal.k),
        pace=Pace(concurrency=concurrency or CONCURRENCY, per_second=per_second),
        environment=os.environ,
        **settings,
    )
    with progress("attacking", "queries") as tell:
        visited = visit(plan, say, tell)
    if save is not None:
        visited.save(save)
    (print_json if as_json else print_attack)(visited.cell)


def _left_out(what: str, given: dict[str, Any]) -> None:
    """Raise where an option is given that is about something else."""
    for option, value in given.items():
        if value is not None:
            raise RankproofError(f"--{option} is about {what}; leave it out")


def _shown(visible: str | None, k: int) -> int | None:
    """How many results a running service shows; None is as many as it answers."""
    if visible == "inf":
        raise RankproofError("--visible inf: a running service shows no whole ranking; write a number")
    return None if visible is None else visible_of(visible, k)


def _key(variable: str | None, file: Path | None) -> str | None:
    """The key of a service, from the environment or from a file; never from the command line itself."""
    if variable is not None and file is not None:
        raise RankproofError("--key-env and --key-file both name a key; leave one out")
    if variable is not None and variable not in os.environ:
        raise RankproofError(f"--key-env {variable}: there is no such variable in the environment")
    if variable is not None:
        return os.environ[variable]
    return None if file is None else file.read_text().strip()


def _more_notes(result: "AttackResult", threat: "Threat", order: str | None, own_copy: str) -> Iterator[str]:
    """What a reader should know beside the notes of the attack itself."""
    if threat.grid and result.queries is None:
        yield "searched among 8-bit images"
    if order is not None:
        yield f"the wanted order is {order} for every query, by present places from 0"
    if own_copy == "drop":
        yield "the own clean copies of the attacked pictures do not count in any ranking"
    if (silent := int(result.silent.sum())) > len(result) // 100:
        yield f"{silent} of {len(result)} attacks never saw a usable gradient: this figure may be false"


def _stopped_attack(method: str, journal: Path | None, *, live: bool) -> str:
    if live:
        return "every answer is kept; the same command goes on from there"
    if method in ("pgd", "strong"):
        return "nothing was written; the same command starts the attack again"
    if journal is None:
        return "nothing was kept; with --journal DIR the same command would go on where it stopped"
    return f"the search is kept in {journal}; the same command goes on from there"


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """The places in NAME=PLACE by their names."""
    found = {}
    for pair in given:
        name, equals, place = pair.partition("=")
        if not (name and equals and place):
            raise RankproofError(f"--{option} {pair}: expected NAME=PATH, such as ct=runs/ct")
        found[name] = place
    return found


def _again() -> str:
    """The command that was typed, for the report."""
    return shlex.join(["rankproof", *sys.argv[1:]])


def _root() -> Path:
    """The folder that holds data sets."""
    return Path(os.environ.get("RANKPROOF_DATA") or "data")


def _arch_for(dataset: "Dataset") -> str:
    """The encoder made for pictures of that form."""
    from rankproof.models.architectures import ARCHITECTURES

    form = tuple(dataset.pictures.shape[1:])
    for name, kind in ARCHITECTURES.items():
        if kind.takes(form):
            return name
    known = ", ".join(f"{name} ({kind.wanted})" for name, kind in ARCHITECTURES.items())
    raise RankproofError(
        f"no encoder is made for the {'x'.join(map(str, form))} pictures of {dataset.name}; known: {known}"
    )


def _tell_epoch(epoch: "Epoch", epochs: int) -> int:
    """Print the line of an epoch; returns its number."""
    place = f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}"
    typer.echo(f"{place}  loss {epoch.loss:.4f}  R@1 {epoch.recall_at_1:.1f} %  {epoch.seconds:.0f} s")
    return epoch.number


def _silent(done: float, total: float) -> None:
    """Progress of a process that is not the first."""


def _stopped_training(out: Path, finished: list[int]) -> str:
    kept = f"{out} holds the model after epoch {finished[-1]}" if finished else "nothing was written"
    return f"{kept}; the same command starts again from the beginning"


if __name__ == "__main__":
    main()
