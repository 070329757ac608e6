"""Shows warnings of the parts where the user reads, cleaned like everything else.

Without it the logging module would print them raw: a provider's words, and with them whatever a
context made a model say, into the middle of a live display.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAME = "orchestrator"


class _NoteHandler(logging.Handler):
    """Hands each record on as a sentence."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the record on; a traceback stays behind, `--debug` has its own."""
        self._note(f"{record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def logs_to(note: Callable[[str], None]) -> Iterator[None]:
    """Has warnings of this package shown by `note`, which cleans them, until left."""
    logger, handler = logging.getLogger(_NAME), _NoteHandler(note)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
