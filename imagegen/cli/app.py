"""The command line: options in, one call, one report out. Nothing heavy is imported here."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from imagegen.cli import files, images, machine, registry, size, targets
from imagegen.cli.templates import template
from imagegen.cli.wheels import wheel
from imagegen.output.progress import Progress
from imagegen.platforms import PLATFORMS

_PLATFORMS = " and ".join(platform.title for platform in PLATFORMS.values())

app = typer.Typer(
    name="imagegen",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Images for fine-tuning language models on rented GPUs: nvcc and flash-attn baked in, "
    f"tested before they are pushed, for {_PLATFORMS} alike.",
    epilog="Exit codes: 2 usage, 3 facts or matrix, 4 nothing selected or impossible, 5 engine, "
    "6 build, 7 checks failed, 8 registry, 9 platform, 10 stale files, 11 wheels, 130 interrupted.",
)
app.add_typer(template, name="template")
app.add_typer(wheel, name="wheel")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every command that is run.")
    ] = False,
) -> None:
    if version:
        from imagegen import __version__

        print(f"imagegen {__version__}")
        raise typer.Exit
    logger = logging.getLogger("imagegen")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.handlers[:] = [Progress()]


app.command("list")(targets.list_)
app.command()(targets.why)
app.command()(targets.pick)
app.command()(files.render)
app.command()(files.lock)
app.command()(images.build)
app.command()(images.test)
app.command()(images.push)
app.command()(registry.inspect)
app.command()(registry.prune)
app.command()(size.size)
app.command()(machine.doctor)
app.command()(machine.demo)
