"""`rlm prompt`: what root models are told before anything else, to the byte.

Without it whoever answers for what is sent to a provider would have to read it out of the source.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.chat import Message
from orchestrator.cli.exit_codes import EXIT_CODES_HELP
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import read_settings
from orchestrator.engine.prompts.profiles import PROFILES, PROMPT_VERSION, Profile, profile_named

command = new_command()


@command.callback()
def prompt() -> None:
    """Show what root models are told before anything else."""


@command.command("list", epilog=EXIT_CODES_HELP)
def list_profiles(*, as_json: JsonOption = False) -> None:
    """List the profiles, and the digest of each one's system message."""
    rows = [_summary(profile) for profile in PROFILES.values()]
    if as_json:
        listed = {"prompt_version": PROMPT_VERSION, "profiles": rows}
        sys.stdout.write(f"{json.dumps(listed, indent=2)}\n")
        return
    for row in rows:
        sys.stdout.write(f"{row['name']:<12} {row['chars']:>6,} characters  {row['sha256']}\n")


@command.command("show", epilog=EXIT_CODES_HELP)
def show(
    ctx: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"{', '.join(PROFILES)}. [default: that of the configured model]"
        ),
    ] = None,
    no_child_runs: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--no-child-runs", help="As for a run that may start none.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
) -> None:
    """Print the system message exactly as it is sent, and nothing else.

    With --json, all messages that are sent before the question, as a provider is given them.
    """
    settings = read_settings(ctx, {"profile": profile})
    chosen = profile_named(settings.profile, model_name=settings.model)
    text = chosen.system_text(has_child_runs=not no_child_runs)
    if as_json:
        messages = (Message("system", text), *chosen.few_shot)
        shown = {
            "prompt_version": PROMPT_VERSION,
            "profile": chosen.name,
            "sha256": _digest(text),
            "messages": [asdict(message) for message in messages],
        }
        sys.stdout.write(f"{json.dumps(shown, indent=2)}\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _summary(profile: Profile) -> dict[str, str | int]:
    text = profile.system_text(has_child_runs=True)
    return {"name": profile.name, "chars": len(text), "sha256": _digest(text)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
