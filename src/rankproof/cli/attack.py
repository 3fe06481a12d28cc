"""`rankproof attack`: one attack on a model, in the white box or as a black box."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import (
    BLACK_BOX,
    WHITE_BOX,
    AsJson,
    BlackBoxArguments,
    Eps,
    GoalArguments,
    SearchedArguments,
    Seed,
    Trials,
    about_option,
    parse_visible,
)
from rankproof.cli.smallest_budget import SMALLEST, attack_smallest
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
    from rankproof.attacks.result import AttackResult
    from rankproof.attacks.summary import AttackSummary
    from rankproof.goals.base import Goal
    from rankproof.methods.black_box.base import BlackBoxMethod
    from rankproof.methods.white_box.base import Method
    from rankproof.oracles import Oracle
    from rankproof.ranking import Gallery, Ranker
    from rankproof.threat import Threat

TRIALS = 1000
HARDLY = 1e-6  # of a grey level


def attack(
    goal: GoalArguments,
    eps: Eps,
    system: SearchedArguments,
    black_box: BlackBoxArguments,
    trials: Trials = None,
    seed: Seed = 0,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help=f"How the attacker searches. With gradients: {WHITE_BOX}. As a black box: {BLACK_BOX}. "
            "Default: pgd; auto with --visible or --budget.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of forward and gradient evaluations of each attack; of converged those of its "
            "first block. Default: as published.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        bool | None,
        typer.Option(
            "--grid/--no-grid",
            metavar="",
            help="Whether to search among 8-bit images only, as image files hold them. Default: --grid for "
            "auto and thompson, --no-grid for the others.",
            show_default=False,
        ),
    ] = None,
    clean_copy: Annotated[
        str,
        typer.Option(
            "--own-copy",
            metavar="keep|drop",
            help="Whether the clean copy of the attacked image, a gallery item, stays in its rankings.",
        ),
    ] = "keep",
    as_json: AsJson = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write attack.npz (images before and after, targets, figures) and result.json; of images "
            "of several sizes those of each in a folder named by it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run one attack on a model and report how far the ranking moved.

    The gallery is the whole test split; T of its images, or of those of --queries, are attacked, each once.
    Ranks are in % of the gallery, 0 is first; an order is measured by Kendall's tau, 1 is the wanted order.
    The goals:

    {goal list}

    With --visible, --budget or a method without gradients, oa is a black-box attack: the attacker sees only
    the order of the first N results, and sends at most Q images in each attack. `rankproof attack-service`
    attacks a running service.

    With --eps smallest each attack looks for the smallest budget at which it gets what it wants, such as an
    item among the first 10 results; the attacked image's own clean copy does not count there.

    **Example**

    ```
    rankproof attack --goal qa+ --m 1 --eps 8/255 --model runs/digits/model --trials 100
    rankproof attack --goal oa --k 5 --eps 4/255 --model runs/digits/model --json
    rankproof attack --goal qa+ --eps smallest --model runs/digits/model --trials 100
    rankproof attack --goal qa+ --eps 4/255 --model hf:vit --data shop --queries uploads --size keep
    rankproof attack --goal oa --visible 50 --budget 1000 --eps 4/255 --model runs/digits/model --trials 50
    ```
    """
    name = method or ("pgd" if black_box.visible is None and black_box.budget is None else "auto")
    with reported(lambda: _interrupted(name, black_box.journal)):
        at_least_one("trials", trials)
        at_least_one("steps", steps)
        black_box.check()
        writable(save)
        from rankproof.attacks import SearchOptions
        from rankproof.attacks import attack as run
        from rankproof.attacks.cost import measure_result
        from rankproof.attacks.mixed import MixedBatch, attack_mixed
        from rankproof.methods import registry
        from rankproof.methods.black_box.base import BlackBoxMethod
        from rankproof.ranking.mixed_images import MixedImages
        from rankproof.threat import Threat, parse_eps

        wanted = goal.parse()
        if eps == SMALLEST:
            attack_smallest(
                wanted,
                system,
                trials=trials or TRIALS,
                seed=seed,
                given={"method": method, "steps": steps, "grid": grid, **vars(black_box)},
                as_json=as_json,
                save=save,
            )
            return
        with about_option():
            search = registry.parse(name, wanted.metric, steps)
        given = {"method": method, **vars(black_box)}
        _check_combination(wanted, search, given, {"steps": steps, "xi": goal.xi})
        if clean_copy not in ("keep", "drop"):
            raise RankproofError(f"--own-copy must be keep or drop, got {clean_copy!r}")
        published_grid = isinstance(search, BlackBoxMethod) and search.grid
        threat = Threat(parse_eps(eps), grid=published_grid if grid is None else grid)
        target = system.embed()
        if clean_copy == "drop" and target.queries is not None:
            raise RankproofError("--own-copy drop: the images attacked are no gallery items; leave it out")
        index = target.draw(trials or TRIALS, seed)
        if trials is not None and trials > len(index):
            say(f"{trials} trials were asked for: all {len(index)} items are attacked")
        images = target.attacked.take(index)
        attacked = _attacked(target.gallery, wanted, search, black_box.visible)
        ids, drop = target.gallery_ids(index), clean_copy == "drop"
        with progress("attacking") as tell:
            if isinstance(images, MixedImages):
                result = attack_mixed(
                    attacked,
                    MixedBatch(images=images, gallery_ids=ids, exclude_self=drop, save=save),
                    wanted,
                    threat,
                    method=search,
                    search=SearchOptions(
                        budget=black_box.budget, subspace=black_box.subspace, folder=black_box.journal
                    ),
                    seed=seed,
                    progress=tell,
                )
            else:
                result = run(
                    attacked,
                    images,
                    wanted,
                    threat,
                    method=search,
                    budget=black_box.budget,
                    subspace=black_box.subspace,
                    seed=seed,
                    gallery_ids=ids,
                    exclude_self=drop,
                    search_folder=black_box.journal,
                    progress=tell,
                )
        with progress("timing the bare work") as tell:
            cost = measure_result(target.gallery, images, wanted, result, progress=tell)
        notes = chain(
            _notes(result, grid=threat.grid, order=goal.order, exclude_self=clean_copy == "drop"),
            _rounding_note(target.gallery.ranker, threat),
        )
        result = replace(result, notes=(*result.notes, *target.notes, *notes))
        summary = replace(
            result.summary,
            model=system.model,
            data=system.data or target.dataset.name,
            model_seconds=cost.model_seconds,
            peak_mb=cost.peak_mb,
        )
        _save(result, summary, save, several=isinstance(images, MixedImages))
        if as_json:
            print_json(summary.to_json())
        else:
            print_attack(summary)


