"""`rlm setup`: makes this host ready, and does nothing where it is."""

import sys
from typing import Annotated

import typer

from orchestrator.app.host import set_up, set_up_gvisor
from orchestrator.cli.new_command import new_command
from orchestrator.cli.options import read_settings
from orchestrator.cli.progress import say

command = new_command()


GvisorOption = Annotated[
    bool,
    typer.Option("--gvisor", help="Install gVisor and register it with the engine as well."),
]


@command.command("setup")
def setup(
    ctx: typer.Context,
    with_gvisor: GvisorOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """Make this host ready: an engine that answers, and the sandbox image.

    Says what it does before it does it. Installs an engine only as root on Debian or Ubuntu, and
    only where none answers; elsewhere it prints what to do. gVisor likewise, and only when asked.
    """
    settings = read_settings(ctx)
    engine, image = set_up(settings, say)
    sys.stdout.write(
        f"engine: {engine.name or 'Docker Engine'} {engine.version} at {engine.endpoint}\n"
        f"image: {image.reference} ({image.image_id})\n"
    )
    if with_gvisor:
        gvisor = set_up_gvisor(settings, say, engine=engine, image=image)
        sys.stdout.write(f"gvisor: {gvisor.name} ({gvisor.path} {' '.join(gvisor.arguments)})\n")
