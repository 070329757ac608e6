"""The command `rlm`: finds the command that is meant, and ends every failure in one message.

Without it each command would report errors in its own way, and one of them with a traceback.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode, exit_code_of_error
from orchestrator.cli.invocation import Invocation, invocation_of
from orchestrator.cli.sanitize import for_terminal
from orchestrator.errors import RlmSandboxError

if TYPE_CHECKING:
    from orchestrator.app import Parts

_PROGRAM = "rlm"
#: Each command and what `rlm --help` says of it; its module has the same name.
_COMMANDS = {
    "run": "Answer a question over a context.",
    "exec": "Run files as cells of one fresh sandbox.",
    "trace": "Show what happened in the runs of a trajectory.",
    "stats": "Figures of many trajectories: what is usual, and what the tail is.",
    "export": "Turn trajectories into training rows, or into a log for a viewer.",
    "prompt": "Show what root models are told, to the byte.",
    "doctor": "Check this host for what a sandbox needs.",
    "bench": "Measure what this machine makes of it, against floors and peers.",
    "setup": "Make this host ready: engine and image. Does nothing the second time.",
    "image": "Build, list, verify and prune sandbox images.",
    "model": "Fetch and serve the small local model.",
}


class _LazyGroup(TyperGroup):
    """Imports a command's module when that command is asked for, and lists commands without.

    `rlm --help` would otherwise wait for the container client, a provider's SDK and gRPC.
    """

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's own
        """Makes the group; the names alone let it suggest one for a misspelt one."""
        super().__init__(**attributes)
        self.commands: Any = dict.fromkeys(_COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer keeps this class private
        """Returns the names of all commands, in the order of the help."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        """Imports and returns one command, or None if there is none of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{cmd_name}")
        return typer.main.get_command(module.command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
        """Writes the list of commands into the help."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


_app = typer.Typer(
    cls=_LazyGroup,
    name=_PROGRAM,
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there four times sooner
)


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        metadata = importlib.import_module("importlib.metadata")  # slow, and only needed here
        sys.stdout.write(f"rlm-sandbox {metadata.version('rlm-sandbox')}\n")
        raise typer.Exit


@_app.callback()
def _read_common_options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings (TOML) instead of $XDG_CONFIG_HOME/rlm-sandbox/config.toml.",
        ),
    ] = None,
    debug: Annotated[  # noqa: FBT002 - an option on a command line has its name beside it
        bool, typer.Option("--debug", help="Show where a failure comes from.")
    ] = False,
    version: Annotated[  # noqa: FBT002 - likewise
        bool,
        typer.Option(
            "--version",
            help="Print the version and end.",
            callback=lambda value: _print_version(is_asked=value),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Ask models about contexts of any length; their code runs in a sealed container."""
    del version
    invocation = invocation_of(ctx)
    invocation.config_file, invocation.is_debug = config, debug


def command_line(arguments: Sequence[str], *, parts: "Parts | None" = None) -> int:
    """Runs one command and returns its exit code. Never raises, whatever goes wrong.

    Args:
        arguments: What stands after `rlm`.
        parts: What the command is composed of, instead of the real engine and models.
    """
    invocation = Invocation(parts=parts)
    try:
        typer.main.get_command(_app).main(list(arguments), prog_name=_PROGRAM, obj=invocation)
    except SystemExit as end:
        return int(end.code or 0)
    except RlmSandboxError as error:
        _report(f"{_PROGRAM}: {error}", is_debug=invocation.is_debug)
        return exit_code_of_error(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        message = (
            f"{_PROGRAM}: unexpected {type(error).__name__}: {error}\n"
            f"This is a defect. `{_PROGRAM} --debug …` shows where it comes from."
        )
        _report(message, is_debug=invocation.is_debug)
    return ExitCode.FAILED


def _report(message: str, *, is_debug: bool) -> None:
    if is_debug:
        message = f"{traceback.format_exc()}{message}"
    sys.stderr.write(f"{for_terminal(message)}\n")


def main() -> None:
    """Runs the command that this process was started with."""
    sys.exit(command_line(sys.argv[1:]))
