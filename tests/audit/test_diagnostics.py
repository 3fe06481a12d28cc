from dataclasses import replace

import pytest
import torch

from rankproof import Gallery, MaxShift, MomentumPGD, QueryRaise, Ranker, Threat, attack
from rankproof.attacks.result import QueryLog
from rankproof.audit.diagnostics import (
    AttackFigures,
    check_attack,
    check_baseline,
    check_gallery,
    check_knowledge,
    check_reference,
)
from rankproof.goals.registry import spec


def kinds(flags):
    return sorted(flag.kind for flag in flags)


# -- the gallery -----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("index", [None, torch.arange(60)], ids=["strangers", "own items"])
def test_a_healthy_gallery_has_no_flag(make, distance, index):
    assert check_gallery(make.gallery(distance, count=60), index) == []


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("index", [None, torch.arange(60)], ids=["strangers", "own items"])
def test_one_output_with_a_little_noise_is_collapsed(make, distance, index):
    z = torch.ones(1, 5, dtype=torch.float64) + 1e-4 * make.embeddings("euclidean", 60, 5)
    gallery = make.raw(distance, torch.nn.functional.normalize(z) if distance == "cosine" else z)
    (flag,) = check_gallery(gallery, index)
    assert (flag.kind, flag.cell) == ("collapsed", None)
    assert "looks robust because nothing can move" in flag.text


def test_a_few_outliers_do_not_hide_a_collapse_and_one_tight_class_is_none(make):
    z = torch.ones(60, 5, dtype=torch.float64) + 1e-4 * make.embeddings("euclidean", 60, 5)
    z[-2:] += 5
    assert kinds(check_gallery(make.raw("euclidean", z), None)) == ["collapsed"]
    z[30:] += 5
    assert check_gallery(make.raw("euclidean", z), None) == []


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_narrow_cone_is_neither_a_collapse_nor_full_of_duplicates(make, distance):
    """Embeddings of neighbouring directions (median cosine distance 4e-5) rank as well as any others."""
    z = (1 + 0.01 * make.embeddings("euclidean", 300, 64)).float()
    gallery = Gallery(make.ranker(distance, 64), z)
    assert check_gallery(gallery, torch.arange(60)) == []


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_flags_do_not_depend_on_the_scale_of_the_embeddings(make, distance):
    z = make.embeddings("euclidean", 300, 5)
    z[7], z[8] = z[3], z[3]
    for scale in (1e-10, 1.0, 2e5):
        (flag,) = check_gallery(make.raw(distance, scale * z), torch.arange(10))
        assert flag.text.startswith("3 of 10 images")


def test_ties(make):
    z = make.embeddings("euclidean", 60, 1).round(decimals=1)  # places on a coarse grid
    flags = check_gallery(make.raw("euclidean", z), None)
    assert kinds(flags) == ["ties"]
    assert float(flags[0].text.split()[0]) > 10


def test_a_binary_code_ties(make):
    z = torch.sign(make.embeddings("euclidean", 60, 8))
    assert "ties" in kinds(check_gallery(make.raw("euclidean", z), None))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_duplicates_are_counted_on_both_sides(make, distance):
    z = make.embeddings(distance, 300, 5)
    z[7], z[8] = z[3], z[3]
    gallery = make.raw(distance, z)
    (flag,) = check_gallery(gallery, torch.arange(10))
    assert flag.kind == "duplicates"
    assert flag.text.startswith("3 of 10 images")
    assert check_gallery(gallery, torch.arange(10, 60)) == []
    assert check_gallery(gallery, None) == []  # strangers have no copy of their own


def test_the_attacked_items_are_looked_at_wherever_they_stand(make):
    z = make.embeddings("cosine", 400, 5)
    z[399] = z[0]
    (flag,) = check_gallery(make.raw("cosine", z), torch.tensor([390, 399]))
    assert flag.text.startswith("1 of 2 images")


# -- one attack ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(make):
    images = make.images(60)
    gallery = Gallery.build(make.ranker(), images)
    return attack(gallery, images, QueryRaise(), Threat(0.0), gallery_ids=torch.arange(60))


def with_values(result, values, metric="rank"):
    values = torch.tensor(values, dtype=torch.float64)
    n = len(values)
    return replace(
        result,
        metric=metric,
        original=result.original[:1].expand(n, -1, -1, -1),
        after={metric: values[:, None] if metric == "rank" else values},
        zero_gradient=torch.zeros(n, dtype=torch.bool),
    )


