from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import BudgetedOracle, Cached, Gallery, ListOracle, LocalOracle, Ranker, RankproofError
from rankproof.oracles import BudgetExhaustedError, Oracle, TrackedItems

SHAPE = (1, 4, 4)


def watch(ids, excluded=None):
    ids = torch.as_tensor(ids)
    return TrackedItems(torch.arange(len(ids)), ids, None if excluded is None else torch.as_tensor(excluded))


def brute_force(gallery, images, ids, visible, excluded=None):
    # Sort the whole gallery for every image and look each item up.
    found = []
    for row, pictures in enumerate(images):
        z = gallery.ranker.embed_all(pictures).double()
        far = gallery.ranker.distance.pairwise(z, gallery.embeddings.double())
        for distances in far.tolist():
            order = sorted(range(len(gallery)), key=lambda item: (distances[item], item))
            order = [item for item in order if excluded is None or item != excluded[row]]
            order = order if visible is None else order[:visible]
            found.append(
                [order.index(item) if item in order else visible or len(gallery) for item in ids[row]]
            )
    return torch.tensor(found).view(*images.shape[:2], -1)


def around(make, pictures, rows, count, spread, seed):
    # Populations (b, p, c, h, w) around some images.
    noise = torch.rand(len(rows), count, *SHAPE, generator=make.random(seed), dtype=torch.float64) * 2 - 1
    return (pictures[rows][:, None] + spread * noise).clamp(0, 1)


# -- a gallery behind a curtain --------------------------------------------------------------------


