import signal
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.nn import functional

from rankproof import Gallery, Ranker
from rankproof.errors import RankproofError

settings.register_profile("lean", max_examples=12, deadline=None, database=None, derandomize=True)
settings.load_profile("lean")

# A shell's background jobs ignore Ctrl-C and so would all programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # everything here is tiny: threads would only wait for each other

SIDE = 4  # pixels along each side of the test images


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory):
    """Nothing that a test does may reach, or come from, the galleries that the user keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RANKPROOF_CACHE_SIZE", raising=False)
        yield


@pytest.fixture(scope="module")
def few_queries():
    """Audits whose black-box attacks look 100 times, not 1,000: the same code in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("rankproof.audit.counts"), "BUDGET", 100)
        yield


class Flat(nn.Module):
    """All pixels through one matrix (d, pixels): the encoder whose optimum is known in closed form."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, images):
        return functional.linear(images.flatten(1), self.weight, self.bias)


class Small(nn.Module):
    """One convolution, one bend, one matrix."""

    def __init__(self, dimensions):
        super().__init__()
        self.features = nn.Conv2d(1, 3, 3, padding=1)
        self.embedding = nn.Linear(3 * SIDE**2, dimensions)

    def forward(self, images):
        return self.embedding(torch.tanh(self.features(images)).flatten(1))


class Make:
    """What the tests build their inputs from: everything small, random by seed, in double precision."""

    flat = Flat

    @staticmethod
    def random(seed):
        return torch.Generator().manual_seed(seed)

    @staticmethod
    def images(count, seed=0, dtype=torch.float64):
        return torch.rand(count, 1, SIDE, SIDE, generator=Make.random(seed), dtype=torch.float64).to(dtype)

    @staticmethod
    def ranker(distance="cosine", dimensions=5, seed=0, **options):
        """A convolutional encoder with random weights."""
        encoder = Small(dimensions).double()
        random = Make.random(seed)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) / 2)
        return Ranker(encoder, distance, **options)

    @staticmethod
    def embeddings(distance, count, dimensions, seed=0):
        """Random embeddings, prepared for the distance."""
        z = torch.randn(count, dimensions, generator=Make.random(seed), dtype=torch.float64)
        return functional.normalize(z) if distance == "cosine" else z

    @staticmethod
    def gallery(distance="cosine", count=20, dimensions=5, seed=0):
        """Random embeddings without any images."""
        embeddings = Make.embeddings(distance, count, dimensions, seed)
        return Gallery(Make.ranker(distance, dimensions), embeddings)

    @staticmethod
    def raw(distance, embeddings):
        """A gallery of exactly these embeddings; whole numbers make its ties exact."""
        return Gallery(Make.ranker(distance, embeddings.shape[1]), embeddings)


@pytest.fixture(scope="session")
def make():
    return Make


@pytest.fixture(scope="session")
def pictures(make):
    """60 random images."""
    return make.images(60)


@pytest.fixture(scope="session", params=["cosine", "euclidean"])
def gallery(request, make, pictures):
    """A gallery of the 60 images under each distance."""
    return Gallery.build(make.ranker(request.param), pictures)


@pytest.fixture(scope="session")
def postgres_server():
    """One PostgreSQL for all tests, outside of pytest's folder, which concurrent test runs remove."""
    with tempfile.TemporaryDirectory(prefix="rankproof-") as folder:
        try:
            from rankproof.service.storage.postgres import start_embedded

            database = start_embedded(Path(folder) / "data")
        except RankproofError as error:
            pytest.skip(str(error))
        yield database
        database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        from rankproof.service.storage import Sqlite

        empty = Sqlite(tmp_path / "test.sqlite")
        yield empty
        empty.close()
        return
    empty = request.getfixturevalue("postgres_server")
    for table in ("items", "keys", "quota", "facts"):
        empty.run(f"DROP TABLE IF EXISTS {table}")
    yield empty
