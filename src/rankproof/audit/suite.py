"""The standard audit: every attack on one gallery, without further knobs."""

import hashlib
import json
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.attacks import attack
from rankproof.attacks.cost import measure_result
from rankproof.attacks.result import AttackResult
from rankproof.audit.checks import (
    check_attack,
    check_baseline,
    check_curve,
    check_gallery,
    check_knowledge,
    check_weaker,
)
from rankproof.audit.plan import Cell, Plan, plan
from rankproof.audit.result import AuditResult, Flag, Strip
from rankproof.audit.strips import order_strip, strip_of
from rankproof.errors import RankproofError
from rankproof.goals.registry import goal_name
from rankproof.io import versions, write_atomically
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.rng import draw
from rankproof.threat import Threat, format_eps

NAMED = {True: ("the strong method", "plain PGD"), False: ("the search of this audit", "SPSA")}

Tell = Callable[[float, float], None]


def audit(
    gallery: Gallery,
    queries: Tensor,
    threat: Threat,
    *,
    index: Tensor | None = None,
    trials: int | None = None,
    time_limit: float | None = None,
    prepared: Plan | None = None,
    seed: int = 0,
    model: str = "",
    data: str = "images",
    data_note: str = "",
    classes: tuple[str, ...] = (),
    command: str = "",
    model_record: dict[str, Any] | None = None,
    journal: Path | None = None,
    progress: Tell = lambda done, total: None,
) -> AuditResult:
    """Attack the ranking in every white-box way of the two papers and in a black box; check the figures.

    Args:
        gallery: the database whose ranking is audited.
        queries: (b, c, h, w) images to attack, floats in [0, 1] or 8-bit values.
        threat: the audited budget; the curves run over {0, 1, 2, 4, 8, 16}/255.
        index: (b,) gallery positions of the images' own clean copies; None says they are not in the gallery.
        trials: attacks for each headline figure, drawn from `queries` by `seed`; None is up to 1,000. A
            black-box figure gets a tenth of them, but at least 20.
        time_limit: seconds; picks the trials instead.
        prepared: what `plan` returned, where it was asked before.
        journal: a file that finished figures are kept in; an audit that is started again goes on from there.
        model, data, data_note, classes, command, model_record: what the report says of them.
        progress: called with the share done and 1.
    Returns:
        the whole audit; `save` writes the report.
    """
    begin = time.perf_counter()
    _check_queries(gallery, queries, index)
    todo = prepared or plan(gallery, queries, threat, trials=trials, time_limit=time_limit)
    chosen = draw(len(queries), todo.trials, seed)
    images = gallery.ranker.as_input(queries[chosen])
    positions = None if index is None else index[chosen]
    model = model or gallery.ranker.name
    store = _Journal(journal, _fingerprint(gallery, images, positions, threat, seed, todo), todo)
    flags = check_gallery(gallery, positions)
    weight = [cell.seconds(todo.pace) for cell in todo.cells]
    for number, cell in enumerate(todo.cells):
        done, total = sum(weight[:number]), sum(weight)
        share = weight[number] / max(1, cell.trials * cell.passes)

        def tell(part: int, of: int, done: float = done, total: float = total, share: float = share) -> None:
            progress((done + part * share) / total, 1.0)

        if cell.label not in store.entries:
            result = attack(
                cell.target(gallery),
                images[: cell.trials],
                cell.goal,
                cell.threat(threat),
                method=cell.method,
                budget=cell.budget,
                seed=seed,
                gallery_ids=None if positions is None else positions[: cell.trials],
                progress=tell,
            )
            costs = measure_result(gallery, images[: cell.trials], cell.goal, result)
            found = check_attack(result, cell.label, headline=cell.eps == threat.eps)
            store.add(
                cell,
                {
                    "cell": result.cell(model=model, data=data, **costs),
                    "flags": [asdict(flag) for flag in found],
                    "values": result.headline().tolist(),
                    "kept": result.sp_rank.mean(1).tolist() if "sp_rank" in result.after else [],
                    "targets": result.targets.tolist(),
                    "preserved": result.preserved.tolist(),
                    "example": None if cell.budget is None else _example(result),
                },
            )
        progress(done + weight[number], total)
    return AuditResult(
        model=model,
        data=data,
        recall_at_1=None if gallery.labels is None else 100 * float(recall_at(gallery, 1).mean()),
        cells=[store.entries[cell.label]["cell"] for cell in todo.cells],
        flags=flags + _flags(todo, store),
        eps=threat.eps,
        trials=todo.trials,
        seed=seed,
        gallery_size=len(gallery),
        data_note=data_note,
        command=command
        or f"rankproof.audit(gallery, queries, Threat({format_eps(threat.eps)}), seed={seed})",
        versions=versions(),
        seconds=time.perf_counter() - begin,
        strips=_strips(gallery, images, positions, threat, seed, todo, store, classes),
        model_record=model_record,
    )


def _check_queries(gallery: Gallery, queries: Tensor, index: Tensor | None) -> None:
    if queries.dim() != 4 or len(queries) == 0:
        raise RankproofError(f"queries: expected a batch (b, c, h, w) of images, got {tuple(queries.shape)}")
    if index is not None and index.shape != (len(queries),):
        raise RankproofError(f"index: expected {len(queries)} gallery positions, got {tuple(index.shape)}")
    if index is not None and not 0 <= int(index.min()) <= int(index.max()) < len(gallery):
        raise RankproofError(f"index: expected gallery positions in 0 .. {len(gallery) - 1}")


