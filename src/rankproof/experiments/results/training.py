"""The sections about training."""

from collections.abc import Callable, Iterator, Sequence

from rankproof.experiments.results.attacks import NAMES, after, setting
from rankproof.experiments.results.records import Record, benchmark, printed, recorded
from rankproof.experiments.results.section import Section
from rankproof.experiments.results.tables import NOT_RUN, mark, mean, number, table, with_interval
from rankproof.experiments.training import EXPERIMENTS, Plan

RUN = "python -m rankproof.experiments.training {}"
NEAR = {"fashion-mnist": 2.0, "mnist": 0.7}  # how far R@1 may be from the printed one
WEAKER = 6.0  # by how much a rank may be on the attacker's side of the printed one


def measured(experiment: str) -> list[tuple[Plan, Record]]:
    """The plans of an experiment with their records, empty ones where a plan was not run yet."""
    return [(plan, recorded("own/training", plan.name) or {}) for plan in EXPERIMENTS[experiment]()]


def letters(plan: Plan) -> str:
    """The papers' name of an undefended model: CC, CT, EC or ET."""
    return f"{(plan.options.distance or 'cosine')[0]}{(plan.options.loss or 'triplet')[0]}".upper()


def schooling(record: Record) -> tuple[str, str, str]:
    """Schedule, epochs done and minutes."""
    model = record.get("model")
    if model is None:  # not even one epoch
        return "", "", ""
    epochs = f"{model['epochs_done']} of {model['settings']['epochs']}"
    return model["settings"]["schedule"], epochs, f"{model['seconds'] / 60:.1f}"


def recall(record: Record) -> float | None:
    """R@1 of the checkpoint, None where there is none."""
    found: float | None = record.get("accuracy", {}).get("recall_at_1")
    return found


def score(record: Record) -> str:
    """ERS with its interval."""
    found = record.get("robustness")
    return "" if found is None else with_interval(found["ers"], found["ci95"]["ers"])


def state(record: Record) -> str:
    """What there is to know before reading any figure."""
    if not record:
        return NOT_RUN
    if record["failure"]:
        return "failed"
    return "collapsed" if record.get("robustness", {}).get("collapsed") else ""


