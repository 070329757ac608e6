"""Sandboxes whose REPL process gives up less, or nothing.

Nothing outside a container can lift the second stage, and no setting or variable may. So a control
starts the same image with an entry point of its own: it puts the named parts out of work, and then
runs the very worker that the image would have run. What the container holds by itself is tried in
such a sandbox too: a refusal of the second stage would prove nothing about it.
"""

from __future__ import annotations

from typing import Any

from support.docker_sandboxes import Weakening

_PYTHON = ("/usr/bin/python3.13", "-I", "-c")
_PARTS = {
    # Not `install` itself: under gVisor the worker puts the first stage up with it.
    "filter": (
        "confinement.system_call_filter = types.SimpleNamespace("
        "install=lambda *_: None, assemble=lambda *_: ())"
    ),
    "landlock": "landlock.restrict_files = lambda *_: 0\nlandlock.leave_signals_behind = int",
    "inspection": "confinement.forbid_inspection = int",
}
_ENTRY = """
import runpy, types
from sandbox_image.repl import confinement, landlock
{parts}
runpy.run_module("sandbox_image", run_name="__main__", alter_sys=True)
"""


def _without(*names: str, walls: tuple[str, ...]) -> Weakening:
    source = _ENTRY.format(parts="\n".join(_PARTS[name] for name in names))

    def change(config: dict[str, Any]) -> None:
        config["Entrypoint"] = [*_PYTHON, source]

    return Weakening(change=change, walls=walls)


def together(*weakenings: Weakening) -> Weakening:
    """Returns several walls taken down at once, where one stands in the other's way."""

    def change(config: dict[str, Any]) -> None:
        for weakening in weakenings:
            weakening.change(config)

    return Weakening(
        change=change, walls=tuple(wall for weakening in weakenings for wall in weakening.walls)
    )


_FILTER_WALLS = ("repl_open_calls", "repl_seccomp_mode")

NO_CALL_FILTER = _without("filter", walls=_FILTER_WALLS)
NO_LANDLOCK = _without("landlock", walls=())
INSPECTABLE = _without("inspection", walls=("is_repl_inspectable",))
NO_SECOND_STAGE = _without(*_PARTS, walls=(*_FILTER_WALLS, "is_repl_inspectable"))
