import json
import math
import sys
from dataclasses import fields, replace

import pytest
import torch

from rankproof import Gallery, Ranker, RankproofError, Threat, attack, audit
from rankproof.attacks.smallest_budget import smallest_budget
from rankproof.audit import AuditOptions, AuditResult
from rankproof.goals.registry import parse
from rankproof.methods.defaults import published, strong
from rankproof.rng import draw, order

THREAT = Threat(8 / 255)
IDS = torch.arange(24)
COUNTS = (
    "4,oa=3,at-eps=3,shift@eps=2,shift@converged=2,controls=0,qa+@controls=2,"
    "black-box-5=3x9+1x15,black-box-10=2x15,rows=2"
)
LESS = (
    "2,oa=1,at-eps=1,shift@eps=0,shift@converged=0,controls=0,qa+@controls=1,"
    "black-box-5=1x9,black-box-10=0,rows=1"
)
CLOCK = {"seconds": 0.0, "model_seconds": None, "peak_mb": None}
RUN = sys.modules["rankproof.audit.run"]

pytestmark = pytest.mark.usefixtures("few_goals")


def run(gallery, trials=COUNTS, **options):
    """An audit of all images; `options` are those of `audit` and of `AuditOptions`."""
    front = {"gallery_ids": IDS, "trials": trials}
    names = {*front, "seed", "data"}
    front |= {name: value for name, value in options.items() if name in names}
    more = {name: value for name, value in options.items() if name not in names}
    options = AuditOptions(**{"model": "mine", "classes": ("a", "b"), **more})
    return audit(gallery, gallery.images, THREAT, **front, options=options)


def figures(result):
    """All that is measured, without what a clock says."""
    values = result.to_json()
    for summary in (*values["cells"], *values["smallest"]):
        for name in CLOCK:
            summary.pop(name, None)
    return {name: value for name, value in values.items() if name not in ("seconds", "missing")}


def same_strips(one, other):
    pairs = zip(one.strips, other.strips, strict=True)
    return all(
        torch.equal(a.adversarial, b.adversarial) and (a.goal, a.role) == (b.goal, b.role) for a, b in pairs
    )


@pytest.fixture(scope="module")
def whole(shop):
    return run(shop)


@pytest.fixture(scope="module")
def less(shop):
    return run(shop, LESS)


@pytest.fixture
def units(monkeypatch):
    """Every unit an audit runs, as (label, rows); interrupted after `stop` of them."""

    class Watch:
        made, stop = [], None

    def watched(real):
        def run_one(job, measurement, rows, *more):
            if Watch.stop is not None and len(Watch.made) == Watch.stop:
                raise KeyboardInterrupt
            Watch.made.append((measurement.label, rows))
            return real(job, measurement, rows, *more)

        return run_one

    for name in ("run_unit", "run_controls"):
        monkeypatch.setattr(RUN, name, watched(getattr(RUN, name)))
    return Watch


@pytest.fixture
def ticks(monkeypatch):
    """A clock that is a tick later whenever somebody looks at it."""
    now = [0.0]

    def look():
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr(RUN, "clock", look)
    monkeypatch.setattr(sys.modules["rankproof.audit.plan"], "_seconds_per_pass", lambda *_: 1e-4)
    return now


# -- what an audit returns -------------------------------------------------------------------------


