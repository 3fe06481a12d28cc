"""Attacks whose bytes are kept in golden.json: what a change of the code must not change by accident.

python tests/attacks/golden.py        writes golden.json anew, after a change that is meant
"""

import hashlib
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn import functional

from rankproof import (
    PGD,
    PSO,
    SPSA,
    CandidateLower,
    CandidateRaise,
    Gallery,
    LeaveTop,
    LocalOracle,
    MaxShift,
    Mismatch,
    Misrank,
    MomentumPGD,
    NearestOther,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    ThompsonSampling,
    Threat,
    attack,
    load,
    load_checkpoint,
)

FILE = Path(__file__).with_name("golden.json")
COUNT, CHUNK, THREADS = 6, 4, 1  # attacks each; images in one pass; bits depend on both
LATER = ("unchanged", "examination")  # keys that summaries have got since the file was written
VOLATILE = ("schema", "seconds", "model_seconds", "peak_mb", "versions", "device", *LATER)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack: where, on what, and how."""

    world: str
    goal: object
    method: object
    distance: str = "cosine"
    eps: float = 0.05
    drop: bool = False
    explicit: int = 0
    keep: int = 0
    shared: bool = False
    visible: int | None = 0
    grid: bool = False
    extra: dict = field(default_factory=dict)


SP_RAISE, SP_LOWER = QueryRaise(m=2) + 1.0 * Preserve(g=3), QueryLower(m=2) + 100.0 * Preserve(g=3)
ORDER_STRONG = MomentumPGD(rule="iccv21", steps=8, momentum=0.9, longest=2 / 255, penalty_weight=5.0)
CASES = {
    "ca+ pgd digits": Case(world="digits", goal=CandidateRaise(w=2), method=PGD()),
    "ca+ strong zoo": Case(world="zoo", goal=CandidateRaise(w=1), method=MomentumPGD(steps=6)),
    "ca- pgd digits drop": Case(
        world="digits", distance="euclidean", goal=CandidateLower(w=1), method=PGD(), drop=True
    ),
    "ca- pgd zoo": Case(world="zoo", goal=CandidateLower(w=3), method=PGD(steps=6)),
    "ca+ distance digits": Case(
        world="digits", goal=CandidateRaise(w=2, form="distance"), method=MomentumPGD()
    ),
    "qa+ strong digits drop": Case(world="digits", goal=QueryRaise(m=2), method=MomentumPGD(), drop=True),
    "qa+ explicit zoo": Case(world="zoo", goal=QueryRaise(m=2), method=PGD(steps=6), explicit=2),
    "qa- strong digits": Case(
        world="digits", distance="euclidean", goal=QueryLower(m=1), method=MomentumPGD()
    ),
    "qa- distance zoo": Case(world="zoo", goal=QueryLower(m=2, form="distance"), method=PGD(steps=6)),
    "sp-qa+ pgd digits": Case(world="digits", goal=SP_RAISE, method=PGD()),
    "sp-qa+ explicit zoo": Case(
        world="zoo", goal=SP_RAISE, method=MomentumPGD(steps=6), explicit=2, keep=3
    ),
    "sp-qa- strong digits drop": Case(
        world="digits", distance="euclidean", goal=SP_LOWER, method=MomentumPGD(), drop=True
    ),
    "sp-qa- pgd zoo": Case(world="zoo", goal=SP_LOWER, method=PGD(steps=6)),
    "oa pgd digits drop": Case(world="digits", goal=Reorder(k=4), method=PGD(rule="iccv21"), drop=True),
    "oa strong zoo": Case(world="zoo", goal=Reorder(k=5), method=ORDER_STRONG),
    "oa explicit digits": Case(
        world="digits", distance="euclidean", goal=Reorder(k=4), method=PGD(rule="iccv21"), explicit=4,
        eps=0.2,
    ),
    "oa given order zoo": Case(
        world="zoo", goal=Reorder(k=4, order=(0, 3, 2, 1)), method=PGD(steps=6, rule="iccv21")
    ),
    "shift pgd digits": Case(world="digits", distance="euclidean", goal=MaxShift(), method=PGD()),
    "shift strong zoo": Case(world="zoo", goal=MaxShift(), method=MomentumPGD(steps=6)),
    "mismatch pgd digits": Case(world="digits", goal=Mismatch(), method=PGD()),
    "misrank pgd zoo": Case(world="zoo", goal=Misrank(), method=PGD(steps=6)),
    "nearest-other strong digits": Case(
        world="digits", distance="euclidean", goal=NearestOther(), method=MomentumPGD()
    ),
    "top4 pgd zoo": Case(world="zoo", goal=LeaveTop(), method=PGD(steps=6)),
    "universal digits": Case(
        world="digits", goal=CandidateRaise(w=1), method=None, explicit=1, shared=True
    ),
    "oa spsa digits": Case(
        world="digits", goal=Reorder(k=4), method=SPSA(pairs=5, sigma=0.05, step=0.05), visible=20, eps=0.3
    ),
    "oa pso digits drop": Case(
        world="digits", distance="euclidean", goal=Reorder(k=3), method=PSO(particles=10), visible=None,
        drop=True,
    ),
    "oa auto zoo": Case(world="zoo", goal=Reorder(k=5), method=ThompsonSampling(), visible=50, grid=True),
}  # fmt: skip


class RandomEncoder(nn.Module):
    """Two convolutions and a matrix with weights drawn from a seed: the same on every machine."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
            nn.Tanh(), nn.Flatten(), nn.Linear(16 * 16, 24),
        )  # fmt: skip
        random = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in self.parameters():
                spread = 1.5 / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=random) * spread)

    def forward(self, images):
        return self.layers(images)


