"""Tries a runtime with one container, before anything is entrusted to it.

Without it a program that calls itself gVisor and is not, or one whose sandboxes reach no socket of
the host, would be found out by the first run.
"""

import socket
import tempfile
from pathlib import Path
from typing import Final

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import DockerClient, connect, engine_errors
from orchestrator.sandbox.engine_host import EngineInfo

_PATIENCE_S: Final = 60.0  # 1.5 s is usual with the slowest platform
_MOUNT: Final = "/trial"
#: It reaches the socket that is mounted into it, and names its kernel there.
_PROGRAM: Final = (
    "import platform, socket; s = socket.socket(socket.AF_UNIX); "
    f"s.connect('{_MOUNT}/socket'); s.sendall(platform.release().encode())"
)


def try_gvisor(engine: EngineInfo, name: str, *, image_id: str) -> None:
    """Runs one container that dials this process, as a worker dials its broker.

    Args:
        engine: The engine that has the runtime.
        name: What it calls the runtime.
        image_id: The sandbox image.

    Raises:
        SandboxStartError: The container did not start, did not reach this process, or has the
            host's kernel.
    """
    with (
        tempfile.TemporaryDirectory(prefix="rlm-") as folder,  # short: unix(7)
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(f"{folder}/socket")
        Path(folder).chmod(0o755)
        Path(folder, "socket").chmod(0o666)
        listener.listen()
        listener.settimeout(_PATIENCE_S)
        client = connect(engine.endpoint, timeout_s=_PATIENCE_S)
        try:
            kernel = _dialled_by_container(client, listener, folder, name, image_id=image_id)
        finally:
            client.close()
    if kernel == engine.kernel:
        raise SandboxStartError(
            f"A container under {name} runs on the host's kernel {kernel}: that program is not "
            "gVisor."
        )


def _dialled_by_container(
    client: DockerClient, listener: socket.socket, folder: str, name: str, *, image_id: str
) -> str:
    with engine_errors(f"trying {name}"):
        container = client.containers.create(
            image_id,
            entrypoint=["/usr/bin/python3.13", "-I", "-c", _PROGRAM],
            runtime=name,
            network_mode="none",
            cap_drop=["ALL"],
            read_only=True,
            volumes={folder: {"bind": _MOUNT, "mode": "ro"}},
        )
        try:
            container.start()
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                log = container.logs(tail=5).decode("utf-8", errors="replace")
                raise SandboxStartError(
                    f"A container under {name} did not reach a socket of the host within "
                    f"{_PATIENCE_S:.0f} s; it says: {log.strip() or 'nothing'}"
                ) from None
            with accepted:
                accepted.settimeout(_PATIENCE_S)
                return accepted.recv(200).decode("ascii", errors="replace")
        finally:
            container.remove(force=True)
