"""`rankproof serve` and `rankproof keys`: a search by image of your own, and who may use it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankproof.cli.opening import opened
from rankproof.cli.options import Crop, Data, Device, Jpeg, Model, Resize, Size, SplitBy, Trust
from rankproof.console import progress, reported, say, writable

if TYPE_CHECKING:
    from rankproof.service.service import Service
    from rankproof.system import Stage

SERVICE = Path("runs/service")

Folder = Annotated[
    Path, typer.Option(metavar="DIR", help="Where items, keys and quotas are kept.", show_default=True)
]
IndexName = Annotated[
    str,
    typer.Option(
        metavar="faiss|pgvector|postgresql://...",
        help="Where the nearest items are found: in the process, in a PostgreSQL of its own in DIR, or in "
        "yours.",
    ),
]


def serve(
    model: Model,
    data: Data = None,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen at; others than loopback need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8000,
    visible: Annotated[int, typer.Option(metavar="N", help="Results in an answer, 50 at most.")] = 50,
    per_day: Annotated[int, typer.Option(metavar="N", help="Calls of a key on a day (UTC).")] = 500,
    per_second: Annotated[int, typer.Option(metavar="N", help="Calls of a key in a second.")] = 10,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Of a picture file.")] = 3_750_000,
    min_side: Annotated[
        int, typer.Option(metavar="N", help="Pixels of the shorter side that --refuse-small demands.")
    ] = 128,
    refuse_small: Annotated[
        bool,
        typer.Option("--refuse-small/--enlarge", metavar="", help="What happens to smaller pictures."),
    ] = False,
    window: Annotated[
        int,
        typer.Option(metavar="MS", help="Milliseconds that requests wait for others to be embedded with."),
    ] = 10,
    exact: Annotated[
        bool,
        typer.Option("--exact", metavar="", help="Compare with every item, also from 50,000 items on."),
    ] = False,
    device: Device = "auto",
    size: Size = None,
    split_by: SplitBy = "auto",
    jpeg: Jpeg = None,
    resize: Resize = None,
    crop: Crop = None,
    trust: Trust = False,
    lab: Annotated[
        bool, typer.Option("--lab", metavar="", help="With a page that attacks this service, to be watched.")
    ] = False,
    lab_for_all: Annotated[
        bool, typer.Option("--lab-for-all", metavar="", help="--lab also at a --host that others can reach.")
    ] = False,
) -> None:
    """Run a search by image of your own, to use and to attack.

    The gallery is the test split. POST a picture to /search and get the ids of the nearest items, no scores;
    the limits are those of the platform that was attacked in the second paper. Items are embedded once and
    kept in DIR with keys and quotas; a later start takes them from there.

    **Example**

    ```
    rankproof serve --model runs/digits/model --lab
    rankproof serve --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist --index pgvector --port 8001
    curl -F image=@photo.png http://127.0.0.1:8000/search
    ```
    """
    with reported(f"items, keys and quotas are kept in {folder}; the same command starts again"):
        writable(folder)
        from rankproof.service.aside import aside
        from rankproof.service.limits import Limits
        from rankproof.service.opening import open_service
        from rankproof.service.serve import check_lab, is_loopback
        from rankproof.service.serve import serve as run

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

        def open_it(stage: "Stage") -> "Service":
            subject = opened(
                model,
                data,
                device,
                size,
                split_by,
                trust=trust,
                resize=resize,
                crop=crop,
                jpeg=jpeg,
                stage=stage,
            )
            return open_service(
                subject,
                folder,
                index=index,
                limits=limits,
                exact=exact,
                anonymous=is_loopback(host),
                stage=stage,
            )

        service = aside(open_it, progress)
        run(service, host, port, folder=folder, lab=lab, say=say)


def keys(
    action: Annotated[str, typer.Argument(metavar="add|list|remove", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    admin: Annotated[
        bool, typer.Option("--admin", metavar="", help="May also add and remove items.")
    ] = False,
    index: IndexName = "faiss",
    folder: Folder = SERVICE,
) -> None:
    """Make, list and remove the keys of a service.

    A new key is printed once; only a hash of it is kept. A removed one stops working at once. Give the
    `--index` and `--folder` that the service has.

    **Example**

    ```
    rankproof keys add alice
    rankproof keys add curator --admin
    rankproof keys remove alice
    ```
    """
    with reported("nothing was changed"):
        writable(folder)
        from rankproof.service.keys import key_command
        from rankproof.service.opening import open_database

        for line in key_command(open_database(index, folder), action, name, admin):
            typer.echo(line)