def _check_combination(
    goal: "Goal",
    method: "Method | BlackBoxMethod",
    black_box: Mapping[str, object],
    white_box: Mapping[str, object],
) -> None:
    """Raise where an option belongs to the other kind of attack.

    Args:
        goal, method: what was chosen.
        black_box: options that make a black-box attack or belong to one, by name; None where left out.
        white_box: options that have no meaning in a black box.
    """
    from rankproof.goals import Reorder
    from rankproof.methods.black_box.base import BlackBoxMethod

    names = [option for option, value in black_box.items() if value is not None]
    if not isinstance(method, BlackBoxMethod):
        if options := [option for option in names if option != "method"]:
            raise RankproofError(
                f"--{options[0]} is for black-box attacks and {method.name} needs gradients; "
                f"leave it out or choose --goal oa --method auto"
            )
        return
    if not isinstance(goal, Reorder):
        raise RankproofError(
            f"--{names[0]} {black_box[names[0]]} makes a black-box attack, which there is for oa only; "
            f"leave it out or choose --goal oa"
        )
    if white_box["steps"] is not None:
        raise RankproofError(
            "--steps counts gradients, which a black box does not give; limit it by --budget"
        )
    if white_box["xi"] is not None:
        raise RankproofError("--xi weighs nothing in a black box: only the order counts; leave it out")
    parse_visible(None if black_box["visible"] is None else str(black_box["visible"]), goal.k)


def _attacked(
    gallery: "Gallery", goal: "Goal", method: "Method | BlackBoxMethod", visible: str | None
) -> "Gallery | Oracle":
    """The gallery, or in a black box an oracle that shows its first results."""
    from rankproof.goals import Reorder
    from rankproof.methods.black_box.base import BlackBoxMethod
    from rankproof.oracles import LocalOracle

    if not isinstance(method, BlackBoxMethod) or not isinstance(goal, Reorder):
        return gallery
    count = parse_visible(visible, goal.k)
    if visible is None and count is not None:
        count = min(count, len(gallery))
    return LocalOracle(gallery, count)


def _notes(result: "AttackResult", *, grid: bool, order: str | None, exclude_self: bool) -> Iterator[str]:
    """Notes for the reader beside those of the attack itself."""
    if grid and result.log is None:
        yield "searched among 8-bit images"
    if order is not None:
        yield f"the wanted order is {order} for every query, by present places from 0"
    if exclude_self:
        yield "the clean copies of the attacked images do not count in any ranking"
    if note := result.gradient_note():
        yield note


def _save(result: "AttackResult", summary: "AttackSummary", folder: Path | None, *, several: bool) -> None:
    """Save a result where that was asked for; images of several sizes are there already."""
    if folder is None:
        return
    from rankproof.attacks.mixed import remove_earlier

    if not several:
        remove_earlier(folder)
    result.save(folder, summary)


def _rounding_note(ranker: "Ranker", threat: "Threat") -> Iterator[str]:
    """What to tell where the file that a figure belongs to is further from the image than eps."""
    from torch import nn

    from rankproof.models import Preprocess

    levels = 255 * threat.eps
    whole = round(levels)
    steps = ranker.preprocess.modules() if isinstance(ranker.preprocess, nn.Module) else ()
    rounded = any(isinstance(step, Preprocess) and (step.jpeg or step.resize) for step in steps)
    if rounded and not threat.grid and whole > levels + HARDLY:
        yield (
            f"eps is {levels:.4g} grey levels: rounded to 8 bits, as they are before the encoder, images "
            f"differ by up to {whole}/255; --grid stays within eps"
        )


def _interrupted(method: str, journal: Path | None) -> str:
    """What is left after Ctrl-C, and how to continue."""
    from rankproof.methods import registry

    if method in registry.names("white-box"):
        return "nothing was written; the same command starts the attack again"
    if journal is None:
        return "nothing was kept; with --journal DIR the same command would go on where it stopped"
    return f"the search is kept in {journal}; the same command goes on from there"
