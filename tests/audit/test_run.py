import json
import sys
from dataclasses import asdict, replace

import pytest
import torch

from rankproof import Gallery, Ranker, RankproofError, Threat, attack, audit
from rankproof.audit import AuditOptions, plan
from rankproof.audit.completed_tasks import stopped_sizes
from rankproof.goals import Reorder
from rankproof.oracles import LocalOracle

THREAT = Threat(8 / 255)
GOALS = ["ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-", "oa", "wrong-first", "shift"]
CONTRACT = {
    *("goal", "method", "eps", "w", "m", "k", "g", "xi", "steps", "visible", "budget", "trials", "seed"),
    *("device", "model", "data", "metric", "before", "after", "ci95", "rank_before", "rank_after", "sp_rank"),
    *("tau_before", "tau", "mean_rank_before", "mean_rank", "shift", "seconds", "model_seconds", "peak_mb"),
    *("schema", "versions", "gallery_size", "notes", "queries_spent", "queries_max", "curve"),
    *("evaluations", "evaluations_max"),
    *("checks", "checks_differing", "tau_again", "unchanged", "examination"),
}
CLOCK = {"seconds", "model_seconds", "peak_mb"}
WHITE, CELLS = 9 * 2 + 9 * 5, 9 * 2 + 9 * 5 + 2 * 2  # the last ones see 24 results only
SUITE = sys.modules["rankproof.audit.run"]


@pytest.fixture(scope="module")
def gallery(make):
    images = make.images(24)
    return Gallery.build(make.ranker(), images, torch.arange(24) % 2)


def run(gallery, **options):
    """An audit of all images; `options` are those of `audit` and of `AuditOptions`."""
    front = {"gallery_ids": torch.arange(len(gallery)), "trials": 4}
    names = {*front, "seed", "data"}
    front |= {name: value for name, value in options.items() if name in names}
    more = {name: value for name, value in options.items() if name not in names}
    return audit(gallery, gallery.images, THREAT, **front, options=AuditOptions(**{"model": "mine", **more}))


def figures(result):
    return [replace(cell, **dict.fromkeys(CLOCK, 0.0)) for cell in result.cells]


def same_strips(one, other):
    pairs = zip(one.strips, other.strips, strict=True)
    return all(torch.equal(a.adversarial, b.adversarial) and a.goal == b.goal for a, b in pairs)


@pytest.fixture(scope="module")
def whole(gallery):
    return run(gallery)


@pytest.fixture
def attacks(monkeypatch):
    """Every attack an audit makes, as (name, eps, method, images); `stop` after so many."""
    real, made = SUITE.attack, []

    class Watch:
        calls, stop = made, None

    def watched(target, images, goal, threat, **options):
        if Watch.stop is not None and len(made) == Watch.stop:
            raise KeyboardInterrupt
        result = real(target, images, goal, threat, **options)
        made.append((result.goal, threat.eps, options["method"].name, len(images)))
        return result

    monkeypatch.setattr(SUITE, "attack", watched)
    return Watch


# -- what an audit returns -------------------------------------------------------------------------


def test_one_figure_for_each_planned_one(gallery, whole):
    tasks = plan(gallery, gallery.images, THREAT, trials=4).tasks
    assert len(whole.cells) == len(tasks) == CELLS
    for task, cell in zip(tasks, whole.cells, strict=True):
        assert set(cell.to_json()) == CONTRACT
        assert (cell.method, cell.eps, cell.trials) == (task.method.name, task.eps, 4)
        assert cell.steps == task.passes
        assert (cell.visible, cell.budget) == (task.visible, task.budget)
        assert (cell.curve is None) == (task.budget is None)
        assert (cell.model, cell.data, cell.seed, cell.gallery_size) == ("mine", "images", 0, 24)
    assert [cell.goal for cell in whole.cells[:16:2]] == GOALS
    json.dumps(whole.to_json(), allow_nan=False)


def test_the_audit_itself(whole, gallery):
    assert (whole.eps, whole.trials, whole.seed, whole.gallery_size) == (THREAT.eps, 4, 0, 24)
    z = gallery.prepared @ gallery.prepared.T - 9 * torch.eye(24)
    assert whole.recall_at_1 == pytest.approx(
        100 * float((z.argmax(1) % 2 == torch.arange(24) % 2).double().mean())
    )
    assert [strip.goal for strip in whole.strips] == [*GOALS[:-1], "oa", "oa"]
    assert [strip.budget for strip in whole.strips] == [None] * 7 + [61, 61]