def test_figures_for_each_goal_as_many_as_asked(whole):
    assert [(each.goal, each.trials) for each in whole.smallest] == [("qa+", 4), ("sp-qa-", 4), ("oa", 3)]
    assert [(cell.goal, cell.method, cell.trials, cell.budget) for cell in whole.cells] == [
        *((goal, method, 3, None) for goal in ("qa+", "sp-qa-", "oa") for method in METHODS),
        *(("shift", method, 2, None) for method in METHODS),
        *(("oa", method, 3, 9) for method in ("spsa", "own")),
        *(("oa", method, 1, 15) for method in ("spsa", "own")),
        *(("oa", method, 2, 15) for method in ("spsa", "own")),
    ]
    assert {cell.eps for cell in whole.cells} == {THREAT.eps}
    assert (whole.trials, whole.eps, whole.seed, whole.first, whole.gallery_size) == (
        4,
        THREAT.eps,
        0,
        10,
        24,
    )
    assert {control.goal for control in whole.controls} == {"qa+"}
    assert whole.missing == (
        "Not measured as asked: the controls of SP-QA−, OA and Shift.",
        "Not measured as asked: the controls that search again of every goal.",
    )
    assert whole.protocol.name.startswith("rankproof-1")
    assert whole.recall_at_1 is not None
    assert all((cell.model, cell.data) == ("mine", "images") for cell in (*whole.cells, *whole.smallest))
    json.dumps(whole.to_json(), allow_nan=False)


METHODS = ("pgd", "strong", "converged", "worst-case")


def test_a_figure_is_that_of_the_attack_alone_without_its_own_copy(shop, whole):
    chosen = order(24, 0)[:3]
    for cell in whole.cells[:12]:
        if cell.method in ("converged", "worst-case"):
            continue
        goal = parse(cell.goal)
        method = (published if cell.method == "pgd" else strong)(goal.metric)
        alone = attack(
            shop,
            shop.images[chosen],
            goal,
            THREAT,
            method=method,
            gallery_ids=chosen,
            exclude_self=True,
        )
        assert cell.after == pytest.approx(float(alone.headline().mean()))
        assert cell.before == pytest.approx(float(alone.headline(after=False).mean()))


def test_a_smallest_budget_is_that_of_the_search_alone_or_less(shop, whole):
    chosen = order(24, 0)[:4]
    (summary,) = [each for each in whole.smallest if each.goal == "qa+"]
    alone = torch.cat(
        [
            smallest_budget(shop, shop.images[rows], parse("qa+"), gallery_ids=rows).eps_star
            for rows in chosen.split(2)
        ]
    )
    found = [eps for eps, _ in summary.curve]
    expected = sorted(eps for eps in alone.tolist() if eps > 0)
    assert (
        len(found) >= len(expected) > 0
    )  # an attack at the audited budget may reach what the search did not
    assert all(a <= b + 1e-9 for a, b in zip(found, expected, strict=False))
    assert summary.free == int((alone == 0).sum())


@pytest.mark.parametrize("goal", ["qa+", "sp-qa-", "oa", "shift"])
def test_the_worst_case_is_never_weaker_than_any_method(whole, goal):
    cells = {cell.method: cell for cell in whole.cells if cell.goal == goal and not cell.black_box}
    sign = 1 if cells["pgd"].spec.larger_is_stronger else -1
    if goal == "sp-qa-":  # there the results that are kept count, too
        return
    assert sign * cells["worst-case"].after >= max(sign * cells[name].after for name in ("pgd", "strong"))
    assert cells["worst-case"].before == cells["pgd"].before


def test_an_audit_of_strangers_chooses_the_same_items_in_each_unit(shop):
    """Without gallery ids attack i is known by its place: no unit may begin to count anew."""
    text = "2,at-eps=2,controls=0,black-box=0"
    pairs = run(shop, f"{text},rows=1", gallery_ids=None), run(shop, f"{text},rows=2", gallery_ids=None)
    for one, other in zip(*(result.cells for result in pairs), strict=True):
        assert one.before == pytest.approx(other.before)
    for one, other in zip(*(result.smallest for result in pairs), strict=True):
        assert one.free == other.free
        for (a, _), (b, _) in zip(one.curve, other.curve, strict=True):
            assert a == pytest.approx(b, rel=1e-6)


def test_examples_are_the_easiest_the_median_and_the_hardest(whole):
    roles = [strip.role for strip in whole.strips if strip.goal == "qa+"]
    assert roles in (["easiest", "median", "hardest"], ["median"])
    assert [strip.role for strip in whole.strips if strip.goal == "sp-qa-"] in (["median"], [])
    assert [(strip.role, strip.budget) for strip in whole.strips if strip.budget] == [("", 15), ("", 15)]


