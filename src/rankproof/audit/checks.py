"""Reasons to doubt a figure: an attack that fails silently looks like a robust model."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from rankproof.attacks.result import AttackResult
from rankproof.audit.result import Flag
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import mean_interval

SAMPLE = 200  # gallery items looked at
COLLAPSED = 0.01  # spread of all distances relative to the length of the embeddings
TIES = 0.01
SILENT = (
    0.01  # a wish that is fulfilled already has no gradient either: a few of those are no reason to doubt
)
WIDE = {"rank": 3.0, "tau": 0.05, "shift": math.inf}
WIDE_SEEN = 0.15  # of tau_S: a black-box attack costs so much that there are fewer of them
WISHED = {"ca+": -1, "qa+": -1, "sp-qa+": -1, "ca-": 1, "qa-": 1, "sp-qa-": 1, "oa": 1, "shift": 1}


def check_gallery(gallery: Gallery, index: torch.Tensor | None) -> list[Flag]:
    """Collapse, ties and duplicates, on a sample of the gallery.

    Args:
        index: (b,) gallery positions of the attacked images, or None.
    """
    rows = index if index is not None else torch.arange(len(gallery))
    rows = rows[:SAMPLE].to(gallery.embeddings.device)
    z = gallery.embeddings[rows]
    distances = gallery.ranker.distance.pairwise(z.double(), gallery.embeddings.double())  # (s, n)
    scale = float(z.double().norm(dim=1).mean()) or 1.0
    flags = []
    spread = float(distances.quantile(0.95, dim=1).median()) / scale
    if spread < COLLAPSED:
        flags.append(
            Flag(
                kind="collapsed",
                text=f"nearly all pictures have the same embedding (95 % of distances are below {spread:.1e} "
                "of its length): such a model looks robust because nothing can move, not because it is",
            )
        )
    ordered = distances.sort(dim=1).values
    ties = float((ordered[:, 1:] == ordered[:, :-1]).double().mean())
    if ties > TIES:
        flags.append(
            Flag(
                kind="ties",
                text=f"{100 * ties:.1f} % of neighbouring distances are equal: ranks count strictly "
                "nearer items, so tied items share the better rank",
            )
        )
    if index is not None:
        own = distances.gather(1, rows[:, None])
        twins = int(((distances <= own + 1e-12).sum(1) > 1).sum())
        if twins:
            flags.append(
                Flag(
                    kind="duplicates",
                    text=f"{twins} of {len(rows)} pictures looked at have an exact duplicate in "
                    "the gallery: their own rank is shared and R@1 counts the copy as found",
                )
            )
    return flags


def check_attack(result: AttackResult, label: str, *, headline: bool) -> list[Flag]:
    """What one attack's own values give away.

    Args:
        label: how the flag calls it.
        headline: whether the figure is one of the headline figures, whose interval must be narrow.
    """
    flags = []
    silent = int(result.zero_gradient.sum())
    if silent > SILENT * len(result):
        flags.append(
            Flag(
                kind="silent-gradient",
                cell=label,
                text=f"{silent} of {len(result)} attacks never saw a usable "
                "gradient (zero or not finite): the figure says nothing about them",
            )
        )
    summary = result.summary
    limit = WIDE.get(result.metric, math.inf) if result.budget is None else WIDE_SEEN
    if headline and not summary.half_width <= limit:
        unit = " points" if result.metric == "rank" else ""
        flags.append(
            Flag(
                kind="wide-interval",
                cell=label,
                text=f"the 95 % interval is wider than ±{limit:g}{unit}; more trials make it narrower",
            )
        )
    return flags


def check_weaker(
    strong: dict[str, Any],
    weak: dict[str, Any],
    goal: str,
    label: str,
    own: str = "the strong method",
    plain: str = "plain PGD",
) -> list[Flag]:
    """Whether the strong method loses to the weak one on the same attacks.

    Args:
        strong, weak: "values", the headline figure of each attack, and for SP goals "kept", C_SP's mean rank;
            a lower rank of the chosen is no loss where C_SP was kept better.
        own, plain: how the flag calls the two methods.
    """
    wish = WISHED.get(goal)
    if wish is None or len(strong["values"]) < 2:
        return []
    gain = mean_interval(wish * (torch.tensor(strong["values"]) - torch.tensor(weak["values"])))
    if gain.high >= 0:
        return []
    if strong["kept"] and mean_interval(torch.tensor(strong["kept"]) - torch.tensor(weak["kept"])).high < 0:
        return []
    text = (
        f"{own} does worse than {plain} on the same attacks: its figure understates the danger; "
        "take the other one"
    )
    return [Flag(kind="strong-loses", cell=label, text=text)]


def check_knowledge(seen: dict[str, Any], known: dict[str, Any], label: str) -> list[Flag]:
    """Whether an order attack that only sees the first results beats the one that knows the weights.

    tau_S counts a result out of sight as lost, so that it is never above Kendall's tau of the same picture:
    where it is significantly above the white box's tau, the white-box search failed.

    Args:
        seen, known: "values" and "targets" of the black-box and the white-box attacks; those on the same
            pictures with the same wanted order are compared.
    """
    pairs = zip(seen["values"], known["values"], seen["targets"], known["targets"], strict=False)
    gains = [black - white for black, white, wanted, other in pairs if wanted == other]
    if len(gains) < 2 or not mean_interval(torch.tensor(gains, dtype=torch.float64)).low > 0:
        return []
    text = (
        "the black box goes further than the white-box attack on the same pictures, which knows more: "
        "the white-box figure of OA understates the danger"
    )
    return [Flag(kind="black-box-beats-white-box", cell=label, text=text)]


def check_curve(cells: Sequence[dict[str, Any]]) -> list[Flag]:
    """Whether a larger budget makes the same attack significantly worse."""
    ordered = sorted(cells, key=lambda cell: float(cell["eps"]))
    flags = []
    for smaller, larger in itertools.pairwise(ordered):
        wish = WISHED.get(str(smaller["goal"]))
        if wish is None or None in (*smaller["ci95"], *larger["ci95"]):
            continue
        low, high = (sorted((wish * cell["ci95"][0], wish * cell["ci95"][1])) for cell in (smaller, larger))
        if high[1] < low[0]:
            flags.append(
                Flag(
                    kind="larger-is-weaker",
                    cell=str(larger["goal"]),
                    text=f"more budget ({larger['eps'] * 255:g}/255 "
                    f"instead of {smaller['eps'] * 255:g}/255) gives a weaker attack: the search fails there",
                )
            )
    return flags


def check_baseline(cell: dict[str, Any]) -> list[Flag]:
    """Whether an attack that may change nothing has the figure it must have."""
    expected = {"ca+": 50.0, "qa+": 50.0, "sp-qa+": 50.0, "oa": 0.0, "shift": 0.0}.get(str(cell["goal"]))
    if expected is None or cell["eps"] != 0 or None in cell["ci95"]:
        return []
    half = (cell["ci95"][1] - cell["ci95"][0]) / 2
    slack = 2.1 * half + 1e-6 + 100 / cell["gallery_size"] * (cell["metric"] == "rank")
    if abs(cell["after"] - expected) <= slack:
        return []
    return [
        Flag(
            kind="baseline",
            cell=f"{cell['goal']} at 0/255",
            text=f"without any change the figure is "
            f"{cell['after']:.2f} where {expected:g} is expected: ranks are not what they should be",
        )
    ]
