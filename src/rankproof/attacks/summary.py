"""The means of an attack as one flat value: the object that `--json`, reports and records hold."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rankproof.errors import RankproofError
from rankproof.goals.base import LETTERS, GoalSpec
from rankproof.goals.registry import spec
from rankproof.io import JsonObject
from rankproof.ranking.examination import Examination, examination_from_json

SCHEMA = 1  # of the JSON object; docs/schema/attack.json describes it


def read_fields(cls: type, values: Mapping[str, Any], schema: int) -> JsonObject:
    """The fields of a dataclass in a JSON object; other keys, and a missing "schema", are ignored.

    Raises:
        RankproofError: the object is of a later schema.
    """
    if values.get("schema", schema) != schema:
        raise RankproofError(f"schema {values['schema']} is unknown; this version reads {schema}")
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


@dataclass(frozen=True, kw_only=True)
class AttackSummary:
    """The means of an attack and everything that is needed to run it again.

    The names are those of the JSON object; None where something does not apply.

    Args:
        goal, method: their names.
        eps: perturbation budget in [0, 1].
        w, m, k, g, xi: the papers' letters.
        steps: forward and gradient evaluations, or queries, spent on each attack, the most where they differ.
        evaluations, evaluations_max: forward and gradient evaluations of an attack, on average and at most.
        visible: N of a black-box attack, "inf" where the whole ranking is shown.
        budget: Q, queries each attack may spend.
        queries_spent, queries_max: queries really spent, on average and at most.
        checks: queries outside the budget that asked the clean and the best images again, in all.
        checks_differing: attacks in which one of these got another answer than before.
        tau_again: tau_S of the best images, asked again.
        trials: T, how many images were attacked.
        seed: all choices and random numbers come from it.
        device: where it ran.
        model, data: what was attacked, by name.
        metric: which figure `before` and `after` are.
        before, after: the mean headline figure of untouched and of adversarial images.
        ci95: the 95 % interval of `after`.
        unchanged: of a random encoder the figure of untouched images under new random numbers.
        rank_before, rank_after, sp_rank: mean normalised ranks in %.
        tau_before, tau: Kendall's tau, or tau_S in a black box.
        mean_rank_before, mean_rank: mR.
        curve: the mean best tau_S after so many queries: ((1, tau), (2, tau), (5, tau), ...).
        shift: mean distance between the embeddings before and after.
        seconds: time of the attack alone.
        model_seconds: time of the bare work that no attack can avoid.
        peak_mb: the most memory the process held.
        versions: of the software.
        gallery_size: |X|; None where it is unknown.
        examination: what the encoder was found to be; None behind a service.
        notes: what a reader should know.
    """

    goal: str
    method: str
    eps: float
    w: int | None = None
    m: int | None = None
    k: int | None = None
    g: int | None = None
    xi: float | None = None
    steps: int
    evaluations: float | None = None
    evaluations_max: int | None = None
    visible: int | str | None = None
    budget: int | None = None
    queries_spent: float | None = None
    queries_max: int | None = None
    checks: int | None = None
    checks_differing: int | None = None
    tau_again: float | None = None
    trials: int
    seed: int
    device: str
    model: str | None = None
    data: str | None = None
    metric: str
    before: float | None
    after: float | None
    ci95: tuple[float | None, float | None] = (None, None)
    unchanged: float | None = None
    rank_before: float | None = None
    rank_after: float | None = None
    sp_rank: float | None = None
    tau_before: float | None = None
    tau: float | None = None
    mean_rank_before: float | None = None
    mean_rank: float | None = None
    curve: tuple[tuple[int, float], ...] | None = None
    shift: float | None = None
    seconds: float
    model_seconds: float | None = None
    peak_mb: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    gallery_size: int | None = None
    examination: Examination | None = None
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> GoalSpec:
        """What the goal says about itself."""
        return spec(self.goal)

    @property
    def black_box(self) -> bool:
        """Whether the attacker saw results alone."""
        return self.budget is not None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `after`; None where there is none."""
        low, high = self.ci95
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return None
        return low, high

    @property
    def parameters(self) -> dict[str, int | float | str | None]:
        """The values a goal's sentence speaks of: w, m, k, g, xi, visible and budget."""
        return {name: getattr(self, name) for name in (*LETTERS, "visible", "budget")}

    @property
    def sentence(self) -> str:
        """What the attacker does and wants."""
        return self.spec.describe(self.parameters)

    def to_json(self) -> JsonObject:
        """The object of `rankproof attack --json`."""
        values = asdict(self)
        curve = None if self.curve is None else [list(point) for point in self.curve]
        lists = {"ci95": list(self.ci95), "curve": curve, "notes": list(self.notes)}
        nested = {
            "versions": dict(self.versions),
            "examination": None if self.examination is None else self.examination.to_json(),
        }
        return {"schema": SCHEMA} | values | lists | nested

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AttackSummary":
        """The summary in an object that `to_json` made; older ones without "schema" are read, too.

        Raises:
            RankproofError: something needed is missing, or the object is of a later schema.
        """
        read = read_fields(cls, values, SCHEMA)
        try:
            curve = read.get("curve")
            read["curve"] = None if curve is None else tuple((int(q), float(tau)) for q, tau in curve)
            read["ci95"] = tuple(read.get("ci95") or (None, None))
            read["notes"] = tuple(read.get("notes", ()))
            read["examination"] = examination_from_json(read.get("examination"))
            return cls(**read)
        except (TypeError, ValueError) as error:
            raise RankproofError(f"no summary of an attack: {error}") from None

    def __str__(self) -> str:
        ends = "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)
        return f"{self.goal} {self.metric} {self.after:.2f}{ends}"
