"""Requests that arrive together are worked on together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batcher(Generic[Asked, Answer]):
    """Collects what is asked and hands it to a few threads.

    While all threads are busy, questions gather and are the next batch; while some are idle, the first
    question waits a moment for company, and what came is shared out among them.

    Args:
        work: one answer for each question.
        window: seconds the first question waits.
        most: questions in a batch.
        told: called with the size of every batch.
        threads: batches that are worked on at a time.
        begin: called once in each thread.
    """

    def __init__(
        self,
        work: Callable[[list[Asked]], Sequence[Answer]],
        window: float,
        most: int,
        told: Callable[[int], None] = lambda size: None,
        *,
        threads: int = 1,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._window, self._most, self._told = work, window, most, told
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._threads = ThreadPoolExecutor(threads, "batch", initializer=begin)
        self._free = self._idle = threads  # threads that nobody has in hand; that have nothing to do
        self._tasks = set[asyncio.Task[None]]()  # else nothing keeps them

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    async def __call__(self, asked: Asked) -> Answer:
        """The answer to one question."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self) -> None:
        """Keep a thread at work until nothing waits."""
        try:
            await asyncio.sleep(self._window)
            while self._waiting:
                share = -(-len(self._waiting) // self._idle)
                await self._answer(min(self._most, share))
        finally:
            self._free += 1

    async def _answer(self, count: int) -> None:
        """Have a thread work on the first so many questions."""
        asked, futures = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
        self._told(count)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, list(asked))
        self._idle -= 1
        try:
            await asyncio.wait([work])
        finally:
            self._idle += 1
        for place, future in enumerate(futures):
            if future.done():  # its caller has gone
                continue
            if (error := work.exception()) is not None:  # which belongs to those who asked
                future.set_exception(error)
            else:
                future.set_result(work.result()[place])

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
