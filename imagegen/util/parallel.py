"""A few jobs at a time, none of which keeps the process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from imagegen.errors import ImagegenError

T = TypeVar("T")

TICK = 0.2
"""Seconds after which the waiting thread looks whether it was interrupted."""


def each(jobs: Sequence[Callable[[], T]], at_once: int) -> list[T | ImagegenError]:
    """What each job returned, or how it failed, in their order.

    An interrupt ends the wait at once: jobs under way die with the process, as their threads are
    daemons; a pool's are not, and would be waited for.

    Raises:
        BaseException: whatever else than an ImagegenError a job raised; the others are not awaited.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
    for number in range(len(jobs)):
        todo.put(number)

    def work() -> None:
        while True:
            try:
                number = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((number, jobs[number]()))
            except BaseException as error:
                done.put((number, error))

    for _ in range(min(at_once, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    found: dict[int, T | ImagegenError] = {}
    while len(found) < len(jobs):
        try:
            number, result = done.get(timeout=TICK)
        except Empty:
            continue
        if isinstance(result, BaseException) and not isinstance(result, ImagegenError):
            raise result
        found[number] = result
    return [found[number] for number in range(len(jobs))]