def gallery_of(world, distance):
    """120 digits, or 120 enlarged digits under a model of the zoo."""
    digits = load("digits", "test")
    images = digits.images[:120].float() / 255
    if world == "digits":
        return Gallery.build(Ranker(RandomEncoder(), distance, chunk=CHUNK), images, digits.labels[:120])
    images = functional.interpolate(images, size=(28, 28), mode="nearest")
    ranker = Ranker(load_checkpoint("zoo:fashion-mnist/c2f1-ct").encoder, distance, chunk=CHUNK)
    return Gallery.build(ranker, images, digits.labels[:120])


def failing(calls):
    """A progress callback that stops a search in the middle, as a lost connection would."""
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == calls:
            raise OSError("interrupted by the test")

    return progress


def run(case):
    """The result of a case; a black box is interrupted and goes on from its file."""
    gallery = gallery_of(case.world, case.distance)
    rows = torch.arange(COUNT) * 11 + 3
    options = {"gallery_ids": rows, "exclude_self": case.drop, "seed": 5}
    if case.explicit:
        shared = torch.full((COUNT, 1), 17)
        options["targets"] = (
            shared if case.shared else (rows[:, None] * 7 + torch.arange(case.explicit) * 5) % 120
        )
    if case.keep:
        options["preserved"] = (rows[:, None] * 3 + 50 + torch.arange(case.keep)) % 120
    threat = Threat(case.eps, grid=case.grid, shared=case.shared)
    images = gallery.images[rows]
    if case.visible == 0:
        return attack(gallery, images, case.goal, threat, method=case.method, **options)
    with TemporaryDirectory() as folder:
        oracle = LocalOracle(gallery, case.visible)
        options |= {"method": case.method, "budget": 60, "search_folder": Path(folder)}
        try:
            attack(oracle, images, case.goal, threat, progress=failing(3), **options)
        except RankproofError:
            pass
        else:
            raise AssertionError("the search was to be interrupted")
        return attack(oracle, images, case.goal, threat, **options)


# Keys that are younger than the file: of a service alone, or `steps` where all attacks take as many.
LATER = {"checks", "checks_differing", "tau_again", "evaluations", "evaluations_max"}


def told(result):
    """What is kept of a result: a digest of each image, every figure, and the summary."""
    images = [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for image in result.adversarial]
    summary = {
        name: value
        for name, value in result.summary.to_json().items()
        if name not in VOLATILE and not (name in LATER and value in (None, result.steps))
    }
    figures = {
        f"{when}_{name}": values.double().tolist()
        for when, part in (("before", result.before), ("after", result.after))
        for name, values in part.items()
    }
    return {"images": images, "targets": result.targets.tolist(), "figures": figures, "summary": summary}


def machine():
    """What bits depend on beside the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = [line.split(":", 1)[1].split() for line in lines if line.startswith("flags")]
    vector = sorted(flag for flag in (flags[0] if flags else []) if flag.startswith(("avx", "fma", "amx")))
    return {
        "processor": names[0] if names else platform.processor(),
        "vector": " ".join(vector),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    record = {"machine": machine(), "attacks": {name: told(run(case)) for name, case in CASES.items()}}
    lines = [f"  {json.dumps(name)}: {json.dumps(attack)}" for name, attack in record["attacks"].items()]
    text = ",\n".join(lines)
    FILE.write_text(f'{{"machine": {json.dumps(record["machine"])},\n "attacks": {{\n{text}\n}}}}\n')
    print(f"{FILE}: {len(CASES)} attacks")