def test_silent_gradients_are_told(result):
    some = replace(result, zero_gradient=torch.arange(60) < 2)
    flags = check_attack(some, "qa+ at 8/255", headline=False)
    assert kinds(flags) == ["silent-gradient"]
    assert flags[0].cell == "qa+ at 8/255"
    assert flags[0].text.startswith("2 of 60 attacks never saw a usable gradient")


def test_one_silent_attack_in_a_hundred_is_no_reason_to_doubt(result):
    many = with_values(result, [3.0] * 100)
    for count, expected in ((1, []), (2, ["silent-gradient"])):
        some = replace(many, zero_gradient=torch.arange(100) < count)
        assert kinds(check_attack(some, "qa+", headline=True)) == expected


def test_an_encoder_without_a_gradient_is_flagged(make, pictures):
    class Stepped(make.flat):
        def forward(self, images):
            return super().forward(torch.round(images * 4))

    gallery = Gallery.build(Ranker(Stepped(torch.randn(3, 16).double()), "euclidean"), pictures)
    for goal in (QueryRaise(), MaxShift()):
        found = attack(gallery, pictures[:4], goal, Threat(0.03), gallery_ids=torch.arange(4))
        assert "silent-gradient" in kinds(check_attack(found, "x", headline=False))


@pytest.mark.parametrize("method", [None, MomentumPGD()], ids=["pgd", "strong"])
def test_a_goal_that_holds_from_the_start_is_no_missing_gradient(make, pictures, method):
    gallery = Gallery.build(make.ranker(), pictures)
    first = gallery.search(gallery.embeddings[:8], 1)  # each image's own copy, already the first
    options = {"gallery_ids": torch.arange(8), "targets": first, "method": method}
    found = attack(gallery, pictures[:8], QueryRaise(), Threat(0.03), **options)
    assert torch.equal(found.rank_before, torch.zeros(8, 1, dtype=found.rank_before.dtype))
    assert not found.zero_gradient.any()
    assert found.gradient_note() is None


def test_an_encoder_without_a_gradient_is_flagged_even_where_the_goal_holds(make, pictures):
    class Stepped(make.flat):
        def forward(self, images):
            return super().forward(torch.round(images * 4))

    class Constant(make.flat):
        def forward(self, images):
            return super().forward(images * 0)

    for kind in (Stepped, Constant):
        gallery = Gallery.build(Ranker(kind(torch.randn(3, 16).double()), "euclidean"), pictures)
        first = gallery.search(gallery.embeddings[:8], 1)
        options = {"gallery_ids": torch.arange(8), "targets": first}
        found = attack(gallery, pictures[:8], QueryRaise(), Threat(0.03), **options)
        assert found.zero_gradient.all()
        assert found.gradient_note() is not None


@pytest.mark.parametrize(
    ("metric", "spread", "limit"), [("rank", 10.0, "±3 points"), ("tau", 0.2, "±0.05")], ids=["rank", "tau"]
)
def test_a_wide_interval_of_a_headline_figure(result, metric, spread, limit):
    ends = [50 - spread, 50 + spread] if metric == "rank" else [-spread, spread]
    wide = with_values(result, ends * 10, metric)
    flags = check_attack(wide, "qa+ at 8/255", headline=True)
    assert kinds(flags) == ["wide-interval"]
    assert limit in flags[0].text
    assert check_attack(wide, "qa+ at 8/255", headline=False) == []
    assert check_attack(with_values(result, ends * 100, metric), "x", headline=True) == []


def test_more_trials_are_not_asked_for_where_there_are_none(result):
    (flag,) = check_attack(with_values(result, [0.0, 100.0] * 30), "x", headline=True)
    assert flag.text.endswith("every item of the gallery is attacked; only a larger one makes it narrower")
    (flag,) = check_attack(with_values(result, [0.0, 100.0] * 10), "x", headline=True)
    assert flag.text.endswith("more trials make it narrower")


def test_one_trial_is_too_wide_and_shifts_are_never(result):
    assert kinds(check_attack(with_values(result, [3.0]), "x", headline=True)) == ["wide-interval"]
    assert check_attack(with_values(result, [0, 100.0] * 5, "shift"), "x", headline=True) == []


