"""A goal that is registered with a place in the standard audit is in it, with no other file touched."""

import json
from dataclasses import dataclass, replace
from html import unescape

import pytest
import torch

from rankproof import Gallery, Threat, audit
from rankproof.attacks.summary import AttackSummary
from rankproof.audit import AuditOptions, plan
from rankproof.audit.diagnostics import check_curve
from rankproof.audit.plan import standard_tasks
from rankproof.goals import Goal, GoalSpec
from rankproof.goals.registry import register, unregister
from rankproof.types import Evaluation

THREAT = Threat(8 / 255)


# -- a goal in 30 lines ----------------------------------------------------------------------------


class BoundCentre:
    stationary = False

    def __init__(self, context):
        self.gallery = context.gallery
        self.centre = context.gallery.embeddings.mean(0, keepdim=True).expand_as(context.clean)
        self.targets = self.preserved = torch.empty(len(context.clean), 0, dtype=torch.int64)

    def evaluate(self, z, penalty_weight=None):
        away = self.gallery.between(self.gallery.prepare(z), self.gallery.prepare(self.centre))
        return Evaluation(away, -away.detach())

    def metrics(self, z):
        return {"centre": self.gallery.exact_between(z, self.centre)}


@dataclass(frozen=True, kw_only=True)
class Centre(Goal):
    SPEC = GoalSpec(
        name="centre",
        title="Centre",
        family="embedding",
        direction="pull",
        metric="centre",
        larger_is_stronger=False,
        describe=lambda values: "The query is changed so that it looks like the mean of all items.",
        figure_label="distance to the centre",
        standard_audit=10,
    )

    def bind(self, context):
        return BoundCentre(context)


# --------------------------------------------------------------------------------------------------


@pytest.fixture
def registered():
    """Registers the goal with changes to its spec, until the test ends."""

    plain = Centre.SPEC

    def with_spec(**changes):
        Centre.SPEC = replace(plain, **changes)
        register(Centre)

    yield with_spec
    unregister("centre")
    Centre.SPEC = plain


@pytest.fixture(scope="module")
def gallery(make):
    images = make.images(24)
    return Gallery.build(make.ranker(), images, torch.arange(24) % 2)


def written(gallery, folder, *, trials, tasks=None):
    """The report of an audit, or of some tasks of it: its object and its page."""
    todo = plan(gallery, gallery.images, THREAT, trials=trials)
    todo = todo if tasks is None else replace(todo, tasks=tuple(filter(tasks, todo.tasks)))
    result = audit(
        gallery, gallery.images, THREAT, gallery_ids=torch.arange(24), options=AuditOptions(prepared=todo)
    )
    page = result.save(folder)
    return json.loads((folder / "report.json").read_text()), unescape(page.read_text())


def test_it_is_in_the_report_with_its_sentence_and_its_direction(gallery, registered, tmp_path):
    registered(headline=lambda values, start: (f"Draw a query from {start} to", ", where 0 is the centre"))
    report, page = written(gallery, tmp_path, trials=4)
    cells = [cell for cell in report["cells"] if cell["goal"] == "centre"]
    assert len(cells) == 7  # two methods at the audited budget, one at five others
    assert {cell["method"] for cell in cells} == {"pgd", "strong"}
    cell = next(cell for cell in cells if cell["eps"] == THREAT.eps and cell["method"] == "strong")
    assert cell["metric"] == "centre"
    assert cell["after"] < cell["before"]
    row = page[page.index("<b>Centre</b>") :].split("</tr>")[0]
    assert "The query is changed so that it looks like the mean of all items." in row
    assert "distance to the centre, smaller is a stronger attack" in row
    assert f"→ <b>{cell['after']:.2f}</b>" in row
    assert "<svg" in row
    assert page.count("<td>Centre</td>") == 7
    assert page.index("<b>Shift</b>") < page.index("<b>Centre</b>")
    top = page[page.index("What an attacker can do") : page.index("Can these figures be trusted?")]
    assert f"Draw a query from {cell['before']:.2f} to <strong>{cell['after']:.2f}</strong>" in top
    assert ", where 0 is the centre." in top
    assert not [flag for flag in report["flags"] if (flag["cell"] or "").startswith("centre")]


@pytest.mark.parametrize("upside_down", [False, True], ids=["as it is", "the wrong way round"])
def test_the_checks_read_its_direction_and_its_clean_figure(gallery, registered, tmp_path, upside_down):
    if upside_down:
        registered(larger_is_stronger=True, clean_value=0.0)
    else:
        registered()
    report, page = written(gallery, tmp_path, trials=24, tasks=lambda task: task.goal.spec.name == "centre")
    flags = {flag["kind"]: flag for flag in report["flags"] if (flag["cell"] or "").startswith("centre")}
    assert ("baseline" in flags) == upside_down
    if upside_down:
        assert flags["baseline"]["cell"] == "centre at 0/255"
        assert "where 0 is expected" in flags["baseline"]["text"]
        assert flags["baseline"]["text"] in page
    attacks = [AttackSummary.from_json(cell) for cell in report["cells"] if cell["method"] == "strong"]
    certain = [replace(attack, ci95=(attack.after, attack.after)) for attack in attacks]
    assert {flag.kind for flag in check_curve(certain)} == ({"larger-is-weaker"} if upside_down else set())


def test_a_goal_without_a_place_does_not_change_the_audit(registered):
    tasks = standard_tasks(797, THREAT, 100)
    registered(standard_audit=0)
    assert standard_tasks(797, THREAT, 100) == tasks
