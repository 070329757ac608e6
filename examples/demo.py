"""Asks three questions over more than ten million characters, and checks each answer by program.

The text is the source of the Python standard library (and, where that is short, of the installed
packages), joined with file headers, with two sentences planted in it. The model is the one the
settings name (`RLM_MODEL`, or `OPENAI_API_KEY` for the default model); without either it is the
small model that runs on this machine.

Run it with `make demo`; on its own it needs what `make setup` installs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from orchestrator.app.host import find_weights
from orchestrator.errors import RlmSandboxError
from orchestrator.models.local import local_endpoint
from orchestrator.settings import Settings, load

_LEAST_CHARS = 10_000_000
_PASSWORD = "The maintenance password of the lighthouse at Skarvik is 7319-teal."  # noqa: S105 - made up
_REVIEW = (
    "Review by Tomas Keller: I ordered the blue kettle and it arrived broken, the lid leaks, "
    "nobody answered my three mails, and I want my money back."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question whose answer a program knows.

    Attributes:
        question: As the model reads it.
        expected: What a right answer is, for a reader.
        is_right: Judges an answer.
        least_queries: How many prompts have to reach the sub-model for the answer to count.
    """

    question: str
    expected: str
    is_right: Callable[[str], bool]
    least_queries: int = 0


def main() -> int:
    """Runs the demo; returns 0 when every answer is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--needs-local-model",
        action="store_true",
        help="only say, by the exit status, whether no other model is configured",
    )
    wants_local = _wants_local_model(load())
    if parser.parse_args().needs_local_model:
        return 0 if wants_local else 1
    with tempfile.TemporaryDirectory(prefix="rlm-demo-") as folder:
        path = Path(folder) / "context.txt"
        text = _write_context(path)
        right = asyncio.run(_run_all(_tasks(text), path, wants_local=wants_local))
    _say(f"{sum(right)} of {len(right)} answers are right.")
    return 0 if all(right) else 1


def _wants_local_model(settings: Settings) -> bool:
    names_model = "model" in settings.model_fields_set
    return not names_model and settings.provider.api_key is None


def _write_context(path: Path) -> str:
    """Joins real source files, plants two sentences, and says what it did."""
    parts: list[str] = []
    size_chars = 0
    for name, source in _source_files():
        part = f"===== {name} =====\n{source}\n"
        parts.append(part)
        size_chars += len(part)
    lines = "".join(parts).splitlines()
    # The same places in every run, so that a run can be repeated.
    places = random.Random(7)  # noqa: S311 - nothing secret
    for sentence in (_PASSWORD, _REVIEW):
        lines.insert(places.randrange(len(lines) // 10, len(lines)), f"# {sentence}")
    text = "\n".join(lines)
    if size_chars < _LEAST_CHARS:
        raise SystemExit(f"This Python has only {size_chars:,} characters of source with it.")
    path.write_text(text, encoding="utf-8")
    _say(f"The context: {len(text):,} characters, {len(parts):,} Python files of this machine.")
    return text


def _source_files() -> Iterator[tuple[str, str]]:
    """Yields files of the standard library, then of installed packages while more is needed."""
    paths = sysconfig.get_paths()
    library, packages = Path(paths["stdlib"]), Path(paths["purelib"])
    size_chars = 0
    for root in (library, packages):
        if root is packages and size_chars >= _LEAST_CHARS:
            return
        for path in sorted(root.rglob("*.py")):
            if root is library and "site-packages" in path.parts:
                continue
            try:
                source = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            size_chars += len(source)
            yield str(path.relative_to(root)), source


def _tasks(text: str) -> list[Task]:
    # Cut at every line boundary Python knows, as the model's own `splitlines` will.
    class_count = sum(line.startswith("class ") for line in text.splitlines())
    return [
        Task(
            question="What is the maintenance password of the lighthouse at Skarvik?",
            expected="7319-teal",
            is_right=lambda answer: "7319-teal" in answer,
        ),
        Task(
            question='How many lines start with "class "?',
            expected=str(class_count),
            is_right=lambda answer: answer.replace(",", "").strip() == str(class_count),
        ),
        Task(
            question=(
                "There is a review by Tomas Keller. Ask the sub-model: is it positive or negative?"
            ),
            expected="negative, as judged by the sub-model",
            is_right=lambda answer: (
                "negative" in answer.lower() and "positive" not in answer.lower()
            ),
            least_queries=1,
        ),
    ]


async def _run_all(tasks: list[Task], context: Path, *, wants_local: bool) -> list[bool]:
    """Asks every question; one local server serves them all, as `rlm model serve` would."""
    async with AsyncExitStack() as stack:
        if wants_local:
            await stack.enter_async_context(
                local_endpoint(lambda: find_weights(load()), report=_say)
            )
        model = "local" if wants_local else None
        return [await asyncio.to_thread(_run, task, context, model) for task in tasks]


def _run(task: Task, context: Path, model: str | None) -> bool:
    """Asks one question with the command a user would type, and judges the answer."""
    command = [str(Path(sys.executable).parent / "rlm"), "run", task.question]
    command += ["--context", str(context), "--json"]
    if model is not None:
        command += ["--model", model]
    _say(f"Question: {task.question}")
    started_s = time.monotonic()
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own command
    if not run.stdout.strip():
        _say(f"WRONG: `rlm run` ended with exit code {run.returncode} and no result.")
        return False
    result = json.loads(run.stdout)
    is_right = (
        result["finish_reason"] == "answered"
        and task.is_right(result["answer"])
        and result["query_count"] >= task.least_queries
    )
    _say(
        f"{'RIGHT' if is_right else 'WRONG'}: answered {result['answer']!r}, "
        f"expected {task.expected}; {result['turn_count']} turns, "
        f"{result['query_count']} queries to the sub-model, "
        f"{time.monotonic() - started_s:.0f} s."
    )
    return is_right


def _say(sentence: str) -> None:
    sys.stdout.write(f"==> {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RlmSandboxError as error:
        sys.exit(f"demo: {error}")
