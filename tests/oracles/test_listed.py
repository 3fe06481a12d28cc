import numpy as np
import pytest
import torch
from oracle_helpers import SHAPE, around, track

from rankproof import ListOracle, LocalOracle, RankproofError


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
    found = oracle.top(torch.zeros(2, *SHAPE), 5, track(torch.empty(2, 0, dtype=torch.int64)))
    assert [[oracle.name(number) for number in row] for row in found.tolist()] == [names, names[::-1]]
    places = oracle(torch.zeros(1, 2, *SHAPE), track(numbers(oracle, *names)))
    assert places.tolist() == [[[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, lambda rows: list(torch.tensor(rows))])
def test_lists_may_be_rows_of_an_array_or_a_tensor(kind):
    oracle = ListOracle(lambda images: kind([[7, 8, 9]] * len(images)), 3)
    found = oracle.top(torch.zeros(2, *SHAPE), 3, track(torch.empty(2, 0, dtype=torch.int64)))
    assert oracle(torch.zeros(2, 2, *SHAPE), track(found)).tolist() == [[[0, 1, 2]] * 2] * 2
    assert [oracle.name(number) for number in found[1].tolist()] == [7, 8, 9]


def test_an_id_that_was_never_seen_is_missing_and_a_name_keeps_its_number():
    oracle = ListOracle(service(["b", "c"]), 2)
    asked = numbers(oracle, "z", "b", "c")
    assert oracle(torch.zeros(1, 1, *SHAPE), track(asked)).tolist() == [[[2, 0, 1]]]
    assert numbers(oracle, "z", "b", "c").tolist() == asked.tolist()


def test_longer_lists_are_cut_and_shorter_ones_end_early():
    oracle = ListOracle(service(list("abcdef"), ["b"], []), 3)
    places = oracle(torch.zeros(1, 3, *SHAPE), track(numbers(oracle, "a", "b", "c", "d")))
    assert places.tolist() == [[[0, 1, 2, 3], [3, 0, 3, 3], [3, 3, 3, 3]]]


def test_the_first_of_repeated_ids_counts_and_top_names_each_once():
    oracle = ListOracle(service(list("abacad")), 6)
    found = oracle.top(torch.zeros(1, *SHAPE), 4, track([[0]]))
    assert "".join(oracle.name(number) for number in found[0].tolist()) == "abcd"
    assert oracle(torch.zeros(1, 1, *SHAPE), track(numbers(oracle, *"abcd"))).tolist() == [[[0, 1, 3, 5]]]


def test_an_excluded_id_is_left_out_and_the_others_move_up():
    oracle = ListOracle(service(list("xabx"), list("axbc")), 3)
    ids = torch.cat([numbers(oracle, *"axb")] * 2)
    excluded = [oracle.number("x"), oracle.number("b")]
    places = oracle(torch.zeros(2, 1, *SHAPE), track(ids, excluded))
    assert places.tolist() == [[[0, 3, 1]], [[0, 1, 3]]]
    found = oracle.top(torch.zeros(2, *SHAPE), 2, track(ids, excluded))
    assert [[oracle.name(number) for number in row] for row in found.tolist()] == [["a", "b"], ["a", "x"]]


def test_each_image_of_each_attack_is_paired_with_its_own_list():
    oracle = ListOracle(service(*[["none"] * place + ["a"] for place in range(6)]), 9)
    places = oracle(torch.zeros(2, 3, *SHAPE), track(torch.cat([numbers(oracle, "a")] * 2)))
    assert places.tolist() == [[[0], [1], [2]], [[3], [4], [5]]]


def test_too_few_different_ids_for_k_are_refused():
    oracle = ListOracle(service(list("abc"), list("aab")), 3)
    with pytest.raises(RankproofError, match="returned 2 different ids, 3 are needed; choose a smaller k"):
        oracle.top(torch.zeros(2, *SHAPE), 3, track(torch.empty(2, 0, dtype=torch.int64)))


@pytest.mark.parametrize("answers", [[], [["a"]], [["a"]] * 3])
def test_another_number_of_lists_than_images_is_refused(answers):
    oracle = ListOracle(lambda images: answers, 3)
    with pytest.raises(RankproofError, match=f"the service answered {len(answers)} of 2 images"):
        oracle(torch.zeros(1, 2, *SHAPE), track([[0]]))


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
    assert torch.equal(oracle(images, track(ids, excluded)), local(images, track(ids, excluded)))
    first = (images[:, 0], 3, track(ids[:, :0], excluded))
    assert torch.equal(oracle.top(*first), local.top(*first))
