"""What images pass on their way to the encoder, as part of what is attacked, and what to tell of it."""

from dataclasses import dataclass

import torch
from torch import nn

from rankproof.data import Dataset, MixedDataset
from rankproof.errors import RankproofError
from rankproof.models import GreyToColour, Preprocess, Source
from rankproof.models.source import COLOUR
from rankproof.models.statistics import ReverseChannels, statistics_note
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import pass_size
from rankproof.system.options import SystemOptions

Form = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True, kw_only=True)
class InputChain:
    """What images pass before the encoder, as part of what is attacked.

    Args:
        module: applied to pixels in [0, 1]; None where there is nothing to do.
        notes: what to tell of it.
        form: channels, height and width in which images come out; the largest of several.
    """

    module: nn.Module | None
    notes: tuple[str, ...]
    form: Form


def input_chain(
    dataset: Dataset | MixedDataset,
    source: Source,
    preprocess: Preprocess | None,
    *,
    keep: bool = False,
    bgr: bool = False,
) -> InputChain:
    """The chain of the images of a data set, which were loaded to fit, or keep their own sizes.

    Resizing is what was asked for; else, of images that keep their sizes, what the encoder's own processor
    does, or stretching to its input where that is not known.

    Args:
        dataset: the images, and their queries.
        source: the encoder.
        preprocess: what was asked for.
        keep: whether images have the sizes of their files.
        bgr: whether the encoder takes colours in reverse order.
    Raises:
        RankproofError: the encoder was made for images of another form than comes out.
    """
    channels = dataset.images[0].shape[0]
    steps: list[nn.Module] = []
    notes: list[str] = [_sizes_note(dataset)] if isinstance(dataset, MixedDataset) else []
    if preprocess is not None:
        steps.append(preprocess)
        notes.append(f"every image passes {preprocess.extra_repr()} before the encoder")
    if keep and (preprocess is None or not (preprocess.resize or preprocess.crop)):
        step, note = _own_resizing(source)
        steps += step
        notes.append(note)
    if channels == 1 and source.channels == COLOUR:
        channels = COLOUR
        steps.append(GreyToColour())
        notes.append("grey images are given to the encoder in three equal channels")
    if bgr:
        if channels != COLOUR:
            raise RankproofError(
                f"--bgr is for colours; the images of {dataset.name} have {channels} channel"
            )
        steps.append(ReverseChannels())
    chain = nn.Sequential(*steps)
    forms = {shape: _form_after(chain, shape) for shape in _shapes(dataset)}
    for shape, form in forms.items():
        if source.input is not None and form != source.input:
            raise RankproofError(_misfit(source, dataset.name, shape, form, keep=keep))
    largest = max(forms.values(), key=lambda form: form[1] * form[2])
    return InputChain(module=chain if steps else None, notes=tuple(notes), form=largest)


def _own_resizing(source: Source) -> tuple[list[nn.Module], str]:
    """What brings images of any size into the form that an encoder takes, and what to tell of it."""
    how = "every image is attacked at its own size"
    if source.preprocess is not None:
        own = " ".join(str(source.preprocess).split())
        return [source.preprocess], f"{how}, and passes the encoder's own {own}"
    if source.input is None:
        return [], "every image reaches the encoder at its own size"
    height, width = source.input[1:]
    return [Preprocess(resize=(height, width))], (
        f"{how}, and stretched to {height}x{width} (bilinear) before the encoder, as what its own processor "
        f"does is not known"
    )


def _misfit(source: Source, name: str, shape: Form, form: Form, *, keep: bool) -> str:
    """Why images that were loaded in some shape do not fit, and what to do.

    Args:
        name: of the data set.
        shape, form: channels, height and width of an image as loaded, and as it comes out.
        keep: whether images have the sizes of their files.
    """
    wanted = source.input or form
    loaded, reached, expected = ("x".join(map(str, each)) for each in (shape, form, wanted))
    if form[0] != wanted[0]:
        hint = "choose other data (--data) or another model"
    elif keep:
        hint = f"try --resize {min(wanted[1:])} --crop {min(wanted[1:])}"
    else:
        hint = f"try {'--size' if shape[1:] == form[1:] else '--resize'} {wanted[-1]}"
    found = f"those of {loaded} come out as {reached}" if keep else f"{name} has {reached}"
    return f"{source.name}: wants images of {expected}, {found}; {hint}"


def _shapes(dataset: Dataset | MixedDataset) -> list[Form]:
    """The different forms (c, h, w) of the images of a data set and its queries, the smallest first."""
    parts = [dataset] if dataset.queries is None else [dataset, dataset.queries]
    found: set[Form] = set()
    for part in parts:
        images = part.images
        found |= set(images.shapes) if isinstance(images, MixedImages) else {_shape(images[0])}
    return sorted(found, key=lambda shape: (shape[1] * shape[2], shape))


def _shape(image: torch.Tensor) -> Form:
    channels, height, width = image.shape
    return channels, height, width


def _sizes_note(dataset: MixedDataset) -> str:
    sizes = len(set(dataset.images.shapes))
    return f"a batch holds images of one size, and these have {sizes}: this is slower than images of one size"


def _form_after(chain: nn.Module, shape: Form) -> Form:
    """The form (c, h, w) in which images of a form come out of a chain: found by trying."""
    with torch.no_grad():
        channels, height, width = chain(torch.zeros(1, *shape)).shape[1:]
    return int(channels), int(height), int(width)


def stretched_note(
    source: Source, native: tuple[int, int] | None, dataset: Dataset | MixedDataset
) -> tuple[str, ...]:
    """A note where images loaded at the encoder's own size are not what its processor makes of an upload."""
    if native is None or source.preprocess is None:
        return ()
    height, width = native
    values = torch.arange(height * width * len(dataset.images[0])) * 7919 % 256 / 255  # any that differ
    image = values.view(1, -1, height, width)
    notes = (part.note for part in (dataset, dataset.queries) if part is not None)
    resized = any(f"resized to {height}x{width}" in note for note in notes)
    if not resized and torch.equal(source.preprocess(image), image):
        return ()
    return (
        f"images are attacked at {height}x{width}, stretched where they had another form; to an upload the "
        f"encoder's own processor does {source.preprocess}: --size keep",
    )


def statistics_notes(source: Source, options: SystemOptions) -> tuple[str, ...]:
    """The statistics of pixels where a user gave them, or gave weights, whose file does not say them."""
    note = statistics_note(source, bgr=options.bgr)
    if source.plain_note is not None and source.mean is None and source.std is None:
        return (source.plain_note,) if note is None else (source.plain_note, note)
    given = options.mean is not None or options.std is not None
    if note is None or not (given or options.bgr or options.weights):
        return ()
    return (f"{note}, {'as asked' if given else 'the usual ones of that network (see --mean and --std)'}",)


def pass_images(dataset: Dataset | MixedDataset, reached: Form) -> int:
    """Images in one pass, by the form in which they reach the encoder.

    What it remembers grows with that form. Images loaded larger count as they are loaded: attacks move
    them, and keep their gradients, before they are made smaller. Images of several sizes have passes of
    their own, by their number of pixels.
    """
    parts = [part for part in (dataset, dataset.queries) if isinstance(part, Dataset)]
    return min(pass_size(*form) for form in (reached, *(_shape(part.images[0]) for part in parts)))
