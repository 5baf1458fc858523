"""Every way a command can fail: one class each, with an exit code and a hint for the next step."""

from __future__ import annotations


class ImagegenError(Exception):
    """A failure worded for the person who typed the command.

    ``exit_code`` tells scripts which kind it is; ``hint`` tells people what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ImagegenError):
    """Options that contradict each other, or a setting that cannot be used."""

    exit_code = 2


class FactsError(ImagegenError):
    """A facts file or matrix.toml that does not load; the message lists every fault found."""

    exit_code = 3


class NothingSelected(ImagegenError):
    """A SELECT that matches no target."""

    exit_code = 4


class ImpossibleCombination(ImagegenError):
    """Nothing that was asked for can work; the message says why."""

    exit_code = 4


class EngineError(ImagegenError):
    """No container engine, one that is too old, or one that refused or did not answer."""

    exit_code = 5


class BuildError(ImagegenError):
    """An image that did not build."""

    exit_code = 6


class ChecksFailed(ImagegenError):
    """An image that was built but did not pass its checks; it is never pushed."""

    exit_code = 7


class RegistryError(ImagegenError):
    """A registry that is down, refused the login, or holds other bytes than were pushed."""

    exit_code = 8


class Lost(RegistryError):
    """A registry that tells of something that it took, and does not have it any more."""


class PlatformError(ImagegenError):
    """A platform refused, did not answer, or does not have what was sent."""

    exit_code = 9


class StaleFiles(ImagegenError):
    """Rendered files on disk that are not what the matrix renders to."""

    exit_code = 10


class WheelError(ImagegenError):
    """A wheel that cannot be had, or is not what it should be."""

    exit_code = 11
