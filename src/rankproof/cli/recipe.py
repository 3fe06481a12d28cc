"""What decides how `rankproof train` trains: the options that make its recipe."""

from typing import Annotated

import typer

Distance = Annotated[
    str | None,
    typer.Option(
        metavar="cosine|euclidean|sphere",
        help="How embeddings are compared; sphere is euclidean at unit length. Left out: cosine; sphere "
        "for act and hm.",
        show_default=False,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        metavar="triplet|contrastive|pml:NAME",
        help="What training lowers; pml:NAME is any loss of pytorch-metric-learning. Left out: triplet; "
        "pml:SupConLoss for whole-batch.",
        show_default=False,
    ),
]
LossOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="An argument of a pml loss; may be repeated."),
]
Miner = Annotated[
    str | None,
    typer.Option(
        metavar="pml:NAME",
        help="Any miner of pytorch-metric-learning, for a pml loss.",
        show_default=False,
    ),
]
MinerOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the miner.")
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="in-batch|from-set|from-any|balanced",
        help="What makes a batch: in-batch as published (ECCV), from-set (ICCV), from-any (published for "
        "SOP), balanced. Left out: in-batch; balanced for pml losses, act and hm.",
        show_default=False,
    ),
]
PerClass = Annotated[
    int | None,
    typer.Option(metavar="N", help="Pictures of each class in a balanced batch. Left out: 2 or more."),
]
Defense = Annotated[
    str,
    typer.Option(
        metavar="none|est|suppress|madry|single-step|act|hm|whole-batch",
        help="How attacks get into training: est as published; suppress, madry, single-step from the "
        "paper's appendix; act and hm, later; whole-batch, our own.",
    ),
]
DefenseEps = Annotated[
    str | None,
    typer.Option(metavar="E", help="The defence's largest change of a pixel. Left out: as published."),
]
InnerSteps = Annotated[
    int | None,
    typer.Option(metavar="N", help="Steps of the defence's attack. Left out: as published."),
]
WarmUp = Annotated[
    float | None, typer.Option(metavar="EPOCHS", help="Epochs over which the defence's eps grows.")
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        metavar="",
        help="A schedule for machines without a GPU: fewer inner steps, smaller batches, warm-up. "
        "The record tells it.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="How often every picture is seen. Left out: 30.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pictures in a step. Left out, as published: 1000 for cosine, 500 else.",
        show_default=False,
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Margin of the loss. Left out, as published: 1 for euclidean, 0.2 for cosine and sphere.",
        show_default=False,
    ),
]
LearningRate = Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.")]
Decay = Annotated[
    str | None,
    typer.Option(metavar="constant|cosine", help="How the learning rate goes on. Left out: constant."),
]
Shift = Annotated[
    int, typer.Option(metavar="PIXELS", help="Vary pictures by shifts of up to so many pixels.")
]
Flip = Annotated[bool, typer.Option("--flip", metavar="", help="Mirror half of the pictures.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="single|bf16",
        help="Of the encoder's passes; bf16 is faster on most GPUs and some processors.",
    ),
]
