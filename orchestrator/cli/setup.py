"""`rlm setup`: makes this host ready, and does nothing where it is."""

import sys

import typer

from orchestrator.app.host import set_up
from orchestrator.cli.options import new_command, read_settings
from orchestrator.cli.progress import say

command = new_command()


@command.command("setup")
def setup(ctx: typer.Context) -> None:
    """Make this host ready: an engine that answers, and the sandbox image.

    Says what it does before it does it. Installs an engine only as root on Debian or Ubuntu, and
    only where none answers; elsewhere it prints what to do.
    """
    engine, image = set_up(read_settings(ctx), say)
    sys.stdout.write(
        f"engine: {engine.name or 'Docker Engine'} {engine.version} at {engine.endpoint}\n"
        f"image: {image.reference} ({image.image_id})\n"
    )
