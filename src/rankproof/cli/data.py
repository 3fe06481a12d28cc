"""`rankproof data`: downloads data sets from their publishers."""

from pathlib import Path
from typing import Annotated

import typer

from rankproof.cli.options import data_root
from rankproof.cli.output import echo
from rankproof.cli.terminal import progress, reported, writable


def data(
    name: Annotated[str, typer.Argument(metavar="fashion-mnist|mnist", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of data sets. Default: $RANKPROOF_DATA, else ./data.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Download a data set and verify its checksums.

    Downloads the publisher's files into DIR/NAME; verified files that are already there are kept. Without a
    network connection it says which files to put where.

    **Example**

    ```
    rankproof data fashion-mnist
    rankproof train --data fashion-mnist --out runs/c2f1
    ```
    """
    with reported("finished files are kept; the same command downloads the others"):
        place = data_root() if root is None else root
        writable(place)
        from rankproof.data.download import download

        with progress(f"downloading {name}") as show:
            folder = download(name, place, show)
        echo(folder)
