"""The trainings and measurements behind the training part of docs/results.md.

    python -m rankproof.experiments.training EXPERIMENT [--only NAME ...]

EXPERIMENT is vanilla, defended, published, better, rejected or colour. Each model is trained below
runs/training/ and its record goes to records/training/. A run that is started again goes on with the epoch it
was in and skips the records that are there. `published` wants a GPU: minutes there, days on two cores.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rankproof.attack import attack
from rankproof.console import progress
from rankproof.data import load
from rankproof.evaluation import accuracy, robustness_score
from rankproof.files import write_atomically
from rankproof.goals import CandidateLower, CandidateRaise, MaxShift, Preserve, QueryLower, QueryRaise
from rankproof.memory import keep_freed_memory
from rankproof.methods.presets import published, strong
from rankproof.target import Target, find_device, open_target
from rankproof.threat import Threat
from rankproof.training.divergence import TrainingFailedError, chance_recall
from rankproof.training.options import Options, recipe_of
from rankproof.training.run import Run, train_checkpoint

RECORDS, MODELS = Path("records/training"), Path("runs/training")
FOUR = (  # the papers' tables say QA and mean SP-QA
    CandidateRaise(w=1),
    CandidateLower(w=1),
    QueryRaise(m=1) + 1.0 * Preserve(g=5),
    QueryLower(m=1) + 100.0 * Preserve(g=5),
)
DEFENDED_EPS, TRIALS = 0.3, 1000
FEW = 50  # attacks on encoders that take their time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model to train and what is measured of it.

    Args:
        name: of the record and of the model's folder.
        data, arch, size, options: what is trained how.
        minutes: after which no further epoch is started; None has no limit.
        start: name of the plan whose weights it begins with.
        attacks: whether the papers' four attacks at eps 0.3 are measured, as published and strong.
        score: T of ERS; 0 leaves it out.
    """

    name: str
    data: str
    options: Options
    arch: str = "c2f1"
    size: int | None = None
    minutes: float | None = None
    start: str | None = None
    attacks: bool = False
    score: int = 0


def vanilla() -> Iterator[Plan]:
    """The papers' undefended models: CC, CT, EC, ET, with fewer epochs than their 30."""
    for data, epochs, minutes in (("fashion-mnist", 12, 25.0), ("mnist", 8, 10.0)):
        for distance in ("cosine", "euclidean"):
            for loss in ("contrastive", "triplet"):
                options = Options(distance=distance, loss=loss, epochs=epochs)
                name = f"{data}-{distance[0]}{loss[0]}"
                yield Plan(name=name, data=data, options=options, minutes=minutes)


def defended() -> Iterator[Plan]:
    """The papers' defended models with cosine distance and triplets, by the fast schedule."""
    for data, epochs in (("fashion-mnist", 12), ("mnist", 8)):
        options = Options(defense="est", fast=True, epochs=epochs)
        yield Plan(
            name=f"{data}-ctd-fast", data=data, options=options, minutes=60.0, attacks=True, score=TRIALS
        )


def published_defense() -> Iterator[Plan]:
    """The same models by the published schedule."""
    for plan in defended():
        name = plan.name.replace("fast", "published")
        yield replace(plan, name=name, options=Options(defense="est", precision="bf16"), minutes=None)


def better() -> Iterator[Plan]:
    """Our own defence against the papers': one epoch each, eps whole after half of it, three seeds."""
    for seed in (0, 1, 2):
        for defense in ("est", "whole-batch"):
            options = Options(defense=defense, fast=True, epochs=1, warm_up=0.5, seed=seed)
            name = f"fashion-mnist-short-{defense}-seed{seed}"
            yield Plan(name=name, data="fashion-mnist", options=options, score=TRIALS)


def rejected() -> Iterator[Plan]:
    """The defences that the paper reports to diverge, and the one it tried beside: scheduled as `better`."""
    for defense in ("madry", "single-step", "suppress"):
        options = Options(defense=defense, fast=True, epochs=1, warm_up=0.5)
        yield Plan(name=f"fashion-mnist-{defense}", data="fashion-mnist", options=options, score=TRIALS)


