"""Where a large context lies while a sandbox takes it: a file beside the socket.

Without it 40 MB would be copied a dozen times on their way, by five processes. A sandbox cannot
write there; the broker's process can, so the directory is held open from before there was one, and
nothing in it is followed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from orchestrator.broker.context_pieces import PIECE_BYTES
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

#: `ContextFile` of the contract.
CONTEXT_NAME: Final = "context"
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ContextPlace:
    """The place for one sandbox's contexts, one at a time."""

    def __init__(self, directory: Path) -> None:
        """Opens the directory that the sandbox sees; see `close`.

        Raises:
            OSError: There is none.
        """
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory: int | None = os.open(directory, flags)
        self._is_taken = False

    def close(self) -> None:
        """Removes what still lies there, and lets go of the directory. Idempotent."""
        if self._directory is not None:
            self._clear(self._directory)
            os.close(self._directory)
            self._directory = None

    @asynccontextmanager
    async def laid(self, data: bytes) -> AsyncIterator[bool]:
        """Lays a context down for as long as the context manager is entered.

        Yields:
            Whether it lies there. One that is no larger than a piece never does, nor one for which
            there is no room: it is to be sent in pieces.
        """
        directory = self._directory
        if directory is None or self._is_taken or len(data) <= PIECE_BYTES:
            yield False
            return
        self._is_taken = True
        try:
            yield await run_to_end(asyncio.to_thread(_write, directory, data))
        finally:
            self._is_taken = False
            if self._directory is not None:
                self._clear(self._directory)

    @staticmethod
    def _clear(directory: int) -> None:
        with suppress(OSError):
            os.unlink(CONTEXT_NAME, dir_fd=directory)


def _write(directory: int, data: bytes) -> bool:
    """Writes a file and says whether all of it is there."""
    try:
        descriptor = os.open(CONTEXT_NAME, _FLAGS, 0o444, dir_fd=directory)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            # Whatever the umask: the worker is another user. The runtime directory is closed.
            os.fchmod(descriptor, 0o444)
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        # Slower in pieces, and no reason to fail: the file system may be full, or small.
        _log.warning("a context of %d bytes is sent in pieces: %s", len(data), error.strerror)
        return False
    return True
