from dataclasses import replace

import pytest
import torch

from rankproof import (
    PGD,
    SPSA,
    Gallery,
    MomentumPGD,
    Preserve,
    QueryLower,
    QueryRaise,
    Reorder,
    Threat,
    attack,
)
from rankproof.attacks.transfer import transfer
from rankproof.attacks.worst_case import AttackFigure, best_of, figures_of, strength, worst_case
from rankproof.errors import RankproofError
from rankproof.goals.registry import spec
from rankproof.oracles import LocalOracle

IDS = torch.arange(8)
OPTIONS = {"gallery_ids": IDS, "exclude_self": True}


def figures(*values, **more):
    return [AttackFigure(value=value, **more) for value in values]


def attacked(gallery, pictures, goal, method, eps=0.02, **more):
    return attack(gallery, pictures[:8], goal, Threat(eps), method=method, **OPTIONS | more)


# -- figures alone ---------------------------------------------------------------------------------


def test_each_attack_keeps_its_own_best_and_the_first_of_equal_ones():
    given = {"pgd": figures(5.0, 1.0, 3.0), "strong": figures(4.0, 2.0, 3.0)}
    raised = best_of(spec("qa+"), {"m": 1}, given)
    assert raised.methods == ("strong", "pgd", "pgd")
    assert [figure.value for figure in raised.figures] == [4.0, 1.0, 3.0]
    assert best_of(spec("qa-"), {"m": 1}, given).methods == ("pgd", "strong", "pgd")


def test_a_method_with_fewer_attacks_has_the_first_ones_and_what_is_not_finite_never_wins():
    given = {"black": figures(float("nan"), 9.0), "white": figures(0.1, 0.2, 0.3)}
    best = best_of(spec("shift"), {}, given)
    assert best.methods == ("white", "black", "white")
    gaps = {"black": [None, *figures(9.0)], "white": figures(0.1, 0.2)}
    assert best_of(spec("shift"), {}, gaps).methods == ("white", "black")
    with pytest.raises(RankproofError, match="attack 0 was made by no method"):
        best_of(spec("shift"), {}, {"black": gaps["black"]})
    with pytest.raises(RankproofError, match="no attack was made"):
        best_of(spec("shift"), {}, {"black": []})


@pytest.mark.parametrize(
    ("goal", "xi", "clean", "spoilt"), [("sp-qa+", 1.0, 10.0, 9.0), ("sp-qa-", 100.0, 40.0, 41.0)]
)
def test_a_small_gain_never_pays_for_what_was_to_be_kept(goal, xi, clean, spoilt):
    parameters = {"m": 1, "g": 5, "xi": xi}
    given = {
        "spoils": [AttackFigure(value=spoilt, sp_rank=30.0)],
        "keeps": [AttackFigure(value=clean, sp_rank=0.5)],
    }
    assert best_of(spec(goal), parameters, given).methods == ("keeps",)
    free = {name: [replace(each[0], sp_rank=0.5)] for name, each in given.items()}
    assert best_of(spec(goal), parameters, free).methods == ("spoils",)


def test_an_order_is_judged_by_tau_then_by_sight_then_by_the_mean_rank():
    def key(*values):
        names = ("value", "last_place", "mean_rank")
        return strength(spec("oa"), {"k": 5}, AttackFigure(**dict(zip(names, values, strict=True))))

    assert key(0.8, 400.0, 90.0) > key(0.6, 5.0, 3.0)
    assert key(0.8, 49.0, 40.0) > key(0.8, 50.0, 12.0)
    assert key(0.8, 20.0, 8.0) > key(0.8, 20.0, 9.0)