@given(
    visible=st.sampled_from([None, 60, 50, 5, 1]),
    count=st.sampled_from([1, 2, 9]),
    spread=st.sampled_from([0.01, 0.1, 1.0]),
    excludes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_local_oracle_equals_sorting_the_whole_gallery(
    gallery, pictures, make, visible, count, spread, excludes, seed
):
    random = make.random(seed)
    rows = torch.randperm(60, generator=random)[:3]
    images = around(make, pictures, rows, count, spread, seed)
    ids = torch.stack([torch.randperm(60, generator=random)[:5] for _ in rows])
    ids[0] = gallery.search(gallery.embeddings[rows[:1]], 5)
    excluded = rows if excludes else None
    places = LocalOracle(gallery, visible)(images, watch(ids, excluded))
    expected = brute_force(
        gallery, images, ids.tolist(), visible, None if excluded is None else excluded.tolist()
    )
    assert torch.equal(places, expected)
    assert places.dtype == torch.int64


@given(
    visible=st.sampled_from([None, 12, 3]),
    count=st.sampled_from([1, 4]),
    excludes=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equally_far_items_stand_in_gallery_order(make, visible, count, excludes, seed):
    random = make.random(seed)
    # Whole numbers from a small range: duplicates, and different items equally far, both to the bit.
    embeddings = torch.randint(-2, 3, (30, 2), generator=random).double()
    weight = torch.zeros(2, 16, dtype=torch.float64)
    weight[0, 0] = weight[1, 5] = 4.0
    gallery = Gallery(Ranker(make.flat(weight), "euclidean"), embeddings)
    images = torch.randint(2, (2, count, *SHAPE), generator=random).double() / 2
    ids = torch.stack([torch.randperm(30, generator=random)[:6] for _ in range(2)])
    excluded = ids[:, 2] if excludes else None
    places = LocalOracle(gallery, visible)(images, watch(ids, excluded))
    if excludes:
        assert (places[:, :, 2] == (visible or 30)).all()
    expected = brute_force(
        gallery, images, ids.tolist(), visible, None if excluded is None else excluded.tolist()
    )
    assert torch.equal(places, expected)


def test_copies_in_the_gallery_stand_behind_each_other(make):
    # Whole numbers: a copy is equally far to the bit wherever it stands.
    images = torch.randint(5, (10, *SHAPE), generator=make.random(0)).double() / 4
    ranker = Ranker(make.flat(4 * torch.eye(16, dtype=torch.float64)), "euclidean")
    doubled = Gallery.build(ranker, torch.cat([images, images]))
    places = LocalOracle(doubled, 3)(images[None], watch([[3, 13, 12]]))
    assert places[0, 3].tolist()[:2] == [0, 1]
    assert places[0, 2, 2] == 1
    ignoring = LocalOracle(doubled, 3)(images[None], watch([[3, 13, 12]], [3]))
    assert ignoring[0, 3].tolist()[:2] == [3, 0]


@pytest.mark.parametrize("visible", [2, 5])
def test_where_everything_drops_out_of_sight_all_stand_at_n(gallery, pictures, make, visible):
    z = gallery.ranker.embed_all(pictures[:1])
    farthest = gallery.search(z, 60)[:, -4:]
    images = around(make, pictures, torch.tensor([0]), 6, 0.01, 0)
    assert (LocalOracle(gallery, visible)(images, watch(farthest)) == visible).all()


@pytest.mark.parametrize("visible", range(1, 10))
def test_behind_an_ignored_item_the_last_visible_place_is_seen(gallery, pictures, visible):
    nearest = gallery.search(gallery.embeddings[:6], 10)
    places = LocalOracle(gallery, visible)(pictures[:6, None], watch(nearest[:, 1:], nearest[:, 0]))
    assert places.tolist() == [[[min(place, visible) for place in range(9)]]] * 6


def test_a_spread_out_population_is_counted_as_exactly_as_each_image_alone(gallery, pictures):
    images, ids = pictures[None, :40], torch.tensor([[0, 20, 45, 59, 7]])
    oracle = LocalOracle(gallery, 9)
    together = oracle(images, watch(ids))
    alone = torch.cat([oracle(images[:, place, None], watch(ids)) for place in range(40)], dim=1)
    assert torch.equal(together, alone)
    assert torch.equal(together, brute_force(gallery, images, ids.tolist(), 9))


def test_single_precision_and_large_norms_do_not_lose_an_item(make):
    # Far from the origin, single-precision lengths are coarse: only the exact comparison may decide.
    random = make.random(5)
    embeddings = 1000 + torch.randn(200, 8, generator=random)
    ranker = Ranker(make.flat(torch.randn(8, 16, generator=random), torch.full((8,), 1000.0)), "euclidean")
    gallery = Gallery(ranker, embeddings)
    images = make.images(8, dtype=torch.float32).view(2, 4, *SHAPE)
    ids = gallery.search(ranker.embed_all(images[:, 0]), 6)
    for visible in (None, 50, 6):
        places = LocalOracle(gallery, visible)(images, watch(ids))
        assert torch.equal(places, brute_force(gallery, images, ids.tolist(), visible))


@dataclass(frozen=True)
class Manhattan:
    # A distance of somebody else's, not Euclidean and no metric either: its square.

    name = "manhattan"

    def prepare(self, z):
        return z

    def pairwise(self, a, b):
        return (a[:, None] - b).abs().sum(-1).square()

    def between(self, a, b):
        return (a - b).abs().sum(-1).square()


@pytest.mark.parametrize("visible", [None, 7])
@pytest.mark.parametrize("excluded", [None, [0, 1, 2]])
def test_any_other_distance_is_counted_without_short_cuts(make, pictures, visible, excluded):
    gallery = Gallery.build(Ranker(make.ranker().encoder, Manhattan()), pictures)
    images = around(make, pictures, torch.arange(3), 4, 0.3, 1)
    ids = gallery.search(gallery.embeddings[:3], 6)
    places = LocalOracle(gallery, visible)(images, watch(ids, excluded))
    assert torch.equal(places, brute_force(gallery, images, ids.tolist(), visible, excluded))
    assert 0 < int((places < 6).sum()) < places.numel()


@pytest.mark.parametrize("count", [1, 5, 59])
def test_the_first_results_are_those_of_a_search(gallery, pictures, count):
    found = LocalOracle(gallery, 60).top(pictures[:8], count, watch(torch.empty(8, 0, dtype=torch.int64)))
    assert torch.equal(found, gallery.search(gallery.embeddings[:8], count))


def test_the_ignored_item_is_left_out_of_the_first_results_and_the_others_move_up(gallery, pictures):
    z, everything = gallery.embeddings[:8], gallery.search(gallery.embeddings[:8], 60)
    own, last = everything[:, 0], everything[:, 5]
    for excluded in (own, last, everything[:, 59]):
        found = LocalOracle(gallery).top(pictures[:8], 5, watch(everything[:, :0], excluded))
        for row, skip, got in zip(everything.tolist(), excluded.tolist(), found.tolist(), strict=True):
            assert got == [item for item in row if item != skip][:5]
    assert torch.equal(own, gallery.search(z, 1)[:, 0])


def test_images_are_embedded_in_passes_without_a_trace_of_them(gallery, pictures, monkeypatch):
    images = pictures.view(6, 10, *SHAPE)
    ids = gallery.search(gallery.embeddings[:6], 4)
    whole = LocalOracle(gallery, 9)(images, watch(ids))
    monkeypatch.setattr("rankproof.oracles.local.PASS", 7)
    assert torch.equal(LocalOracle(gallery, 9)(images, watch(ids)), whole)
    assert not whole.is_inference()
    assert all(parameter.requires_grad for parameter in gallery.ranker.encoder.parameters())


@pytest.mark.parametrize("visible", [0, -1, 61])
def test_a_local_oracle_shows_at_most_its_gallery(gallery, visible):
    with pytest.raises(RankproofError, match=f"between 1 and the gallery's 60 items, got {visible}"):
        LocalOracle(gallery, visible)


# -- a hard budget ---------------------------------------------------------------------------------


class Counting:
    # An oracle that has nothing but a call; remembers what it was sent.

    def __init__(self, visible=9, oracle=None):
        self.visible, self.oracle, self.sent, self.asked = visible, oracle, [], 0

    def top(self, images, count, tracked):
        self.sent.append(("top", tuple(images.shape), tracked.attacks.tolist()))
        if self.oracle is not None:
            return self.oracle.top(images, count, tracked)
        return torch.arange(count).expand(len(images), -1)

    def __call__(self, images, tracked):
        self.sent.append(("call", tuple(images.shape[:2]), tracked.attacks.tolist()))
        self.asked += images.shape[0] * images.shape[1]
        if self.oracle is not None:
            return self.oracle(images, tracked)
        return torch.zeros(*images.shape[:2], tracked.ids.shape[1], dtype=torch.int64)


def rows_watch(attacks, k=2):
    return TrackedItems(torch.tensor(attacks), torch.arange(k).expand(len(attacks), -1))


def test_query_q_plus_1_is_refused_and_neither_sent_nor_counted():
    inner = Counting()
    oracle = BudgetedOracle(inner, 10)
    oracle(torch.zeros(2, 9, *SHAPE), rows_watch([0, 1]))
    for count in (2, 50):
        with pytest.raises(BudgetExhaustedError, match=f"budget of 10 queries does not allow {count} more"):
            oracle(torch.zeros(2, count, *SHAPE), rows_watch([0, 1]))
    assert oracle.spent == {0: 9, 1: 9}
    assert len(inner.sent) == 1
    oracle(torch.zeros(2, 1, *SHAPE), rows_watch([0, 1]))
    assert oracle.spent == {0: 10, 1: 10}
    with pytest.raises(BudgetExhaustedError, match="nothing was sent"):
        oracle.top(torch.zeros(1, *SHAPE), 2, rows_watch([1]))
    assert len(inner.sent) == 2


def test_the_clean_query_counts():
    oracle = BudgetedOracle(Counting(), 1)
    oracle.top(torch.zeros(2, *SHAPE), 2, rows_watch([4, 7]))
    assert oracle.spent == {4: 1, 7: 1}
    with pytest.raises(BudgetExhaustedError):
        oracle(torch.zeros(1, 1, *SHAPE), rows_watch([7]))


def test_each_attack_has_its_own_budget_and_one_that_is_spent_stops_the_whole_call():
    inner = Counting()
    oracle = BudgetedOracle(inner, 4)
    oracle(torch.zeros(1, 4, *SHAPE), rows_watch([3]))
    oracle(torch.zeros(1, 3, *SHAPE), rows_watch([5]))
    with pytest.raises(BudgetExhaustedError):
        oracle(torch.zeros(2, 1, *SHAPE), rows_watch([5, 3]))
    assert oracle.spent == {3: 4, 5: 3}
    assert len(inner.sent) == 2


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_below_one_is_refused(budget):
    with pytest.raises(RankproofError, match=f"budget must be at least 1 query, got {budget}"):
        BudgetedOracle(Counting(), budget)


@pytest.mark.parametrize(
    "wrap", [lambda oracle: BudgetedOracle(oracle, 100), Cached], ids=["metered", "cached"]
)
def test_a_wrapped_oracle_tells_the_same(gallery, pictures, wrap):
    bare = LocalOracle(gallery, 9)
    wrapped = wrap(bare)
    assert isinstance(wrapped, Oracle)
    assert wrapped.visible == 9
    assert wrap(LocalOracle(gallery)).visible is None
    ids = gallery.search(gallery.embeddings[:6], 4)
    question, images = watch(ids, torch.arange(6)), pictures.view(6, 10, *SHAPE)
    assert torch.equal(wrapped(images, question), bare(images, question))
    assert torch.equal(wrapped.top(pictures[:6], 3, question), bare.top(pictures[:6], 3, question))


# -- never asked the same twice --------------------------------------------------------------------


def cached(gallery):
    inner = Counting(9, LocalOracle(gallery, 9))
    return Cached(inner), inner


def test_the_same_image_is_sent_once(gallery, pictures):
    oracle, inner = cached(gallery)
    images, question = pictures[:8].view(2, 4, *SHAPE), watch([[1, 2], [1, 2]])
    first = oracle(images, question)
    assert inner.asked == 8
    assert torch.equal(oracle(images, question), first)
    assert torch.equal(oracle(images.flip(1), question), first.flip(1))
    assert inner.asked == 8
    more = torch.cat([images, pictures[8:10].view(2, 1, *SHAPE), images[:, :1]], dim=1)
    places = oracle(more, question)
    assert inner.asked == 10
    assert torch.equal(places, LocalOracle(gallery, 9)(more, question))


def test_an_image_repeated_within_a_call_and_between_attacks_is_sent_once(gallery, pictures):
    oracle, inner = cached(gallery)
    images = pictures[0].expand(2, 5, *SHAPE)
    places = oracle(images, watch([[0, 2], [0, 2]]))
    assert inner.asked == 1
    assert places.shape == (2, 5, 2)
    assert (places[..., 0] == 0).all()


def test_other_watched_or_ignored_items_are_another_question(gallery, pictures):
    oracle, inner = cached(gallery)
    images = pictures[None, :1]
    questions = [
        *(watch([[0, 2]]), watch([[2, 0]]), watch([[0, 3]]), watch([[0, 2]], [0])),
        *(watch([[0, 2]], [1]), watch([[0, 2, 3]])),
    ]
    for number, question in enumerate(questions, 1):
        assert torch.equal(oracle(images, question), LocalOracle(gallery, 9)(images, question))
        assert inner.asked == number


def test_pixels_that_differ_in_the_last_bit_are_another_image(gallery, pictures):
    oracle, inner = cached(gallery)
    image = pictures[None, :1].clone()
    oracle(image, watch([[0, 2]]))
    image[0, 0, 0, 3, 3] = torch.nextafter(image[0, 0, 0, 3, 3], torch.tensor(2.0).double())
    oracle(image, watch([[0, 2]]))
    assert inner.asked == 2


def test_first_results_are_kept_by_image_count_and_ignored_item(gallery, pictures):
    oracle, inner = cached(gallery)
    bare, none = LocalOracle(gallery, 9), torch.empty(3, 0, dtype=torch.int64)
    for question in (watch(none), watch(none, [0, 1, 2])):
        for count in (2, 3):
            for _ in range(2):
                found = oracle.top(pictures[:3], count, question)
                assert torch.equal(found, bare.top(pictures[:3], count, question))
    assert len(inner.sent) == 4


def test_first_results_and_positions_are_different_questions(gallery, pictures):
    oracle, _ = cached(gallery)
    found = oracle.top(pictures[:1], 5, watch(torch.empty(1, 0, dtype=torch.int64)))
    assert found.shape == (1, 5)
    places = oracle(pictures[None, :1], watch([[5]]))
    assert torch.equal(places, LocalOracle(gallery, 9)(pictures[None, :1], watch([[5]])))


def test_a_budget_around_a_memory_counts_every_image_and_one_inside_only_what_is_sent(gallery, pictures):
    images, question = pictures[None, :4], watch([[1, 2]])
    outside = BudgetedOracle(Cached(LocalOracle(gallery, 9)), 8)
    inside = BudgetedOracle(LocalOracle(gallery, 9), 4)
    for oracle in (outside, Cached(inside)):
        for _ in range(2):
            oracle(images, question)
    assert outside.spent == {0: 8}
    assert inside.spent == {0: 4}


# -- a service that returns lists of ids -----------------------------------------------------------


def service(*lists):
    # A search that answers each image with the next list.
    return lambda images: [lists[place % len(lists)] for place in range(len(images))]


def numbers(oracle, *names):
    return torch.tensor([[oracle.number(name) for name in names]])


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b.jpg", "ü", "", "a "],
        [2**63 - 1, 2**63 - 2, -(2**63), 2**53, 2**53 + 1],
        [2**64 - 1, 2**64 - 2, 2**63, 0, 1],
        [("shop", 1), ("shop", 2), ("store", 1), ("store", 2), None],
        list(np.array([2**64 - 1, 2**64 - 2, 3, 4, 5], dtype=np.uint64)),
        list(np.arange(5, dtype=np.int32)),
    ],
    ids=["strings", "64 bits", "unsigned", "pairs", "numpy unsigned", "numpy"],
)
def test_ids_of_any_kind_are_found_where_they_stand(names):
    oracle = ListOracle(service(names, names[::-1]), 5)
    found = oracle.top(torch.zeros(2, *SHAPE), 5, watch(torch.empty(2, 0, dtype=torch.int64)))
    assert [[oracle.name(number) for number in row] for row in found.tolist()] == [names, names[::-1]]
    places = oracle(torch.zeros(1, 2, *SHAPE), watch(numbers(oracle, *names)))
    assert places.tolist() == [[[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, lambda rows: list(torch.tensor(rows))])
def test_lists_may_be_rows_of_an_array_or_a_tensor(kind):
    oracle = ListOracle(lambda images: kind([[7, 8, 9]] * len(images)), 3)
    found = oracle.top(torch.zeros(2, *SHAPE), 3, watch(torch.empty(2, 0, dtype=torch.int64)))
    assert oracle(torch.zeros(2, 2, *SHAPE), watch(found)).tolist() == [[[0, 1, 2]] * 2] * 2
    assert [oracle.name(number) for number in found[1].tolist()] == [7, 8, 9]


def test_an_id_that_was_never_seen_is_missing_and_a_name_keeps_its_number():
    oracle = ListOracle(service(["b", "c"]), 2)
    asked = numbers(oracle, "z", "b", "c")
    assert oracle(torch.zeros(1, 1, *SHAPE), watch(asked)).tolist() == [[[2, 0, 1]]]
    assert numbers(oracle, "z", "b", "c").tolist() == asked.tolist()


def test_longer_lists_are_cut_and_shorter_ones_end_early():
    oracle = ListOracle(service(list("abcdef"), ["b"], []), 3)
    places = oracle(torch.zeros(1, 3, *SHAPE), watch(numbers(oracle, "a", "b", "c", "d")))
    assert places.tolist() == [[[0, 1, 2, 3], [3, 0, 3, 3], [3, 3, 3, 3]]]


def test_the_first_of_repeated_ids_counts_and_top_names_each_once():
    oracle = ListOracle(service(list("abacad")), 6)
    found = oracle.top(torch.zeros(1, *SHAPE), 4, watch([[0]]))
    assert "".join(oracle.name(number) for number in found[0].tolist()) == "abcd"
    assert oracle(torch.zeros(1, 1, *SHAPE), watch(numbers(oracle, *"abcd"))).tolist() == [[[0, 1, 3, 5]]]


def test_an_ignored_id_is_left_out_and_the_others_move_up():
    oracle = ListOracle(service(list("xabx"), list("axbc")), 3)
    ids = torch.cat([numbers(oracle, *"axb")] * 2)
    excluded = [oracle.number("x"), oracle.number("b")]
    places = oracle(torch.zeros(2, 1, *SHAPE), watch(ids, excluded))
    assert places.tolist() == [[[0, 3, 1]], [[0, 1, 3]]]
    found = oracle.top(torch.zeros(2, *SHAPE), 2, watch(ids, excluded))
    assert [[oracle.name(number) for number in row] for row in found.tolist()] == [["a", "b"], ["a", "x"]]


def test_each_image_of_each_attack_is_paired_with_its_own_list():
    oracle = ListOracle(service(*[["none"] * place + ["a"] for place in range(6)]), 9)
    places = oracle(torch.zeros(2, 3, *SHAPE), watch(torch.cat([numbers(oracle, "a")] * 2)))
    assert places.tolist() == [[[0], [1], [2]], [[3], [4], [5]]]


def test_too_few_different_ids_for_k_are_refused():
    oracle = ListOracle(service(list("abc"), list("aab")), 3)
    with pytest.raises(RankproofError, match="returned 2 different ids, 3 are needed; choose a smaller k"):
        oracle.top(torch.zeros(2, *SHAPE), 3, watch(torch.empty(2, 0, dtype=torch.int64)))


@pytest.mark.parametrize("answers", [[], [["a"]], [["a"]] * 3])
def test_another_number_of_lists_than_images_is_refused(answers):
    oracle = ListOracle(lambda images: answers, 3)
    with pytest.raises(RankproofError, match=f"the service answered {len(answers)} of 2 images"):
        oracle(torch.zeros(1, 2, *SHAPE), watch([[0]]))


@pytest.mark.parametrize("visible", [None, 0, -1])
def test_a_service_shows_at_least_one_result(visible):
    with pytest.raises(RankproofError, match=f"a service shows at least 1 result, got {visible}"):
        ListOracle(service([]), visible)


@pytest.mark.parametrize("visible", [5, 20, 60])
@pytest.mark.parametrize("excluded", [None, [4, 5, 6]])
def test_lists_of_a_gallery_tell_the_same_as_the_gallery(gallery, pictures, make, visible, excluded):
    # A service that itself leaves nothing out must show one more where one is excluded.
    spare = visible + (excluded is not None)
    oracle = ListOracle(
        lambda images: gallery.search(gallery.ranker.embed_all(images), spare).tolist(), visible
    )
    for item in range(60):
        oracle.number(item)
    images = around(make, pictures, torch.tensor([4, 5, 6]), 5, 0.2, 0)
    ids = gallery.search(gallery.embeddings[4:7], 5)
    local = LocalOracle(gallery, visible)
    assert torch.equal(oracle(images, watch(ids, excluded)), local(images, watch(ids, excluded)))
    first = (images[:, 0], 3, watch(ids[:, :0], excluded))
    assert torch.equal(oracle.top(*first), local.top(*first))
