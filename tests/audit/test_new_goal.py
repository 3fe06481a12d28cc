"""A goal that is registered with a place in the standard audit is in it, with no other file touched."""

import json
from dataclasses import dataclass, replace
from html import unescape

import pytest
import torch

from rankproof import Gallery, Threat, audit
from rankproof.audit import AuditOptions
from rankproof.audit.measurements import standard_measurements
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


def written(gallery, folder, trials):
    """The report of an audit of the goal alone: its object and its page."""
    text = f"{trials},at-eps=0,centre@eps={trials},controls=0,black-box=0"
    options = AuditOptions(model="mine")
    result = audit(
        gallery, gallery.images, THREAT, gallery_ids=torch.arange(24), trials=text, options=options
    )
    page = result.save(folder)
    return json.loads((folder / "report.json").read_text()), unescape(page.read_text())


def test_it_is_in_the_report_with_its_sentence_and_its_direction(gallery, registered, tmp_path):
    registered(headline=lambda values, start: (f"Draw a query from {start} to", ", where 0 is the centre"))
    report, page = written(gallery, tmp_path, 4)
    cells = {cell["method"]: cell for cell in report["cells"] if cell["goal"] == "centre"}
    assert list(cells) == ["pgd", "strong", "worst-case"]
    assert {cell["metric"] for cell in cells.values()} == {"centre"}
    cell = cells["worst-case"]
    assert cell["after"] == min(each["after"] for each in cells.values()) < cell["before"]
    assert "Centre" in page
    assert "distance to the centre" in page
    assert f"{cell['after']:.2f}" in page
    assert not [flag for flag in report["flags"] if (flag["cell"] or "").startswith("centre")]


@pytest.mark.parametrize("upside_down", [False, True], ids=["as it is", "the wrong way round"])
def test_the_checks_read_its_direction_and_its_clean_figure(gallery, registered, tmp_path, upside_down):
    if upside_down:
        registered(larger_is_stronger=True, clean_value=0.0)
    else:
        registered()
    report, _ = written(gallery, tmp_path, 24)
    flags = {flag["kind"]: flag for flag in report["flags"] if (flag["cell"] or "").startswith("centre")}
    assert ("baseline" in flags) == upside_down
    if upside_down:
        assert flags["baseline"]["cell"] == "centre at 8/255"
        assert "where 0 is expected" in flags["baseline"]["text"]


def test_a_goal_without_a_place_does_not_change_the_audit(registered):
    goals = standard_measurements(797, THREAT.eps)
    registered(standard_audit=0)
    assert standard_measurements(797, THREAT.eps) == goals
