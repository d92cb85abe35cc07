"""Waits that can always be given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from engine.waiting import in_thread, within


async def test_a_cancellation_that_comes_together_with_the_result_is_not_lost() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(60, answer))
    await asyncio.sleep(0)
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_work_that_takes_too_long_has_ended_when_the_timeout_is_told() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("cleared up")

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended == ["cleared up"]


async def test_work_that_ends_in_time_gives_its_result_or_its_error() -> None:
    async def work(number: int) -> float:
        return 1 / number

    assert await within(60, work(2)) == 0.5
    assert await within(None, work(4)) == 0.25
    with pytest.raises(ZeroDivisionError):
        await within(60, work(0))


async def test_work_in_a_thread_gives_its_result_or_its_error() -> None:
    assert await in_thread(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")


def test_a_thread_that_hangs_keeps_no_program_from_ending() -> None:
    source = (
        "import asyncio, time\n"
        "from engine.waiting import in_thread, within\n"
        "async def main():\n"
        "    try:\n"
        "        await within(0.05, in_thread(time.sleep, 50))\n"
        "    except asyncio.TimeoutError:\n"
        "        print('given up')\n"
        "asyncio.run(main())\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=45)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n", "")
    assert time.monotonic() - began < 40
