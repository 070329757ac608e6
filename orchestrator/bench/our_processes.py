"""The orchestrator's own processes, and what they use: this one, the nursery, the brokers'.

Without it what moved into another process would look as if it cost nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

_NURSERY = "nursery_main"


def broker_processes() -> list[psutil.Process]:
    """Returns the processes that serve sandboxes, one each; none where the broker is in this."""
    return [child for nursery in _nurseries() for child in nursery.children()]


def _nurseries() -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any(_NURSERY in part for part in child.cmdline()):
                yield child


def own_cpu_s() -> float:
    """Returns the processor time that this process has used."""
    return time.process_time()


def broker_cpu_s() -> float:
    """Returns the processor time that the brokers' processes have used together."""
    total_s = 0.0
    for process in broker_processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def own_unique_bytes() -> int:
    """Returns the memory that this process shares with no other, after collecting garbage."""
    gc.collect()
    return int(psutil.Process().memory_full_info().uss)


def unique_bytes(processes: list[psutil.Process]) -> int:
    """Returns the memory that each of these shares with no other, together."""
    total_bytes = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total_bytes += int(process.memory_full_info().uss)
    return total_bytes
