"""By how much an orchestrator grows with each session, seen in a process that does nothing else.

Without it the figure would be of a heap in which other benchmarks have left holes: sessions would
fit into those and seem to cost nothing. Started as a program, which reads one order and answers it:

    python -m orchestrator.bench.session_growth <order.json
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass

from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.bench.our_processes import broker_processes, own_unique_bytes, unique_bytes
from orchestrator.bench.whole_runs import open_run_sessions
from orchestrator.controls import BrokerIsolation
from orchestrator.settings import Settings

_ANSWER_S = 300.0
_WORDS_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What each session added.

    Attributes:
        own_bytes: To the orchestrator's process.
        broker_bytes: In processes of its own.
    """

    own_bytes: float
    broker_bytes: float


async def measure_growth(
    settings: Settings, broker: BrokerIsolation, *, before_count: int, session_count: int
) -> Growth:
    """Returns what each of some sessions adds, measured in a process of its own.

    Args:
        settings: The user's own.
        broker: Where the broker runs.
        before_count: Sessions that do not count: what is imported and allocated once is there then.
        session_count: Those that do.

    Raises:
        OSError: The process failed; the message has its last words.
    """
    order = {
        "settings": settings.model_dump(mode="json"),
        "broker": broker.value,
        "before": before_count,
        "sessions": session_count,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, words = await asyncio.wait_for(
            process.communicate(json.dumps(order).encode()), _ANSWER_S
        )
    finally:
        if process.returncode is None:
            process.terminate()  # and it destroys its sandboxes, or the next sweep does
            await process.wait()
    if process.returncode:
        raise OSError(f"sessions could not be counted: {words.decode()[-_WORDS_CHARS:].strip()}")
    return Growth(**json.loads(out))


async def _answer(order: dict[str, object]) -> dict[str, float]:
    settings = Settings.model_validate(order["settings"])
    before_count, session_count = int(str(order["before"])), int(str(order["sessions"]))
    async with (
        open_run_sessions(
            settings, open_docker_sandboxes, broker=BrokerIsolation(str(order["broker"]))
        ) as open_one,
        AsyncExitStack() as stack,
    ):
        for _ in range(before_count):
            await stack.enter_async_context(open_one())
        own_before_bytes = own_unique_bytes()
        brokers_before_bytes = unique_bytes(broker_processes())
        for _ in range(session_count):
            await stack.enter_async_context(open_one())
        return {
            "own_bytes": (own_unique_bytes() - own_before_bytes) / session_count,
            "broker_bytes": (unique_bytes(broker_processes()) - brokers_before_bytes)
            / session_count,
        }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(asyncio.run(_answer(json.load(sys.stdin)))))
