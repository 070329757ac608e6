"""What every command starts from, without what only commands that run something need.

Without it a command that reads a file would wait a second for the container client, a provider's
SDK and gRPC, which it never uses.
"""

from typing import Annotated

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON: exact, and safe to show anywhere.")
]


def new_command() -> typer.Typer:
    """Returns an empty command: plain help, and failures left to `main` to report."""
    return typer.Typer(
        add_completion=False,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
