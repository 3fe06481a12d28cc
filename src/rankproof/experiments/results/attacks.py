"""A measured attack in words."""

from rankproof.experiments.results.records import Record
from rankproof.experiments.results.tables import with_interval
from rankproof.threat import format_eps

NAMES = {
    "ca+": "CA+",
    "ca-": "CA-",
    "qa+": "QA+",
    "qa-": "QA-",
    "sp-qa+": "SP-QA+",
    "sp-qa-": "SP-QA-",
    "oa": "OA",
}


def setting(cell: Record) -> str:
    """The goal and how many are chosen."""
    letter = next((letter for letter in ("w", "m", "k") if cell[letter]), "")
    return f"{NAMES[cell['goal']]}, {letter} = {cell[letter]}" if letter else NAMES[cell["goal"]]


def budget(cell: Record) -> str:
    """eps, for the order attack as n/255."""
    return f"{cell['eps']:g}" if cell["goal"] != "oa" else format_eps(cell["eps"])


def after(cell: Record) -> str:
    """What it reached, with its interval."""
    return with_interval(cell["after"], cell["ci95"], cell["metric"])
