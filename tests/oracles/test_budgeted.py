import pytest
import torch
from oracle_helpers import SHAPE, Counting, track

from rankproof import BudgetedOracle, Cached, LocalOracle, RankproofError
from rankproof.oracles import BudgetExhaustedError, Oracle, TrackedItems


def track_attacks(attacks, k=2):
    return TrackedItems(torch.tensor(attacks), torch.arange(k).expand(len(attacks), -1))


def test_query_q_plus_1_is_refused_and_neither_sent_nor_counted():
    inner = Counting()
    oracle = BudgetedOracle(inner, 10)
    oracle(torch.zeros(2, 9, *SHAPE), track_attacks([0, 1]))
    for count in (2, 50):
        with pytest.raises(BudgetExhaustedError, match=f"budget of 10 queries does not allow {count} more"):
            oracle(torch.zeros(2, count, *SHAPE), track_attacks([0, 1]))
    assert oracle.spent == {0: 9, 1: 9}
    assert len(inner.sent) == 1
    oracle(torch.zeros(2, 1, *SHAPE), track_attacks([0, 1]))
    assert oracle.spent == {0: 10, 1: 10}
    with pytest.raises(BudgetExhaustedError, match="nothing was sent"):
        oracle.top(torch.zeros(1, *SHAPE), 2, track_attacks([1]))
    assert len(inner.sent) == 2


def test_the_clean_query_counts():
    oracle = BudgetedOracle(Counting(), 1)
    oracle.top(torch.zeros(2, *SHAPE), 2, track_attacks([4, 7]))
    assert oracle.spent == {4: 1, 7: 1}
    with pytest.raises(BudgetExhaustedError):
        oracle(torch.zeros(1, 1, *SHAPE), track_attacks([7]))


def test_each_attack_has_its_own_budget_and_one_that_is_spent_stops_the_whole_call():
    inner = Counting()
    oracle = BudgetedOracle(inner, 4)
    oracle(torch.zeros(1, 4, *SHAPE), track_attacks([3]))
    oracle(torch.zeros(1, 3, *SHAPE), track_attacks([5]))
    with pytest.raises(BudgetExhaustedError):
        oracle(torch.zeros(2, 1, *SHAPE), track_attacks([5, 3]))
    assert oracle.spent == {3: 4, 5: 3}
    assert len(inner.sent) == 2


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_below_one_is_refused(budget):
    with pytest.raises(RankproofError, match=f"budget must be at least 1 query, got {budget}"):
        BudgetedOracle(Counting(), budget)


@pytest.mark.parametrize(
    "wrap", [lambda oracle: BudgetedOracle(oracle, 100), Cached], ids=["budgeted", "cached"]
)
def test_a_wrapped_oracle_tells_the_same(gallery, pictures, wrap):
    bare = LocalOracle(gallery, 9)
    wrapped = wrap(bare)
    assert isinstance(wrapped, Oracle)
    assert wrapped.visible == 9
    assert wrap(LocalOracle(gallery)).visible is None
    ids = gallery.search(gallery.embeddings[:6], 4)
    question, images = track(ids, torch.arange(6)), pictures.view(6, 10, *SHAPE)
    assert torch.equal(wrapped(images, question), bare(images, question))
    assert torch.equal(wrapped.top(pictures[:6], 3, question), bare.top(pictures[:6], 3, question))


# -- never asked the same twice --------------------------------------------------------------------


def cached(gallery):
    inner = Counting(9, LocalOracle(gallery, 9))
    return Cached(inner), inner


def test_the_same_image_is_sent_once(gallery, pictures):
    oracle, inner = cached(gallery)
    images, question = pictures[:8].view(2, 4, *SHAPE), track([[1, 2], [1, 2]])
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
    places = oracle(images, track([[0, 2], [0, 2]]))
    assert inner.asked == 1
    assert places.shape == (2, 5, 2)
    assert (places[..., 0] == 0).all()


def test_other_watched_or_excluded_items_are_another_question(gallery, pictures):
    oracle, inner = cached(gallery)
    images = pictures[None, :1]
    questions = [
        *(track([[0, 2]]), track([[2, 0]]), track([[0, 3]]), track([[0, 2]], [0])),
        *(track([[0, 2]], [1]), track([[0, 2, 3]])),
    ]
    for number, question in enumerate(questions, 1):
        assert torch.equal(oracle(images, question), LocalOracle(gallery, 9)(images, question))
        assert inner.asked == number


def test_pixels_that_differ_in_the_last_bit_are_another_image(gallery, pictures):
    oracle, inner = cached(gallery)
    image = pictures[None, :1].clone()
    oracle(image, track([[0, 2]]))
    image[0, 0, 0, 3, 3] = torch.nextafter(image[0, 0, 0, 3, 3], torch.tensor(2.0).double())
    oracle(image, track([[0, 2]]))
    assert inner.asked == 2


def test_first_results_are_kept_by_image_count_and_excluded_item(gallery, pictures):
    oracle, inner = cached(gallery)
    bare, none = LocalOracle(gallery, 9), torch.empty(3, 0, dtype=torch.int64)
    for question in (track(none), track(none, [0, 1, 2])):
        for count in (2, 3):
            for _ in range(2):
                found = oracle.top(pictures[:3], count, question)
                assert torch.equal(found, bare.top(pictures[:3], count, question))
    assert len(inner.sent) == 4


def test_first_results_and_positions_are_different_questions(gallery, pictures):
    oracle, _ = cached(gallery)
    found = oracle.top(pictures[:1], 5, track(torch.empty(1, 0, dtype=torch.int64)))
    assert found.shape == (1, 5)
    places = oracle(pictures[None, :1], track([[5]]))
    assert torch.equal(places, LocalOracle(gallery, 9)(pictures[None, :1], track([[5]])))


def test_a_budget_around_a_memory_counts_every_image_and_one_inside_only_what_is_sent(gallery, pictures):
    images, question = pictures[None, :4], track([[1, 2]])
    outside = BudgetedOracle(Cached(LocalOracle(gallery, 9)), 8)
    inside = BudgetedOracle(LocalOracle(gallery, 9), 4)
    for oracle in (outside, Cached(inside)):
        for _ in range(2):
            oracle(images, question)
    assert outside.spent == {0: 8}
    assert inside.spent == {0: 4}
