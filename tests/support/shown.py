"""The commands that the documentation shows, and what it shows of their output."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = {"sh", "console"}
ENDS = {"&&", "||", "|", ";", ">", ">>", "<", "&"}
CALLS = (("imagegen",), ("uv", "run", "-m", "imagegen"), ("uv", "run", "imagegen"))


@dataclass(frozen=True)
class Shown:
    """A command line, where it stands, and its output if that is shown."""

    page: str
    line: str
    output: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What imagegen is called with; of several commands in a line, the first that calls it.

        Empty where the line does not call it.
        """
        return next(iter(calls(self.line)), ())


def shown(page: Path) -> Iterator[Shown]:
    """Every command line of a page's shell blocks, and every call of imagegen in its text."""
    name, text = page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")
    for _, language, body in FENCE.findall(text):
        if language == "console":
            yield from (Shown(name, line, output) for line, output in sessions(body))
        elif language == "sh":
            yield from (Shown(name, line) for line in lines(body))
    for code in CODE.findall(FENCE.sub("", text)):
        if code.startswith(("imagegen ", "uv run -m imagegen ")):
            yield Shown(name, code)


def sessions(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a terminal session, without its prompt, and its output."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield line, output


def lines(body: str) -> Iterator[str]:
    """Command lines without what follows ``#``; a line that ends with a backslash goes on."""
    for line in body.replace("\\\n", " ").splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        if bare:
            yield bare


def calls(line: str) -> Iterator[tuple[str, ...]]:
    """The words of each call of imagegen in a line, up to what ends a command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in ENDS:
            words.append(word)
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        for call in CALLS:
            if tuple(words[: len(call)]) == call:
                yield tuple(words[len(call) :])
        words = []
