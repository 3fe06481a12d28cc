"""An evaluation as one object for a program and as a table for a reader."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from rankproof.audit.table import figure
from rankproof.evaluation.accuracy import Accuracy
from rankproof.evaluation.robustness import Robustness

RETRIEVAL = {
    "recall_at_1": "R@1",
    "recall_at_2": "R@2",
    "recall_at_4": "R@4",
    "recall_at_8": "R@8",
    "map": "mAP",
    "map_at_r": "mAP@R",
    "nmi": "NMI",
}
TERMS = {
    "ca+": "2 CA+",
    "ca-": "100 − CA−",
    "qa+": "2 QA+",
    "qa-": "100 − QA−",
    "mismatch": "targeted mismatch: 100 (1 − cos)",
    "shift": "max shift: 100 (2 − shift) / 2",
    "shift-recall": "R@1 under max shift",
    "misrank": "R@1 under learning to misrank",
    "nearest-other": "R@1 drawn to the nearest other class",
    "top4": "nearest still among the first 4",
}
ATTACKED = ("shift", "ers", "ers_terms", "eps", "method", "steps", "trials", "collapsed")


def as_json(retrieval: Accuracy, attacked: Robustness | None, **context: Any) -> dict[str, Any]:
    """The object that `rankproof evaluate --json` prints; without robustness its figures are None.

    Args:
        context: what the results cannot know: model, data, gallery_size, device, seconds, versions.
    """
    plain = retrieval.as_dict()
    nothing: dict[str, Any] = dict.fromkeys(ATTACKED)
    hard = nothing if attacked is None else attacked.as_dict()
    intervals = {**plain.pop("ci95"), **hard.get("ci95", {})}
    notes = [*plain.pop("notes"), *hard.get("notes", [])]
    return {
        **{name: context[name] for name in ("model", "data", "gallery_size", "device")},
        **plain,
        **{name: hard[name] for name in ATTACKED},
        "ci95": intervals,
        "seed": retrieval.seed,
        "seconds": context["seconds"],
        "flags": hard.get("flags", []),
        "notes": notes,
        "versions": context["versions"],
    }


def table_text(told: dict[str, Any]) -> Table:
    """The terminal's table of what `as_json` returned: retrieval first, then each term of ERS."""
    table = Table()
    table.add_column("figure", no_wrap=True)
    for column in ("value", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    ends = told["ci95"]
    for name, label in RETRIEVAL.items():
        table.add_row(label, f"{figure(told[name])} %", _interval(ends.get(name)))
    if told["ers"] is None:
        return table
    table.add_section()
    for name, label in TERMS.items():
        table.add_row(label, f"{figure(told['ers_terms'][name])} %", _interval(ends["ers_terms"][name]))
    table.add_section()
    table.add_row("ERS, the mean of these ten", f"{figure(told['ers'])} %", _interval(ends["ers"]))
    table.add_row("max shift, in the model's distance", figure(told["shift"], 2), _interval(ends["shift"], 2))
    return table


def _interval(ends: list[float | None] | None, places: int = 1) -> str:
    """An interval in brackets, empty where there is none."""
    if ends is None or None in ends:
        return ""
    return escape(f"[{', '.join(figure(end, places) for end in ends)}]")