def test_a_figure_is_that_of_the_attack_alone(gallery, whole):
    chosen = SUITE.draw(24, 4, 0)
    cells = plan(gallery, gallery.images, THREAT, trials=4).tasks
    for number in (1, 5, 20, 37):
        planned = cells[number]
        alone = attack(
            gallery,
            gallery.images[chosen],
            planned.goal,
            Threat(planned.eps),
            method=planned.method,
            gallery_ids=chosen,
        )
        assert whole.cells[number].after == pytest.approx(float(alone.headline().mean()))


@pytest.mark.parametrize(("number", "k", "grid"), [(-4, 5, False), (-3, 5, True), (-1, 10, True)])
def test_a_black_box_figure_is_that_of_the_attack_on_the_first_results(gallery, whole, number, k, grid):
    chosen = SUITE.draw(24, 4, 0)
    alone = attack(
        LocalOracle(gallery, 24),
        gallery.images[chosen],
        Reorder(k=k),
        Threat(THREAT.eps, grid=grid),
        method=plan(gallery, gallery.images, THREAT, trials=4).tasks[number].method,
        budget=61,
        gallery_ids=chosen,
    )
    cell = whole.cells[number]
    assert (cell.visible, cell.budget, cell.k) == (24, 61, k)
    assert cell.after == pytest.approx(float(alone.headline().mean()))
    assert cell.curve == alone.log.curve()
    assert cell.after > cell.before


def test_a_black_box_shows_fifty_results_of_a_larger_gallery(make):
    large = Gallery.build(make.ranker(), make.images(60))
    todo = plan(large, large.images, THREAT, trials=2)
    result = run(large, prepared=replace(todo, tasks=todo.tasks[WHITE:]))
    assert [cell.visible for cell in result.cells] == [50] * 4
    assert [(strip.visible, len(strip.order)) for strip in result.strips] == [(50, 5), (50, 10)]


def test_without_labels_and_pictures(make, gallery):
    bare = Gallery(gallery.ranker, gallery.embeddings)
    result = audit(bare, gallery.images, THREAT, trials=2, gallery_ids=torch.arange(24))
    assert result.recall_at_1 is None
    assert result.strips == ()
    assert result.model == "encoder"


def test_progress_rises_to_the_end(gallery):
    shares = []
    run(gallery, trials=2, progress=lambda done, total: shares.append(done / total))
    assert shares == pytest.approx(sorted(shares))  # sums of fractions round
    assert shares[-1] == 1
    assert len(shares) > 56


@pytest.mark.parametrize("known", [True, False], ids=["gallery items", "strangers"])
def test_strips_show_an_attack_that_was_audited(gallery, monkeypatch, known):
    """The attack made again for its picture is one of those the figure is the mean of, nearest the median."""
    real, made = SUITE.attack, []
    monkeypatch.setattr(SUITE, "attack", lambda *args, **more: made.append(real(*args, **more)) or made[-1])
    strips = run(gallery, trials=5, gallery_ids=torch.arange(24) if known else None).strips
    cells, again = made[:CELLS], made[CELLS:]
    assert len(again) == 7  # black-box attacks are not made again
    for single in again:
        (of,) = [r for r in cells if (r.goal, r.method, r.eps) == (single.goal, "strong", THREAT.eps)]
        row = int((of.headline() - of.headline().median()).abs().argmin())
        torch.testing.assert_close(single.original[0], of.original[row])
        torch.testing.assert_close(single.adversarial[0], of.adversarial[row])
        assert torch.equal(single.targets[0], of.targets[row])
        assert torch.equal(single.preserved[0], of.preserved[row])
    for strip, of in zip(strips[7:], cells[WHITE + 1 :: 2], strict=True):
        (row,) = [n for n in range(5) if torch.equal(of.adversarial[n].float(), strip.adversarial)]
        torch.testing.assert_close(strip.original, of.original[row].float())
        ends = of.headline(after=False), of.headline()
        off = torch.stack([(values - values.median()).abs() for values in ends]).sum(0)
        assert off[row] == off.min()
        shown = [tile.rank for tile in sorted(strip.after, key=lambda tile: tile.mark)]
        assert sum(shown) / len(shown) == of.after["mean_rank"][row]


# -- seeds -----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_figures(gallery, whole):
    again = run(gallery)
    assert figures(again) == figures(whole)
    assert again.flags == whole.flags
    assert same_strips(again, whole)


def test_another_seed_gives_others(gallery, whole):
    other = run(gallery, seed=1)
    assert sum(a.after != b.after for a, b in zip(other.cells, whole.cells, strict=True)) > 40


