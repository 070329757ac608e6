"""The log records of a broker's process, in the orchestrator's log.

Without it what the broker noticed would be lost with its process, and a process that has been taken
over could fill the operator's disk, or write what a terminal acts on into the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from orchestrator.broker_process.fields import Fields
from orchestrator.broker_process.printable import printable
from orchestrator.domain import Json, SandboxId

_log = logging.getLogger(__name__)

#: A traceback of the broker's own fits; what is longer is not the broker's.
MAX_TEXT_CHARS = 8000
#: An honest broker logs a few lines over a sandbox's whole life.
_MAX_RECORDS = 200
_OUR_LOGGER = re.compile(r"orchestrator\.[a-z_.]{1,80}", re.ASCII)
_MAX_LOGGER_CHARS = 100


class FrameHandler(logging.Handler):
    """Sends each record away as the fields of a `Said.LOG`."""

    def __init__(self, send: Callable[[dict[str, Json]], None]) -> None:
        """Hands fields to `send`."""
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = self.format(record).encode(errors="replace").decode()
        self._send({"level": record.levelno, "logger": record.name, "text": text[:MAX_TEXT_CHARS]})


class RelayedLog:
    """Writes a broker's process's records to the orchestrator's log, up to a number of them."""

    def __init__(self, sandbox_id: SandboxId) -> None:
        """Names `sandbox_id` in each record."""
        self._sandbox_id = sandbox_id
        self._record_count = 0

    def take(self, fields: Fields) -> None:
        """Writes one record, or none when there were too many.

        Raises:
            FrameError: It is none.
        """
        level = fields.integer("level", most=logging.CRITICAL)
        name = fields.text("logger", max_chars=_MAX_LOGGER_CHARS)
        text = fields.text("text", max_chars=MAX_TEXT_CHARS)
        self._record_count += 1
        if self._record_count > _MAX_RECORDS:
            return
        if self._record_count == _MAX_RECORDS:
            level = logging.WARNING
            text = "its broker's process logs too much; the rest is dropped"
        logger = logging.getLogger(name) if _OUR_LOGGER.fullmatch(name) else _log
        safe_text = printable(text, max_chars=MAX_TEXT_CHARS)
        logger.log(level, "broker of %s: %s", self._sandbox_id, safe_text)
