"""Requests that arrive together are worked on together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batcher(Generic[Asked, Answer]):
    """Collects what is asked and hands it to one thread.

    While the thread is busy, questions gather and are its next batch; when it is idle, the first question
    waits a moment for company.

    Args:
        work: one answer for each question.
        window: seconds the first question waits.
        most: questions in a batch.
        told: called with the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[list[Asked]], Sequence[Answer]],
        window: float,
        most: int,
        told: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work, self._window, self._most, self._told = work, window, most, told
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batch")
        self._running: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    async def __call__(self, asked: Asked) -> Answer:
        """The answer to one question."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Work until nothing waits."""
        await asyncio.sleep(self._window)
        while self._waiting:
            count = min(self._most, len(self._waiting))
            asked, futures = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
            self._told(count)
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._thread, self._work, list(asked))
            await asyncio.wait([work])
            for place, future in enumerate(futures):
                if future.done():  # its caller has gone
                    continue
                if (error := work.exception()) is not None:  # which belongs to those who asked
                    future.set_exception(error)
                else:
                    future.set_result(work.result()[place])
        self._running = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
