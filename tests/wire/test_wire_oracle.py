import json
from io import BytesIO

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rankproof import SPSA, ListOracle, LocalOracle, RankproofError, Reorder, ThompsonSampling, Threat, attack
from rankproof.methods.black_box.search import SearchInterruptedError
from rankproof.oracles import Oracle
from rankproof.wire import CapReachedError, HttpOracle, QuotaExhaustedError
from rankproof.wire.http_oracle import exact_png

GOAL, THREAT, SHOWN, BUDGET = Reorder(k=4), Threat(0.1, grid=True), 12, 25


@pytest.fixture
def oracle(client, cache):
    """Makes oracles of the service; a later one goes on with the cache of an earlier one."""

    def make_oracle(cap=None, **limits):
        return HttpOracle(client(**limits), cache(cap=cap), SHOWN)

    return make_oracle


def ordered(oracle, pictures, method=None, count=3, **options):
    return attack(
        oracle, pictures[:count].float(), GOAL, THREAT, method=method, budget=BUDGET, seed=2, **options
    )


def same(one, other):
    assert torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(one.log.scores.nan_to_num(9), other.log.scores.nan_to_num(9))
    assert torch.equal(one.log.spent, other.log.spent)
    return True


def once(service, checks=0):
    # Whether no image was answered twice, but for those that were asked again on purpose.
    return len(service.answered) == len(set(service.answered)) + checks


def checks(result):
    return int(result.log.repeats.count.sum())


def names(result, name):
    return [[name(number) for number in row] for row in result.targets.tolist()]


def test_it_is_an_oracle(oracle):
    assert isinstance(oracle(), Oracle)
    assert oracle().visible == SHOWN


def test_twenty_attacks_over_the_wire_are_the_local_ones(collection, pictures, serve, service, client, cache):
    port, _ = serve(service)
    made = client(url=f"http://127.0.0.1:{port}/search", transport=None, concurrency=4)
    wired = HttpOracle(made, cache(), SHOWN)
    found = ordered(wired, pictures, count=20)
    local = ordered(LocalOracle(collection, SHOWN), pictures, count=20)
    assert same(found, local)
    assert names(found, wired.name) == [
        [f"item-{number}" for number in row] for row in local.targets.tolist()
    ]
    assert torch.equal(found.tau, local.tau)
    assert float((found.tau - found.tau_before).mean()) > 0.1


@pytest.mark.parametrize("method", [ThompsonSampling(), SPSA(pairs=3)], ids=["auto", "spsa"])
def test_a_list_of_ids_is_all_it_takes(collection, pictures, oracle, service, method):
    plain = ListOracle(lambda images: [service.ids(file) for file in map(oracle_file, images)], SHOWN)
    assert same(ordered(oracle(), pictures, method), ordered(plain, pictures, method))


def oracle_file(image):
    return exact_png(image)


def test_nothing_is_asked_twice(oracle, pictures, service):
    first = ordered(oracle(), pictures)
    assert len(service.sent) <= 3 * BUDGET + 6
    assert once(service, checks(first))
    sent = len(service.sent)
    assert same(ordered(oracle(), pictures), first)  # all of it from the cache
    assert len(service.sent) == sent


def test_faults_change_nothing_but_the_time(collection, pictures, oracle, service, clock):
    def dropped():
        raise httpx.RemoteProtocolError("the connection ended without an answer")

    def delayed():
        raise httpx.ReadTimeout("no answer in time")

    troubles = {3: dropped, 9: delayed, 13: (500, {}, ""), 16: (503, {"Retry-After": "9"}, "")}
    service.faults = [troubles.get(number % 20) for number in range(200)]
    wired = oracle(concurrency=3)
    found = ordered(wired, pictures)
    assert same(found, ordered(LocalOracle(collection, SHOWN), pictures))
    assert int(found.log.spent.max()) <= BUDGET
    assert once(service, checks(found))
    assert wired.cache.calls == len(service.sent) > len(service.answered)
    assert clock.now > 0


def test_a_quota_stops_it_and_the_same_call_goes_on(collection, pictures, oracle, service, tmp_path):
    service.faults = [None] * 40 + [(429, {}, '{"reason": "quota"}')]
    journal = tmp_path / "search"
    with pytest.raises(SearchInterruptedError) as caught:
        ordered(oracle(), pictures, search_folder=journal)
    assert isinstance(caught.value.__cause__, QuotaExhaustedError)
    assert len(service.answered) == 40
    wired = oracle()
    found = ordered(wired, pictures, search_folder=journal)
    local = ordered(LocalOracle(collection, SHOWN), pictures)
    assert same(found, local)
    # The journal kept numbers of ids: they mean the same items in the new process.
    assert names(found, wired.name) == [
        [f"item-{number}" for number in row] for row in local.targets.tolist()
    ]
    assert once(service, checks(found))


