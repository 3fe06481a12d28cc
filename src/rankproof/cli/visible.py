"""How many results an attacker of a black box sees."""

import re
from typing import Annotated

import typer

from rankproof.errors import RankproofError

Visible = Annotated[
    str | None,
    typer.Option(
        metavar="N|k|inf",
        help="Black box: how many results are seen, k as many as are reordered, inf all. Left out: 50; "
        "as many as a live service shows.",
        show_default=False,
    ),
]


def visible_of(text: str | None, k: int) -> int | None:
    """How many results "50", "k" or "inf" shows, None all; the default where the text is None.

    Raises:
        RankproofError: the text names no number of results, or one that cannot show k of them.
    """
    from rankproof.goals.order import VISIBLE

    if text == "inf":
        return None
    if text not in (None, "k") and not re.fullmatch("[0-9]{1,9}", text):
        raise RankproofError(f"--visible {text!r} is no number of results; write 50, k or inf")
    shown = VISIBLE if text is None else k if text == "k" else int(text)
    if shown < k:
        raise RankproofError(
            f"k = {k} results cannot be ordered where only N = {shown} are visible; try --visible {k}"
        )
    return shown


def shown_of(visible: str | None, k: int) -> int | None:
    """How many results a running service shows; None is as many as it answers."""
    if visible == "inf":
        raise RankproofError("--visible inf: a running service shows no whole ranking; write a number")
    return None if visible is None else visible_of(visible, k)
