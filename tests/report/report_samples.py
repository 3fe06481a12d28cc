"""Audits as they come, with fabricated figures: a photo encoder, a defended model, very few attacks."""

import math
from dataclasses import replace

import torch

from rankproof.attacks.budget_summary import BudgetSummary, median_interval
from rankproof.attacks.summary import AttackSummary
from rankproof.audit import AuditResult
from rankproof.goals.registry import spec
from rankproof.report.findings import ClassBudget, Control, ProtocolHashes
from rankproof.report.page import Flag
from rankproof.report.strip import Strip, Tile

PHOTOS = {"ca+": 0.5, "ca-": 0.14, "qa+": 0.92, "qa-": 0.12, "sp-qa+": 1.4, "sp-qa-": 0.21, "oa": 0.42}
DEFENDED = {"ca+": 31.0, "ca-": 12.0, "qa+": 44.0, "qa-": 10.5, "sp-qa+": 52.0, "sp-qa-": 13.0, "oa": 22.0}
SETTING = {"ca+": {"w": 1}, "ca-": {"w": 1}, "qa+": {"m": 1}, "qa-": {"m": 1}, "oa": {"k": 5}}
SETTING |= {goal: {"m": 1, "g": 5, "xi": 1.0} for goal in ("sp-qa+", "sp-qa-")}
AFTER = {
    "ca+": (50.1, 2.91),
    "ca-": (1.9, 73.31),
    "qa+": (50.3, 3.12),
    "qa-": (0.5, 61.04),
    "sp-qa+": (50.2, 13.44),
    "sp-qa-": (0.5, 28.83),
    "oa": (0.0, 0.81),
    "shift": (0.0, 0.47),
}
METRIC = {"oa": "tau", "shift": "shift"}
CLASSES = "apple", "avocado", "ginger", "kiwi", "leek", "oat milk", "onion", "pear", "tomato", "yoghurt <b>"


def budgets(goal, median=1.0, trials=25, *, free=0, reached=None, spread=0.6, **changes):
    """Smallest budgets of a goal, spread around a median in 1/255; those not reached are the largest."""
    count = trials - free
    normal = torch.distributions.Normal(0.0, spread)
    shares = (torch.arange(count) + 0.5) / max(count, 1)
    values = [median / 255 * math.exp(float(normal.icdf(share))) for share in shares]
    values = [eps if number < (count if reached is None else reached) else math.inf
              for number, eps in enumerate(values)]  # fmt: skip
    found = [min(eps, 1.0) for eps in values if math.isfinite(eps)]
    middle, ends = median_interval(values)
    low = {"lower": 10, "reorder": 50}.get(spec(goal).direction)
    fields = {"goal": goal, "first": 10, "places": low, "trials": trials, "free": free}
    fields |= {"reached": len(found), "eps_star": middle, "eps_star_ci95": ends}
    fields |= {"curve": tuple((eps, (n + 1) / count) for n, eps in enumerate(found))}
    fields |= {"below_8bit": sum(eps < 0.5 / 255 for eps in found), "saved": max(len(found) - 1, 0)}
    fields |= {"evaluations": 71.4, "evaluations_max": 130, "seed": 0, "device": "cpu", "seconds": 11.8}
    return BudgetSummary(**fields | SETTING.get(goal, {}) | changes)


def cell(goal, eps=1 / 255, method="strong", **changes):
    """What an attack does at one budget."""
    before, after = AFTER[goal]
    stealthy = goal.startswith("sp")
    values = {"goal": goal, "method": method, "eps": eps, "metric": METRIC.get(goal, "rank")}
    values |= SETTING.get(goal, {})
    values |= {"sp_rank": 1.37 if stealthy else None, "mean_rank_before": 2.0, "mean_rank": 17.25}
    values |= {"before": before, "after": after, "ci95": (after * 0.97, after * 1.03)}
    values |= {"steps": 240, "trials": 100, "seed": 0, "device": "cpu", "seconds": 12.5}
    return AttackSummary(**values | changes)


def seen(k=5, method="thompson", after=0.37, **changes):
    """A figure of a black box: the same attack where only 50 results are seen."""
    values = {"method": method, "k": k, "visible": 50, "budget": 1000, "trials": 20, "before": 0.01}
    values |= {"after": after, "ci95": (after - 0.08, after + 0.08), "queries_spent": 871.4}
    values |= {"queries_max": 1000, "mean_rank_before": (k - 1) / 2, "mean_rank": 7.65}
    values |= {"curve": tuple((q, 0.01 + (after - 0.01) * math.log10(q) / 3) for q in (1, 10, 100, 1000))}
    return cell("oa", **values | changes)


def control(name, goal="qa+", value=2.9, compared_with=3.1, *, passed=True, **changes):
    """A check of the search."""
    fields = {"name": name, "goal": goal, "eps": 1 / 255, "trials": 10, "value": value}
    text = f"Of {name} came {value:g} where the attacks themselves have {compared_with:g}."
    return Control(**fields | {"compared_with": compared_with, "passed": passed, "text": text} | changes)


def controls(goals=PHOTOS):
    """Every check of every goal."""
    found = []
    for goal in goals:
        before, after = AFTER[goal]
        found += [
            control("noise", goal, before, after),
            control("doubled", goal, after, after),
            control("best-iterate", goal, after, after),
            control("png", goal, after * 0.98 + before * 0.02, after, passed=None),
            control("jpeg-90", goal, after * 0.4 + before * 0.6, after, passed=None),
        ]
        if spec(goal).direction == "raise":
            found.append(control("eps-1", goal, 1.0, 1.0, eps=1.0))
    return tuple(found)


