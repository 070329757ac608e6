"""Adapter for rlms, the method's own implementation: its Docker environment and its model handler.

Without it the peer would be measured through a root model. The model is a client of the peer's own
kind, behind the peer's own server.
"""

# ruff: noqa: INP001 - run by path, in the peer's own environment

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import Any

from rlm.clients.base_lm import BaseLM
from rlm.core.lm_handler import LMHandler
from rlm.core.types import ModelUsageSummary, UsageSummary
from rlm.environments.docker_repl import DockerREPL

VERSION = version("rlms")


class EchoModel(BaseLM):  # type: ignore[misc] # the peer is not installed here
    """Answers with the prompt, after `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        """Makes a model that costs nothing."""
        super().__init__(model_name="echo")
        self._delay_s = delay_s

    def completion(self, prompt: object) -> str:
        """Answers."""
        if self._delay_s:
            time.sleep(self._delay_s)
        return f"echo: {prompt}"

    async def acompletion(self, prompt: object) -> str:
        """Answers."""
        await asyncio.sleep(self._delay_s)
        return f"echo: {prompt}"

    def get_usage_summary(self) -> Any:  # noqa: ANN401 - the peer's own type
        """Says that nothing was used."""
        return UsageSummary(model_usage_summaries={})

    def get_last_usage(self) -> Any:  # noqa: ANN401 - likewise
        """Says that nothing was used."""
        return ModelUsageSummary(total_calls=1, total_input_tokens=0, total_output_tokens=0)


class Session:
    """One environment in one container, with a model that answers after `delay_s`."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Starts the servers and the container, and binds the context."""
        self._handler = LMHandler(EchoModel(order["delay_s"]), batch_max_concurrent=64)
        address = self._handler.start()
        context = "x" * order["context_chars"]
        self._environment = DockerREPL(
            image=order["image"], lm_handler_address=address, context_payload=context or None
        )

    def run(self, source: str) -> str:
        """Runs a cell and returns what it printed.

        Raises:
            RuntimeError: The cell failed.
        """
        result = self._environment.execute_code(source)
        if result.stderr:
            raise RuntimeError(result.stderr[-1000:])
        return str(result.stdout)

    def close(self) -> None:
        """Ends the container and the servers."""
        self._environment.cleanup()
        self._handler.stop()
