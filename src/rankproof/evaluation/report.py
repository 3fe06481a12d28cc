"""An evaluation as one object for a program and as a table for a reader."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from rankproof.evaluation.accuracy import Accuracy
from rankproof.evaluation.robustness import Robustness
from rankproof.evaluation.terms import ERS_TERMS
from rankproof.io import JsonObject
from rankproof.report.format import ends_text, number_text

RETRIEVAL = {
    "recall_at_1": "R@1",
    "recall_at_2": "R@2",
    "recall_at_4": "R@4",
    "recall_at_8": "R@8",
    "map": "mAP",
    "map_at_r": "mAP@R",
    "nmi": "NMI",
}
TERMS = {term.name: term.label for term in ERS_TERMS}
ATTACKED = ("shift", "ers", "ers_terms", "eps", "method", "steps", "trials", "collapsed", "unchanged")


def as_json(
    retrieval: Accuracy,
    attacked: Robustness | None,
    *,
    model: str,
    data: str,
    gallery_size: int,
    device: str,
    seconds: float,
    versions: Mapping[str, str],
) -> JsonObject:
    """The object that `rankproof evaluate --json` prints; without robustness its figures are None.

    Args:
        model, data, gallery_size, device, seconds, versions: what the results cannot know.
    """
    plain = retrieval.as_dict()
    robust = {} if attacked is None else attacked.as_dict()
    intervals = {**plain.pop("ci95"), **robust.get("ci95", {})}
    notes = [*plain.pop("notes"), *robust.get("notes", [])]
    return {
        "model": model,
        "data": data,
        "gallery_size": gallery_size,
        "device": device,
        **plain,
        **{name: robust.get(name) for name in ATTACKED},
        "ci95": intervals,
        "seed": retrieval.seed,
        "seconds": seconds,
        "flags": robust.get("flags", []),
        "notes": notes,
        "versions": dict(versions),
    }


def evaluation_table(figures: JsonObject) -> Table:
    """The terminal's table of what `as_json` returned: retrieval first, then each term of ERS."""
    table = Table()
    table.add_column("figure", no_wrap=True)
    for column in ("value", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    ends = figures["ci95"]
    for name, label in RETRIEVAL.items():
        if figures[name] is None:
            continue
        table.add_row(label, f"{number_text(figures[name])} %", _interval(ends.get(name)))
    if figures["ers"] is None:
        return table
    table.add_section()
    for name, label in TERMS.items():
        table.add_row(
            label, f"{number_text(figures['ers_terms'][name])} %", _interval(ends["ers_terms"][name])
        )
    table.add_section()
    table.add_row("ERS, the mean of these ten", f"{number_text(figures['ers'])} %", _interval(ends["ers"]))
    table.add_row(
        "max shift, in the model's distance", number_text(figures["shift"], 2), _interval(ends["shift"], 2)
    )
    return table


def _interval(ends: list[float | None] | None, places: int = 1) -> str:
    return escape(ends_text(ends, places))