def test_fewer_trials_are_a_prefix_of_more():
    assert SUITE.draw(50, 10, 3).tolist() == SUITE.draw(50, 20, 3)[:10].tolist()
    assert SUITE.draw(50, 10, 3).tolist() != SUITE.draw(50, 10, 4).tolist()
    assert len(set(SUITE.draw(50, 49, 3).tolist())) == 49
    assert SUITE.draw(50, 50, 3).tolist() == SUITE.draw(50, 99, 3).tolist() == list(range(50))


# -- stopped and started again ---------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 23, 58, CELLS + 2])
def test_a_stopped_audit_goes_on_where_it_was(gallery, whole, attacks, tmp_path, after):
    journal = tmp_path / "audit.jsonl"
    attacks.stop = after
    with pytest.raises(KeyboardInterrupt):
        run(gallery, journal=journal)
    first, attacks.stop = list(attacks.calls), None
    del attacks.calls[:]
    result = run(gallery, journal=journal)
    cells = min(after, CELLS)
    assert len(attacks.calls) == CELLS - cells + 7  # the rest, and one for each strip
    assert not {call for call in first[:cells] if call[0] != "oa"} & set(attacks.calls[:-7])
    assert figures(result) == figures(whole)
    assert result.flags == whole.flags
    assert same_strips(result, whole)


def test_stopped_inside_a_figure(gallery, whole, attacks, tmp_path):
    journal, marks = tmp_path / "audit.jsonl", []

    def stop(done, total):
        marks.append(len(attacks.calls))
        if marks[-1] == 9 and marks.count(9) == 3:  # after figure 9, within the next one
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(gallery, journal=journal, progress=stop)
    assert len(journal.read_text().splitlines()) == 9
    del attacks.calls[:]
    assert figures(run(gallery, journal=journal)) == figures(whole)
    assert len(attacks.calls) == CELLS - 9 + 7


def test_a_journal_of_another_audit_is_not_used(make, gallery, attacks, tmp_path):
    journal = tmp_path / "audit.jsonl"

    def first_made(of, **options):
        """The first figures that are made with what the journal holds."""
        del attacks.calls[:]
        with pytest.raises(KeyboardInterrupt):
            run(of, journal=journal, **{"trials": 2, **options})
        return [call[:3] for call in attacks.calls]

    attacks.stop = 3
    whole = first_made(gallery)
    kept = journal.read_text()
    attacks.stop = 1
    assert first_made(gallery) == [("ca-", THREAT.eps, "strong")]  # the fourth: three are kept
    other = Gallery.build(make.ranker(seed=1), gallery.images, gallery.labels)
    changed = Gallery(gallery.ranker, gallery.embeddings, gallery.labels, gallery.images * 0.999)
    seed, unknown = {"seed": 1}, {"gallery_ids": None}
    others = (gallery, seed), (other, {}), (changed, {}), (gallery, unknown)
    for of, options in (*others, (gallery, {"trials": 3})):
        journal.write_text(kept)
        assert first_made(of, **options) == whole[:1] == [("ca+", THREAT.eps, "pgd")]


@pytest.mark.parametrize("tail", ["half", "bytes", "other json"])
def test_a_torn_journal_loses_only_the_torn_line(gallery, whole, attacks, tmp_path, tail):
    journal = tmp_path / "audit.jsonl"
    attacks.stop = 5
    with pytest.raises(KeyboardInterrupt):
        run(gallery, journal=journal)
    attacks.stop = None
    content = journal.read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    torn = {
        "half": content[: last + 100],
        "bytes": content[:last] + b"\xff\xfe\0",
        "other json": content[:last] + b"[1]\n",
    }
    journal.write_bytes(torn[tail])
    del attacks.calls[:]
    assert figures(run(gallery, journal=journal)) == figures(whole)
    assert len(attacks.calls) == CELLS - 4 + 7
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == CELLS


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 4, "time_limit": 60.0}, "not both"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"gallery_ids": torch.arange(5)}, "gallery_ids: expected 24 gallery positions"),
        (
            {"gallery_ids": torch.arange(24) + 1, "trials": 24},
            "gallery_ids: expected 24 gallery positions in 0 .. 23, got 1 .. 24",
        ),
    ],
)
def test_what_does_not_fit_is_refused(gallery, options, message):
    with pytest.raises(RankproofError, match=message):
        run(gallery, **options)


