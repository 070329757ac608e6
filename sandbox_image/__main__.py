"""The container's one program: start the REPL process, look at the walls, attach.

The order is the point. The REPL process is forked first, before the token is read and before gRPC
(which survives no fork) is imported, so that it holds neither. While gRPC is imported it gives up
what no cell needs; the worker says hello only when it has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sandbox_image import hardening
from sandbox_image.first_stage import refuse_calls
from sandbox_image.repl.process import BadFrameError, ChannelClosedError, ReplProcess
from sandbox_image.repl.returned_memory import use_one_arena
from sandbox_image.unused_modules import NEEDLESS, leave_out
from sandbox_image.walls import FoundWalls, find_walls

#: Where the orchestrator mounts the sandbox's own socket directory.
_MOUNT = Path("/run/rlm")
#: What the orchestrator adds under a runtime that ignores the container's profile.
_REFUSE_CALLS = "--refuse-calls"
_IMAGE_RELEASE = "0.1.0"


def main(socket_directory: Path, *, refuses_calls: bool) -> int:
    """Serves one sandbox until the orchestrator ends it.

    Args:
        socket_directory: Holds `broker.sock` and, until it has been used, `token`.
        refuses_calls: Whether the runtime left the container's filter of system calls out, so that
            this process has to put it up.

    Returns:
        The process's exit status: 0 when the orchestrator ended it, 1 when it could not go on. The
        reason is one line on standard error, which is the container's log.
    """
    if refuses_calls:
        try:
            refuse_calls()
        except OSError as error:
            return _fail(f"system calls cannot be filtered: {error}")
    hardening.ignore_signals()
    hardening.adopt_orphans()
    repl = ReplProcess.start(hidden=socket_directory)
    hardening.forbid_inspection()
    # Before gRPC starts its threads.
    use_one_arena()
    leave_out(*NEEDLESS)
    # Only now: a process that has imported gRPC must not fork.
    import grpc  # noqa: PLC0415

    from sandbox_image.worker import SessionLostError, Worker  # noqa: PLC0415

    try:
        token = (socket_directory / "token").read_text(encoding="ascii").strip()
    except OSError as error:
        return _fail(f"the token cannot be read: {error}")
    channel = grpc.insecure_channel(
        f"unix:{socket_directory / 'broker.sock'}",
        options=(
            ("grpc.enable_http_proxy", 0),
            # A window of one size: one that grows with what comes had the worker hold up to 200 MB
            # of a context on its way. This is as fast.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 2 * 2**20),
            # Answers come from the trusted side; a batch of them may be longer than a request.
            ("grpc.max_receive_message_length", 64 * 2**20),
        ),
    )
    try:
        walls = find_all_walls(repl)
    except (ChannelClosedError, BadFrameError) as error:
        return _fail(f"the REPL process: {error}")
    worker = Worker(
        channel=channel,
        token=token,
        repl=repl,
        walls=walls,
        image_release=_IMAGE_RELEASE,
        context_path=socket_directory / "context",
        # A runtime that leaves the filter out has a kernel of its own.
        may_map=not refuses_calls,
    )
    try:
        worker.run()
    except SessionLostError as error:
        return _fail(str(error))
    finally:
        repl.kill()
    return 0


def find_all_walls(repl: ReplProcess) -> FoundWalls:
    """Returns the walls around this process, and those that the REPL process found around itself.

    Raises:
        ChannelClosedError: The REPL process could not put them up and has ended.
        BadFrameError: It said something else.
    """
    confinement = repl.hear_confinement()
    return find_walls()._replace(
        repl_open_calls=confinement.open_calls,
        repl_seccomp_mode=confinement.seccomp_mode,
        is_repl_inspectable=confinement.is_inspectable or repl.is_inspectable,
        landlock_abi=confinement.landlock_abi,
    )


def _fail(reason: str) -> int:
    sys.stderr.write(f"rlm-sandbox worker: {reason}\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    places = [argument for argument in sys.argv[1:] if argument != _REFUSE_CALLS]
    directory = Path(places[0]) if places else _MOUNT
    # Not sys.exit: gRPC's threads would be waited for, and the namespace ends with this process.
    os._exit(main(directory, refuses_calls=_REFUSE_CALLS in sys.argv))
