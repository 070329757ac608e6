"""`rlm run`: one question over one context.

Standard output gets the answer and nothing else; everything a person reads on the way goes to
standard error.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.app import Parts, open_orchestrator
from orchestrator.cli.context_source import ContextShape, FoundContext, read_context
from orchestrator.cli.ending import SignalledError, run_until_signal
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, exit_code_of_run
from orchestrator.cli.logs import logs_to
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import (
    DEFAULTS,
    MemoryOption,
    PolicyOption,
    RuntimeOption,
    TimeoutOption,
    default_is,
    parse_seconds,
    parse_usd,
    parts_of,
    read_settings,
)
from orchestrator.cli.progress import Progress, progress_for
from orchestrator.cli.sanitize import for_terminal
from orchestrator.cli.tally import Tally
from orchestrator.domain import AnswerSource, FinishReason
from orchestrator.engine.prompts.domains import DOMAINS
from orchestrator.engine.prompts.profiles import PROFILES
from orchestrator.engine.result import RunResult
from orchestrator.events import RunEvent, RunStarted
from orchestrator.settings import Settings

_NO_MODEL_ASKED = "No model is asked in this run: its replies come from a script."
_DIRECT = (
    "The context is short: the sub-model was given all of it at once, without a sandbox. "
    "run.direct_chars = 0 turns that off."
)
_SOURCES = {
    AnswerSource.DRAFT: "what is printed is the draft of the last cell, not a final answer",
    AnswerSource.LAST_REQUEST: "what is printed is the model's best guess, not a final answer",
    AnswerSource.NONE: "there is no answer",
}

command = new_command()


@command.command("run", epilog=EXIT_CODES_HELP)
def run(  # noqa: PLR0913, PLR0917 - a command line's options
    ctx: typer.Context,
    context: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR|-",
            help="The context: a text file, a folder of them, or standard input.",
        ),
    ],
    question: Annotated[
        str, typer.Argument(help="What to find out. Left out, the context says so itself.")
    ] = "",
    encoding: Annotated[str, typer.Option(metavar="NAME", help="Of the context's text.")] = "utf-8",
    shape: Annotated[
        ContextShape | None,
        typer.Option(
            "--as",
            help="A str, what JSON says, or a list of documents with name and text. "
            "[default: text of a file, documents of a folder]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Writes the cells: a provider's name, `local`, `scripted:FILE`. "
            f"{default_is(DEFAULTS.model)}",
        ),
    ] = None,
    sub_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Answers the cells' queries. "
            f"{default_is(f'{DEFAULTS.answering_model}, or what --model names')}",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"How the root model is spoken to: {', '.join(PROFILES)}. "
            f"{default_is('by its name')}",
        ),
    ] = None,
    policy: PolicyOption = None,
    runtime: RuntimeOption = None,
    memory: MemoryOption = None,
    max_turns: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"Replies of the root model. {default_is(DEFAULTS.run.turns)}",
        ),
    ] = None,
    max_queries: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help=f"Queries of all cells. {default_is(DEFAULTS.run.queries)}"
        ),
    ] = None,
    max_time: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=parse_seconds,
            help=f"The whole run. {default_is(DEFAULTS.run.time_s)}",
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="USD", parser=parse_usd, help="Money, child runs included. [default: no limit]"
        ),
    ] = None,
    max_child_runs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help=f"Runs that cells start by rlm_query. {default_is(DEFAULTS.run.child_runs)}",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help=f"Levels of child runs below the run. {default_is(DEFAULTS.run.depth)}",
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"What the context is about: {', '.join(DOMAINS)}, none. [default: as it shows]",
        ),
    ] = None,
    timeout: TimeoutOption = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append every event of the run to FILE, as JSON lines."),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
    quiet: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--quiet", "-q", help="Show no progress.")
    ] = False,
) -> None:
    """Answer QUESTION over a context of any length.

    The answer goes to standard output, progress to standard error.
    """
    settings = read_settings(
        ctx,
        {
            "model": model,
            "sub_model": sub_model,
            "profile": profile,
            "policy": policy,
            "runtime": runtime,
            "sandbox": {"memory_bytes": memory},
            "domain": domain,
            "run": {
                "turns": max_turns,
                "queries": max_queries,
                "time_s": max_time,
                "usd": max_cost,
                "child_runs": max_child_runs,
                "depth": depth,
            },
            "cell": {"wall_s": timeout},
        },
    )
    progress = progress_for(sys.stderr, is_quiet=quiet)
    found = read_context(
        context,
        encoding=encoding,
        shape=shape,
        max_bytes=settings.max_context_bytes,
        stdin=sys.stdin.buffer,
    )
    for note in found.notes:
        progress.note(note)
    if found.domain and not settings.domain:
        progress.note(f"By its files it is {found.domain}; --domain says so or otherwise.")
    tally = Tally()
    with progress, logs_to(progress.note):
        work = _answer(found, question, settings, parts_of(ctx), trajectory, progress, tally)
        try:
            result = run_until_signal(work, note=progress.note)
        except SignalledError as error:
            progress.note(f"Interrupted. Spent: {tally.summary()}.")
            raise typer.Exit(error.exit_code) from error
    if as_json:
        _print_json(result, is_scripted=tally.is_scripted)
    else:
        _print_answer(result, progress)
    raise typer.Exit(exit_code_of_run(result.finish_reason))


async def _answer(  # noqa: PLR0913, PLR0917 - what the command was given, taken apart
    found: FoundContext,
    question: str,
    settings: Settings,
    parts: Parts,
    trajectory: Path | None,
    progress: Progress,
    tally: Tally,
) -> RunResult:
    def tell(event: RunEvent) -> None:
        tally.add(event)
        if isinstance(event, RunStarted) and event.is_scripted and event.parent_run_id is None:
            progress.note(_NO_MODEL_ASKED)
        progress.show(event, tally)

    opening = open_orchestrator(settings.for_one_call, report=progress.note, parts=parts)
    async with opening as orchestrator:
        return await orchestrator.run(
            found.value,
            question=question,
            domain=found.domain,
            sink=tell,
            trajectory_path=trajectory,
            streams_replies=progress.shows_replies,
        )


def _print_answer(result: RunResult, progress: Progress) -> None:
    if result.answer_source is not AnswerSource.NONE:
        sys.stdout.write(f"{for_terminal(result.answer)}\n")
        sys.stdout.flush()
    if result.answer_source is AnswerSource.DIRECT:
        progress.note(_DIRECT)
    if result.finish_reason is not FinishReason.ANSWERED:
        limit = f" (run.{result.limit})" if result.limit else ""
        why = f": {result.failure}" if result.failure else limit
        progress.note(f"Ended by {result.finish_reason}{why}; {_SOURCES[result.answer_source]}.")


def _print_json(result: RunResult, *, is_scripted: bool) -> None:
    path, controls = result.trajectory_path, result.controls
    # ASCII only, so that no terminal acts on it and every lone surrogate survives.
    line = json.dumps(
        {
            "run_id": result.run_id,
            "answer": result.answer,
            "answer_source": result.answer_source,
            "finish_reason": result.finish_reason,
            "failure": result.failure,
            "limit": result.limit,
            "is_scripted": is_scripted,
            "usage": {name: asdict(usage) for name, usage in result.usage.items()},
            "cost_usd": result.cost_usd,
            "timings": asdict(result.timings),
            "turn_count": result.turn_count,
            "query_count": result.query_count,
            "child_run_count": result.child_run_count,
            "tool_call_count": result.tool_call_count,
            "efficiency": asdict(result.efficiency) | {"sent_share": result.efficiency.sent_share},
            "controls": None if controls is None else controls.to_json(),
            "controls_sha256": None if controls is None else controls.sha256_hex,
            "trajectory_path": None if path is None else str(path),
        }
    )
    sys.stdout.write(f"{line}\n")
