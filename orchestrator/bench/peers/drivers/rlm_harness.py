"""Adapter for rlm-harness: its container interpreter, driven as its own loop drives it.

Without it the peer would be measured through a root model. The context is sent once; its own loop
sends the context again with every cell, which would be slower.
"""

# ruff: noqa: INP001 - run by path, in the peer's own environment

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from rlm_harness.config import ContainerConfig
from rlm_harness.container_interpreter import ContainerInterpreter

VERSION = version("rlm-harness")


class Session:
    """One interpreter in one container, with a model that answers after `delay_s`."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Starts the container and binds the context."""
        delay_s = order["delay_s"]

        def llm_query(prompt: str) -> str:
            if delay_s:
                time.sleep(delay_s)
            return f"echo: {prompt}"

        config = ContainerConfig(image=order["image"], memory=f"{order['memory_bytes']}b")
        self._interpreter = ContainerInterpreter(config, tools={"llm_query": llm_query})
        self._interpreter.start()
        if order["context_chars"]:
            context = "x" * order["context_chars"]
            self._interpreter.execute("pass", variables={"context": context})

    def run(self, source: str) -> str:
        """Runs a cell and returns what it printed."""
        return str(self._interpreter.execute(source))

    def close(self) -> None:
        """Ends the container."""
        self._interpreter.shutdown()
