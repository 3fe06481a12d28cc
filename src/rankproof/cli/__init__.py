"""The command line: parses, calls, exits. What needs torch is imported by the command that needs it."""

from collections.abc import Callable

import typer

from rankproof.cli.attack import attack
from rankproof.cli.audit import audit
from rankproof.cli.data import data
from rankproof.cli.evaluate import evaluate
from rankproof.cli.reproduce import reproduce
from rankproof.cli.serve import keys, serve
from rankproof.cli.train import train
from rankproof.cli.zoo import zoo
from rankproof.memory import keep_freed_memory

# In the order of the help page.
COMMANDS: tuple[Callable[..., None], ...] = (
    train,
    attack,
    audit,
    evaluate,
    reproduce,
    data,
    zoo,
    serve,
    keys,
)

app = typer.Typer(
    name="rankproof",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    app()


@app.callback()
def rankproof() -> None:
    """Find out how far a stranger can move the results of a search-by-image system.

    A search by image embeds pictures and ranks them by distance. Changes too small to see can move that
    ranking. rankproof measures how far, with the attacks of two papers (ECCV 2020, ICCV 2021) and a stronger
    one. Test systems that you own or may test.

    **Example**: a first audit, of scanned digits, in a few minutes.

    ```
    rankproof train --batch 100 --epochs 20 --out runs/digits/model
    rankproof audit --model runs/digits/model --eps 8/255 --out runs/digits
    ```
    """


for command in COMMANDS:
    app.command()(command)
