"""What a broker's process writes to its standard error, kept for the sentence that says it died.

Without it "killed by SIGABRT" would be all an operator reads of a failed assertion in gRPC, and a
process that has been taken over could fill the log of whoever started the orchestrator.
"""

from __future__ import annotations

import asyncio
import os

from orchestrator.broker_process.printable import printable

_KEEP_BYTES = 2048
_READ_BYTES = 64 * 2**10


class LastWords:
    """Reads a pipe as it fills, and keeps its end."""

    def __init__(self, read_end: int) -> None:
        """Takes over the reading end, which does not block, in the running event loop."""
        self._read_end = read_end
        self._kept = b""
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(read_end, self._read)

    def read(self) -> str:
        """Returns what was written last, as one printable line; empty if nothing was."""
        if self._is_open:
            self._take()
        return printable(self._kept.decode(errors="replace").strip(), max_chars=_KEEP_BYTES)

    def close(self) -> None:
        """Reads no more. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._take()
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)

    def _read(self) -> None:
        if not self._take():
            self.close()

    def _take(self) -> bool:
        """Reads what is there; False where nobody can write any more."""
        try:
            data = os.read(self._read_end, _READ_BYTES)
        except BlockingIOError:
            return True
        self._kept = (self._kept + data)[-_KEEP_BYTES:]
        return bool(data)