def test_classes_have_figures_where_two_images_were_attacked(shop, whole):
    labels = [int(shop.labels[row]) for row in order(24, 0)[:4]]
    assert {each.goal for each in whole.classes} <= {"qa+"}
    for each in whole.classes:
        assert 2 <= each.trials <= labels.count("ab".index(each.label))


def test_without_labels_and_images(shop):
    bare = Gallery(shop.ranker, shop.embeddings)
    options = AuditOptions(model_record={"arch": "small"})
    text = "1,at-eps=0,controls=0,black-box=0"
    result = audit(bare, shop.images, gallery_ids=IDS, trials=text, options=options)
    assert (result.recall_at_1, result.strips, result.model) == (None, (), "encoder")
    assert result.eps == 2 / 255  # where no budget is given


def test_no_query_is_sent_at_a_budget_of_zero(shop):
    result = audit(
        shop, shop.images, Threat(0.0), gallery_ids=IDS, trials="2,controls=0", options=AuditOptions()
    )
    assert not [cell for cell in result.cells if cell.black_box]
    assert [cell.after for cell in result.cells] == pytest.approx([cell.before for cell in result.cells])
    assert [each.trials for each in result.smallest] == [2, 2, 2]


# -- the same figures again ------------------------------------------------------------------------


def test_the_printed_trials_are_those_that_were_asked_for_and_give_the_same_figures(shop, whole, less):
    assert f"trials='{COUNTS}'" in whole.command
    assert f"trials='{LESS}'" in less.command
    assert figures(run(shop, LESS)) == figures(less)


def test_what_a_clock_allowed_is_given_again_by_the_printed_trials(shop, ticks):
    by_time = run(shop, None, time_limit=30.0)
    text = by_time.command.split("trials=")[1].split(", seed")[0].strip("'")
    assert by_time.seconds <= 30
    again = run(shop, int(text) if text.isdigit() else text)
    assert figures(again) == figures(by_time)
    assert same_strips(again, by_time)


def test_another_seed_gives_others(shop, whole):
    other = run(shop, seed=1)
    assert [cell.after for cell in other.cells] != [cell.after for cell in whole.cells]
    assert other.command.endswith("seed=1)")


def test_fewer_trials_are_a_prefix_of_more():
    assert draw(50, 10, 3).tolist() == order(50, 3)[:10].tolist()
    assert draw(50, 49, 3).tolist() == order(50, 3)[:49].tolist()
    assert sorted(order(50, 3).tolist()) == list(range(50))


def test_the_command_of_a_program_is_its_own(shop):
    text = "1,at-eps=0,controls=0,black-box=0"
    result = run(shop, text, command="rankproof audit --out here")
    assert result.command == f"rankproof audit --out here --trials {text}"


# -- stopped and started again ---------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 7])
def test_a_stopped_audit_has_a_report_and_goes_on_where_it_was(shop, less, units, tmp_path, after):
    journal, told = tmp_path / "audit.jsonl", []
    units.stop = after
    with pytest.raises(KeyboardInterrupt):
        run(shop, LESS, journal=journal, report=told.append)
    (so_far,) = told
    assert len(so_far.smallest) == min(after, 3)
    assert any("before it was stopped" in text for text in so_far.missing)
    first, units.stop = list(units.made), None
    del units.made[:]
    result = run(shop, LESS, journal=journal)
    assert not set(first) & set(units.made)
    assert figures(result) == figures(less)
    assert same_strips(result, less)
    assert result.missing == less.missing
    del units.made[:]
    assert figures(run(shop, LESS, journal=journal)) == figures(less)
    assert not units.made


