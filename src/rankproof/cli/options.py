"""The options that several commands share."""

from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Pictures: a folder of idx files, a folder with one sub-folder per class, a zip or folder with "
        "metadata.csv, or the name of one of these below $RANKPROOF_DATA (else ./data). "
        "Left out: scikit-learn's scanned digits.",
        show_default=False,
    ),
]
MODEL = typer.Option(
    metavar="NAME",
    help="A folder written by `rankproof train`, a name that `rankproof zoo` lists, hf:FOLDER-OR-NAME, "
    "timm:NAME, torchvision:NAME, your own FILE.py:FUNCTION, or a program FILE.pt2, .pt, .ts.",
    show_default=False,
)
Model = Annotated[str, MODEL]
Size = Annotated[
    int | None,
    typer.Option(metavar="N", help="Resize every picture to N x N pixels.", show_default=False),
]
Divide = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How data without splits is divided: by classes, by items of each class, none (all is both "
        "train and test), or auto (classes from 20 on).",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", metavar="", help="Open a model that is a program: such a file can run code of its maker."
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The attacked service makes the shorter side N pixels; pictures are attacked as loaded.",
        show_default=False,
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The attacked service cuts N x N pixels out of the middle.", show_default=False
    ),
]
Jpeg = Annotated[
    int | None,
    typer.Option(
        metavar="Q",
        help="The attacked service first stores pictures as JPEG of that quality.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU.")]
Seed = Annotated[
    int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="All choices and random numbers come from it.")
]
Trials = Annotated[
    int | None,
    typer.Option(metavar="T", help="How many pictures of the test split are attacked. Left out: 1000."),
]
Eps = Annotated[
    str,
    typer.Option(
        metavar="E",
        help="The largest change of a pixel, as 8/255 or 0.03; 0 changes nothing.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Only tell what would be done and how long it takes."),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout and nothing else.")
]
