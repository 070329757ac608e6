"""Runs in a peer's own environment: takes orders, one JSON object a line, and answers each.

Without it every peer would be timed in a way of its own. It knows no peer: an adapter beside it
does, and is found by path. Nothing of this project can be imported here.

    python -P drive.py ADAPTER

An adapter is a file with a class `Session(order)`, which opens a session of the peer as the order
says, and has `run(source)`, which runs a cell and returns what it printed, and `close()`.
"""

# ruff: noqa: INP001 - run by path, in an environment where this project is not installed

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from typing import Any


def serve(session_class: Any, orders: Any, answers: Any) -> None:  # noqa: ANN401 - of the adapter
    """Carries out orders until there are none; whatever goes wrong with one is its answer."""
    sessions: list[Any] = []
    try:
        for line in orders:
            try:
                answer = _carry_out(json.loads(line), session_class, sessions)
            except Exception as error:  # noqa: BLE001 - a peer may raise anything
                answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        while sessions:
            sessions.pop().close()


def _carry_out(
    order: dict[str, Any],
    session_class: Any,  # noqa: ANN401 - likewise
    sessions: list[Any],
) -> dict[str, Any]:
    if order["do"] == "open":
        begun_s = time.perf_counter()
        sessions.append(session_class(order))
        return {"took_s": [time.perf_counter() - begun_s]}
    if order["do"] == "close":
        while sessions:
            sessions.pop().close()
        return {}
    [session] = sessions
    took_s, printed = [], ""
    for _ in range(order["count"]):
        begun_s = time.perf_counter()
        printed = session.run(order["source"])
        took_s.append(time.perf_counter() - begun_s)
    return {"took_s": took_s, "printed": printed}


def main() -> None:
    """Serves standard input and output, and keeps what a peer prints out of the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    adapter = runpy.run_path(sys.argv[1])
    answers.write(json.dumps({"ready": adapter["VERSION"]}) + "\n")
    answers.flush()
    serve(adapter["Session"], sys.stdin, answers)


if __name__ == "__main__":
    main()