def test_queries_must_be_a_batch(gallery):
    for queries in (gallery.images[0], gallery.images[:0]):
        with pytest.raises(RankproofError, match=r"queries: expected a batch \(b, c, h, w\)"):
            audit(gallery, queries, THREAT, trials=2)


# -- flags -----------------------------------------------------------------------------------------


def test_a_collapsed_encoder_is_flagged_in_the_report(make, tmp_path):
    images = make.images(24)
    weight = 1e-6 * torch.randn(5, 16, generator=make.random(0), dtype=torch.float64)
    encoder = make.flat(weight, torch.ones(5, dtype=torch.float64))
    gallery = Gallery.build(Ranker(encoder, "cosine"), images, torch.arange(24) % 2)
    page = run(gallery, trials=3).save(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    flags = {flag["kind"]: flag for flag in report["flags"]}
    assert flags["collapsed"]["cell"] is None
    assert flags["collapsed"]["text"][:40] in page.read_text()


def test_flags_that_take_several_figures(gallery, monkeypatch):
    """Swapping the two methods of a goal, and the ends of its curve, must be seen."""
    healthy = {flag.kind for flag in run(gallery, trials=24).flags}
    assert not healthy & {"strong-loses", "larger-is-weaker", "baseline", "collapsed"}
    real = SUITE.attack

    def swapped(target, images, goal, threat, *, method, **options):
        eps = 1 / 255 if method.name == "strong" and threat.eps else threat.eps
        if method.name == "strong" and threat.eps == 1 / 255:
            eps = 16 / 255
        result = real(target, images, goal, Threat(eps), method=method, **options)
        object.__setattr__(result, "eps", threat.eps)
        return result

    monkeypatch.setattr(SUITE, "attack", swapped)
    flags = [asdict(flag) for flag in run(gallery, trials=24).flags]
    assert {"kind": "strong-loses", "cell": "shift at 8/255"}.items() <= next(
        flag for flag in flags if flag["kind"] == "strong-loses" and flag["cell"].startswith("shift")
    ).items()
    assert "shift" in [flag["cell"] for flag in flags if flag["kind"] == "larger-is-weaker"]


def test_a_black_box_that_loses_to_its_reference_or_beats_the_white_box(gallery, monkeypatch):
    """Each search that is crippled must be seen; k = 10 has no white-box figure to be above."""
    real, label = SUITE.attack, "oa k = 5, N = 24, Q = 61 at 8/255"
    kinds = "strong-loses", "black-box-beats-white-box"
    todo = plan(gallery, gallery.images, THREAT, trials=24)
    orders = [task for task in todo.tasks if task.goal.spec.name == "oa" and task.eps == THREAT.eps]

    def flags_without(name):
        def crippled(target, images, goal, threat, *, method, **options):
            weak = goal == Reorder(k=5) and method.name == name and threat.eps == THREAT.eps
            changed = Threat(0.0, grid=threat.grid) if weak else threat
            result = real(target, images, goal, changed, method=method, **options)
            object.__setattr__(result, "eps", threat.eps)
            return result

        monkeypatch.setattr(SUITE, "attack", crippled)
        flags = run(gallery, prepared=replace(todo, tasks=tuple(orders))).flags
        return {(flag.kind, flag.cell) for flag in flags if flag.kind in kinds and flag.cell == label}

    assert flags_without("nothing") == set()
    assert flags_without("own") == {("strong-loses", label)}
    assert flags_without("strong") == {("black-box-beats-white-box", label)}


def test_an_unfinished_journal_remembers_its_trials_and_queries(tmp_path):
    journal = tmp_path / "audit.jsonl"
    assert stopped_sizes(journal) is None
    journal.write_text('{"audit": "x", "trials": 37, "queries": 200, "figures": 2, "label": "oa"}\n{"torn')
    assert stopped_sizes(journal) == (37, 200)
    journal.write_text('{"audit": "x", "trials": 37, "figures": 2, "label": "oa"}\n{"torn')
    assert stopped_sizes(journal) == (37, None)  # of an earlier version
    journal.write_text(
        '{"trials": 37, "figures": 2, "label": "a"}\n{"trials": 37, "figures": 2, "label": "b"}\n'
    )
    assert stopped_sizes(journal) is None


def test_images_that_are_not_the_named_items_are_refused_before_any_work(make):
    images = make.images(30)
    gallery = Gallery.build(make.ranker(), images)
    with pytest.raises(RankproofError, match="gallery_ids: 8 of 8 images are not the gallery items"):
        audit(gallery, images[:8], Threat(8 / 255), gallery_ids=list(range(8, 16)))