def _strips(
    gallery: Gallery,
    images: Tensor,
    index: Tensor | None,
    threat: Threat,
    seed: int,
    todo: Plan,
    store: "_Journal",
    classes: tuple[str, ...],
) -> list[Strip]:
    """For each headline figure the attack whose outcome is nearest to the median, made again on its own."""
    strips = []
    for cell in todo.cells:
        if cell.eps != threat.eps or cell.reference_method or cell.goal.metric == "shift":
            continue
        entry = store.entries[cell.label]
        if cell.budget is not None:
            strips += _seen_strips(gallery, images, cell, threat, entry)
            continue
        values = torch.tensor(entry["values"])
        row = int((values - values.median()).abs().argmin())
        kept = torch.tensor(entry["preserved"][row])[None]
        result = attack(
            gallery,
            images[row, None],
            cell.goal,
            threat,
            method=cell.method,
            seed=seed,
            gallery_ids=None if index is None else index[row, None],
            targets=torch.tensor(entry["targets"][row])[None],
            preserved=kept if kept.numel() else None,
        )
        if strip := strip_of(result, gallery, classes):
            strips.append(strip)
    return strips


def _seen_strips(
    gallery: Gallery, images: Tensor, cell: Cell, threat: Threat, entry: dict[str, Any]
) -> list[Strip]:
    """A black-box attack as it was: made again on its own, its thousand looks could take another way."""
    row = entry["example"]["row"]
    original = cell.threat(threat).start(images[row, None])[0].cpu()
    strip = order_strip(
        original,
        _unpacked(entry["example"]["adversarial"], original),
        torch.tensor(entry["targets"][row]),
        gallery,
        eps=cell.eps,
        visible=cell.visible,
        budget=cell.budget,
    )
    return [] if strip is None else [strip]


def _example(result: AttackResult) -> dict[str, Any]:
    """The attack that is nearest to the median before and after."""
    ends = torch.stack([result.headline(after=False), result.headline()])
    row = int((ends - ends.median(1, keepdim=True).values).abs().sum(0).argmin())
    return {"row": row, "adversarial": _packed(result.adversarial[row])}


def _packed(image: Tensor) -> str:
    """A picture as text, every pixel exact."""
    pixels = image.detach().cpu().contiguous().numpy()
    return b64encode(zlib.compress(pixels.tobytes())).decode()


def _unpacked(text: str, like: Tensor) -> Tensor:
    """The picture behind the text, in the type and shape of another."""
    pixels = np.frombuffer(zlib.decompress(b64decode(text)), dtype=like.numpy().dtype)
    return torch.from_numpy(pixels.copy()).view(like.shape)


def _flags(todo: Plan, store: "_Journal") -> list[Flag]:
    """All flags of the cells, and those that only several cells together give away."""
    flags = [Flag(**flag) for cell in todo.cells for flag in store.entries[cell.label]["flags"]]
    weak = {_setting(cell): cell for cell in todo.cells if cell.reference_method}
    main = {_setting(cell): cell for cell in todo.cells if not cell.reference_method}
    curves: dict[str, list[dict[str, Any]]] = {}
    for cell in todo.cells:
        entry, name = store.entries[cell.label], goal_name(cell.goal)
        flags += check_baseline(entry["cell"])
        if cell.reference_method:
            continue
        if cell.budget is None:
            curves.setdefault(name, []).append(entry["cell"])
        elif white := main.get((cell.goal, cell.eps, None)):
            flags += check_knowledge(entry, store.entries[white.label], cell.label)
        if plain := weak.get(_setting(cell)):
            flags += check_weaker(
                entry, store.entries[plain.label], name, cell.label, *NAMED[cell.budget is None]
            )
    return flags + [flag for cells in curves.values() for flag in check_curve(cells)]


def _setting(cell: Cell) -> tuple[Any, ...]:
    """What two cells share that differ in the method alone."""
    return cell.goal, cell.eps, cell.budget


def _fingerprint(
    gallery: Gallery, images: Tensor, index: Tensor | None, threat: Threat, seed: int, todo: Plan
) -> str:
    """What a journal must agree on to be continued."""
    digest = hashlib.sha256()
    for part in (gallery.embeddings, images):
        digest.update(part.detach().float().cpu().numpy().tobytes())
    own = None if index is None else index.tolist()
    digest.update(repr((threat, seed, todo.cells, versions(), own, gallery.ranker.distance.name)).encode())
    return digest.hexdigest()


def stopped_trials(journal: Path) -> int | None:
    """The trials of an audit that was stopped before its last figure; None where there is none to go on with.

    An audit whose trials were picked by time goes on with them: timing anew would pick others.
    """
    lines = _read_lines(journal)
    if not lines or len(lines) >= lines[-1].get("figures", 0):
        return None
    trials = lines[-1].get("trials")
    return trials if isinstance(trials, int) else None


def _read_lines(path: Path | None) -> list[dict[str, Any]]:
    """The readable lines of a journal; a torn one is left out and its figure made again."""
    if path is None or not path.is_file():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


class _Journal:
    """Finished cells in a file of JSON lines, so that an audit that was stopped loses none of them."""

    def __init__(self, path: Path | None, fingerprint: str, todo: Plan) -> None:
        self.path = path
        self.head = {"audit": fingerprint, "trials": todo.trials, "figures": len(todo.cells)}
        lines = [line for line in _read_lines(path) if line.get("audit") == fingerprint]
        self.entries: dict[str, dict[str, Any]] = {line["label"]: line for line in lines}

    def add(self, cell: Cell, entry: dict[str, Any]) -> None:
        """Remember a finished cell and write all of them."""
        self.entries[cell.label] = {**self.head, "label": cell.label, **entry}
        if self.path is not None:
            lines = [json.dumps(entry) for entry in self.entries.values()]
            write_atomically(self.path, ("\n".join(lines) + "\n").encode())
