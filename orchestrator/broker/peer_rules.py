"""How much a sandbox's worker may do to a connection, derived from the limits of its runs.

Without it the bounds would be spread over the code that counts, and nobody could see that each is
above what an honest worker does and below what hurts. Figures named "recorded" are of the real
worker through a recording relay: 400 MB of context, 60,000 one-byte prints, 6,000 queries of 32
threads, 30 MB in one batch, 300 cells (docs/adr/0013).
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.broker.answers import MAX_MESSAGE_BYTES
from orchestrator.broker.query_limits import MAX_QUERIES
from orchestrator.broker.token_bucket import Allowance
from orchestrator.limits import CellLimits, QueryLimits

#: Streams beside the open queries: the attachment, and queries whose cancellation is under way.
_SPARE_STREAMS = 4
#: Streams in a sandbox's life beside its queries: the attachment, and calls that are turned away.
_SPARE_CALLS = 1024
#: Frames of a stream that has ended meanwhile: what can be under way of one window (4 MiB).
_LATE_FRAMES = Allowance(4096, 256)
#: Recorded: none. gRPC ends a stream with an empty frame, which does not count.
_EMPTY_FRAMES = Allowance(16, 1)
#: The first one, and changes of the window; recorded: 2 in all.
_SETTINGS = Allowance(32, 1)
#: gRPC measures the line with at most ten a second; recorded: 5.
_PINGS = Allowance(64, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRules:
    """What ends a connection, and its sandbox with it, once it is exceeded.

    Attributes:
        offered_streams: What the server offers as open at once (`max_concurrent_streams`).
        messages: Messages begun. One for each byte a cell may print is the most an honest worker
            sends, and no worker sends that within a second; recorded at most 2,400 a second.
        resets: Streams the client may give up before the server has sent a message.
        resets_per_message: And for each message it sends: a cell that ends gives all its open
            queries up, and was begun by a message. Whoever asks and gives up without a cell gets
            no message for it. nghttp2 allows 1000, and 33 a second.
        server_resets: Streams the server gave up, because of what the client did with them
            (CVE-2025-8671); recorded: none.
        inflow_bytes: Beyond it nothing is read for a while. No rule is broken by it: a batch of
            long prompts is legal, and a neighbour's turn comes first.
    """

    offered_streams: int
    messages: Allowance
    resets: int
    resets_per_message: int
    server_resets: Allowance
    inflow_bytes: Allowance

    message_bytes: int = MAX_MESSAGE_BYTES
    frame_bytes: int = MAX_MESSAGE_BYTES  # what gRPC's server offers; recorded: 3,359,118
    streams: int = MAX_QUERIES + _SPARE_CALLS
    #: Recorded: 2,940,411 in 4 frames. A message in scraps costs the server more than its sender.
    message_frames: int = 16
    bytes_per_message_frame: int = 1024
    late_frames: Allowance = _LATE_FRAMES
    empty_frames: Allowance = _EMPTY_FRAMES

    #: What gRPC itself takes of metadata (`max_metadata_size`); recorded: 341.
    header_bytes: int = 8 * 2**10
    #: After a HEADERS frame; recorded: none. nghttp2 allows 8.
    continuations: int = 4

    settings: Allowance = _SETTINGS
    settings_bytes: int = 6 * 32  # six bytes a setting; nghttp2 takes 32; recorded: 6 settings
    pings: Allowance = _PINGS
    #: At first, and for each stream and each frame of the server; recorded: 7, then 1.01, and 2 for
    #: a query that is given up. Envoy allows 20 for each frame and 2 for each stream.
    window_updates: int = 128
    window_updates_per_frame: int = 8
    goaways: int = 4  # gRPC sends two as it closes
    goaway_bytes: int = 2**10

    #: How often a connection is looked at; what is unfinished at so many looks in a row is a
    #: breach. Looks, not seconds: a host that was suspended has missed the looks as well.
    look_s: float = 2.5
    preface_looks: int = 2
    unfinished_looks: int = 12

    #: An honest worker needs one connection; gRPC dials again where one breaks.
    connections_at_once: int = 4
    connections: int = 16

    @property
    def open_streams(self) -> int:
        """Streams open at once: as many as are offered, which is twice what is honest."""
        return self.offered_streams


def peer_rules(*, cell: CellLimits, run: QueryLimits) -> PeerRules:
    """Returns the rules that follow from what a run may do."""
    honest = run.concurrent_queries + _SPARE_STREAMS
    inflow_bytes = honest * MAX_MESSAGE_BYTES
    return PeerRules(
        # Twice what is asked at once: a client that has its answer asks the next thing before the
        # server has put the stream away, and would be refused (under gVisor 6 of 100 short calls).
        offered_streams=2 * honest,
        messages=Allowance(burst=max(cell.output_bytes, 1024), per_s=max(cell.output_bytes, 1024)),
        resets=5 * honest,
        resets_per_message=honest,
        server_resets=Allowance(burst=10 * honest, per_s=5 * honest),
        inflow_bytes=Allowance(burst=inflow_bytes, per_s=inflow_bytes),
    )