def test_a_cap_is_hard(pictures, oracle, service):
    with pytest.raises(SearchInterruptedError) as caught:
        ordered(oracle(cap=30, concurrency=3), pictures)
    assert isinstance(caught.value.__cause__, CapReachedError)
    assert len(service.sent) == 30


def answers(service, change):
    # A service whose lists are changed on their way.
    plain = service.ids
    service.ids = lambda file: change(plain(file))


def test_short_lists_and_repeated_ids(pictures, oracle, service):
    answers(service, lambda ids: [*ids[:2], ids[0], *ids[2:5]])
    found = ordered(oracle(), pictures, SPSA(pairs=3))
    assert all(len(set(row)) == 4 for row in found.targets.tolist())
    assert bool((found.tau >= found.tau_before).all())


def test_ids_of_64_bits_stay_apart(collection, pictures, oracle, service):
    answers(service, lambda ids: [2**62 + int(name.removeprefix("item-")) for name in ids])
    wired = oracle()
    found = ordered(wired, pictures)
    local = ordered(LocalOracle(collection, SHOWN), pictures)
    assert same(found, local)
    assert names(found, wired.name) == [
        [str(2**62 + number) for number in row] for row in local.targets.tolist()
    ]


def test_a_list_too_short_for_k_is_one_line(pictures, oracle, service):
    answers(service, lambda ids: ids[:3])
    with pytest.raises(RankproofError, match="returned 3 different ids, 4 are needed; choose a smaller k"):
        ordered(oracle(), pictures)


def test_pictures_off_the_grid_are_not_sent(pictures, oracle, service):
    with pytest.raises(RankproofError, match="off the 8-bit grid"):
        attack(oracle(), pictures[:1].float(), GOAL, Threat(0.1), method=SPSA(pairs=3), budget=9)
    assert service.sent == []


def test_the_service_can_go_away_and_come_back(collection, pictures, serve, service, client, cache, clock):
    port, stop = serve(service)
    back = []

    def killed():
        back.append(clock.now)
        return None, {}, ""  # the connection breaks without an answer

    def sleep(seconds):
        if back and len(back) == 1:  # while the client waits, the service is started anew
            back.append(clock.now)
            stop()
            serve(service, port)
        clock.sleep(seconds)

    service.faults = [*[None] * 30, killed]
    made = client(url=f"http://127.0.0.1:{port}/search", transport=None)
    made.sleep = sleep
    found = ordered(HttpOracle(made, cache(), SHOWN), pictures)
    assert len(back) == 2
    assert same(found, ordered(LocalOracle(collection, SHOWN), pictures))
    assert once(service, checks(found))


def test_answers_are_json_and_nothing_else(pictures, oracle, service):
    service.faults = [(200, {}, json.dumps([1, 2]))]
    with pytest.raises(RankproofError, match=r"no 'ids' where there is a list of 2"):
        ordered(oracle(), pictures)


# -- the file that is sent


def decoded(content):
    image = Image.open(BytesIO(content))
    return image, np.asarray(image)


@given(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_a_file_holds_exactly_what_is_scored(channels, height, width, seed):
    levels = torch.randint(256, (channels, height, width), generator=torch.Generator().manual_seed(seed))
    image, pixels = decoded(exact_png(levels / 255))
    assert (image.format, image.mode) == ("PNG", "L" if channels == 1 else "RGB")
    assert torch.equal(
        torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1), levels
    )


def test_every_level_comes_back_as_the_same_number():
    levels = torch.arange(256).view(1, 16, 16)
    read = torch.from_numpy(decoded(exact_png(levels / 255))[1].copy()) / 255
    assert torch.equal(read, levels[0] / 255)


def test_what_a_threat_allows_on_the_grid_can_be_sent():
    threat, picture = Threat(8 / 255, grid=True), torch.rand(1, 3, 6, 5)
    original = threat.start(picture)
    sent = threat.project(original + torch.randn(1, 3, 6, 5) / 20, original)
    _, pixels = decoded(exact_png(sent[0]))
    assert np.array_equal(pixels, (sent[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))


@pytest.mark.parametrize("value", [0.5, -1 / 255, 256 / 255, float("nan")])
def test_images_off_the_grid_are_refused(value):
    with pytest.raises(RankproofError, match="off the 8-bit grid"):
        exact_png(torch.full((1, 2, 2), value))


def test_two_channels_are_no_image():
    with pytest.raises(RankproofError, match=r"1 channel \(grey\) or 3"):
        exact_png(torch.zeros(2, 2, 2))
