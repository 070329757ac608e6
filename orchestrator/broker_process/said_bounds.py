"""How large each thing is that a broker's process may say.

Without it the process could make the orchestrator take in whatever it likes, one frame at a time.
"""

from __future__ import annotations

from orchestrator.broker.order import MAX_OUTPUT_PIECE_BYTES
from orchestrator.broker_process.cell_frames import result_bounds
from orchestrator.broker_process.frames import Bounds, KindBounds, Said
from orchestrator.broker_process.query_frames import query_bounds
from orchestrator.broker_process.setup_frames import SetUp

_SMALL = Bounds(header_bytes=1024)
_LONG_TEXT = Bounds(header_bytes=128 * 2**10)


def said_bounds(set_up: SetUp) -> KindBounds:
    """Returns what is read of a broker's process, by the limits of its sandbox."""
    return {
        **dict.fromkeys(Said, _SMALL),
        Said.ATTACHED: _LONG_TEXT,
        Said.NOT_ATTACHED: _LONG_TEXT,
        Said.ENDED: _LONG_TEXT,
        Said.LOG: _LONG_TEXT,
        Said.OUTPUT: Bounds(header_bytes=128, body_bytes=MAX_OUTPUT_PIECE_BYTES),
        Said.RESULT: result_bounds(set_up.cell_limits),
        Said.QUERY: query_bounds(set_up.query_limits),
    }