def image(seed, size=64):
    """Something like a photo: smooth colours."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)[0]


def strip(goal="qa+", role="median", eps=0.92 / 255, size=8):
    """An example attack."""
    images = [image(seed, size) for seed in range(8)]
    tiles = tuple(Tile(image=one, rank=rank, chosen=rank == 6) for rank, one in enumerate(images[1:]))
    changed = (images[0] + eps * (2 * (image(99, size) > 0.5).float() - 1)).clamp(0, 1)
    wanted = "The attacker changed the query and wanted the marked item to rise to the top."
    return Strip(goal=goal, eps=eps, original=images[0], adversarial=changed, query=None, before=tiles,
                 after=tiles, wanted=wanted, role=role)  # fmt: skip


def audit(**changes):
    """An audit of a photo encoder, whole and without a doubt."""
    cells = [
        cell(goal, method=method, **more)
        for goal in PHOTOS
        for method, more in (
            ("pgd", {"after": sum(AFTER[goal]) / 2}),
            ("converged", {}),
            ("worst-case", {"after": AFTER[goal][0] + 1.02 * (AFTER[goal][1] - AFTER[goal][0])}),
        )
    ]
    cells += [seen(), seen(method="spsa", after=0.22), seen(10, after=0.31), seen(10, "spsa", 0.19)]
    values = {"model": "timm:tf_efficientnet_lite0", "data": "groceries", "recall_at_1": 84.41}
    values |= {"cells": tuple(cells), "flags": (), "eps": 1 / 255, "trials": 100, "seed": 7}
    values |= {"gallery_size": 648, "data_note": "648 photos of 96x96 in 81 classes"}
    values |= {"command": "rankproof audit --eps 1/255 --trials 25 --out runs/groceries"}
    values |= {"versions": {"python": "3.11", "torch": "2.5"}, "seconds": 212.0}
    values |= {"smallest": tuple(budgets(goal, median) for goal, median in PHOTOS.items())}
    values |= {"controls": controls(), "model_record": {"name": "tf_efficientnet_lite0"}}
    values |= {"classes": tuple(ClassBudget(goal=goal, label=label, trials=3, eps_star=(n + 1) * 0.13 / 255)
                                for goal in ("qa+", "ca+") for n, label in enumerate(CLASSES))}  # fmt: skip
    hashes = "0f3a9c" * 10 + "beef", "77ab01" * 10 + "cafe", "e0e1e2" * 10 + "f00d"
    values |= {"protocol": ProtocolHashes(name="rankproof-1", protocol=hashes[0], data=hashes[1],
                                          model=hashes[2])}  # fmt: skip
    return AuditResult(**values | changes)


def of_photos(size=160):
    """The whole audit with the examples as photos."""
    roles = ("easiest", 0.3), ("median", 1.0), ("hardest", 3.0)
    strips = tuple(strip(goal, role, PHOTOS[goal] * factor / 255, size)
                   for goal in ("ca+", "qa+", "oa") for role, factor in roles)  # fmt: skip
    return audit(strips=strips)


def of_a_defended_model():
    """Much is not reached; a check failed; much is doubted; no black box."""
    reached = {"qa+": 9, "sp-qa+": 0}
    smallest = [budgets(goal, median, reached=reached.get(goal)) for goal, median in DEFENDED.items()]
    wide = "the 95 % interval is wider than ±3 points; more trials make it narrower"
    flags = [Flag(kind="wide-interval", text=wide, cell=f"{goal} at 8/255") for goal in DEFENDED]
    flags.append(Flag(kind="ties", text="2 % of the distances of a query are ties: ranks are not certain."))
    failed = control("doubled", "ca+", 18.0, 21.9, passed=False)
    return audit(
        model="runs/defended & <b>hardened</b>",
        data="fashion-mnist",
        recall_at_1=None,
        smallest=tuple(smallest),
        cells=tuple(cell(goal, 8 / 255, "strong") for goal in DEFENDED),
        eps=8 / 255,
        flags=tuple(flags),
        controls=tuple(failed if (c.name, c.goal) == ("doubled", "ca+") else c for c in controls()),
        missing=("The black box was not measured: there was no time left; give --time 10m.",),
        classes=(),
    )


def of_three_attacks():
    """As soon as there is anything: three attacks of each goal."""
    smallest = tuple(budgets(goal, median, 3, free=int(goal == "qa-")) for goal, median in PHOTOS.items())
    missing = (
        "What happens at the audited eps was not measured for want of time.",
        "The black box was not measured for want of time.",
        "The checks were not made for want of time.",
    )
    more = {"cells": (), "controls": (), "classes": (), "missing": missing, "trials": 3}
    return audit(smallest=smallest, protocol=None, **more)


def of_nothing_reached():
    """A search that failed, or a model that withstands."""
    return audit(smallest=tuple(budgets(goal, 1.0, reached=0) for goal in PHOTOS), classes=())


def of_everything_free():
    """A gallery of eight items: all of them are on the first page."""
    return audit(smallest=tuple(budgets(goal, 1.0, 8, free=8) for goal in PHOTOS), gallery_size=8)


def of_an_earlier_version():
    """A report without anything that came with the smallest budgets."""
    return replace(audit(), smallest=(), controls=(), classes=(), protocol=None, missing=())


ALL = {
    "photos": of_photos,
    "defended": of_a_defended_model,
    "three": of_three_attacks,
    "nothing": of_nothing_reached,
    "free": of_everything_free,
    "earlier": of_an_earlier_version,
}
