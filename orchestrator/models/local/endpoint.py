"""The local model's endpoint for as long as somebody needs it.

Without it a run would have to ask its user to keep a server in another terminal, and a run that was
interrupted would leave 3 GB of server behind.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO

from orchestrator.errors import SettingsError
from orchestrator.models.local.serve import DEFAULT_PORT, HOST, MODEL_NAME, base_url

_ASK_TIMEOUT_S = 3.0  # loopback; a server that is busy generating still answers this at once
_START_DEADLINE_S = 180.0  # 5 to 11 s measured, with the file in the page cache; disks are slower
_SHOWN_ERROR_CHARS = 600
_MODULE = "orchestrator.models.local"


@asynccontextmanager
async def local_endpoint(
    find_weights: Callable[[], Path],
    *,
    port: int = DEFAULT_PORT,
    start_deadline_s: float = _START_DEADLINE_S,
    report: Callable[[str], object],
) -> AsyncIterator[str]:
    """Yields the base URL of an endpoint that serves the local model.

    One that answers already is used and left alone. Else a server is started, and ended at exit,
    however that comes about.

    Args:
        find_weights: Returns the model's checked file; called only where a server is started, in
            another thread. What it raises passes through.
        port: On 127.0.0.1.
        start_deadline_s: How long the server may take to load the model.
        report: Told in sentences what is going on.

    Raises:
        SettingsError: Something else holds the port, the engine is not installed, or the server
            did not start in time.
    """
    if await asyncio.to_thread(_is_serving, port):
        report(f"using the local model that is served at {base_url(port)}")
        yield base_url(port)
        return
    weights = await asyncio.to_thread(find_weights)
    report(f"starting the local model {MODEL_NAME} at {base_url(port)}")
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            # -P: a folder `orchestrator` in the working directory is not ours.
            *(sys.executable, "-P", "-m", _MODULE, str(weights.absolute()), str(port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is the run's to act on
        )
        try:
            await _until_ready(process, log, start_deadline_s)
            yield base_url(port)
        finally:
            # It holds nothing worth a farewell, and a kill needs no await that a second
            # cancellation could break off.
            if process.returncode is None:
                process.kill()
            await process.wait()


def _is_serving(port: int) -> bool:
    """Returns whether the local model answers at the port.

    Raises:
        SettingsError: Something else does.
    """
    # A proxy that the environment names is for other hosts than this one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base_url(port)}/models", timeout=_ASK_TIMEOUT_S) as reply:
            models = json.load(reply)
        names = [model["id"] for model in models["data"]]
    except urllib.error.HTTPError as error:
        names = [f"an HTTP server that answers {error.code}"]
    except urllib.error.URLError:
        return False
    except (OSError, HTTPException, ValueError, TypeError, KeyError):
        names = ["a server of another kind"]
    if MODEL_NAME in names:
        return True
    message = (
        f"expected {MODEL_NAME} or nothing at {HOST}:{port}, found {', '.join(map(str, names))}; "
        "end that server or choose another port"
    )
    raise SettingsError(message)


async def _until_ready(
    process: asyncio.subprocess.Process, log: IO[bytes], deadline_s: float
) -> None:
    if process.stdout is None:
        message = "the process was made without a pipe for its standard output"
        raise AssertionError(message)
    try:
        async with asyncio.timeout(deadline_s):
            line = await process.stdout.readline()
    except TimeoutError as error:
        message = (
            f"the local model was not ready after {deadline_s:.0f} s; see that 3 GB of memory are "
            "free, or serve it beforehand with `rlm model serve`"
        )
        raise SettingsError(message) from error
    if not line:
        await process.wait()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()[-_SHOWN_ERROR_CHARS:]
        message = said or f"the local model's server ended with exit code {process.returncode}"
        raise SettingsError(message)
