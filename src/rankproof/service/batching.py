"""Embed concurrent requests in batches, such that an embedding does not depend on the rest of its batch."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Thread
from typing import Generic, TypeVar

import torch

from rankproof.ranking import Ranker
from rankproof.types import ProgressCallback, no_progress

Item = TypeVar("Item")
Result = TypeVar("Result")

MULTIPLES = (4, 8, 16)  # candidates for the multiple that batches are padded to


def batch_invariant_multiple(
    ranker: Ranker,
    shape: Sequence[int],
    max_batch: int,
    progress: ProgressCallback = no_progress,
) -> int:
    """The batch multiple for which an encoder is batch invariant, found by trying.

    The last bits of an embedding depend on the size of the batch, because libraries choose other kernels for
    other sizes. Which sizes agree depends on the encoder's layers and on the processor, but not on the
    images.

    Args:
        ranker: the encoder to try.
        shape: (c, h, w) of an image.
        max_batch: the largest batch that will occur.
        progress: called with (batch sizes tried, batch sizes in all).
    Returns:
        The smallest candidate such that batches of all its multiples give equal embeddings, to the bit.
    """
    largest = math.ceil(max_batch / MULTIPLES[-1]) * MULTIPLES[-1]
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (largest, *shape), dtype=torch.uint8, generator=rng)
    reference = ranker.embed_all(noise)
    sizes, deviating = range(MULTIPLES[0], largest, MULTIPLES[0]), set[int]()
    for done, size in enumerate(sizes, 1):
        if not torch.equal(ranker.embed_all(noise[:size]), reference[:size]):
            deviating.add(size)
        progress(done, len(sizes))
    return next(multiple for multiple in (*MULTIPLES, largest) if all(size % multiple for size in deviating))


class Batcher(Generic[Item, Result]):
    """Collects items from concurrent callers and processes them in batches, in one thread.

    Clients tend to send their next request as soon as they are answered. So the callers of the last batch and
    those who wait now are taken to be all there are, and the next batch is half of them: one half is
    processed while the other half sends and receives.

    Args:
        work: maps a batch of items to as many results.
        window: how many seconds a batch waits for the rest of its half at most.
        max_batch: items in a batch.
        multiple: a batch of more items than this is cut to a multiple of it; the rest go into the next one.
        on_batch: called with the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        window: float,
        max_batch: int,
        multiple: int = 1,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work, self._window, self._on_batch = work, window, on_batch
        self._max_batch, self._multiple = max_batch, multiple
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._last_size, self._closed, self._change = 0, False, Condition()
        self._thread = Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    async def __call__(self, item: Item) -> Result:
        """The result for one item."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._change:
            self._waiting.append((item, future))
            self._change.notify()
        return await future

    def close(self) -> None:
        """Process what waits, then end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        """Process batches until closed."""
        while batch := self._next_batch():
            items, futures = zip(*batch, strict=True)
            self._on_batch(len(batch))
            results: Sequence[Result] = ()
            error: Exception | None = None
            try:
                results = self._work(list(items))
            except Exception as raised:  # re-raised for every caller of this batch
                error = raised
            for loop in {future.get_loop() for future in futures}:
                with suppress(RuntimeError):  # the loop has ended, and its callers with it
                    loop.call_soon_threadsafe(_resolve, loop, futures, results, error)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The next batch; empty once closed."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            half = math.ceil((self._last_size + len(self._waiting)) / 2)
            if half > self._multiple:
                half = math.ceil(half / self._multiple) * self._multiple
            half = min(half, self._max_batch)
            self._change.wait_for(lambda: len(self._waiting) >= half or self._closed, self._window)
            count = min(half, len(self._waiting))
            if count > self._multiple:
                count -= count % self._multiple
            self._last_size = count
            return [self._waiting.popleft() for _ in range(count)]


def _resolve(
    loop: asyncio.AbstractEventLoop,
    futures: Sequence[asyncio.Future[Result]],
    results: Sequence[Result],
    error: Exception | None,
) -> None:
    """Set the result, or the error, of every future of one event loop."""
    for place, future in enumerate(futures):
        if future.get_loop() is not loop or future.done():  # cancelled by its caller
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(results[place])
