"""What a person watching sees while a command runs."""

from __future__ import annotations

import logging
import sys
import time


class Progress(logging.Handler):
    """Log records on standard error, each with the seconds so far."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message."""
        seconds = time.monotonic() - self._start
        print(f"[{seconds:6.1f} s] {record.getMessage()}", file=sys.stderr, flush=True)
