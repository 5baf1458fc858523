"""The error boundary: a failure is one message, a next step and an exit code; Ctrl-C is 130."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from imagegen.errors import ImagegenError


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # SIGTERM and a closed terminal clean up as Ctrl-C does


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        from imagegen.cli.app import app

        app(standalone_mode=True)
    except ImagegenError as error:
        if "IMAGEGEN_DEBUG" in os.environ:
            raise
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # Typer makes 130 of Ctrl-C, silently
            raise
        print("interrupted: nothing unfinished was tagged or pushed", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # a folder that cannot be written, a file that cannot be read
        if "IMAGEGEN_DEBUG" in os.environ:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
