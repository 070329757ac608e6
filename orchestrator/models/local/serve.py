"""The local model behind an OpenAI-compatible endpoint on loopback.

Without it a machine without an account could not take a single turn. The engine is loaded in the
process that serves, and nowhere else: it is 100 MB of machine code that reads a 1 GB file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import SettingsError

#: What the endpoint calls the model.
MODEL_NAME = "qwen2.5-coder-1.5b-instruct"
#: The only address that is ever bound: the endpoint asks for no key.
HOST = "127.0.0.1"
DEFAULT_PORT = 8091

# Two slots: the root model's prefix stays cached in one while queries use the other.
_SLOT_COUNT = 2
#: What one conversation may take: a run of the small profile. Both slots together are the model's
#: own window.
SLOT_TOKENS = 16_384
_PROMPT_CACHE_MIB = 512  # the engine's default of 8 GiB is more than many machines have
_MAX_THREAD_COUNT = 8  # generation is bound by memory, not by cores
_ERRORS_ONLY = 1


def base_url(port: int = DEFAULT_PORT) -> str:
    """Returns the endpoint's address as an OpenAI client wants it."""
    return f"http://{HOST}:{port}/v1"


def serve(
    weights: Path,
    *,
    port: int = DEFAULT_PORT,
    on_ready: Callable[[str], object],
    wait: Callable[[], object] = signal.pause,
) -> None:
    """Serves the model until interrupted.

    Args:
        weights: The model's file, as `verified` returned it.
        port: On 127.0.0.1.
        on_ready: Told the base URL once the endpoint answers.
        wait: Returns when the endpoint shall end.

    Raises:
        SettingsError: The engine is not installed, cannot load the file, or cannot have the port.
    """
    # OpenMP reads these when the engine's library is loaded. Threads that spin while they wait
    # starve each other as soon as another program wants the cores: on two cores with other work,
    # generation was seen to fall to one token a second.
    os.putenv("OMP_WAIT_POLICY", "passive")
    os.putenv("GOMP_SPINCOUNT", "0")
    try:
        import xllamacpp  # noqa: PLC0415 - only the serving process may pay for it
    except ImportError as error:
        message = (
            "the local model's engine is not installed; run `pip install 'rlm-sandbox[local]'`"
        )
        raise SettingsError(message) from error

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL_NAME}
    params.hostnames = [HOST]
    params.port = port
    # A page in the user's browser may reach loopback; it must not read the replies.
    params.cors_origins = f"http://{HOST}:{port}"
    params.ui = False
    params.endpoint_slots = False  # shows prompts
    params.n_parallel = _SLOT_COUNT
    params.n_ctx = _SLOT_COUNT * SLOT_TOKENS
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    # For clients that name no temperature: a small model's second choice of token is rarely code.
    params.sampling.temp = 0.0
    params.warmup = False  # costs a second of the start and gains none later
    params.verbosity = _ERRORS_ONLY
    thread_count = min(len(os.sched_getaffinity(0)), _MAX_THREAD_COUNT)
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = thread_count
        threads.poll = 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        message = (
            f"the local model did not start on {HOST}:{port} from {weights}: {error}; end what "
            "holds the port or name another, and see that 3 GB of memory are free"
        )
        raise SettingsError(message) from error
    on_ready(base_url(port))
    try:
        wait()
    except KeyboardInterrupt:
        pass
    finally:
        del server  # stops listening and frees the model
