import json
from dataclasses import replace

import pytest
import torch

from rankproof import Preserve, QueryRaise, RankproofError, Threat, attack
from rankproof.attacks import AttackSummary

LOOKED_AT = AttackSummary(
    goal="oa",
    method="spsa",
    eps=4 / 255,
    k=5,
    steps=100,
    visible=50,
    budget=100,
    queries_spent=91.5,
    queries_max=100,
    trials=20,
    seed=3,
    device="cpu",
    model="m.pt",
    data="digits",
    metric="tau",
    before=0.0,
    after=0.4,
    ci95=(0.3, 0.5),
    tau_before=0.0,
    tau=0.4,
    curve=((1, 0.0), (2, 0.125), (100, 0.4)),
    seconds=1.25,
    model_seconds=1.0,
    peak_mb=300.0,
    versions={"torch": "2"},
    gallery_size=797,
    notes=("searched in full",),
)


@pytest.fixture
def computed(gallery, pictures):
    """The summary of a real attack in a white box."""
    goal = QueryRaise(m=2) + 1.5 * Preserve(g=3)
    return attack(gallery, pictures[:3], goal, Threat(0.05)).summary


def written_and_read(summary):
    return AttackSummary.from_json(json.loads(json.dumps(summary.to_json(), allow_nan=False)))


def test_a_summary_is_read_back_as_it_was(computed):
    for summary in (LOOKED_AT, computed, replace(computed, ci95=(None, None), after=None)):
        assert written_and_read(summary) == summary


def test_the_object_starts_with_its_schema_and_holds_lists():
    values = LOOKED_AT.to_json()
    assert next(iter(values.items())) == ("schema", 1)
    assert values["curve"] == [[1, 0.0], [2, 0.125], [100, 0.4]]
    assert values["ci95"] == [0.3, 0.5]
    assert values["notes"] == ["searched in full"]
    assert values["w"] is values["sp_rank"] is None


def test_an_older_object_without_a_schema_is_read(computed):
    for summary in (LOOKED_AT, computed):
        values = summary.to_json()
        del values["schema"]
        assert AttackSummary.from_json(values) == summary


def test_an_object_of_few_names_is_read_with_the_others_left_out():
    needed = (
        "goal",
        "method",
        "eps",
        "steps",
        "trials",
        "seed",
        "device",
        "metric",
        "before",
        "after",
        "seconds",
    )
    values = {name: getattr(LOOKED_AT, name) for name in needed}
    summary = AttackSummary.from_json(values | {"something": "new"})
    assert (summary.curve, summary.ci95, summary.notes, summary.budget) == (None, (None, None), (), None)
    assert summary.tau is None
    for name in needed:
        with pytest.raises(RankproofError, match=f"no summary of an attack: .*{name}"):
            AttackSummary.from_json({key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize("schema", [2, 0, "1"])
def test_another_schema_is_refused(schema):
    with pytest.raises(RankproofError, match=f"schema {schema} is unknown; this version reads 1"):
        AttackSummary.from_json(LOOKED_AT.to_json() | {"schema": schema})


@pytest.mark.parametrize("change", [{"curve": 3}, {"curve": [[1]]}, {"ci95": 0.5}, {"notes": 1}])
def test_values_of_another_form_are_refused(change):
    with pytest.raises(RankproofError, match="no summary of an attack"):
        AttackSummary.from_json(LOOKED_AT.to_json() | change)


def test_the_box_and_the_sentence_follow_from_the_values(computed):
    assert LOOKED_AT.black_box
    assert not computed.black_box
    assert computed.spec.name == "sp-qa+"
    assert "3 top results stay in place" in computed.sentence
    assert "the first 50 results of 100 queries" in LOOKED_AT.sentence
    assert LOOKED_AT.interval == (0.3, 0.5)
    assert replace(LOOKED_AT, ci95=(None, None)).interval is None
    assert replace(LOOKED_AT, ci95=(float("-inf"), float("inf"))).interval is None
    assert str(LOOKED_AT) == "oa tau 0.40 [0.30, 0.50]"
    assert str(replace(LOOKED_AT, ci95=(None, None))) == "oa tau 0.40"


def test_one_attack_alone_has_no_interval(gallery, pictures):
    summary = attack(gallery, pictures[:1], QueryRaise(), Threat(0.05)).summary
    assert summary.ci95 == (None, None)
    assert written_and_read(summary) == summary
    assert isinstance(summary.after, float)
    assert torch.isfinite(torch.tensor(summary.after))
