"""`rlm image`: the images sandboxes are started from."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.app.host import build_host_image, list_host_images
from orchestrator.cli.options import JsonOption, new_command, read_settings
from orchestrator.cli.progress import say
from orchestrator.sandbox.image import BuiltBy

command = new_command()


@command.callback()
def image() -> None:
    """Build and list sandbox images."""


@command.command("build")
def build(
    ctx: typer.Context,
    way: Annotated[
        BuiltBy | None,
        typer.Option(
            help="On this host from Debian packages, or in a builder stage from a registry.",
            show_default="what the host has",
        ),
    ] = None,
    force: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--force", help="Build even if there is one, for newer packages.")
    ] = False,
) -> None:
    """Build the image of the installed code.

    Does nothing where the engine has it, unless told to with --force.
    """
    record = build_host_image(read_settings(ctx), say, way=way, is_forced=force)
    sys.stdout.write(f"{record.reference} {record.image_id} (built by {record.built_by})\n")


@command.command("ls")
def list_images(
    ctx: typer.Context,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """List the engine's sandbox images.

    The newest comes first; * marks those made from the installed code.
    """
    records = list_host_images(read_settings(ctx))
    if as_json:
        sys.stdout.write(f"{json.dumps([asdict(record) for record in records])}\n")
        return
    for record in records:
        sys.stdout.write(
            f"{'*' if record.is_current else ' '} {record.reference}  {record.image_id[:19]}  "
            f"{record.size_bytes / 2**20:.0f} MiB  {record.created[:19]}  {record.built_by}\n"
        )
    if not records:
        say("The engine has no sandbox image. `rlm image build` makes one.")
