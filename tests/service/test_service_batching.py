"""Concurrent requests are processed in batches, and each gets its result or its error."""

import asyncio
import threading

import pytest

from rankproof.service.batching import Batcher


def double(numbers):
    return [2 * number for number in numbers]


def run(work, items, *, window=0.02, max_batch=4, multiple=1):
    """Submit items while the thread is busy with another: results, errors included, and batch sizes."""
    sizes, free = [], threading.Event()

    def held(numbers):
        free.wait(10)
        return work(numbers)

    async def main():
        batch = Batcher(held, window, max_batch, multiple, sizes.append)
        busy = asyncio.create_task(batch(1000))
        while not sizes:
            await asyncio.sleep(0)
        tasks = [asyncio.create_task(batch(number)) for number in items]
        await asyncio.sleep(0)
        free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await busy
        assert len(batch) == 0
        batch.close()
        return answers

    return asyncio.run(main()), sizes


def test_a_single_item_does_not_wait():
    async def main():
        batch = Batcher(double, 3600.0, 16)
        answers = [await batch(number) for number in range(3)]
        batch.close()
        return answers

    assert asyncio.run(main()) == [0, 2, 4]


def test_half_of_all_callers_are_answered_together():
    answers, sizes = run(double, range(15), max_batch=16)
    assert answers == [2 * number for number in range(15)]
    assert sizes[:2] == [1, 8]


def test_no_batch_exceeds_the_largest_size():
    answers, sizes = run(double, range(40), max_batch=4)
    assert answers == [2 * number for number in range(40)]
    assert max(sizes) == 4


def test_large_batches_are_multiples():
    _, sizes = run(double, range(21), max_batch=16, multiple=4)
    assert sizes[:3] == [1, 12, 8]  # (1 + 21) / 2 is 11; of the nine that are left, one comes next
    assert all(size <= 4 or size % 4 == 0 for size in sizes)


def test_a_batch_waits_for_callers_of_the_last_one():
    sizes, free = [], threading.Event()

    def held(numbers):
        free.wait(10)
        return double(numbers)

    async def main():
        batch = Batcher(held, 10.0, 16, 1, sizes.append)
        tasks = [asyncio.create_task(batch(0))]
        while not sizes:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(batch(number)) for number in range(1, 9)]
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks[:6])  # the first alone, then half of nine; three wait for one of these
        await asyncio.gather(batch(9), *tasks[6:])
        batch.close()

    asyncio.run(main())
    assert sizes == [1, 5, 4]


def test_a_batch_waits_no_longer_than_the_window():
    answers, sizes = run(double, range(9), window=0.01, max_batch=16)
    assert answers == [2 * number for number in range(9)]
    assert sizes[:2] == [1, 5]
    assert sum(sizes) == 10


def test_an_error_reaches_its_batch_only():
    def fail(numbers):
        if 0 in numbers:
            raise ValueError("broken")
        return double(numbers)

    answers, _ = run(fail, range(9), max_batch=4)
    assert [type(answer) for answer in answers[:4]] == [ValueError] * 4
    assert answers[4:] == [8, 10, 12, 14, 16]


def test_a_cancelled_caller_is_skipped():
    async def main():
        batch = Batcher(double, 0.0, 16)
        tasks = [asyncio.create_task(batch(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await batch(5) == 10
        batch.close()
        return answers

    first, cancelled, last = asyncio.run(main())
    assert (first, last) == (0, 4)
    assert isinstance(cancelled, asyncio.CancelledError)


@pytest.mark.parametrize("loops", [3])
def test_a_batcher_outlives_an_event_loop(loops):
    batch = Batcher(double, 0.0, 16)
    assert [asyncio.run(batch(number)) for number in range(loops)] == [0, 2, 4]
    batch.close()
