"""What a report was measured on: versions, cores, and what else the machine was doing.

Without it nobody could tell a slow release from a slow machine.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

from orchestrator.domain import Json
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image import ImageRecord

_CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(engine: EngineInfo, image: ImageRecord, *, runtime: str) -> dict[str, Json]:
    """Returns what is measured on, with the load before anything was measured.

    Args:
        engine: The engine that starts sandboxes.
        image: The sandbox image.
        runtime: The runtime that sandboxes are started under.
    """
    return {
        "rlm_sandbox": importlib.metadata.version("rlm-sandbox"),
        "image": image.image_id,
        "engine": f"{engine.name} {engine.version}".strip(),
        "runtime": runtime,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_name() -> str:
    """Returns what the first core calls itself, or the architecture where it has no name."""
    try:
        lines = _CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