def colour() -> Iterator[Plan]:
    """Photographs at 64 pixels: trained from nothing, then defended from there, in 45 minutes in all."""
    triplet = Options(sampler="balanced", batch=96, per_class=4, epochs=40, shift=4, flip=True)
    # Cars differ in little: after an epoch of triplets R@1 is 5.6, of classes with a direction each 10.0.
    told = ["num_classes=98", "embedding_size=512"]
    classes = replace(triplet, loss="pml:NormalizedSoftmaxLoss", loss_options=told)
    for data, plain, minutes, epochs in (
        ("grocery_128", triplet, 12.0, 2),
        ("cars196_cropped_128", classes, 20.0, 1),
    ):
        name = f"{data}-64"
        first = Plan(
            name=name, data=data, arch="resnet18", size=64, options=plain, minutes=minutes, score=FEW
        )
        yield first
        guarded = replace(plain, defense="est", epochs=epochs, eps="8/255", inner_steps=3, warm_up=epochs / 2)
        yield replace(first, name=f"{name}-est", options=guarded, start=name, minutes=None)


EXPERIMENTS = {
    "vanilla": vanilla,
    "defended": defended,
    "published": published_defense,
    "better": better,
    "rejected": rejected,
    "colour": colour,
}


def run(plan: Plan, root: Path) -> dict[str, Any]:
    """Train, measure, and return the record; its processor seconds are those of this sitting's training."""
    begin, failure = time.perf_counter(), None
    splits = {split: load(plan.data, split, size=plan.size, root=root) for split in ("train", "test")}
    folder = MODELS / plan.name
    order = Run(
        data=splits["train"],
        test=splits["test"],
        arch=plan.arch,
        recipe=recipe_of(plan.options, splits["train"], plan.arch, find_device("auto")),
        out=folder,
        weights=None if plan.start is None else MODELS / plan.start / "model.safetensors",
        resume=True,
        half=True,
        device=find_device("auto"),
        time_limit=None if plan.minutes is None else 60 * plan.minutes,
    )
    worked = time.process_time()
    try:
        with progress(plan.name) as tell:
            train_checkpoint(order, on_batch=tell, say=print)
    except TrainingFailedError as error:
        failure = str(error)
        print(failure)
    worked = time.process_time() - worked  # minutes by the clock say little where others compute, too
    model = json.loads((folder / "model.json").read_text()) if (folder / "model.json").exists() else None
    record = {
        "name": plan.name,
        "plan": {**asdict(plan), "options": _given(plan.options)},
        "failure": failure,
        "chance": chance_recall(splits["test"].labels),
        "model": model,
        "processor_seconds": worked,
    }
    if model is not None:
        record |= _measured(open_target(str(folder), plan.data, size=plan.size, root=root), plan)
    return {**record, "seconds": time.perf_counter() - begin}


def _measured(target: Target, plan: Plan) -> dict[str, Any]:
    """How well the model retrieves, and what attacks leave of it."""
    found: dict[str, Any] = {"accuracy": accuracy(target.gallery).as_dict()}
    if plan.attacks:
        found["attacks"] = [_attacked(target, goal, method) for method in ("pgd", "strong") for goal in FOUR]
        found["shift"] = _attacked(target, MaxShift(), "pgd")
    if plan.score:
        score = robustness_score(target.gallery, target.dataset.pictures, trials=plan.score)
        found["robustness"] = score.as_dict()
    return found


def _attacked(target: Target, goal: Any, method: str) -> dict[str, Any]:
    index = target.draw(TRIALS, seed=0)
    how = published(goal.metric) if method == "pgd" else strong(goal.metric)
    images = target.dataset.take(index)
    result = attack(target.gallery, images, goal, Threat(DEFENDED_EPS), method=how, index=index)
    return result.cell(model=target.gallery.ranker.name, data=target.dataset.name)


def _given(options: Options) -> dict[str, Any]:
    """The options that differ from those left out."""
    usual = asdict(Options())
    return {name: value for name, value in asdict(options).items() if value != usual[name]}


def main() -> None:
    """Parse and run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--only", nargs="+", help="names of plans; left out: all")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    for plan in EXPERIMENTS[options.experiment]():
        path = RECORDS / f"{plan.name}.json"
        if path.exists() or (options.only and plan.name not in options.only):
            continue
        record = run(plan, root)
        record["command"] = (
            f"python -m rankproof.experiments.training {options.experiment} --only {plan.name}"
        )
        write_atomically(path, (json.dumps(record) + "\n").encode())
        recall = record["model"] and record["model"]["recall_at_1"]
        print(f"{path}: R@1 {recall}", flush=True)


if __name__ == "__main__":
    main()
