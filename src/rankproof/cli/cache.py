"""`rankproof cache`: the embedded galleries and decoded images that are kept on disk."""

from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import AsJson
from rankproof.cli.output import echo, print_table, readable
from rankproof.cli.terminal import print_json, reported, say
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.cache import GalleryCache


def cache(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="With --clear: remove what has a key that begins so.", show_default=False
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", metavar="", help="Remove all of it, or what KEY names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the embeddings and decoded images that are kept on disk, or remove them.

    `attack`, `audit` and `evaluate` keep the embeddings of a gallery and its decoded images, so that the next
    command on the same gallery starts at once. Embeddings are used again only for the same encoder, images
    and settings, and eight items are embedded again each time to find out. `--no-cache` does without. They
    are kept in $RANKPROOF_CACHE, by default below ~/.cache, and take up to $RANKPROOF_CACHE_SIZE, by default
    2GB.

    **Example**

    ```
    rankproof cache
    rankproof cache --clear
    ```
    """
    with reported("what was removed is made again when it is needed"):
        if key is not None and not clear:
            raise RankproofError(f"{key}: add --clear to remove it, or leave it out for a list")
        from rankproof.cache import GalleryCache
        from rankproof.cache.folder import megabytes

        kept = GalleryCache(log=say)
        if clear:
            freed = kept.clear(key)
            if as_json:
                print_json({"freed": freed})
            else:
                echo(f"{megabytes(freed)} freed")
            return
        _list(kept, as_json)


def _list(kept: "GalleryCache", as_json: bool) -> None:
    """Print what is kept."""
    from dataclasses import asdict
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from rankproof.cache.folder import megabytes

    files = kept.list()
    total = sum(each.bytes for each in files)
    if as_json:
        place = {"folder": str(kept.folder.path), "size": kept.folder.size, "bytes": total}
        print_json({**place, "kept": [asdict(each) for each in files]})
        return
    if files:
        table = Table("key", "what", "model", "data", "items", "dimensions", "size", "last used")
        for each in files:
            used = f"{datetime.fromtimestamp(each.used):%Y-%m-%d %H:%M}"
            items = (f"{each.items:,}", str(each.dimensions)) if each.items else ("", "")
            names = (Text(readable(name)) for name in (each.model, each.data))  # brackets are no markup
            table.add_row(each.key[:8], each.kind, *names, *items, megabytes(each.bytes), used)
        print_table(table)
    echo(f"{kept.folder.path}: {megabytes(total)} of at most {megabytes(kept.folder.size)}")
