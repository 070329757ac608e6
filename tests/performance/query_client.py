"""A worker's end of the wire in a process of its own, for measuring: asks when it is told to.

Reads one JSON command a line and answers with one. Not a cell in a sandbox: what is measured is
what the host adds.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from pathlib import Path

import grpc

from rlm_sandbox.v1 import sandbox_pb2 as pb
from rlm_sandbox.v1.sandbox_pb2_grpc import SandboxBrokerStub


class Client:
    """One attached stream on which one cell runs for ever."""

    def __init__(self, socket_path: str, token: str, hello: bytes) -> None:
        """Dials, greets and waits until it is told to run a cell."""
        channel = grpc.insecure_channel(
            f"unix:{socket_path}",
            options=(
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", 64 * 2**20),
            ),
        )
        self._stub = SandboxBrokerStub(channel)
        self._metadata = (("rlm-session-token", token),)
        self._outbox: queue.SimpleQueue[pb.WorkerMessage | None] = queue.SimpleQueue()
        self._outbox.put(
            pb.WorkerMessage(sequence=1, hello=pb.WorkerHello.FromString(hello)),
        )
        self._replies = self._stub.Attach(iter(self._outbox.get, None), metadata=self._metadata)
        next(self._replies)
        self._cell_id = 0
        self._count = 0

    def wait_for_cell(self) -> None:
        """Takes what comes until a cell is to be run."""
        for message in self._replies:
            if message.WhichOneof("payload") == "run_cell":
                self._cell_id = message.run_cell.cell_id
                return

    def take_context(self) -> float:
        """Takes one context; returns the seconds from its first byte to its last."""
        started_s = 0.0
        for message in self._replies:
            started_s = started_s or time.perf_counter()
            if message.context_chunk.sha256:
                return time.perf_counter() - started_s
        raise EOFError

    def ask(self, count: int, prompt: str) -> list[float]:
        """Asks one query after the other; returns the seconds each took."""
        took_s = []
        for _ in range(count):
            self._count += 1
            request = pb.LlmQueryRequest(
                query_id=f"q{self._count}", cell_id=self._cell_id, prompts=[prompt]
            )
            started_s = time.perf_counter()
            self._stub.LlmQuery(request, metadata=self._metadata)
            took_s.append(time.perf_counter() - started_s)
        return took_s


def main() -> None:
    """Serves commands until there are none."""
    socket_path, token_path, hello_hex = sys.argv[1:]
    client = Client(socket_path, Path(token_path).read_text(), bytes.fromhex(hello_hex))
    client_says({})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "cell":
            client.wait_for_cell()
            client_says({})
        elif command["do"] == "context":
            client_says({"took_s": client.take_context()})
        else:
            client_says({"took_s": client.ask(command["count"], "q" * command["chars"])})


def client_says(answer: object) -> None:
    """Answers one command."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
