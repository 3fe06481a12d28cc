"""What arrives together is worked on together, and nobody gets another's answer or error."""

import asyncio
import threading

import pytest

from rankproof.service.batching import Batcher


def double(numbers):
    return [2 * number for number in numbers]


def run(work, asked, *, window=0.02, most=4, step=1):
    """Ask while the thread is busy with one other: the answers, errors included, and the sizes of batches."""
    sizes, free = [], threading.Event()

    def held(numbers):
        free.wait(10)
        return work(numbers)

    async def main():
        batch = Batcher(held, window, most, step, sizes.append)
        busy = asyncio.create_task(batch(1000))
        while not sizes:
            await asyncio.sleep(0)
        tasks = [asyncio.create_task(batch(number)) for number in asked]
        await asyncio.sleep(0)
        free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await busy
        assert len(batch) == 0
        batch.close()
        return answers

    return asyncio.run(main()), sizes


def test_one_alone_is_answered_without_a_wait():
    async def main():
        batch = Batcher(double, 3600.0, 16)
        answers = [await batch(number) for number in range(3)]
        batch.close()
        return answers

    assert asyncio.run(main()) == [0, 2, 4]


def test_half_of_those_who_are_there_are_answered_together():
    answers, sizes = run(double, range(15), most=16)
    assert answers == [2 * number for number in range(15)]
    assert sizes[:2] == [1, 8]


def test_no_batch_has_more_than_the_most():
    answers, sizes = run(double, range(40), most=4)
    assert answers == [2 * number for number in range(40)]
    assert max(sizes) == 4


def test_large_batches_are_multiples_of_the_step():
    _, sizes = run(double, range(21), most=16, step=4)
    assert sizes[:3] == [1, 12, 8]  # (1 + 21) / 2 is 11; of the nine that are left, one comes next
    assert all(size <= 4 or size % 4 == 0 for size in sizes)


def test_those_who_were_answered_are_waited_for():
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


def test_those_who_do_not_come_are_not_waited_for_long():
    answers, sizes = run(double, range(9), window=0.01, most=16)
    assert answers == [2 * number for number in range(9)]
    assert sizes[:2] == [1, 5]
    assert sum(sizes) == 10


def test_an_error_belongs_to_its_batch():
    def fail(numbers):
        if 0 in numbers:
            raise ValueError("odd")
        return double(numbers)

    answers, _ = run(fail, range(9), most=4)
    assert [type(answer) for answer in answers[:4]] == [ValueError] * 4
    assert answers[4:] == [8, 10, 12, 14, 16]


def test_who_has_gone_is_left_out():
    async def main():
        batch = Batcher(double, 0.0, 16)
        tasks = [asyncio.create_task(batch(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await batch(5) == 10
        batch.close()
        return answers

    first, gone, last = asyncio.run(main())
    assert (first, last) == (0, 4)
    assert isinstance(gone, asyncio.CancelledError)


@pytest.mark.parametrize("loops", [3])
def test_it_outlives_an_event_loop(loops):
    batch = Batcher(double, 0.0, 16)
    assert [asyncio.run(batch(number)) for number in range(loops)] == [0, 2, 4]
    batch.close()
