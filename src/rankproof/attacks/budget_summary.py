"""The smallest budgets of an attack as one flat value: what `--json`, reports and records hold."""

import bisect
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rankproof.attacks.summary import read_fields
from rankproof.errors import RankproofError
from rankproof.goals.base import LETTERS, GoalSpec
from rankproof.goals.registry import spec
from rankproof.io import JsonObject

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class BudgetSummary:
    """By how much pixels must change for a wish to come true; the names are those of the JSON object.

    Args:
        goal: its name.
        w, m, k, g, xi: the papers' letters.
        first: K, how many results count as the first ones.
        places: the number of results the wish is about where it is not K (N, sight, 1 or 4); else None.
        trials: T, how many images were attacked.
        free: of how many the wish held before anything was changed; they are counted apart.
        reached: of how many others a budget was found.
        eps_star: the median smallest budget in [0, 1] of the attacks that are not free; None where
            half of them or fewer were reached.
        eps_star_ci95: its 95 % interval, from order statistics; None for an end that was not reached, or
            where there are too few attacks.
        curve: the share of these attacks that succeed within each budget: ((eps, share), ...), ascending.
        below_8bit: how many of them need less than half a grey level, which an 8-bit file cannot hold.
        saved: of how many of those reached the image, saved as an 8-bit file and read again, fulfils the
            wish; within the next whole number of grey levels, or the one above.
        evaluations, evaluations_max: forward and gradient evaluations spent on an attack.
        seed, device, model, data, seconds, gallery_size, versions, notes: as in `AttackSummary`.
    """

    goal: str
    w: int | None = None
    m: int | None = None
    k: int | None = None
    g: int | None = None
    xi: float | None = None
    first: int
    places: int | None = None
    trials: int
    free: int
    reached: int
    eps_star: float | None
    eps_star_ci95: tuple[float | None, float | None] = (None, None)
    curve: tuple[tuple[float, float], ...] = ()
    below_8bit: int = 0
    saved: int | None = None
    evaluations: float
    evaluations_max: int
    seed: int
    device: str
    model: str | None = None
    data: str | None = None
    seconds: float
    gallery_size: int | None = None
    versions: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> GoalSpec:
        """What is known of the goal."""
        return spec(self.goal)

    @property
    def parameters(self) -> dict[str, int | float | None]:
        """The values that sentences are made of: the letters, "first" and "places"."""
        return {name: getattr(self, name) for name in (*LETTERS, "first", "places")}

    @property
    def sentence(self) -> str:
        """What has come true where an attack succeeded; empty where the goal does not say."""
        return "" if self.spec.wish is None else self.spec.wish(self.parameters)

    def success(self, eps: float) -> float | None:
        """The share of attacks that succeed within a budget; None where there was none to do."""
        if self.trials == self.free:
            return None
        place = bisect.bisect_right([point for point, _ in self.curve], eps + 1e-9)
        return self.curve[place - 1][1] if place else 0.0

    def to_json(self) -> JsonObject:
        """The JSON object."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BudgetSummary":
        """The summary in an object that `to_json` made.

        Raises:
            RankproofError: something needed is missing, or the object is of a later schema.
        """
        read = read_fields(cls, values, SCHEMA)
        try:
            read["curve"] = tuple((float(eps), float(share)) for eps, share in read.get("curve", ()))
            read["eps_star_ci95"] = tuple(read.get("eps_star_ci95") or (None, None))
            read["notes"] = tuple(read.get("notes", ()))
            return cls(**read)
        except (TypeError, ValueError) as error:
            raise RankproofError(f"no summary of smallest budgets: {error}") from None


def median_interval(values: list[float]) -> tuple[float | None, tuple[float | None, float | None]]:
    """The median of values, of which some may be infinite, with its 95 % interval from order statistics.

    With B ~ Binomial(n, 1/2), the interval runs from the j-th smallest to the j-th largest value, j the
    largest number with P(B < j) <= 2.5 %; below six values there is none.
    """
    ordered, n = sorted(values), len(values)
    if not n:
        return None, (None, None)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    j, below = 0, 0.0
    while (below := below + math.comb(n, j) / 2**n) <= 0.025:
        j += 1
    ends = (ordered[j - 1], ordered[n - j]) if j else (math.inf, math.inf)
    low, high = (end if math.isfinite(end) else None for end in ends)
    return (median if math.isfinite(median) else None), (low, high)
