"""Examples of an audit in images: the easiest, the median and the hardest attack of a goal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from rankproof.audit.figures import Measured
from rankproof.audit.job import Job
from rankproof.audit.records import Attacks, image_of
from rankproof.audit.units import SMALLEST, judged
from rankproof.report.strip import Strip, order_strip, strip_of

SHOWN_WHOLE = ("qa+", "ca+", "wrong-first")  # goals with three examples; others have the median alone
MEDIAN = "median"


def examples(job: Job, measured: Sequence[Measured], classes: tuple[str, ...]) -> Iterator[Strip]:
    """A few attacks of each goal as strips; none where the gallery has no images.

    Args:
        classes: the names of the gallery's labels, or none.
    """
    if job.gallery.images is None:
        return
    for each in measured:
        if each.measurement.kind == "smallest":
            yield from _of_goal(job, each, classes)
    looks: dict[str, Measured] = {}
    for each in measured:
        if each.measurement.kind == "black-box":
            before = looks.get(each.measurement.key)
            if before is None or (before.measurement.budget or 0) < (each.measurement.budget or 0):
                looks[each.measurement.key] = each
    for each in looks.values():
        if (strip := _of_black_box(job, each)) is not None:
            yield strip


def _of_goal(job: Job, measured: Measured, classes: tuple[str, ...]) -> Iterator[Strip]:
    attacks = measured.main
    assert attacks.smallest is not None
    for role, row in _roles(attacks).items():
        if role != MEDIAN and measured.goal.spec.name not in SHOWN_WHOLE:
            continue
        text, own = attacks.images[row], attacks.result
        assert text is not None
        batch = job.batch([row], own.targets[row, None].cpu(), own.preserved[row, None].cpu())
        image = image_of(text, batch.images[0].cpu()).to(batch.images)[None]
        eps = float((image - batch.images).abs().amax())
        result, _ = judged(job, measured.goal, batch, image, method=SMALLEST, eps=eps)
        strip = strip_of(result, job.gallery, classes)
        if strip is not None:
            yield replace(strip, role=role)


def _roles(attacks: Attacks) -> Mapping[str, int]:
    """The rows of the easiest, the median and the hardest of the attacks whose images are kept."""
    rows = [
        row for row, eps in enumerate(attacks.size.tolist()) if eps > 0 and attacks.images[row] is not None
    ]
    if not rows:
        return {}
    ordered = sorted(rows, key=lambda row: (float(attacks.size[row]), row))
    found = {MEDIAN: ordered[(len(ordered) - 1) // 2]}
    if len(ordered) > 2:
        found = {"easiest": ordered[0], **found, "hardest": ordered[-1]}
    return found


def _of_black_box(job: Job, measured: Measured) -> Strip | None:
    """The kept attack whose figures before and after are nearest to the median of all."""
    attacks = measured.main
    result = attacks.result
    ends = torch.stack([result.headline(after=False), result.headline()])
    off = (ends - ends.median(1, keepdim=True).values).abs().sum(0).tolist()
    rows = [row for row, text in enumerate(attacks.images) if text is not None]
    if not rows:
        return None
    row = min(rows, key=lambda row: off[row])
    method = measured.measurement.methods[-1]
    grid = job.threat.grid or getattr(method, "grid", False)
    original = replace(job.threat, grid=grid).start(job.batch([row]).images)[0].cpu()
    text = attacks.images[row]
    assert text is not None
    return order_strip(
        original,
        image_of(text, original),
        result.targets[row],
        job.gallery,
        eps=job.threat.eps,
        visible=measured.measurement.visible,
        budget=measured.measurement.budget,
    )
