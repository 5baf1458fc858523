"""The command line in this process, through its boundary, as ``python -m imagegen`` has it."""

from __future__ import annotations

import io
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from imagegen import __main__


@dataclass(frozen=True)
class Ended:
    """What a process would have left."""

    returncode: int
    stdout: str
    stderr: str


@contextmanager
def restored() -> Iterator[None]:
    """What the command line changes of its process is afterwards as it was before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signals = {number: signal.getsignal(number) for number in numbers}
    logger = logging.getLogger("imagegen")
    handlers, level, hook = list(logger.handlers), logger.level, sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        logger.handlers[:] = handlers
        logger.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)


def ended(*words: str) -> Ended:
    """Run ``imagegen WORDS``; an exception that leaves it is shown as an interpreter shows it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        restored(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["imagegen", *words])
        try:
            __main__.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
    return Ended(code, out.getvalue(), err.getvalue())
