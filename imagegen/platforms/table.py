"""The table of what is published, with deploy links, made from the ledger and put into a README."""

from __future__ import annotations

import difflib
from pathlib import Path

from imagegen.errors import StaleFiles, UsageError
from imagegen.platforms import PLATFORMS
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import GB
from imagegen.util.files import replaced

BEGIN, END = "<!-- published -->", "<!-- /published -->"
NONE = "No image is published yet."


def table(file: Path) -> str:
    """The published images as a Markdown table, made from the ledger alone.

    A template that is half-made is not shown, and of vast.ai's only the one in use.
    """
    rows: dict[tuple[str, str, str], dict[str, Entry]] = {}
    for entry in Ledger(file).entries:
        if entry.content and not entry.superseded:
            rows.setdefault((entry.target, entry.name, entry.image), {})[entry.platform] = entry
    if not rows:
        return NONE
    titles = [platform.title for platform in PLATFORMS.values()]
    head = ["target", "image", "to pull", "unpacked", *titles]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for (target, _, image), found in sorted(rows.items()):
        one = next(iter(found.values()))
        links = [f"[deploy]({found[p].link})" if p in found else "" for p in PLATFORMS]
        sizes = [f"{count / GB:.1f} GB" for count in (one.compressed, one.unpacked)]
        lines.append(f"| {' | '.join([target, f'`{image}`', *sizes, *links])} |")
    return "\n".join(lines)


def into(file: Path, readme: Path, *, check: bool) -> bool:
    """Put the table between the markers of a README, or only compare; returns whether it differed.

    Raises:
        UsageError: the README is not there, no text, or has not both markers once.
        StaleFiles: with ``check``, when it differs.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{readme}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{readme} is not UTF-8: {error.reason} at byte {error.start}") from error
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in head + tail:
        raise UsageError(f"{readme} has not {BEGIN} and {END} once each")
    new = f"{head}{BEGIN}\n{table(file)}\n{END}{tail}"
    if new == text:
        return False
    if check:
        lines = difflib.unified_diff(text.splitlines(), new.splitlines(), lineterm="", n=0)
        diff = "\n".join(f"  {line}" for line in list(lines)[2:])
        raise StaleFiles(
            f"{readme} does not show what {file} says:\n{diff}",
            hint=f"imagegen template table --into {readme}",
        )
    with replaced(readme) as file:
        file.write_text(new, encoding="utf-8")
    return True