def test_stopped_before_anything_is_finished(shop, units, tmp_path):
    told, units.stop = [], 0
    with pytest.raises(KeyboardInterrupt):
        run(shop, journal=tmp_path / "audit.jsonl", report=told.append)
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_more_trials_go_on_with_what_is_there(shop, units, tmp_path):
    run(shop, "1,at-eps=0,controls=0,black-box=0,rows=1", journal=tmp_path / "audit.jsonl")
    assert len(units.made) == 3
    result = run(shop, "2,at-eps=1,controls=0,black-box=0,rows=1", journal=tmp_path / "audit.jsonl")
    assert len(units.made) == len(set(units.made)) == 3 + 3 + 4 + 4
    assert [each.trials for each in result.smallest] == [2, 2, 2]


class Stepped(torch.nn.Module):
    """The embeddings of an encoder, with another gradient."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        z = self.encoder(images)
        return 0.5 * z + 0.5 * z.detach()


def test_a_journal_of_another_audit_is_left_alone(make, shop, units, tmp_path):
    journal, text = tmp_path / "audit.jsonl", "1,at-eps=0,controls=0,black-box=0"
    run(shop, text, journal=journal)
    kept = journal.read_text()
    other = Gallery.build(make.ranker(seed=1), shop.images, shop.labels)
    changed = Gallery(shop.ranker, shop.embeddings, shop.labels, shop.images * 0.999)
    unlabelled = Gallery(shop.ranker, shop.embeddings, None, shop.images)
    flat = Gallery(Ranker(Stepped(shop.ranker.encoder)), shop.embeddings, shop.labels, shop.images)
    cases = (
        (shop, {"seed": 1}),
        (unlabelled, {}),
        (flat, {}),
        (other, {}),
        (changed, {}),
        (shop, {"gallery_ids": None}),
        (shop, {"first": 3}),
    )
    for gallery, options in cases:
        del units.made[:]
        run(gallery, text, journal=journal, **options)
        assert len(units.made) == 3
        assert journal.read_text().startswith(kept)
    del units.made[:]
    run(shop, text, journal=journal)
    assert not units.made


# -- by time ---------------------------------------------------------------------------------------


def test_reports_are_handed_over_while_it_runs(shop, ticks):
    told = []
    result = run(shop, None, time_limit=60.0, report=told.append)
    assert told
    assert len(told[-1].smallest) == 3
    assert figures(told[-1])["model"] == figures(result)["model"]


def test_a_later_audit_by_time_goes_on_with_the_time_that_is_left(shop, ticks, units, tmp_path):
    journal = tmp_path / "audit.jsonl"
    first = run(shop, None, time_limit=10.0, journal=journal)
    made = len(units.made)
    longer = run(shop, None, time_limit=20.0, journal=journal)
    assert len(units.made) > made
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len({(line["of"], *line["rows"]) for line in lines}) == len(lines)  # none is kept twice
    assert longer.trials >= first.trials


def test_too_little_time_for_one_attack_is_refused(shop, monkeypatch):
    monkeypatch.setattr(sys.modules["rankproof.audit.plan"], "_seconds_per_pass", lambda *_: 10.0)
    with pytest.raises(RankproofError, match=r"--time: one attack takes about .* s; give more time"):
        run(shop, None, time_limit=5.0)


def test_progress_rises_to_the_end(shop):
    shares = []
    run(shop, "1,controls=0,black-box=1x9", progress=lambda done, total: shares.append(done / total))
    assert shares == pytest.approx(sorted(shares))  # sums of fractions round
    assert shares[-1] == 1
    assert len(shares) > 9


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 4, "time_limit": 60.0}, "not both"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"trials": "4,qa=3"}, "trials: 'qa' is unknown"),
        ({"gallery_ids": torch.arange(5)}, "gallery_ids: expected 24 gallery positions"),
        ({"gallery_ids": IDS + 1}, "gallery_ids: expected 24 gallery positions in 0 .. 23, got 1 .. 24"),
    ],
)
def test_what_does_not_fit_is_refused(shop, options, message):
    with pytest.raises(RankproofError, match=message):
        run(shop, **options)


def test_queries_must_be_a_batch(shop):
    for queries in (shop.images[0], shop.images[:0]):
        with pytest.raises(RankproofError, match=r"queries: expected a batch \(b, c, h, w\)"):
            audit(shop, queries, THREAT, trials=2)


def test_images_that_are_not_the_named_items_are_refused_before_any_work(make):
    images = make.images(30)
    gallery = Gallery.build(make.ranker(), images)
    with pytest.raises(RankproofError, match="gallery_ids: 8 of 8 images are not the gallery items"):
        audit(gallery, images[:8], Threat(8 / 255), gallery_ids=list(range(8, 16)))


# -- flags -----------------------------------------------------------------------------------------


def test_a_collapsed_encoder_is_flagged_in_the_report(make, tmp_path):
    images = make.images(24)
    weight = 1e-6 * torch.randn(5, 16, generator=make.random(0), dtype=torch.float64)
    encoder = make.flat(weight, torch.ones(5, dtype=torch.float64))
    gallery = Gallery.build(Ranker(encoder, "cosine"), images, torch.arange(24) % 2)
    run(gallery, "1,at-eps=0,controls=0,black-box=0").save(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    flags = {flag["kind"]: flag for flag in report["flags"]}
    assert flags["collapsed"]["cell"] is None


def crippled(monkeypatch, method, kind="attack_batch"):
    """Attacks by a method that may change nothing, though they say otherwise."""
    units = sys.modules["rankproof.audit.units"]
    real = getattr(units, kind)

    def weak(target, batch, goal, threat, **options):
        changed = threat if options["method"].name != method else replace(threat, eps=0.0)
        result = real(target, batch, goal, changed, **options)
        return replace(result, eps=threat.eps)

    monkeypatch.setattr(units, kind, weak)


def test_a_search_that_loses_is_flagged_and_the_worst_case_is_not_weaker(shop, monkeypatch):
    text = "1,at-eps=12,controls=0,black-box=0"
    kinds = {"strong-loses", "black-box-beats-white-box"}
    assert not [flag for flag in run(shop, text).flags if flag.kind in kinds and flag.cell == "qa+ at 8/255"]
    crippled(monkeypatch, "strong")
    result = run(shop, text)
    assert ("strong-loses", "qa+ at 8/255") in {(flag.kind, flag.cell) for flag in result.flags}
    cells = {cell.method: cell.after for cell in result.cells if cell.goal == "qa+"}
    assert cells["worst-case"] <= cells["pgd"] < cells["strong"]


def test_a_search_for_the_smallest_budget_that_loses_is_flagged_and_lowered(shop, monkeypatch):
    """Where an attack at the audited budget gets there, no smallest budget may be larger."""
    units = sys.modules["rankproof.audit.units"]
    real = units.smallest_budget

    def blind(*args, **options):
        found = real(*args, **options)
        lost = torch.where(found.eps_star == 0, 0.0, math.nan)
        return replace(found, eps_star=lost, adversarial=found.original)

    text = "12,at-eps=12,controls=0,black-box=0"
    monkeypatch.setattr(units, "smallest_budget", blind)
    result = audit(shop, shop.images, Threat(0.3), gallery_ids=IDS, trials=text)
    (summary,) = [each for each in result.smallest if each.goal == "qa+"]
    assert summary.reached > 0
    assert max(eps for eps, _ in summary.curve) <= 0.3 + 1e-6
    assert any("budgets are those of attacks at the audited eps" in note for note in summary.notes)
    assert ("budget-search-loses", "qa+") in {(flag.kind, flag.cell) for flag in result.flags}


def test_the_report_is_read_again(whole):
    again = AuditResult.from_json(whole.to_json())
    assert again.to_json() == whole.to_json()
    names = {each.name for each in fields(AuditResult)} - {"strips"}
    assert {name: getattr(again, name) for name in names if name not in ("recall_at_1", "versions")} == {
        name: getattr(whole, name) for name in names if name not in ("recall_at_1", "versions")
    }