def test_the_fitness_is_that_of_the_search(make, pictures):
    """On a gallery without ties and with the own copy kept, both count the same places."""
    gallery = Gallery.build(make.ranker(), pictures)
    for goal in (QueryRaise(m=2) + 1.0 * Preserve(g=3), QueryLower(m=2) + 100.0 * Preserve(g=3)):
        result = attack(gallery, pictures[:6], goal, Threat(0.05), gallery_ids=torch.arange(6))
        context = {"targets": result.targets, "preserved": result.preserved}
        seen = []

        class Watch(MomentumPGD):
            def run(self, original, initial, objective, threat, *, seed, rng_keys):
                seen.append(objective(result.adversarial).fitness)  # noqa: B023
                return super().run(original, initial, objective, threat, seed=seed, rng_keys=rng_keys)

        attack(
            gallery,
            pictures[:6],
            goal,
            Threat(0.05),
            gallery_ids=torch.arange(6),
            method=Watch(steps=1),
            **context,
        )
        keys = [strength(goal.spec, goal.parameters, figure)[0] for figure in figures_of(result)]
        # A lowered item is not behind itself: |X| - 1 items can be.
        offset = 0.0 if goal.spec.name == "sp-qa+" else 100 * (1 - 1 / len(gallery))
        assert keys == pytest.approx((100 * seen[0] + offset).tolist())


# -- whole results ---------------------------------------------------------------------------------


def test_the_worst_case_is_at_least_as_strong_as_each_and_its_figures_are_those_of_its_images(
    gallery, pictures
):
    goal = QueryRaise()
    results = [
        attacked(gallery, pictures, goal, PGD(), eps=0.02),
        attacked(gallery, pictures, goal, MomentumPGD(), eps=0.01),
    ]
    worst = worst_case(results)
    assert worst.result.method == "worst-case"
    assert worst.result.eps == 0.02
    assert worst.result.steps == results[0].steps + results[1].steps
    assert set(worst.methods) <= {"pgd", "strong"}
    assert (worst.result.headline() <= torch.stack([each.headline() for each in results])).all()
    again = transfer(worst.result, gallery, goal, exclude_self=True)
    assert torch.equal(again.headline(), worst.result.headline())
    for row, name in enumerate(worst.methods):
        source = results[["pgd", "strong"].index(name)]
        assert torch.equal(worst.result.adversarial[row], source.adversarial[row])


def test_a_black_box_of_fewer_attacks_and_one_on_another_model_take_part(make, pictures):
    gallery, other = Gallery.build(make.ranker(), pictures), Gallery.build(make.ranker(seed=1), pictures)
    goal = Reorder(k=3)
    white = attacked(gallery, pictures, goal, None)
    black = attack(
        LocalOracle(gallery, visible=20),
        pictures[:3],
        goal,
        Threat(0.02),
        method=SPSA(),
        budget=60,
        gallery_ids=IDS[:3],
        exclude_self=True,
    )
    targets = {"targets": white.targets}
    moved = transfer(attacked(other, pictures, goal, None, **targets), gallery, goal, exclude_self=True)
    worst = worst_case([white, black, moved], names=["white", "black", "moved"])
    assert len(worst.result) == 8
    assert worst.result.log is None
    assert set(worst.methods[3:]) <= {"white", "moved"}
    assert "won by: white" in worst.result.notes[-1]
    assert (worst.result.tau[:3] >= black.tau).all()
    assert (worst.result.tau >= white.tau).all()
    assert worst.result.summary.method == "worst-case"


def test_results_of_other_attacks_are_an_error(gallery, pictures):
    one = attacked(gallery, pictures, QueryRaise(), PGD())
    with pytest.raises(RankproofError, match="a name of its own"):
        worst_case([one, one])
    with pytest.raises(RankproofError, match="the same goal"):
        worst_case([one, attacked(gallery, pictures, QueryLower(), MomentumPGD())])
    with pytest.raises(RankproofError, match="the same targets"):
        worst_case([one, attacked(gallery, pictures, QueryRaise(), MomentumPGD(), seed=1)])
    with pytest.raises(RankproofError, match="the same images"):
        worst_case([one, replace(one, original=one.original.flip(0))], names=["a", "b"])
    with pytest.raises(RankproofError, match="of nothing"):
        worst_case([])
