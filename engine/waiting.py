"""Waiting that can always be given up: for a limited time, and for what a thread does.

Before Python 3.12 `asyncio.wait_for` loses a cancellation that arrives together with the result: whoever waits then
goes on as if nobody had asked it to leave. The threads of `asyncio.to_thread` are joined at the end of the program:
a name service or a home directory that hangs would keep the user from leaving.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")
Given = ParamSpec("Given")


async def within(seconds: float | None, work: Awaitable[Result]) -> Result:
    """The result of `work`; asyncio.TimeoutError after so long (None: never). A cancellation always ends the wait."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if task.done() and not task.cancelled():
            task.exception()  # seen, also where a cancellation comes first
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def in_thread(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """The result of a function that blocks; it runs in a thread of its own, for which nobody waits at the end."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)
