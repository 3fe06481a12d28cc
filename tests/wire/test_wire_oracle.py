import json

import httpx
import pytest
import torch

from rankproof import SPSA, ListOracle, LocalOracle, RankproofError, Reorder, Thompson, Threat, attack
from rankproof.methods.search import SearchInterruptedError
from rankproof.oracle import Oracle
from rankproof.wire import CapReachedError, HttpOracle, QuotaExhaustedError

GOAL, THREAT, SHOWN, BUDGET = Reorder(k=4), Threat(0.1, grid=True), 12, 25


@pytest.fixture
def oracle(client, ledger):
    """Makes oracles of the shop; a later one goes on with the ledger of an earlier one."""

    def make_oracle(cap=None, **pace):
        return HttpOracle(client(**pace), ledger(cap=cap), SHOWN)

    return make_oracle


def ordered(oracle, pictures, method=None, count=3, **options):
    return attack(
        oracle, pictures[:count].float(), GOAL, THREAT, method=method, budget=BUDGET, seed=2, **options
    )


def same(one, other):
    assert torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(one.scores.nan_to_num(9), other.scores.nan_to_num(9))
    assert torch.equal(one.queries, other.queries)
    return True


def names(result, name):
    return [[name(number) for number in row] for row in result.targets.tolist()]


def test_it_is_an_oracle(oracle):
    assert isinstance(oracle(), Oracle)
    assert oracle().visible == SHOWN


def test_twenty_attacks_over_the_wire_are_the_local_ones(collection, pictures, serve, shop, client, ledger):
    port, _ = serve(shop)
    made = client(url=f"http://127.0.0.1:{port}/search", transport=None, concurrency=4)
    wired = HttpOracle(made, ledger(), SHOWN)
    found = ordered(wired, pictures, count=20)
    local = ordered(LocalOracle(collection, SHOWN), pictures, count=20)
    assert same(found, local)
    assert names(found, wired.name) == [
        [f"item-{number}" for number in row] for row in local.targets.tolist()
    ]
    assert torch.equal(found.tau, local.tau)
    assert float((found.tau - found.tau_before).mean()) > 0.1


@pytest.mark.parametrize("method", [Thompson(), SPSA(pairs=3)], ids=["auto", "spsa"])
def test_a_list_of_ids_is_all_it_takes(collection, pictures, oracle, shop, method):
    plain = ListOracle(lambda images: [shop.ids(file) for file in map(oracle_file, images)], SHOWN)
    assert same(ordered(oracle(), pictures, method), ordered(plain, pictures, method))


def oracle_file(image):
    from rankproof.wire.picture import png

    return png(image)


def test_nothing_is_asked_twice(oracle, pictures, shop):
    first = ordered(oracle(), pictures)
    assert len(shop.sent) == len(set(shop.sent)) <= 3 * BUDGET
    assert same(ordered(oracle(), pictures), first)  # all of it from the ledger
    assert len(shop.sent) == len(set(shop.sent))


def test_faults_change_nothing_but_the_time(collection, pictures, oracle, shop, clock):
    def dropped():
        raise httpx.RemoteProtocolError("the connection ended without an answer")

    def delayed():
        raise httpx.ReadTimeout("no answer in time")

    troubles = {3: dropped, 9: delayed, 13: (500, {}, ""), 16: (503, {"Retry-After": "9"}, "")}
    shop.faults = [troubles.get(number % 20) for number in range(200)]
    wired = oracle(concurrency=3)
    found = ordered(wired, pictures)
    assert same(found, ordered(LocalOracle(collection, SHOWN), pictures))
    assert int(found.queries.max()) <= BUDGET
    assert len(shop.answered) == len(set(shop.answered))
    assert wired.ledger.calls == len(shop.sent) > len(shop.answered)
    assert clock.now > 0


def test_a_quota_stops_it_and_the_same_call_goes_on(collection, pictures, oracle, shop, tmp_path):
    shop.faults = [None] * 40 + [(429, {}, '{"reason": "quota"}')]
    journal = tmp_path / "search"
    with pytest.raises(SearchInterruptedError) as caught:
        ordered(oracle(), pictures, journal=journal)
    assert isinstance(caught.value.__cause__, QuotaExhaustedError)
    assert len(shop.answered) == 40
    wired = oracle()
    found = ordered(wired, pictures, journal=journal)
    local = ordered(LocalOracle(collection, SHOWN), pictures)
    assert same(found, local)
    # The journal kept numbers of ids: they mean the same items in the new process.
    assert names(found, wired.name) == [
        [f"item-{number}" for number in row] for row in local.targets.tolist()
    ]
    assert len(shop.answered) == len(set(shop.answered))


def test_a_cap_is_hard(pictures, oracle, shop):
    with pytest.raises(SearchInterruptedError) as caught:
        ordered(oracle(cap=30, concurrency=3), pictures)
    assert isinstance(caught.value.__cause__, CapReachedError)
    assert len(shop.sent) == 30


def answers(shop, change):
    # A shop whose lists are changed on their way.
    plain = shop.ids
    shop.ids = lambda file: change(plain(file))


def test_short_lists_and_repeated_ids(pictures, oracle, shop):
    answers(shop, lambda ids: [*ids[:2], ids[0], *ids[2:5]])
    found = ordered(oracle(), pictures, SPSA(pairs=3))
    assert all(len(set(row)) == 4 for row in found.targets.tolist())
    assert bool((found.tau >= found.tau_before).all())


def test_ids_of_64_bits_stay_apart(collection, pictures, oracle, shop):
    answers(shop, lambda ids: [2**62 + int(name.removeprefix("item-")) for name in ids])
    wired = oracle()
    found = ordered(wired, pictures)
    local = ordered(LocalOracle(collection, SHOWN), pictures)
    assert same(found, local)
    assert names(found, wired.name) == [
        [str(2**62 + number) for number in row] for row in local.targets.tolist()
    ]


def test_a_list_too_short_for_k_is_one_line(pictures, oracle, shop):
    answers(shop, lambda ids: ids[:3])
    with pytest.raises(RankproofError, match="returned 3 different ids, 4 are needed; choose a smaller k"):
        ordered(oracle(), pictures)


def test_pictures_off_the_grid_are_not_sent(pictures, oracle, shop):
    with pytest.raises(RankproofError, match="off the 8-bit grid"):
        attack(oracle(), pictures[:1].float(), GOAL, Threat(0.1), method=SPSA(pairs=3), budget=9)
    assert shop.sent == []


def test_the_service_can_go_away_and_come_back(collection, pictures, serve, shop, client, ledger, clock):
    port, stop = serve(shop)
    back = []

    def killed():
        back.append(clock.now)
        return None, {}, ""  # the connection breaks without an answer

    def sleep(seconds):
        if back and len(back) == 1:  # while the client waits, the service is started anew
            back.append(clock.now)
            stop()
            serve(shop, port)
        clock.sleep(seconds)

    shop.faults = [*[None] * 30, killed]
    made = client(url=f"http://127.0.0.1:{port}/search", transport=None)
    made.sleep = sleep
    found = ordered(HttpOracle(made, ledger(), SHOWN), pictures)
    assert len(back) == 2
    assert same(found, ordered(LocalOracle(collection, SHOWN), pictures))
    assert len(shop.answered) == len(set(shop.answered))


def test_answers_are_json_and_nothing_else(pictures, oracle, shop):
    shop.faults = [(200, {}, json.dumps([1, 2]))]
    with pytest.raises(RankproofError, match=r"no 'ids' where there is a list of 2"):
        ordered(oracle(), pictures)
