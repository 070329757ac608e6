"""Both ends of what a cell printed, as the host keeps them.

Without it a worker that forwards more than it should would decide how much memory the orchestrator
spends on its output.
"""

from __future__ import annotations

import codecs

from orchestrator.domain import Printed

#: A UTF-8 character has at most three bytes after its first.
_MAX_CONTINUATION_BYTES = 3
_CONTINUATION_BYTES = bytes(range(0b1000_0000, 0b1100_0000))


class HostTape:
    """Keeps the first and the last bytes of one stream of one cell."""

    def __init__(self, *, keep_bytes: int) -> None:
        """Makes an empty tape that keeps `keep_bytes` at most, half of them at each end."""
        self._head = bytearray()
        self._tail = bytearray()
        self._head_bytes = keep_bytes // 2
        self._tail_bytes = keep_bytes - self._head_bytes
        self._seen_bytes = 0
        self._received_bytes = 0
        self._has_gap = False

    def write(self, data: bytes, *, offset_bytes: int) -> None:
        """Appends `data`, which was printed at `offset_bytes`; offsets never go backwards."""
        if offset_bytes > self._seen_bytes:
            # What lies before a gap and is not in the head is no longer an end of the stream.
            self._has_gap = True
            self._tail.clear()
        self._seen_bytes = offset_bytes + len(data)
        self._received_bytes += len(data)
        room = 0 if self._has_gap or self._tail else self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Trimmed on every write: the limit is on what is held, and a cell may never end.
        excess = len(self._tail) - self._tail_bytes
        if excess > 0:
            del self._tail[:excess]

    def printed(self, *, claimed_dropped_bytes: int) -> Printed:
        """Returns what was kept.

        Args:
            claimed_dropped_bytes: What the worker says it did not forward; it counts where it is
                more than the gaps between the offsets show.
        """
        head, tail = bytes(self._head), bytes(self._tail)
        total_bytes = max(self._seen_bytes, self._received_bytes + claimed_dropped_bytes)
        if total_bytes == len(head) + len(tail):
            return Printed(
                head=(head + tail).decode("utf-8", "replace"),
                total_bytes=total_bytes,
            )
        # A character cut in two by the gap was not printed broken by the cell.
        head_text, head_cut_bytes = _decode_head(head)
        tail_text, tail_cut_bytes = _decode_tail(tail)
        kept_bytes = len(head) + len(tail) - head_cut_bytes - tail_cut_bytes
        return Printed(
            head=head_text,
            tail=tail_text,
            total_bytes=total_bytes,
            dropped_bytes=total_bytes - kept_bytes,
        )


def _decode_head(head: bytes) -> tuple[str, int]:
    """Returns the text without a character that lacks its last bytes, and how many those are."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(head)
    return text, len(decoder.getstate()[0])


def _decode_tail(tail: bytes) -> tuple[str, int]:
    """Returns the text without a character that lacks its first bytes, and how many those are."""
    first_bytes = tail[:_MAX_CONTINUATION_BYTES]
    cut_bytes = len(first_bytes) - len(first_bytes.lstrip(_CONTINUATION_BYTES))
    return tail[cut_bytes:].decode("utf-8", "replace"), cut_bytes
