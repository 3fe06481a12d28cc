"""`rankproof serve` and `rankproof keys`: run a search-by-image service, and manage its API keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.options import SystemArguments
from rankproof.cli.output import echo
from rankproof.cli.terminal import progress, reported, say, writable
from rankproof.errors import RankproofError

if TYPE_CHECKING:
    from rankproof.service.search_service import SearchService
    from rankproof.system import Stage

SERVICE = Path("runs/service")

Folder = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder that stores items, keys and quotas.", show_default=True)
]
IndexName = Annotated[
    str,
    typer.Option(
        metavar="faiss|pgvector|postgresql://...",
        help="Index that finds the nearest items: FAISS in this process, pgvector in a PostgreSQL that is "
        "started in DIR, or pgvector in your own PostgreSQL.",
    ),
]


def serve(
    system: SystemArguments,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Address to listen on. Any address but loopback requires API keys."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 is any free port.")
    ] = 8000,
    visible: Annotated[int, typer.Option(metavar="N", help="Number of results per search, at most 50.")] = 50,
    per_day: Annotated[
        int, typer.Option(metavar="N", help="Largest number of calls per key and day (UTC).")
    ] = 500,
    per_second: Annotated[
        int, typer.Option(metavar="N", help="Largest number of calls per key and second.")
    ] = 10,
    max_bytes: Annotated[
        int, typer.Option(metavar="N", help="Largest size of an uploaded file in bytes.")
    ] = 3_750_000,
    min_side: Annotated[
        int, typer.Option(metavar="N", help="Shortest side in pixels that --refuse-small accepts.")
    ] = 128,
    refuse_small: Annotated[
        bool,
        typer.Option("--refuse-small/--enlarge", metavar="", help="What to do with smaller images."),
    ] = False,
    window: Annotated[
        int, typer.Option(metavar="MS", help="How long a batch waits for more requests, in milliseconds.")
    ] = 10,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            metavar="",
            help="Scan all items; without it, from 50,000 items on an HNSW graph is used.",
        ),
    ] = False,
    lab: Annotated[
        bool,
        typer.Option(
            "--lab", metavar="", help="Add a web page on which you can attack this service and watch."
        ),
    ] = False,
    lab_for_all: Annotated[
        bool,
        typer.Option(
            "--lab-for-all", metavar="", help="Allow --lab at an address that other machines can reach."
        ),
    ] = False,
) -> None:
    """Run a search service over HTTP, to use and to attack.

    The gallery is the test split. POST an image to /search to get the ids of the nearest items, without
    scores. The limits are those of the platform that was attacked in the ICCV 2021 paper. Embeddings, keys
    and quotas are stored in DIR, so a later start does not embed the gallery again.

    **Example**

    ```
    rankproof serve --model runs/digits/model --lab
    rankproof serve --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --index pgvector --port 8001
    curl -F image=@photo.png http://127.0.0.1:8000/search
    ```
    """
    with reported(f"items, keys and quotas are stored in {folder}; run the same command to start again"):
        writable(folder)
        from rankproof.service.limits import Limits
        from rankproof.service.opening import open_service
        from rankproof.service.server import check_lab, is_loopback
        from rankproof.service.server import serve as run
        from rankproof.service.worker_thread import run_in_worker_thread

        if system.size == "keep":
            raise RankproofError(
                "--size keep: a service gives uploads the size of its gallery; give --size N, and "
                "--resize and --crop for what it does to them"
            )
        if lab:
            check_lab(host, for_all=lab_for_all)
        limits = Limits(
            visible=visible,
            max_bytes=max_bytes,
            min_side=min_side,
            enlarge=not refuse_small,
            per_day=per_day,
            per_second=per_second,
            window=window / 1000,
        )

        def open_all(stage: "Stage") -> "SearchService":
            return open_service(
                system.open(stage),
                folder,
                index=index,
                limits=limits,
                exact=exact,
                anonymous=is_loopback(host),
                stage=stage,
            )

        service = run_in_worker_thread(open_all, progress)
        run(service, host, port, folder=folder, lab=lab, log=say)


def keys(
    action: Annotated[str, typer.Argument(metavar="add|list|remove", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    admin: Annotated[
        bool, typer.Option("--admin", metavar="", help="The key may also add and remove items.")
    ] = False,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
) -> None:
    """Add, list and remove the API keys of a service.

    A new key is printed once; only its hash is stored. A removed key stops working at once. Give the same
    `--index` and `--folder` as to `rankproof serve`.

    **Example**

    ```
    rankproof keys add alice
    rankproof keys add curator --admin
    rankproof keys remove alice
    ```
    """
    with reported("nothing was changed"):
        writable(folder)
        from rankproof.service.auth import key_command
        from rankproof.service.opening import open_database

        for line in key_command(open_database(index, folder), action, name, admin):
            echo(line)