@pytest.mark.parametrize(("spread", "expected"), [(0.2, []), (0.5, ["wide-interval"])])
def test_a_black_box_may_be_known_less_well_since_its_attacks_are_few(result, spread, expected):
    log = QueryLog(
        visible=50, budget=1000, spent=torch.ones(20, dtype=torch.int64), scores=torch.zeros(20, 1000)
    )
    seen = replace(with_values(result, [-spread, spread] * 10, "tau"), log=log)
    flags = check_attack(seen, "oa k = 5, N = 50, Q = 1,000 at 8/255", headline=True)
    assert kinds(flags) == expected
    assert all("±0.15" in flag.text for flag in flags)


# -- two methods -----------------------------------------------------------------------------------

NOISE = [0.0, 1.0, 0.5, 0.2] * 5


def values(start, kept=None):
    rank = [] if kept is None else [kept + n for n in NOISE]
    return AttackFigures(values=[start + n for n in NOISE], sp_rank=rank)


@pytest.mark.parametrize("goal", ["ca+", "qa+", "sp-qa+"])
def test_strong_loses_where_its_rank_is_larger_and_should_be_smaller(goal):
    (flag,) = check_reference(values(20.5), values(20), spec(goal), f"{goal} at 8/255")
    assert (flag.kind, flag.cell) == ("strong-loses", f"{goal} at 8/255")
    assert check_reference(values(19.5), values(20), spec(goal), "x") == []
    assert check_reference(values(20), values(20), spec(goal), "x") == []


@pytest.mark.parametrize("goal", ["ca-", "qa-", "sp-qa-", "oa", "shift"])
def test_strong_loses_where_its_figure_is_smaller_and_should_be_larger(goal):
    assert kinds(check_reference(values(19.5), values(20), spec(goal), "x")) == ["strong-loses"]
    assert check_reference(values(20.5), values(20), spec(goal), "x") == []


def test_a_loss_within_chance_is_none():
    weak = AttackFigures(values=[20.0 + n for n in (1, -1) * 10])
    strong = AttackFigures(values=[20.2 + n for n in (-3, 3) * 10])
    assert check_reference(strong, weak, spec("qa+"), "x") == []


def test_the_comparison_is_paired():
    """A small loss on every attack counts although attacks differ much from one another."""
    places = [0.0, 90.0, 30.0, 60.0] * 5
    weak = AttackFigures(values=places)
    strong = AttackFigures(values=[place + 0.1 for place in places])
    assert kinds(check_reference(strong, weak, spec("qa+"), "x")) == ["strong-loses"]


def test_a_lower_rank_of_the_chosen_is_no_loss_where_the_others_are_kept_better():
    assert check_reference(values(25, kept=1), values(20, kept=4), spec("sp-qa+"), "x") == []
    assert kinds(check_reference(values(25, kept=4), values(20, kept=4), spec("sp-qa+"), "x")) == [
        "strong-loses"
    ]
    assert kinds(check_reference(values(25, kept=6), values(20, kept=4), spec("sp-qa+"), "x")) == [
        "strong-loses"
    ]


def test_one_attack_says_nothing():
    one = AttackFigures(values=[50.0]), AttackFigures(values=[1.0])
    assert check_reference(*one, spec("qa+"), "x") == []


def test_a_reference_method_is_called_by_its_name():
    (flag,) = check_reference(values(19.5), values(20), spec("oa"), "x", ("the search of this audit", "SPSA"))
    assert flag.text.startswith("the search of this audit does worse than SPSA on the same attacks")


@pytest.mark.parametrize(("count", "expected"), [(2, []), (5, []), (6, ["strong-loses"])])
def test_a_few_attacks_that_happen_to_be_alike_prove_no_loss(count, expected):
    weak, strong = (AttackFigures(values=[value] * count) for value in (20.0, 21.0))
    assert kinds(check_reference(strong, weak, spec("qa+"), "x")) == expected


@pytest.mark.parametrize(("goal", "least"), [("qa+", 0.05), ("oa", -0.01)])
def test_a_loss_too_small_to_matter_is_none(goal, least):
    weak = AttackFigures(values=[0.5] * 40)
    for share, expected in ((0.5, []), (2.0, ["strong-loses"])):
        strong = AttackFigures(values=[0.5 + share * least] * 40)
        assert kinds(check_reference(strong, weak, spec(goal), "x")) == expected


# -- two kinds of attackers ------------------------------------------------------------------------


def orders(start, wanted=None):
    """20 attacks with one wanted order each."""
    found = [start + 0.1 * n for n in NOISE]
    return AttackFigures(
        values=found, targets=[[n, n + 1, n + 2] for n in range(20)] if wanted is None else wanted
    )


