import contextlib
import socket
from threading import Thread

import pytest
import torch

from rankproof import LocalOracle, Reorder, Threat, attack
from rankproof.models import new_encoder, save_checkpoint
from rankproof.system import load_task, open_system
from rankproof.wire import (
    RANKPROOF_SERVICE,
    Client,
    HttpOracle,
    QuotaExhaustedError,
    RateLimit,
    ResponseCache,
    check_destination,
)
from rankproof.wire.http_oracle import cached_search, exact_png

pytest.importorskip("fastapi", reason="the service is an extra")
uvicorn = pytest.importorskip("uvicorn", reason="the service is an extra")

from rankproof.service.app import create_app  # noqa: E402
from rankproof.service.limits import Limits  # noqa: E402
from rankproof.service.opening import open_service  # noqa: E402

COUNT, BUDGET = 20, 11


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A digits encoder with random weights, in a folder."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_checkpoint(folder, new_encoder("digits"), {"arch": "digits", "distance": "cosine"})
    return str(folder)


@pytest.fixture
def running(model, tmp_path):
    """Starts the service; gives its address."""
    with contextlib.ExitStack() as stack:

        def start(**limits):
            subject = load_task(model, None)
            service = open_service(subject, tmp_path / "service", limits=Limits(min_side=0, **limits))
            door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
            thread = Thread(target=lambda: server.run(sockets=[door]), daemon=True)
            thread.start()

            def stop():
                server.should_exit = True
                thread.join()
                service.close()

            stack.callback(stop)
            return f"http://127.0.0.1:{door.getsockname()[1]}/search"

        yield start


@pytest.fixture
def connected(clock):
    """Connects to an address."""
    with contextlib.ExitStack() as stack:

        def connect(url, **limits):
            made = Client(
                check_destination(url),
                RANKPROOF_SERVICE,
                rate_limit=RateLimit(**limits),
                sleep=clock.sleep,
                clock=clock,
            )
            stack.callback(made.close)
            cache = stack.enter_context(contextlib.closing(ResponseCache(None, made.service)))
            return made, cache

        yield connect


def test_twenty_attacks_on_the_service_are_the_local_ones(running, connected, model):
    target = open_system(model, None)
    pictures = target.dataset.take(torch.arange(COUNT))
    goal, threat = Reorder(k=5), Threat(16 / 255, grid=True)
    client, cache = connected(running(per_day=10_000, per_second=10_000))
    wired = HttpOracle(client, cache, 50)
    found = attack(wired, pictures, goal, threat, budget=BUDGET, seed=3)
    local = attack(LocalOracle(target.gallery, 50), pictures, goal, threat, budget=BUDGET, seed=3)
    assert torch.equal(found.adversarial, local.adversarial)
    assert torch.equal(found.log.scores.nan_to_num(9), local.log.scores.nan_to_num(9))
    ids = [[int(str(wired.name(number))) for number in row] for row in found.targets.tolist()]
    assert ids == local.targets.tolist()
    assert cache.calls == int(found.log.spent.sum()) + int(found.log.repeats.count.sum())
    assert not found.log.repeats.differs.any()  # the service is a function of its images


def test_its_quota_is_understood(running, connected):
    client, cache = connected(running(per_day=3, per_second=1000), concurrency=1)
    files = [exact_png(torch.full((1, 8, 8), number / 255)) for number in range(9)]
    with pytest.raises(QuotaExhaustedError):
        cached_search(client, cache, files)
    assert sum(file in cache for file in files) == 3
    assert cache.calls == 4