def failures(experiment: str) -> str:
    """The messages of the trainings that failed, as a list below a table."""
    lines = [
        f"- `{plan.name}`: {record['failure']}."
        for plan, record in measured(experiment)
        if record.get("failure")
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def vanilla() -> str:
    """The papers' undefended models beside the printed R@1."""
    rows = []
    for plan, record in measured("vanilla"):
        name, found = letters(plan), recall(record)
        paper = printed("eccv20_models")[plan.data]["recall_at_1"].get(name)
        gap, verdict = "", state(record)
        if found is not None and paper is not None:
            gap = f"{found - paper:+.2f}"
            verdict = verdict or mark(found - paper, NEAR[plan.data])
        beside = ("" if paper is None else f"{paper:.1f}", gap, verdict)
        more = (number(record.get("accuracy", {}).get(figure)) for figure in ("map", "nmi"))
        rows.append((name, plan.data, *schooling(record), number(found), *beside, *more))
    header = ("model", "data", "schedule", "epochs", "minutes", "R@1", "printed", "difference", "")
    return table((*header, "mAP", "NMI"), rows) + failures("vanilla")


def defended() -> str:
    """The defended models and what attacks leave of them; a printed figure has a row of its own."""
    models, attacks = [], []
    for data, pair in _guarded().items():
        paper = printed("eccv20_models")[data]
        models.append(
            ("CTD, printed", data, "published", "", "", f"{paper['recall_at_1']['CTD']:.1f}", "", "")
        )
        for plan, record in pair:
            found = (number(recall(record)), score(record), state(record))
            models.append((f"`{plan.name}`", data, *schooling(record), *found))
        attacks += [(row[0], data, *row[1:]) for row in _attacks(pair, paper["CTD"])]
    header = ("model", "data", "schedule", "epochs", "minutes", "R@1", "ERS [95 %]", "")
    header_attacks = ("model", "data", "schedule", "attack", "before", "PGD [95 %]", "strong [95 %]")
    return (
        f"{table(header, models)}\n\n"
        f"{table((*header_attacks, 'PGD minus printed', ''), attacks)}"
        f"{failures('published')}{failures('defended')}"
    )


def _guarded() -> dict[str, list[tuple[Plan, Record]]]:
    """The defended models by data set, the published schedule first."""
    found: dict[str, list[tuple[Plan, Record]]] = {}
    for plan, record in (*measured("published"), *measured("defended")):
        found.setdefault(plan.data, []).append((plan, record))
    return found


def _attacks(models: Sequence[tuple[Plan, Record]], paper: Record) -> Iterator[tuple[str, ...]]:
    """Each printed attack, and below it what came of it on our models."""
    for goal, figure in paper["after"].items():
        letter = "w" if goal.startswith("ca") else "m"
        before = f"{paper['before'][goal]:.1f}"
        yield "CTD, printed", "published", f"{NAMES[goal]}, {letter} = 1", before, f"{figure:.1f}", "", "", ""
        for plan, record in models:
            pair, name = _by_goal(record.get("attacks", [])).get(goal.removeprefix("sp-")), f"`{plan.name}`"
            if pair is None:
                yield name, "", "", "", "", "", "", state(record)
                continue
            weak, best = pair["pgd"], pair["strong"]
            gap = weak["after"] - figure
            yield (
                *(name, schooling(record)[0], setting(weak), number(weak["before"])),
                *(after(weak), after(best), f"{gap:+.2f}"),
                "weaker" if _towards_attacker(goal, gap) > WEAKER else "as robust",
            )


def _by_goal(cells: list[Record]) -> dict[str, dict[str, Record]]:
    """Recorded attacks by goal, whether it keeps other results in place or not, and by method."""
    goals: dict[str, dict[str, Record]] = {}
    for cell in cells:
        goals.setdefault(cell["goal"].removeprefix("sp-"), {})[cell["method"]] = cell
    return goals


def _towards_attacker(goal: str, gap: float) -> float:
    """A difference of ranks, positive where the attack does better: lower for "+", higher for "-"."""
    return -gap if goal.endswith("+") else gap


def better() -> str:
    """Each defence over its seeds."""
    defenses: dict[str, list[tuple[Plan, Record]]] = {}
    for plan, record in measured("better"):
        defenses.setdefault(plan.options.defense, []).append((plan, record))
    rows = []
    for defense, runs in defenses.items():
        trained = [record for _, record in runs if record.get("model")]
        scores = [record["robustness"]["ers"] for record in trained]
        recalls = [record["accuracy"]["recall_at_1"] for record in trained]
        minutes = [f"{record['processor_seconds'] / 60:.1f}" for record in trained]
        schedules, epochs, _ = zip(*map(schooling, trained), strict=True) if trained else ((), (), ())
        states = [f"seed {plan.options.seed} {state(record)}" for plan, record in runs if state(record)]
        rows.append(
            (
                f"`{defense}`",
                ", ".join(dict.fromkeys(schedules)),
                *(", ".join(epochs), ", ".join(minutes)),
                *(_mean(recalls), _each(recalls), _mean(scores), _each(scores)),
                "; ".join(states),
            )
        )
    header = (
        "defence",
        "schedule",
        "epochs",
        "processor minutes",
        "mean R@1",
        "R@1 by seed",
        "mean ERS",
        "ERS by seed",
        "",
    )
    return table(header, rows) + failures("better")


def _mean(values: list[float]) -> str:
    return number(mean(values)) if values else ""


def _each(values: list[float]) -> str:
    return ", ".join(map(number, values))


def rejected() -> str:
    """What became of the defences that the paper rejected, epoch by epoch."""
    rows, epochs = [], []
    for plan, record in measured("rejected"):
        name, ending = f"`{plan.options.defense}`", state(record) or "finished"
        rows.append((name, *schooling(record), number(recall(record)), score(record), ending))
        for epoch in (record.get("model") or {}).get("history", []):
            figures = (f"{epoch['loss']:.4f}", number(epoch["recall_at_1"]))
            epochs.append((name, f"{epoch['number']:.0f}", *figures))
    header = ("defence", "schedule", "epochs", "minutes", "R@1", "ERS [95 %]", "")
    each = f"\n\n{table(('defence', 'epoch', 'loss', 'R@1'), epochs)}" if epochs else ""
    return table(header, rows) + failures("rejected") + each


def colour() -> str:
    """Models of photographs."""
    rows = []
    for plan, record in measured("colour"):
        chance = number(record.get("chance"))
        figures = (number(recall(record)), chance, score(record), state(record))
        rows.append((plan.data, f"`{plan.options.defense}`", *schooling(record), *figures))
    header = ("data", "defence", "schedule", "epochs", "minutes", "R@1", "chance", "ERS [95 %]", "")
    return table(header, rows) + failures("colour")


def speed() -> str:
    """Time of an epoch over that of its passes."""
    (record,) = benchmark("training")
    rows = [
        (row["name"], f"{row['seconds']:.2f}", f"{row['model_seconds']:.2f}", f"{row['ratio']:.2f}")
        for row in record["rows"]
    ]
    return table((f"an epoch of {record['pictures']:,} pictures", "seconds", "bare seconds", "ratio"), rows)


def _all(experiment: str) -> Callable[[], list[Record]]:
    """What is recorded of an experiment, as a call."""
    return lambda: [record for _, record in measured(experiment) if record]


SECTIONS = (
    Section(
        title="Training: the papers' models",
        text=(
            "C2F1 with cosine or Euclidean distance (C, E) and contrastive or triplet loss (C, T), by the "
            "published schedule, cut off where the minutes were over; [training.md](training.md) has the "
            "settings. R@1, mAP and NMI in % over the test split, with half-precision weights. Printed R@1 "
            "is from ECCV 2020; where the column is empty no figure could be read. A figure agrees when it "
            "is within 2 points for Fashion-MNIST and 0.7 for MNIST, else it is higher or lower."
        ),
        command=RUN.format("vanilla"),
        records=_all("vanilla"),
        render=vanilla,
    ),
    Section(
        title="Training: defended",
        text=(
            "CTD, the defence of ECCV 2020 with cosine distance and triplets. Another schedule than the "
            "published one is another row, and printed figures (tables 2 and 3) have rows of their own. "
            "Attacks at eps = 0.3 in the published way (PGD) and by the strong search, ranks in %. A model "
            "is as robust as the printed one when PGD moves a rank at most 6 points further. Printed QA also "
            "keeps five results in place (SP-QA); where ours does not, the attack on our model is the harder "
            "one. Minutes are as they passed, also where other work used the same processors."
        ),
        command=f"{RUN.format('published')}\n{RUN.format('defended')}",
        records=lambda: [*_all("published")(), *_all("defended")()],
        render=defended,
    ),
    Section(
        title="Training: which defence is better",
        text=(
            "The published defence (`est`) and our own (`whole-batch`, see [training.md](training.md)) on "
            "Fashion-MNIST: one epoch of the fast schedule each, with eps whole after half of it. Minutes "
            "are those a processor worked, since other work ran beside. Of ERS, higher is more robust; "
            "[definitions.md](definitions.md) has its ten terms."
        ),
        command=RUN.format("better"),
        records=_all("better"),
        render=better,
    ),
    Section(
        title="Training: what the paper rejected",
        text=(
            "The other defences that ECCV 2020 tried, on Fashion-MNIST, by the schedule of the comparison "
            "above; it reports that `madry` and `single-step` diverge. A training that failed was stopped by "
            "one of the alarms of "
            "[training.md](training.md); its figures are of the last epoch before."
        ),
        command=RUN.format("rejected"),
        records=_all("rejected"),
        render=rejected,
    ),
    Section(
        title="Training: photographs",
        text=(
            "ResNet-18 at 64 pixels, trained from nothing, and defended from there on. Chance is the R@1 of "
            "random rankings; ERS is over 50 attacks of each kind. Our own schedules: nothing printed is "
            "comparable. Minutes are as they passed, also where other work used the same processors."
        ),
        command=RUN.format("colour"),
        records=_all("colour"),
        render=colour,
    ),
    Section(
        title="Training: speed",
        text=(
            "Time of an epoch over the time of the passes it cannot avoid, in the same run: forward and "
            "backward of each batch, for a defence those of its attack, too, and forward of the test "
            "pictures. The best of three epochs over the best of five passes of each kind."
        ),
        command="python benchmarks/training.py --record",
        records=lambda: benchmark("training"),
        render=speed,
    ),
)