def test_a_black_box_above_the_white_box_is_a_reason_to_doubt_the_white_box():
    (flag,) = check_knowledge(orders(0.5), orders(0.3), "oa k = 5, N = 50, Q = 1,000 at 8/255")
    assert (flag.kind, flag.cell) == ("black-box-beats-white-box", "oa k = 5, N = 50, Q = 1,000 at 8/255")
    assert "the white-box figure of OA understates the danger" in flag.text
    assert check_knowledge(orders(0.3), orders(0.3), "x") == []
    assert check_knowledge(orders(0.1), orders(0.3), "x") == []


def test_the_white_box_may_have_made_more_attacks_than_the_black_box():
    """Those of the black box are the first of the white box's; what comes after says nothing."""
    white = orders(0.5)
    white = AttackFigures(values=[*white.values, *[-1.0] * 500], targets=[*white.targets, *[[7, 8, 9]] * 500])
    assert check_knowledge(orders(0.3), white, "x") == []
    assert kinds(check_knowledge(orders(0.7), white, "x")) == ["black-box-beats-white-box"]


def test_only_attacks_with_the_same_wanted_order_are_compared():
    other = [[n + 2, n + 1, n] for n in range(20)]
    assert check_knowledge(orders(0.9), orders(0.1, other), "x") == []
    half = orders(0.1).targets[:10] + other[10:]
    above = orders(0.9)
    above.values[:10] = [-0.5 + 0.1 * n for n in NOISE[:10]]
    assert check_knowledge(above, orders(0.1, half), "x") == []  # above it where the orders differ only


def test_a_gain_of_the_black_box_within_chance_is_none():
    black = AttackFigures(values=[0.4 + n for n in (0.5, -0.4) * 5], targets=[[0, 1]] * 10)
    white = AttackFigures(values=[0.4] * 10, targets=[[0, 1]] * 10)
    assert check_knowledge(black, white, "x") == []
    one = AttackFigures(values=[1.0], targets=[[0, 1]])
    assert check_knowledge(one, white, "x") == []


def test_rounding_and_few_attacks_prove_nothing_about_the_white_box():
    wanted = [[0, 1, 2]] * 20
    single = AttackFigures(values=torch.full((20,), 0.6).tolist(), targets=wanted)  # 0.6000000238
    double = AttackFigures(values=[0.6] * 20, targets=wanted)
    assert check_knowledge(single, double, "x") == []
    for count, expected in ((2, []), (5, []), (6, ["black-box-beats-white-box"])):
        black = AttackFigures(values=[0.8] * count, targets=wanted[:count])
        assert kinds(check_knowledge(black, double, "x")) == expected


# -- nothing changed -------------------------------------------------------------------------------


def clean(mean, spread, count=100):
    """Figures of untouched images with a mean."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(count)[:count]
    return mean + spread * (signs - signs.mean())


@pytest.mark.parametrize(
    ("goal", "right", "wrong"),
    [("ca+", 51, 60), ("qa+", 49, 30), ("sp-qa+", 50, 0), ("oa", 0.1, 0.9), ("shift", 0.0, 0.5)],
)
def test_the_figure_without_any_change(goal, right, wrong):
    spread = {"oa": 0.5, "shift": 0.0}.get(goal, 5.0)
    assert check_baseline(clean(right, spread), spec(goal), goal, 1000) == []
    (flag,) = check_baseline(clean(wrong, spread), spec(goal), goal, 1000)
    assert (flag.kind, flag.cell) == ("baseline", goal)
    assert f"{wrong:.2f} where" in flag.text


def test_a_few_random_orders_that_happen_to_be_alike_are_no_wrong_ranks():
    for trials, expected in ((2, []), (5, []), (6, ["baseline"])):
        assert kinds(check_baseline(clean(0.2, 0.0, trials), spec("oa"), "oa", 9)) == expected


def test_goals_without_a_known_baseline_say_nothing():
    assert check_baseline(clean(90, 1.0), spec("qa-"), "qa-", 1000) == []


def test_real_baselines_are_right(make):
    images = make.images(150)
    gallery = Gallery.build(make.ranker(), images)
    for goal in (QueryRaise(), MaxShift()):
        found = attack(gallery, images, goal, Threat(0.0), gallery_ids=torch.arange(150), exclude_self=True)
        assert check_baseline(found.headline(after=False), goal.spec, goal.spec.name, 150) == []
