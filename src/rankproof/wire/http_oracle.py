"""A running search service as an oracle."""

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.io import encode_png
from rankproof.oracles import ListOracle, TrackedItems
from rankproof.threat import LEVELS
from rankproof.types import Ids, Images, ImageSets, Places
from rankproof.wire.client import Client
from rankproof.wire.errors import StoppedError
from rankproof.wire.response_cache import ResponseCache

AGAIN = b"again"  # marks the answers to images that were sent a second time
OFF_GRID = 1e-3  # of a level: single-precision pixels are this near to the level they stand for


class HttpOracle:
    """A search service queried over HTTP. The PNG that is sent holds exactly the pixels that are scored.

    Answers in the cache are not requested again, so an interrupted attack continues where it stopped.

    Args:
        client: sends the requests.
        cache: stores the answers.
        visible: N, the number of results that count; longer lists are cut.
    """

    def __init__(self, client: Client, cache: ResponseCache, visible: int) -> None:
        self.client, self.cache = client, cache
        # The cache numbers the ids: a saved search state refers to the same items in the next process.
        self._lists = ListOracle(self.search, visible, cache.numbers)

    @property
    def visible(self) -> int | None:
        """N, the number of results that count."""
        return self._lists.visible

    def top(self, images: Images, count: int, tracked: TrackedItems) -> Ids:
        """The first results as numbers; `name` translates them back into the ids of the service."""
        return self._lists.top(images, count, tracked)

    def __call__(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """Positions of the tracked items in each list."""
        return self._lists(images, tracked)

    def repeat(self, images: ImageSets, tracked: TrackedItems) -> Places:
        """As a call, past the stored answers: each image is sent once more; that answer is stored, too."""
        again = ListOracle(lambda asked: self._search(asked, AGAIN), self._lists.visible, self.cache.numbers)
        return again(images, tracked)

    def name(self, number: int) -> Hashable:
        """The service's id behind a number."""
        return self._lists.name(number)

    def search(self, images: Images) -> list[list[str]]:
        """The ids that the service returns for each image (n, c, h, w) on the 8-bit grid, nearest first.

        Raises:
            UnfinishedError: the quota of the day or the cap is used up, or the service does not answer.
            RankproofError: the service refuses an image, or its answer has no ids.
        """
        return self._search(images)

    def _search(self, images: Images, mark: bytes = b"") -> list[list[str]]:
        return cached_search(self.client, self.cache, [exact_png(image) for image in images], mark)


def cached_search(
    client: Client, cache: ResponseCache, files: list[bytes], mark: bytes = b""
) -> list[list[str]]:
    """The ids of each PNG, from the cache or else from the service.

    If the search ends early, calls in flight are awaited, since they are already counted, and their answers
    are stored.

    Args:
        mark: stored with each file, so that its answers are other ones than those without a mark.
    """
    missing = [file for file in dict.fromkeys(files) if file + mark not in cache]
    stop = Event()

    def fetch(file: bytes) -> None:
        try:
            cache.store(file + mark, client.search(file, cache.count_call, stop))
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(client.rate_limit.concurrency) as pool:
        jobs = [pool.submit(fetch, file) for file in missing]
        try:
            wait(jobs)
        except BaseException:  # Ctrl-C
            stop.set()
            raise
    errors = [error for job in jobs if (error := job.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error
    return [cache[file + mark] for file in files]


def exact_png(image: Float[Tensor, "c h w"]) -> bytes:
    """The 8-bit PNG that holds exactly these pixels.

    Args:
        image: (c, h, w) in [0, 1], grey (c = 1) or colour (c = 3), every value a multiple of 1/255.
    Raises:
        RankproofError: an 8-bit PNG cannot hold the image.
    """
    if image.shape[0] not in (1, 3):
        raise RankproofError(f"an image has 1 channel (grey) or 3 (colour), got {image.shape[0]}")
    levels = image.detach().cpu().double() * LEVELS
    whole = levels.round()
    exact = ((levels - whole).abs() <= OFF_GRID) & (whole >= 0) & (whole <= LEVELS)
    if not bool(exact.all()):
        raise RankproofError("an image off the 8-bit grid cannot be sent; use Threat(eps, grid=True)")
    return encode_png(whole.to(torch.uint8))
