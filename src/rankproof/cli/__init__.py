"""The command line: parses, calls, exits. A command imports torch itself, so that `--help` is fast."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rankproof.cli.attack import attack
from rankproof.cli.attack_service import attack_service
from rankproof.cli.audit import audit
from rankproof.cli.cache import cache
from rankproof.cli.data import data
from rankproof.cli.evaluate import evaluate
from rankproof.cli.options import RegistryCommand, expanded
from rankproof.cli.output import FAILED, whole_output
from rankproof.cli.reproduce import reproduce
from rankproof.cli.serve import keys, serve
from rankproof.cli.terminal import say
from rankproof.cli.train import train
from rankproof.cli.zoo import zoo
from rankproof.parallel import keep_freed_memory

# In the order of the help page.
COMMANDS: tuple[Callable[..., None], ...] = (
    train,
    attack,
    attack_service,
    audit,
    evaluate,
    reproduce,
    data,
    zoo,
    cache,
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
    with whole_output():
        app()


@app.callback()
def rankproof() -> None:
    """Measure how robust an image retrieval system is to adversarial perturbations.

    An image search embeds images and ranks them by distance. Changes of an image that are too small to see
    can move that ranking. rankproof measures how far, with the attacks of two papers (ECCV 2020, ICCV 2021)
    and stronger ones. Test systems that you own or are authorised to test.

    **Example**: a first audit, of scanned digits, in a few minutes.

    ```
    rankproof train --batch 100 --epochs 20 --out runs/digits/model
    rankproof audit --model runs/digits/model --eps 8/255 --out runs/digits
    ```
    """


class AttackCommand(RegistryCommand):
    """`attack` or `attack-service`: answers an option of the other command with the name of that command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command."""
        group = ctx.parent.command if ctx.parent else None
        if isinstance(group, TyperGroup):
            other, answer = OTHER_ATTACK[str(self.name)]
            foreign = _option_names(group.commands[other]) - _option_names(self)
            if options := [word.split("=")[0] for word in args if word.split("=")[0] in foreign]:
                say(f"error: {options[0]}: {answer}")
                raise typer.Exit(FAILED)
        return super().parse_args(ctx, args)


OTHER_ATTACK = {
    "attack": (
        "attack-service",
        "a running service is attacked by `rankproof attack-service --target URL ...`",
    ),
    "attack-service": ("attack", "a model is attacked by `rankproof attack --model NAME ...`"),
}


def _option_names(command: Any) -> set[str]:
    """The names of the options of a command, as they are typed."""
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


for command in COMMANDS:
    kind = AttackCommand if command in (attack, attack_service) else TyperCommand
    app.command(cls=kind)(expanded(command))
