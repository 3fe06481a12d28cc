"""Requests that arrive together are worked on together."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Thread
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batcher(Generic[Asked, Answer]):
    """Collects what is asked and answers it in one thread.

    Callers who were answered tend to ask again, so those of the last batch and those who wait now are taken
    as everybody there is, and half of them are the next batch: the others come and go while it is worked on.

    Args:
        work: one answer for each question.
        window: seconds for which a batch waits for the rest of its half.
        most: questions in a batch.
        step: a batch of more questions than this is cut to a multiple of it; the rest come next.
        told: called with the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[list[Asked]], Sequence[Answer]],
        window: float,
        most: int,
        step: int = 1,
        told: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work, self._window, self._most, self._step, self._told = work, window, most, step, told
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._last, self._closed, self._change = 0, False, Condition()
        self._thread = Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    async def __call__(self, asked: Asked) -> Answer:
        """The answer to one question."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._change:
            self._waiting.append((asked, future))
            self._change.notify()
        return await future

    def close(self) -> None:
        """End the thread once nothing waits."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        """Work until it is closed."""
        while batch := self._next():
            asked, futures = zip(*batch, strict=True)
            self._told(len(batch))
            answers: Sequence[Answer] = ()
            error: Exception | None = None
            try:
                answers = self._work(list(asked))
            except Exception as raised:  # which belongs to those who asked
                error = raised
            for loop in {future.get_loop() for future in futures}:
                with suppress(RuntimeError):  # a loop that has ended has nobody who waits
                    loop.call_soon_threadsafe(_tell, loop, futures, answers, error)

    def _next(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        """The next batch; nothing once it is closed."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            half = math.ceil((self._last + len(self._waiting)) / 2)
            if half > self._step:
                half = math.ceil(half / self._step) * self._step
            half = min(half, self._most)
            self._change.wait_for(lambda: len(self._waiting) >= half or self._closed, self._window)
            count = min(half, len(self._waiting))
            if count > self._step:
                count -= count % self._step
            self._last = count
            return [self._waiting.popleft() for _ in range(count)]


def _tell(
    loop: asyncio.AbstractEventLoop,
    futures: Sequence[asyncio.Future[Answer]],
    answers: Sequence[Answer],
    error: Exception | None,
) -> None:
    """Give every question of a loop its answer, or the error."""
    for place, future in enumerate(futures):
        if future.get_loop() is not loop or future.done():  # its caller has gone
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answers[place])
