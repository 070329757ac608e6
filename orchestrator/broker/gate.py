"""Stands between a sandbox's socket and the gRPC server that answers on it.

Without it any number of connections would reach the server, each with whatever HTTP/2 allows:
gRPC for Python bounds neither, and does not say which rule was broken where it bounds something.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.broker.connection_police import ConnectionPolice
from orchestrator.broker.order import ExcessError
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.broker.relay import Relay
from orchestrator.errors import ProtocolViolationError

_log = logging.getLogger(__name__)

#: Between two tries to accept while this process has no descriptor left.
_RETRY_S = 0.5
#: For the reason why the server ended a stream: it is on its way while the stream's end is told.
_LAST_WORD_S = 0.2


class Gate:
    """Accepts a sandbox's connections, few of them, and polices what passes."""

    def __init__(
        self,
        *,
        path: Path,
        server_path: Path,
        rules: PeerRules,
        on_violation: Callable[[ProtocolViolationError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listens nowhere yet.

        Args:
            path: Where the sandbox dials.
            server_path: Where the gRPC server listens; out of the sandbox's reach.
            rules: What ends a connection.
            on_violation: Called once, when a rule is broken; every connection is closed by then,
                and none is accepted any more.
            clock: Counts seconds and never goes backwards.
        """
        self._path = path
        self._server_path = server_path
        self._rules = rules
        self._on_violation = on_violation
        self._clock = clock
        self._listener: socket.socket | None = None
        self._relays: set[Relay] = set()
        self._connection_count = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def open(self) -> None:
        """Begins to listen, in the running event loop.

        Raises:
            OSError: The socket could not be made.
        """
        listener = self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.settimeout(0)
        listener.bind(str(self._path))
        # 0o666: connect(2) on a Unix socket needs write permission (unix(7)), and the worker runs
        # as another user. The directory above is mounted into this one sandbox only, and its
        # parent is closed, so nobody else gains a door.
        self._path.chmod(0o666)
        listener.listen(self._rules.connections_at_once)
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def last_word(self) -> None:
        """Waits, for a moment, until it is known why a connection ends."""
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                await self._is_empty.wait()
        except TimeoutError:
            pass  # the connection goes on: only its stream has ended

    def close(self) -> None:
        """Closes every connection, and accepts none any more. Idempotent."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for relay in self._relays:
            relay.close()
        self._relays.clear()
        self._is_empty.set()

    def _accept(self) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            client, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            # The connection waits in the kernel, and would be reported again and again.
            _log.error("a sandbox's connection could not be accepted yet: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_RETRY_S, self._accept_again, listener)
            return
        self._connection_count += 1
        rules = self._rules
        if len(self._relays) >= rules.connections_at_once:
            rule = f"a sandbox has at most {rules.connections_at_once} connections at once"
        elif self._connection_count > rules.connections:
            rule = f"a sandbox makes at most {rules.connections} connections in its life"
        else:
            self._begin(client)
            return
        client.close()
        self._violate(ExcessError(rule))

    def _accept_again(self, listener: socket.socket) -> None:
        if self._listener is listener:
            asyncio.get_running_loop().add_reader(listener, self._accept)

    def _begin(self, client: socket.socket) -> None:
        client.settimeout(0)
        self._is_empty.clear()
        self._relays.add(
            Relay(
                client=client,
                dial=self._dial,
                police=ConnectionPolice(self._rules, clock=self._clock),
                look_s=self._rules.look_s,
                on_end=self._end_relay,
            )
        )

    def _dial(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.settimeout(0)
            server.connect(str(self._server_path))
        except OSError:
            server.close()
            raise
        return server

    def _end_relay(self, relay: Relay, violation: ProtocolViolationError | None) -> None:
        self._relays.discard(relay)
        if violation is not None:
            self._violate(violation)
        elif not self._relays:
            self._is_empty.set()

    def _violate(self, violation: ProtocolViolationError) -> None:
        self.close()
        self._on_violation(violation)
