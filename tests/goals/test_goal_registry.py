from dataclasses import dataclass, replace

import pytest

from rankproof import RankproofError
from rankproof.goals import (
    CandidateLower,
    CandidateRaise,
    Goal,
    LeaveTop,
    MaxShift,
    Mismatch,
    Misrank,
    NearestOther,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    WrongFirst,
    registry,
)

NOTHING = dict.fromkeys(("w", "m", "k", "g", "xi"))
DEFAULTS = {
    "ca+": CandidateRaise(),
    "ca-": CandidateLower(),
    "qa+": QueryRaise(),
    "qa-": QueryLower(),
    "sp-qa+": QueryRaise() + 1.0 * Preserve(),
    "sp-qa-": QueryLower() + 100.0 * Preserve(),
    "oa": Reorder(),
    "wrong-first": WrongFirst(),
    "shift": MaxShift(),
    "mismatch": Mismatch(),
    "misrank": Misrank(),
    "nearest-other": NearestOther(),
    "top4": LeaveTop(),
}
with_distance_form = pytest.mark.parametrize("name", ["ca+", "ca-", "qa+", "qa-", "sp-qa+", "sp-qa-"])


@pytest.mark.parametrize(
    ("goal", "name", "parameters"),
    [
        (CandidateRaise(w=2), "ca+", {"w": 2}),
        (CandidateLower(w=5), "ca-", {"w": 5}),
        (QueryRaise(m=3), "qa+", {"m": 3}),
        (QueryLower(m=4), "qa-", {"m": 4}),
        (QueryRaise(m=3) + 1.5 * Preserve(g=6), "sp-qa+", {"m": 3, "g": 6, "xi": 1.5}),
        (QueryLower(m=3) + 2.0 * (50.0 * Preserve()), "sp-qa-", {"m": 3, "g": 5, "xi": 100.0}),
        (Reorder(k=10, xi=1000.0), "oa", {"k": 10, "xi": 1000.0}),
        (MaxShift(), "shift", {}),
        (CandidateRaise(form="distance"), "ca+-distance", {"w": 1}),
        (QueryLower(form="distance") + 1.0 * Preserve(), "sp-qa--distance", {"m": 1, "g": 5, "xi": 1.0}),
    ],
)
def test_a_goal_has_the_papers_name_and_letters(goal, name, parameters):
    assert goal.spec.name == name
    assert goal.parameters == NOTHING | parameters


def test_every_goal_of_the_papers_has_a_name():
    assert set(registry.names()) == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_name_alone_gives_the_goal_with_its_defaults(name):
    goal = registry.parse(name)
    assert goal == DEFAULTS[name]
    assert goal.spec == registry.spec(name)
    assert registry.parse(name, w=None, m=None, k=None, g=None, xi=None) == goal


@pytest.mark.parametrize(
    ("name", "parameters", "goal"),
    [
        ("ca-", {"w": 4}, CandidateLower(w=4)),
        ("sp-qa+", {"m": 2, "g": 7, "xi": 3.0}, QueryRaise(m=2) + 3.0 * Preserve(g=7)),
        ("sp-qa-", {"m": 2}, QueryLower(m=2) + 100.0 * Preserve(g=5)),
        ("oa", {"k": 8, "xi": 0.0}, Reorder(k=8, xi=0.0)),
        ("oa", {"order": (2, 0, 1)}, Reorder(k=3, order=(2, 0, 1))),
        ("qa--distance", {"m": 3}, QueryLower(m=3, form="distance")),
        (
            "sp-qa+-distance",
            {"g": 2},
            QueryRaise(form="distance") + 1.0 * Preserve(g=2, form="distance"),
        ),
    ],
)
def test_a_name_with_parameters_gives_that_goal(name, parameters, goal):
    assert registry.parse(name, **parameters) == goal


@with_distance_form
def test_a_distance_form_says_so_and_is_otherwise_the_same_goal(name):
    plain, distance = registry.spec(name), registry.spec(f"{name}-distance")
    assert distance.name == f"{name}-distance"
    assert distance.title == f"{plain.title} (distance)"
    assert distance.standard_audit == 0
    assert replace(distance, name=name, title=plain.title, standard_audit=plain.standard_audit) == plain
    assert registry.parse(f"{name}-distance").spec == distance


@pytest.mark.parametrize("name", ["", "CA+", "ca", "ca+-", "raise", "raise-distance"])
def test_an_unknown_goal_is_named_with_all_that_are_known(name):
    for call in (registry.spec, registry.parse):
        with pytest.raises(
            RankproofError, match=rf"goal '{name}' is unknown; known: ".replace("+", r"\+")
        ) as caught:
            call(name)
        assert all(known in str(caught.value) for known in DEFAULTS)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ca+", {"m": 2}, r"goal ca\+ has no parameter m; it has: w"),
        ("sp-qa-", {"k": 2}, "goal sp-qa- has no parameter k; it has: m, g, xi"),
        ("qa+-distance", {"g": 2}, r"goal qa\+-distance has no parameter g; it has: m"),
        ("oa", {"w": 2}, "goal oa has no parameter w; it has: k, xi"),
        ("shift", {"xi": 2.0}, "goal shift has no parameter xi; it has: none"),
        ("top4", {"visible": 4}, "goal top4 has no parameter visible; it has: none"),
    ],
)
def test_an_unknown_parameter_is_named_with_all_that_are_known(name, parameters, message):
    with pytest.raises(RankproofError, match=message):
        registry.parse(name, **parameters)


@pytest.mark.parametrize("name", ["oa-distance", "shift-distance", "top4-distance"])
def test_a_goal_without_a_distance_form_has_none(name):
    for call in (registry.spec, registry.parse):
        with pytest.raises(RankproofError, match=f"goal '{name}' is unknown"):
            call(name)


def test_a_standard_audit_runs_its_goals_in_their_order():
    audited = registry.standard_audit()
    assert [spec.standard_audit for spec in audited] == list(range(1, len(audited) + 1))
    assert [registry.order_of(spec.name) for spec in audited] == list(range(1, len(audited) + 1))
    others = set(registry.names()) - {spec.name for spec in audited}
    assert all(registry.order_of(name) > len(audited) for name in (*others, "ca+-distance"))


@dataclass(frozen=True, kw_only=True)
class SmallShift(MaxShift):
    """A goal of somebody else's."""

    w: int = 7

    SPEC = replace(
        MaxShift.SPEC, name="small-shift", title="Small shift", parameters=("w",), standard_audit=0
    )


@pytest.fixture
def small_shift():
    registry.register(SmallShift)
    yield SmallShift
    registry.unregister("small-shift")


def test_a_registered_goal_is_used_by_its_name(small_shift):
    assert "small-shift" in registry.names()
    assert registry.parse("small-shift") == SmallShift()
    assert registry.parse("small-shift", w=2) == SmallShift(w=2)
    assert registry.spec("small-shift") is SmallShift.SPEC
    assert isinstance(registry.parse("small-shift"), Goal)
    assert "small-shift" not in {spec.name for spec in registry.standard_audit()}


def test_a_name_is_registered_once(small_shift):
    with pytest.raises(RankproofError, match="goal 'small-shift' is registered already; choose another name"):
        registry.register(small_shift)
    with pytest.raises(RankproofError, match="goal 'shift' is registered already"):
        registry.register(MaxShift)


def test_an_unregistered_goal_is_unknown_again(small_shift):
    registry.unregister("small-shift")
    with pytest.raises(RankproofError, match="goal 'small-shift' is unknown"):
        registry.parse("small-shift")
    registry.register(small_shift)
